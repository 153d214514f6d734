"""A seeded nemesis kills, stops and stalls workers while a campaign runs; the ledger must not show it.

    scripts/test tests/actors/test_chaos_workers.py             # the two seeds of every run of the tests
    scripts/test -m chaos tests/actors/test_chaos_workers.py    # one more
    PARAGENESIS_CHAOS_SEEDS=0:300 scripts/test -m chaos ...     # as many as you like

The seed fixes how often, after how long and how the nemesis hits; whom, and at what, is left to chance. One cluster
serves all seeds, and new workers come out of a reserve that has the model libraries imported: else a seed would spend
nine tenths of its time on importing them again.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import ray
from ray import cloudpickle

from paragenesis.actors import RayExecutor
from paragenesis.actors.worker import Worker
from paragenesis.engine.executor import Resources
from paragenesis.engine.ledger import Ledger, digest, verify_ledger
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import ExecutionError
from paragenesis.launch import run

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test files
pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(600)]

ALWAYS = 2  # seeds
SPARE = 4
STALL_S = 3.0  # longest; as long as a lease


class Marked(Worker):
    """A worker that writes down its process, and imports what every potential needs before it is needed."""

    def __init__(self, mark: str) -> None:
        Path(mark).write_text(str(os.getpid()))
        super().__init__()
        import_module("paragenesis.engine.stages")
        import_module("torch_sim")


class Reserve:
    """Hands out workers that are up already, or nearly; a new one sets out for each that goes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, 0
        self._waiting = deque(self._make() for _ in range(SPARE))
        self._taken: list[Path] = []
        ray.get([actor.start.remote() for _, actor in self._waiting])

    def take(self, resources: Resources) -> Any:
        """Stands in for `pool.new_worker`."""
        self._waiting.append(self._make())
        mark, actor = self._waiting.popleft()
        self._taken.append(mark)
        return actor

    def at_work(self) -> list[psutil.Process]:
        """The processes of the workers that were handed out and live."""
        found = []
        for mark in list(self._taken):
            try:
                found.append(psutil.Process(int(mark.read_text())))
            except (FileNotFoundError, ValueError):  # not up yet
                continue
            except psutil.NoSuchProcess:
                self._taken.remove(mark)
        return found

    def _make(self) -> tuple[Path, Any]:
        self._made += 1
        mark = self._folder / str(self._made)
        actor = ray.remote(Marked).options(num_cpus=0, max_restarts=0, max_task_retries=0)
        return mark, actor.remote(str(mark))


class Nemesis:
    """Hits one of the workers now and then: kills it, stops it so that it seems to hang, or stalls it for a while."""

    def __init__(self, seed: int, reserve: Reserve) -> None:
        self.hits: list[tuple[str, int]] = []
        self._random, self._reserve = random.Random(seed), reserve
        self._most = self._random.randint(2, 6)
        self._over = threading.Event()
        self._stalled: list[threading.Timer] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self._hit_all, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            for timer in self._stalled:
                timer.join()

    def _hit_all(self) -> None:
        while len(self.hits) < self._most and not self._over.wait(self._random.uniform(0.1, 1.5)):
            how = self._random.choices(("killed", "stopped", "stalled"), (6, 2, 2))[0]
            if victims := self._reserve.at_work():
                self._hit(self._random.choice(victims), how)

    def _hit(self, victim: psutil.Process, how: str) -> None:
        try:
            victim.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        except psutil.NoSuchProcess:
            return
        self.hits.append((how, victim.pid))
        if how == "stalled":
            self._stalled.append(threading.Timer(self._random.uniform(0, STALL_S), _wake, [victim]))
            self._stalled[-1].start()


def _wake(victim: psutil.Process) -> None:
    try:
        victim.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return


@pytest.fixture(scope="module")
def reserve(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Reserve:
    return Reserve(tmp_path_factory.mktemp("marks"))


@pytest.fixture(scope="module")
def executors(reserve: Reserve) -> Iterator[list[RayExecutor]]:
    """The executor of all seeds, the last of the list."""
    made: list[RayExecutor] = [RayExecutor()]
    yield made
    made[-1].close()


@pytest.fixture(autouse=True)
def _impatient(reserve: Reserve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paragenesis.actors.pool.new_worker", reserve.take)
    monkeypatch.setattr("paragenesis.actors.pool.START_TIMEOUT_S", 60.0)
    monkeypatch.setattr("paragenesis.actors.pool.START_ATTEMPTS", 100)


def test_a_campaign_survives_the_death_of_its_workers(
    disturbed: CampaignSpec,
    undisturbed: str,
    reserve: Reserve,
    executors: list[RayExecutor],
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    seed: int,
) -> None:
    faults = script("bench_faults")
    monkeypatch.setattr(Ledger, "commit", Ledger.commit)  # the history is that of this seed alone
    faults.note_acknowledged(tmp_path / "c")
    nemesis, resumed = Nemesis(seed, reserve), 0
    with nemesis.at_work():
        while True:
            try:
                run(disturbed, tmp_path / "c", executor=executors[-1])
                break
            except ExecutionError:  # a new worker was stopped before it was up: the user runs it again
                resumed += 1
                assert resumed < 10
                executors[-1].close()
                executors.append(RayExecutor())
    print(f"seed {seed}: {len(nemesis.hits)} hits, resumed {resumed} times: {nemesis.hits}")
    assert nemesis.hits, "nobody was hit"
    assert (faults.missing(tmp_path / "c"), faults.doubled(tmp_path / "c")) == (0, 0)
    assert len(faults.acknowledged(tmp_path / "c")) > 10
    assert verify_ledger(tmp_path / "c") == []
    assert digest(tmp_path / "c") == undisturbed

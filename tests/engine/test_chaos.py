"""A seeded nemesis kills and stops processes while a campaign runs; the ledger must not show it.

    scripts/test -m chaos tests/engine/test_chaos.py            # a few seeds
    PARAGENESIS_CHAOS_SEEDS=0:300 scripts/test -m chaos ...     # as many as you like

The seed fixes whom the nemesis hits, how, and after how long; what these are doing then is left to chance.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from paragenesis.engine.executor import InlineExecutor
from paragenesis.engine.ledger import digest, verify_ledger
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import ExecutionError
from paragenesis.launch import run

MakeSpec = Callable[..., CampaignSpec]
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

_FIRST, _, _LAST = os.environ.get("PARAGENESIS_CHAOS_SEEDS", "0:3").rpartition(":")
SEEDS = range(int(_FIRST or 0), int(_LAST))
# accidents are frequent here, so many must be allowed before a crystal is to blame for them
WORKERS = {"attempts": 100, "lease": 5.0}
RESOURCES = {"generate": WORKERS, "potentials": WORKERS | {"workers": 2}}


@pytest.fixture
def undisturbed(tiny: MakeSpec, tmp_path: Path) -> str:
    """The digest of the ledger that nobody disturbed."""
    run(tiny(), tmp_path / "undisturbed", executor=InlineExecutor())
    return digest(tmp_path / "undisturbed")


class Nemesis:
    """Hits one of this process's Ray actors now and then: most are killed, some are stopped and seem to hang."""

    def __init__(self, seed: int, most: int = 12) -> None:
        self.hits: list[tuple[str, int]] = []
        self._random, self._most = random.Random(seed), most
        self._over = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self._hit_all, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _hit_all(self) -> None:
        while len(self.hits) < self._most and not self._over.wait(self._random.uniform(0.2, 2.5)):
            victims = sorted(self._actors(), key=lambda process: process.pid)
            if victims:
                self._hit(self._random.choice(victims), self._random.random() < 0.7)

    def _hit(self, victim: psutil.Process, kill: bool) -> None:
        try:
            victim.send_signal(signal.SIGKILL if kill else signal.SIGSTOP)
        except psutil.NoSuchProcess:
            return
        self.hits.append(("killed" if kill else "stopped", victim.pid))

    @staticmethod
    def _actors() -> Iterator[psutil.Process]:
        for process in psutil.Process().children(recursive=True):
            try:
                title = "".join(process.cmdline()[:1])
            except psutil.Error:
                continue
            if title.startswith("ray::Worker"):
                yield process


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_campaign_on_ray_survives_the_death_of_its_workers(
    tiny: MakeSpec, tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("paragenesis.actors.pool.START_TIMEOUT_S", 30.0)
    monkeypatch.setattr("paragenesis.actors.pool.START_ATTEMPTS", 100)
    nemesis, resumed = Nemesis(seed), 0
    with nemesis.at_work():
        while True:
            try:
                run(tiny(resources=RESOURCES), tmp_path / "c", executor="ray")
                break
            except ExecutionError:  # a new worker was stopped before it was up: the user runs it again
                resumed += 1
                assert resumed < 10
    print(f"seed {seed}: {len(nemesis.hits)} hits, resumed {resumed} times: {nemesis.hits}")
    assert nemesis.hits, "nobody was hit"
    assert verify_ledger(tmp_path / "c") == []
    assert digest(tmp_path / "c") == undisturbed


_RUN = """
import json, sys
from paragenesis.engine.spec import CampaignSpec
from paragenesis.launch import run
run(CampaignSpec.parse(json.loads(sys.argv[1])), sys.argv[2], executor=sys.argv[3])
"""


def _run_and_kill(spec: CampaignSpec, directory: Path, executor: str, seconds: float) -> int | None:
    """Run a campaign in a process of its own; its exit status, or None if it was killed after some time at work."""
    command = [sys.executable, "-c", _RUN, spec.model_dump_json(), str(directory), executor]
    driver = subprocess.Popen(command)
    started, deadline = directory / "ledger.duckdb", time.monotonic() + 300
    while not started.exists() and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        return driver.wait(seconds)
    except subprocess.TimeoutExpired:
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
        driver.wait()
        for orphan in family:  # Ray's own helpers may outlive their driver by minutes
            if orphan.is_running():
                orphan.kill()
        return None


@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_campaign_survives_the_death_of_its_driver(
    tiny: MakeSpec, tmp_path: Path, undisturbed: str, seed: int, executor: str
) -> None:
    dice, kills = random.Random(seed), 0
    longest = 3.0 if executor == "inline" else 20.0
    while (
        status := _run_and_kill(tiny(resources=RESOURCES), tmp_path / "c", executor, dice.uniform(0, longest))
    ) is None:
        kills += 1
        longest *= 1.3  # so that it comes to an end on any machine
    assert status == 0
    print(f"seed {seed}: the driver was killed {kills} times")
    assert verify_ledger(tmp_path / "c") == []
    assert digest(tmp_path / "c") == undisturbed

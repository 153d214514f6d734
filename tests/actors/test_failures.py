"""What kills or hangs a worker on Ray: who is to blame fails, with stage, reason and attempts; all others go on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from ray import cloudpickle

from paragenesis.actors import RayExecutor
from paragenesis.engine.attempts import Outcome
from paragenesis.engine.executor import InlineExecutor, Resources, StageSpec
from paragenesis.errors import ExecutionError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test files
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@dataclass(frozen=True)
class Batch:
    """Words, each with what became of it; "" while it is alive."""

    fates: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, *words: str) -> Batch:
        return cls(tuple((word, "") for word in words))

    def alive(self) -> list[str]:
        return [word for word, fate in self.fates if not fate]

    def halves(self) -> list[Batch]:
        alive = self.alive()
        middle = (len(alive) + 1) // 2
        return [Batch.of(*half) for half in (alive[:middle], alive[middle:]) if half]

    def failed(self, outcome: Outcome) -> Batch:
        said = f"{outcome.stage}: {outcome.reason}"
        return Batch(tuple((word, fate or said) for word, fate in self.fates))

    def joined(self, parts: Sequence[Batch]) -> Batch:
        new = {word: fate for part in parts for word, fate in part.fates}
        return Batch(tuple((word, new.get(word, fate)) for word, fate in self.fates))


class Pass:
    def __call__(self, item: Batch, context: None) -> Batch:
        return replace(item)


class Heavy:
    """Says with whom each came along; words may raise, kill or hang."""

    def __call__(self, item: Batch, context: None) -> Batch:
        for word in item.alive():
            if word == "raise":
                raise ValueError("poison")
            if word == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            if word == "hang":
                time.sleep(600)
            if word == "break":
                raise torch.AcceleratorError("an illegal memory access was encountered")
        return Batch(tuple((word, fate or f"done with {','.join(item.alive())}") for word, fate in item.fates))


def stages(workers: int, **resources: float) -> list[StageSpec]:
    light, heavy = Resources(), Resources.parse({"workers": workers, "attempts": 1, "lease": 3.0} | resources)
    return [
        StageSpec("before", Pass, (), "light", light),
        StageSpec("relax", Heavy, (), "heavy", heavy),
        StageSpec("after", Pass, (), "light", light),
    ]


def test_poison_alone_fails_and_its_neighbours_go_through_all_stages() -> None:
    items = [
        Batch.of("a", "kill", "b"),
        Batch.of("c", "d"),
        Batch.of("e", "hang"),
        Batch.of("f", "raise", "g", "h"),
        Batch.of("i", "break"),
    ]
    with RayExecutor() as executor:
        found = [outcome.value for outcome in executor.stream(stages(2), items, None)]
    assert [dict(batch.fates) for batch in found] == [
        {"a": "done with a,b", "kill": "relax: lost: its worker died (5 attempts)", "b": "done with a,b"},
        {"c": "done with c,d", "d": "done with c,d"},
        {"e": "done with e", "hang": "relax: lost: its worker hung (3 attempts)"},
        {
            "f": "done with f,g,h",
            "raise": "relax: ValueError: poison",
            "g": "done with f,g,h",
            "h": "done with f,g,h",
        },
        {"i": "done with i", "break": "relax: lost: its worker died (3 attempts)"},
    ]
    with InlineExecutor() as executor:
        inline = [outcome.value for outcome in executor.stream(stages(2), [items[1], items[3]], None)]
    assert inline == [found[1], found[3]]


class Slow:
    """Hangs or kills its process as often as there are marks missing, then answers."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __call__(self, item: str, context: None) -> str:
        if item in ("hang", "kill") and not (self.folder / item).exists():
            (self.folder / item).write_text(str(os.getpid()))
            if item == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return f"{item} by {os.getpid()}"


def test_the_work_of_a_hung_worker_is_done_by_another(tmp_path: Path) -> None:
    spec = StageSpec("slow", Slow, (str(tmp_path),), "host", Resources(lease=2.0, attempts=2))
    with RayExecutor() as executor:
        began = time.monotonic()
        outcomes = list(executor.stream([spec], ["a", "hang", "b"], None))
        assert time.monotonic() - began < 60, "far less than it would have hung"
    hung = int((tmp_path / "hang").read_text())
    assert [outcome.value.split()[0] for outcome in outcomes] == ["a", "hang", "b"]
    assert outcomes[1].value != f"hang by {hung}"
    assert [outcome.attempts for outcome in outcomes] == [1, 2, 1]
    assert not Path(f"/proc/{hung}").exists()


def test_who_waits_behind_a_killer_is_not_charged(tmp_path: Path) -> None:
    spec = StageSpec("slow", Slow, (str(tmp_path),), "host", Resources(attempts=1))
    with RayExecutor() as executor:
        outcomes = list(executor.stream([spec], ["kill", "a", "b"], None))
    assert (outcomes[0].stage, outcomes[0].reason) == ("slow", "lost: its worker died (1 attempt)")
    assert [outcome.attempts for outcome in outcomes[1:]] == [1, 1]
    assert all(outcome.ok for outcome in outcomes[1:])


class DiesAtBirth:
    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


def test_workers_that_die_while_they_start_end_it_with_a_sentence() -> None:
    spec = StageSpec("stillborn", DiesAtBirth, (), "host")
    said = r"host 'host' were lost 3 times while building stage 'stillborn'.*resume"
    with RayExecutor() as executor, pytest.raises(ExecutionError, match=said):
        list(executor.stream([spec], [1], None))


class WeightsGone:
    """Can be built once; kills its process when called."""

    def __init__(self, mark: str) -> None:
        if Path(mark).exists():
            raise FileNotFoundError("the weights are gone")
        Path(mark).touch()

    def __call__(self, item: int, context: None) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return item


def test_a_new_worker_that_cannot_build_its_stage_says_why_at_once(tmp_path: Path) -> None:
    spec = StageSpec("weights", WeightsGone, (str(tmp_path / "mark"),), "host")
    with RayExecutor() as executor, pytest.raises(ExecutionError, match="the weights are gone"):
        list(executor.stream([spec], [1, 2], None))

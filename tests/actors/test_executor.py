from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from ray import cloudpickle
from ray.exceptions import ObjectStoreFullError

from paragenesis.actors import RayExecutor
from paragenesis.engine.executor import Resources, StageSpec
from paragenesis.errors import ExecutionError, PotentialError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test files
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


class Add:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, item: int, context: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item + self.amount + context


class Pid:
    def __call__(self, item: int, context: None) -> int:
        return os.getpid()


class Meet:
    """Waits until as many items as there are workers are inside at the same time."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __call__(self, item: int, context: int) -> bool:
        (self.folder / str(item)).touch()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if len(list(self.folder.iterdir())) >= context:
                return True
            time.sleep(0.02)
        return False


class DieOnce:
    """Kills its own process the first time it is called."""

    def __init__(self, mark: str) -> None:
        self.mark = Path(mark)

    def __call__(self, item: int, context: None) -> int:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return item


class WaitFor:
    """Waits for a file named after the item."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __call__(self, item: str, context: None) -> str:
        deadline = time.monotonic() + 60
        while not (self.folder / item).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return item.upper()


class NoWeights:
    def __init__(self) -> None:
        raise PotentialError("the weights have another hash")


def test_outcomes_come_in_order_and_an_error_ends_only_its_item() -> None:
    stages = [StageSpec("one", Add, (1,), "light"), StageSpec("ten", Add, (10,), "heavy", Resources(workers=2))]
    with RayExecutor() as executor:
        outcomes = list(executor.stream(stages, range(20), 100))
        again = [o.value for o in executor.stream(stages, [5], 200)]
        other = [StageSpec("one", Add, (2,), "light"), stages[1]]
        replaced = [o.value for o in executor.stream(other, [5], 200)]
    assert [o.value for o in outcomes[4:]] == [i + 211 for i in range(4, 20)]
    assert (outcomes[3].stage, outcomes[3].error) == ("one", "ValueError: three")
    assert again == [416]
    assert replaced == [417], "a stage of the same name from another campaign takes the place of the old one"


def test_hosts_are_processes_of_their_own() -> None:
    spec = StageSpec("pid", Pid, (), "host", Resources(workers=2))
    with RayExecutor() as executor:
        pids = {o.value for o in executor.stream([spec], range(8), None)}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_items_overlap_although_they_pass_through_a_shared_host_before_and_after(tmp_path: Path) -> None:
    light, heavy = Resources(workers=1), Resources(workers=2)
    stages = [
        StageSpec("before", Add, (0,), "light", light),
        StageSpec("meet", Meet, (str(tmp_path),), "heavy", heavy),
        StageSpec("after", Add, (0,), "light", light),
    ]
    with RayExecutor() as executor:
        met = [o.value - 2 for o in executor.stream(stages, [10, 11], 2)]
    assert met == [True, True], "two workers are busy at the same time"


def test_work_of_a_killed_worker_is_done_again(tmp_path: Path) -> None:
    with RayExecutor() as executor:
        spec = StageSpec("die", DieOnce, (str(tmp_path / "mark"),), "host")
        assert [o.value for o in executor.stream([spec], range(3), None)] == [0, 1, 2]
    assert (tmp_path / "mark").exists()


def test_a_stage_that_cannot_start_stops_the_stream_with_its_reason() -> None:
    with RayExecutor() as executor, pytest.raises(PotentialError, match="another hash"):
        list(executor.stream([StageSpec("weights", NoWeights, (), "host")], [1], None))


def test_a_gpu_that_is_not_there_is_refused_at_once() -> None:
    spec = StageSpec("gpu", Pid, (), "host", Resources(gpus=100.0))
    with RayExecutor() as executor, pytest.raises(ExecutionError, match="100 GPU"):
        list(executor.stream([spec], [1], None))


def test_a_full_object_store_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise ObjectStoreFullError("Failed to put object")

    with RayExecutor() as executor:
        monkeypatch.setattr("ray.put", full)
        with pytest.raises(
            ExecutionError, match=r"Ray cannot go on: ObjectStoreFullError.*object-store-memory.*resume"
        ):
            list(executor.stream([StageSpec("add", Add, (1,), "host")], [1], None))


def test_a_queue_gives_what_is_done_first_while_other_items_are_streamed(tmp_path: Path) -> None:
    spec = StageSpec("wait", WaitFor, (str(tmp_path),), "oracle", Resources(workers=2))
    with RayExecutor() as executor:
        queue = executor.queue([spec], None)
        for item in ("slow", "fast", *"abcdefgh"):  # more than are launched at once
            queue.put(item, item)
        (tmp_path / "fast").touch()
        first = queue.take(60)
        assert first is not None
        assert (first[0], first[1].value) == ("fast", "FAST")
        assert queue.take(0) is None
        streamed = [o.value for o in executor.stream([StageSpec("one", Add, (1,), "light")], [5, 6], 0)]
        assert streamed == [6, 7]
        for item in ("slow", *"abcdefgh"):
            (tmp_path / item).touch()
        others = [queue.take(60) for _ in range(9)]
        assert {name for name, _ in filter(None, others)} == {"slow", *"abcdefgh"}
        assert queue.take() is None, "nothing is under way"
        (tmp_path / "fast").unlink()
        queue.put("fast", "fast")
        queue.close()
        assert queue.take(0) is None

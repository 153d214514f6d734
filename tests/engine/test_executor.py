from __future__ import annotations

import pytest
import torch

from paragenesis.engine.executor import InlineExecutor, Resources, StageSpec, open_queue, threads
from paragenesis.errors import ExecutionError


class Add:
    built = 0

    def __init__(self, amount: int) -> None:
        Add.built += 1
        self.amount = amount

    def __call__(self, item: int, context: int) -> int:
        if item == 3:
            raise ValueError("three\nis bad")
        return item + self.amount + context


class Threads:
    def __call__(self, item: int, context: None) -> int:
        return torch.get_num_threads()


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no weights")


def test_outcomes_come_in_order_and_an_error_ends_only_its_item() -> None:
    stages = [StageSpec("one", Add, (1,), "a"), StageSpec("ten", Add, (10,), "a")]
    with InlineExecutor() as executor:
        outcomes = list(executor.stream(stages, range(5), 100))
    assert [o.value for o in outcomes] == [211, 212, 213, None, 215]
    assert (outcomes[3].stage, outcomes[3].error) == ("one", "ValueError: three is bad")


def test_a_stage_is_built_once_for_many_streams() -> None:
    Add.built = 0
    stages = [StageSpec("one", Add, (1,), "a")]
    with InlineExecutor() as executor:
        for _ in range(3):
            list(executor.stream(stages, [1], 0))
    assert Add.built == 1


def test_a_stage_that_cannot_start_is_named() -> None:
    with InlineExecutor() as executor, pytest.raises(ExecutionError, match=r"'broken' could not start.*no weights"):
        list(executor.stream([StageSpec("broken", Broken, (), "a")], [1], None))


def broken_device(item: int, context: None) -> int:
    raise torch.AcceleratorError("an illegal memory access was encountered")


def test_an_accelerator_that_failed_is_no_fault_of_an_item_and_ends_the_process_that_has_it() -> None:
    spec = StageSpec("relax", lambda: broken_device, (), "a")
    said = "'relax' broke the accelerator for its whole process .*illegal memory access.*resume"
    with InlineExecutor() as executor, pytest.raises(ExecutionError, match=said):
        list(executor.stream([spec], [1], None))


def test_stages_run_with_the_threads_they_were_given() -> None:
    before = torch.get_num_threads()
    spec = StageSpec("threads", Threads, (), "a", Resources(cpus=1))
    with threads(2), InlineExecutor() as executor:
        assert next(executor.stream([spec], [0], None)).value == 1
    assert torch.get_num_threads() == before


def test_a_stage_of_the_same_name_but_another_campaign_is_built_anew() -> None:
    with InlineExecutor() as executor:
        first = next(executor.stream([StageSpec("add", Add, (1,), "a")], [0], 0))
        second = next(executor.stream([StageSpec("add", Add, (2,), "a")], [0], 0))
    assert (first.value, second.value) == (1, 2)


def test_a_queue_without_workers_works_only_while_it_is_waited_for() -> None:
    with InlineExecutor() as executor:
        queue = open_queue(executor, [StageSpec("one", Add, (1,), "a")], 0)
        assert queue.take() is None, "nothing to wait for"
        for item in (2, 3, 4):
            queue.put(f"n{item}", item)
        assert queue.take(0) is None
        first, second = queue.take(), queue.take(5.0)
        queue.close()
        assert queue.take() is None
    assert first is not None
    assert second is not None
    assert (first[0], first[1].value) == ("n2", 3)
    assert (second[0], second[1].error) == ("n3", "ValueError: three is bad")


class Leaves:
    """Ends its process, as a script called as a function may."""

    def __call__(self, item: int, context: None) -> int:
        if item == 1:
            raise SystemExit(0)
        return item


def test_a_stage_that_ends_its_process_ends_only_its_item() -> None:
    stage = StageSpec("leave", Leaves, (), "a", Resources(attempts=2))
    with InlineExecutor() as executor:
        outcomes = list(executor.stream([stage], range(3), None))
    assert [o.value for o in outcomes] == [0, None, 2]
    assert outcomes[1].reason == "lost: SystemExit: 0 (2 attempts)"

"""What is decided about calls that fail, without any worker: the calls are answered by a made-up machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.engine.attempts import Call, Loss, Outcome, travel
from paragenesis.engine.executor import InlineExecutor, Resources, StageSpec


@dataclass(frozen=True)
class Bag:
    """Numbers, each with what became of it; "" while it is alive."""

    fates: tuple[tuple[int, str], ...]

    def alive(self) -> list[int]:
        return [number for number, fate in self.fates if not fate]

    def halves(self) -> list[Bag]:
        alive = [pair for pair in self.fates if not pair[1]]
        middle = (len(alive) + 1) // 2
        return [Bag(tuple(half)) for half in (alive[:middle], alive[middle:]) if half]

    def failed(self, outcome: Outcome) -> Bag:
        said = f"{outcome.stage}: {outcome.reason}"
        return Bag(tuple((number, fate or said) for number, fate in self.fates))

    def joined(self, parts: Sequence[Bag]) -> Bag:
        new = {number: fate for part in parts for number, fate in part.fates}
        return Bag(tuple((number, new.get(number, fate)) for number, fate in self.fates))


def bag(n: int) -> Bag:
    return Bag(tuple((i, "") for i in range(n)))


def spec(attempts: int = 3) -> StageSpec:
    return StageSpec("relax", dict, (), "host", Resources(attempts=attempts))


def drive(item: Any, answer: Callable[[Any], Outcome], attempts: int = 3) -> tuple[Outcome, list[Call]]:
    """Answer all calls of an item; the outcome, and the calls."""
    calls = []
    steps = travel([spec(attempts)], item, lambda value: value)
    said: Any = None
    while True:
        try:
            call = steps.send(said)
        except StopIteration as end:
            return end.value, calls
        calls.append(call)
        said = answer(call.item)


def lost(how: Loss) -> Outcome:
    return Outcome(stage="relax", error=f"its worker {how}", lost=how)


@given(st.integers(1, 24), st.dictionaries(st.integers(0, 23), st.sampled_from(["raise", "died", "hung"])))
def test_exactly_the_guilty_fail_and_the_others_go_together(n: int, poison: dict[int, str]) -> None:
    poison = {number: how for number, how in poison.items() if number < n}

    def answer(item: Bag) -> Outcome:
        for number in item.alive():
            if (how := poison.get(number)) == "raise":
                return Outcome(stage="relax", error="ValueError: poison")
            if how:
                return lost(how)  # type: ignore[arg-type]
        # what a stage says depends on who came along: splitting must not show in the end
        return Outcome(value=Bag(tuple((i, fate or f"done among {item.alive()}") for i, fate in item.fates)))

    outcome, _ = drive(bag(n), answer)
    fates = dict(outcome.value.fates)
    innocent = [i for i in range(n) if i not in poison]
    assert outcome.ok
    assert all(fates[i] == f"done among {innocent}" for i in innocent)
    for number, how in poison.items():
        assert fates[number].startswith(
            "relax: ValueError: poison" if how == "raise" else f"relax: lost: its worker {how}"
        )


def test_a_loss_is_repeated_and_an_error_is_not() -> None:
    answers = iter([lost("died"), lost("hung"), Outcome(value=7)])
    assert drive(1, lambda _: next(answers))[0] == Outcome(value=7, attempts=3)
    outcome, calls = drive(1, lambda _: Outcome(stage="relax", error="ValueError: three"))
    assert (outcome.reason, len(calls)) == ("ValueError: three", 1)
    outcome, calls = drive(1, lambda _: lost("died"))
    assert (outcome.reason, len(calls)) == ("lost: its worker died (3 attempts)", 3)
    assert not outcome.ok


def test_the_reason_counts_the_attempts_a_crystal_took_part_in() -> None:
    outcome, calls = drive(bag(4), lambda item: lost("died") if 2 in item.alive() else Outcome(value=item))
    assert dict(outcome.value.fates)[2] == "relax: lost: its worker died (7 attempts)"
    tries = Counter(call.item for call in calls if 2 in call.item.alive())
    assert sorted(tries.values()) == [2, 2, 3]


def test_out_of_memory_halves_at_once_and_never_tries_the_same_again() -> None:
    sizes = []

    def answer(item: Bag) -> Outcome:
        sizes.append(len(item.alive()))
        return lost("memory") if sizes[-1] > 2 else Outcome(value=item)

    outcome, _ = drive(bag(8), answer)
    assert outcome.value == bag(8)
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    sizes.clear()
    outcome, _ = drive(Bag(((0, ""),)), lambda item: replace(answer(item), stage="relax", error="full", lost="memory"))
    assert len(sizes) == 3, "a crystal alone may have been unlucky"
    assert outcome.value.fates[0][1] == "relax: lost: full (3 attempts)"


def test_bad_luck_leaves_no_trace() -> None:
    answers = iter([lost("died")] * 3)
    outcome, calls = drive(bag(4), lambda item: next(answers, Outcome(value=("whole", item))))
    assert outcome.value == ("whole", bag(4)), "the parts were only tried to find somebody guilty"
    assert len(calls) == 3 + 2 + 1


def test_what_works_in_parts_only_is_put_together() -> None:
    def answer(item: Bag) -> Outcome:
        return (
            lost("died")
            if len(item.alive()) > 2
            else Outcome(value=item.failed(Outcome(stage="relax", error=str(item.alive()))))
        )

    outcome, _ = drive(bag(4), answer)
    assert [fate for _, fate in outcome.value.fates] == ["relax: [0, 1]"] * 2 + ["relax: [2, 3]"] * 2


class Picky:
    """Marks what it gets; runs out of memory on more than two, and cannot bear three."""

    def __call__(self, item: Bag, context: None) -> Bag:
        if len(item.alive()) > 2:
            raise MemoryError("too many")
        if 3 in item.alive():
            raise ValueError("three")
        return item.failed(Outcome(stage="marked", error="by the stage"))


def test_in_process_a_stage_that_raises_or_runs_out_of_memory_harms_only_the_guilty() -> None:
    with InlineExecutor() as executor:
        [outcome] = executor.stream([StageSpec("picky", Picky, (), "a")], [bag(6)], None)
    fates = dict(outcome.value.fates)
    assert fates.pop(3) == "picky: ValueError: three"
    assert set(fates.values()) == {"marked: by the stage"}


@pytest.mark.parametrize(("attempts", "said"), [(1, "lost: full (1 attempt)"), (2, "lost: full (2 attempts)")])
def test_attempts_are_said_in_words(attempts: int, said: str) -> None:
    assert Outcome(stage="s", error="full", lost="memory", attempts=attempts).reason == said

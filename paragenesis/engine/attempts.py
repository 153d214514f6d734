"""Attempts: how often a call is tried, and how a chunk is split until the crystal that breaks it stands alone.

These are decisions only, the same for every executor: `travel` yields the calls that an item needs and is sent what
became of each. There are two ways to fail, and they are never confused:

* the stage **raised**: the same call would raise again, so it is not repeated;
* the call was **lost**: its worker died, hung or ran out of memory, which may be bad luck, so it is repeated.

An item that can be split is then tried in halves, and these in halves, so that only the guilty crystals fail. In the
end the stage gets all others once more, together: what becomes of them is what would have become of them without the
guilty ones, however they were found. Only where they cannot go together are the parts put together as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar, runtime_checkable

from paragenesis.engine.verdict import Verdict

if TYPE_CHECKING:
    from paragenesis.engine.executor import StageSpec

T = TypeVar("T")

Loss = Literal["", "died", "hung", "memory"]

PART_ATTEMPTS = 2  # of a part of an item that was tried often enough: one accident does not make a crystal guilty


@dataclass(frozen=True)
class Outcome:
    """What became of an item: the last stage's result, or the stage and error that ended it.

    Attributes:
        value: The result.
        stage: The stage that ended it.
        error: What the stage raised, or how the call was lost; empty if all went well.
        lost: How the call was lost: "died", "hung" or "memory"; empty if the stage raised.
        attempts: How often it was tried.
    """

    value: Any = None
    stage: str = ""
    error: str = ""
    lost: Loss = ""
    attempts: int = 1

    @property
    def ok(self) -> bool:
        """Whether every stage so far returned."""
        return not self.error

    @property
    def reason(self) -> str:
        """Why it failed, beginning with its cause: the type of an error, or "lost" where the infrastructure failed."""
        if not self.lost:
            return self.error
        return f"lost: {self.error} ({self.attempts} attempt{'s' if self.attempts > 1 else ''})"

    @property
    def verdict(self) -> Verdict:
        """The verdict on the crystals of an item that ended so."""
        return Verdict("failed", self.stage, self.reason, lost=bool(self.lost), attempts=self.attempts)


@runtime_checkable
class Divisible(Protocol):
    """An item of which parts can go through a stage alone."""

    def halves(self) -> Sequence[Self]:
        """Those of its crystals that are still alive, in two parts; in one or none if there are not two."""
        ...

    def failed(self, outcome: Outcome) -> Self:
        """The item with all failed that are still alive, as the outcome says."""
        ...

    def joined(self, parts: Sequence[Self]) -> Self:
        """The item with what became of some of its parts, each crystal in its place."""
        ...


@dataclass(frozen=True)
class Call:
    """A call of a stage; the item is its value, or whatever stands for a value that stays with the workers."""

    spec: StageSpec
    item: Any


Calls = Generator[Call, Outcome, T]


def travel(stages: Sequence[StageSpec], item: Any, fetch: Callable[[Any], Any]) -> Calls[Outcome]:
    """The calls that take an item through stages, one after the other; returns what became of it.

    Args:
        stages: The stages.
        item: The item.
        fetch: The value of what a call was given or returned.
    """
    outcome = Outcome(value=item)
    for spec in stages:
        before = outcome.value
        outcome = yield from _tried(spec, before, spec.resources.attempts, fetch)
        if not outcome.ok and isinstance(whole := fetch(before), Divisible):
            outcome = yield from _without_the_guilty(spec, whole, outcome, fetch)
        if not outcome.ok:
            break
    return outcome


def _tried(spec: StageSpec, item: Any, limit: int, fetch: Callable[[Any], Any]) -> Calls[Outcome]:
    """Call a stage until it answers, or often enough; the outcome counts the attempts."""
    attempt = 0
    while True:
        attempt += 1
        outcome = yield Call(spec, item)
        if outcome.ok or not outcome.lost or attempt >= limit:
            break
        if outcome.lost == "memory" and isinstance(whole := fetch(item), Divisible) and len(whole.halves()) > 1:
            break  # half of it may fit, the same will not
    return replace(outcome, attempts=attempt)


def _without_the_guilty(
    spec: StageSpec, whole: Divisible, first: Outcome, fetch: Callable[[Any], Any]
) -> Calls[Outcome]:
    """What becomes of an item on which a stage failed."""
    parts: list[Divisible] = []
    guilty: list[Divisible] = []
    yield from _search(spec, whole, first, fetch, parts, guilty)
    rest = whole.joined(guilty)
    if rest.halves() and first.lost != "memory":
        again = yield from _tried(spec, rest, PART_ATTEMPTS, fetch)
        if again.ok:
            return again
    return Outcome(value=whole.joined(parts))


def _search(
    spec: StageSpec,
    whole: Divisible,
    outcome: Outcome,
    fetch: Callable[[Any], Any],
    parts: list[Divisible],
    guilty: list[Divisible],
) -> Calls[None]:
    """Try the halves of something on which a stage failed; add what becomes of them, and those that failed alone.

    The attempts of the whole count for its halves: a reason says in how many attempts the crystal took part.
    """
    halves = whole.halves()
    if len(halves) < 2:
        guilty.append(whole.failed(replace(outcome, stage=spec.name)))
        parts.append(guilty[-1])
        return
    for half in halves:
        tried = yield from _tried(spec, half, PART_ATTEMPTS, fetch)
        if tried.ok:
            parts.append(fetch(tried.value))
        else:
            tried = replace(tried, attempts=tried.attempts + outcome.attempts)
            yield from _search(spec, half, tried, fetch, parts, guilty)

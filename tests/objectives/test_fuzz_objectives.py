"""`check_objective` answers with sentences, whatever an objective is made of and whatever it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paragenesis.crystals import Relaxed
from paragenesis.objectives import Estimate, Minimize, check_objective, objective, sample_relaxed

TRIES = settings(max_examples=2 * settings.default.max_examples, suppress_health_check=list(HealthCheck))
SAMPLE = sample_relaxed()


class Rude:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __len__(self) -> int:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ValueError("no words")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise KeyError("no array")


class LiesAboutItsLength:
    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> float:
        return float(index)


def endless() -> Iterator[float]:
    while True:
        yield 1.0


SIZES = st.sampled_from([0, 1, len(SAMPLE) - 1, len(SAMPLE), len(SAMPLE) + 1])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """An array of some shape and type."""
    shape = draw(st.one_of(st.tuples(SIZES), st.tuples(SIZES, st.integers(0, 2)), st.just(())))
    dtype = draw(st.sampled_from(["f8", "f4", "f2", "i8", "u1", "?", "c16", "U3", "S2", "O", "M8[s]", "m8[s]"]))
    values = np.full(shape, draw(st.sampled_from([0, 1])), dtype="f8").astype(dtype)
    if dtype.startswith("f") and values.size:
        index = np.unravel_index(draw(st.integers(0, values.size - 1)), values.shape)
        values[index] = draw(st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 6e4, 1e-7]))
    return np.ma.masked_array(values, mask=True) if draw(st.integers(0, 9)) == 0 else values


RETURNED = st.one_of(
    SCALARS,
    arrays(),
    st.tuples(arrays(), arrays()),
    st.tuples(SCALARS, SCALARS),
    st.tuples(arrays()),
    st.tuples(arrays(), arrays(), arrays()),
    st.lists(SCALARS, max_size=len(SAMPLE) + 1),
    st.builds(lambda *_: Rude(), st.just(0)),
    st.builds(lambda *_: LiesAboutItsLength() if False else endless(), st.just(0)),
    st.just(Estimate),
    st.just(NotImplemented),
    st.just({"mean": 1}),
    st.builds(lambda mean, std: ("estimate", mean, std), arrays(), arrays()),
)


def told(thing: Any) -> list[str]:
    """What is wrong with a thing; every fault is a sentence."""
    problems = check_objective(thing, SAMPLE)
    assert all(isinstance(problem, str) and 5 < len(problem) < 3000 for problem in problems)
    return problems


@given(value=RETURNED)
@TRIES
def test_whatever_a_function_returns_is_judged(value: Any) -> None:
    def answer(relaxed: Relaxed) -> Any:
        if isinstance(value, tuple) and value and isinstance(value[0], str) and value[0] == "estimate":
            return Estimate(*value[1:])
        return value

    told(objective(goal=Minimize(), unit="1", name="odd")(answer))


RAISED = (ValueError, KeyError, RecursionError, MemoryError, StopIteration, GeneratorExit, SystemExit, AssertionError)


@given(kind=st.sampled_from(RAISED), late=st.booleans(), words=st.text(max_size=5))
@TRIES
def test_whatever_a_function_raises_is_told(kind: type[BaseException], late: bool, words: str) -> None:
    calls = []

    def answer(relaxed: Relaxed) -> Any:
        calls.append(1)
        if late and len(calls) < 2:
            return np.zeros(len(relaxed))
        raise kind(words)

    assert told(objective(goal=Minimize(), unit="1", name="odd")(answer))


@dataclass
class Made:
    """An objective with any parts."""

    name: Any = "made"
    unit: Any = "1"
    goal: Any = field(default_factory=Minimize)
    needs: Any = frozenset()
    estimate: Any = None


PARTS = st.one_of(
    SCALARS,
    st.frozensets(st.one_of(st.integers(), st.text(max_size=6)), max_size=3),
    st.just(frozenset({"strain"})),
    st.just({"strain"}),
    st.just(Minimize),
    st.lists(st.text()),
    st.builds(lambda *_: Rude(), st.just(0)),
    st.just(lambda relaxed: None),
    st.just(len),
)


@given(parts=st.dictionaries(st.sampled_from(["name", "unit", "goal", "needs", "estimate"]), PARTS, min_size=1))
@TRIES
def test_whatever_an_objective_is_made_of_is_judged(parts: dict[str, Any]) -> None:
    if not callable(parts.get("estimate")):
        parts["estimate"] = lambda relaxed: Estimate(np.zeros(len(relaxed)), np.zeros(len(relaxed)))
    told(Made(**parts))


def test_what_is_no_objective_at_all_is_told() -> None:
    things: list[Any] = [None, 1, "density", Rude(), Made, object(), lambda relaxed: relaxed, type]
    assert all(told(thing) for thing in things)


def test_a_constant_in_place_of_an_array_is_told() -> None:
    functions: list[Callable[[Relaxed], Any]] = [lambda _: 1.0, lambda r: np.zeros((len(r), 1)), lambda r: -np.ones(3)]
    assert all(told(objective(goal=Minimize(), unit="1", name="f")(function)) for function in functions)

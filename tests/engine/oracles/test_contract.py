"""`Verified` and `check_oracle`: refusals, and every fault an oracle's author can be told of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from paragenesis.crystals import Crystals, Relaxed
from paragenesis.engine.level import Level
from paragenesis.engine.oracles import CostedOracle, Verified, check_oracle, estimated_costs
from paragenesis.errors import InputError
from paragenesis.objectives import sample_relaxed

LEVEL = Level(engine="made-up", version="1", functional="none")


def answer(crystals: Crystals, **changes: Any) -> Verified:
    """A faultless answer for the sample crystals, but for the changes."""
    n = len(crystals)
    values = {"energy_above_hull": np.arange(float(n))}
    return Verified(**{"crystals": crystals, "values": values, "cost_seconds": np.zeros(n), **changes})


def single(relaxed: Relaxed) -> Relaxed:
    """The first member alone, as an oracle's answer is."""
    tables = ("energies", "formation_energies", "hull_distances", "max_forces", "pressures", "magnetic_moments")
    cut = {name: getattr(relaxed, name)[:1] for name in (*tables, "strain_energies")}
    return replace(relaxed, members=relaxed.members[:1], **cut)


@dataclass
class Planted:
    """An oracle that answers as told; given the crystals and how often it was asked."""

    reply: Callable[[Crystals, int], Any] = lambda crystals, call: answer(crystals)
    level: Any = field(default=LEVEL)
    calls: int = 0

    def verify(self, crystals: Crystals) -> Any:
        self.calls += 1
        return self.reply(crystals, self.calls)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"values": {"density": np.zeros(2)}}, r"'density' has shape \(2,\)"),
        ({"cost_seconds": np.zeros(1)}, "'cost_seconds' has shape"),
        ({"errors": {9: "no"}}, "names crystal 9, but only 0 to 5"),
        ({"relaxed": sample_relaxed()[[1, 0, 2, 3, 4, 5]]}, "another order"),
    ],
)
def test_an_answer_speaks_of_the_crystals_given(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        answer(sample_relaxed().crystals, **changes)


def spoil(crystals: Crystals) -> Verified:
    crystals.frac[0, 0] += 0.25
    return answer(crystals)


def with_value(crystals: Crystals, index: int, value: float) -> Verified:
    values = np.zeros(len(crystals))
    values[index] = value
    return answer(crystals, values={"density": values})


FAULTS = {
    "no level": (Planted(level="r2scan"), "the level is a str"),
    "an exception": (Planted(lambda c, k: c.nonsense), "verify raised AttributeError"),
    "another type": (Planted(lambda c, k: {"density": 1.0}), "returned a dict: return Verified"),
    "fewer crystals": (Planted(lambda c, k: answer(c[:3])), "answered for other crystals"),
    "another order": (Planted(lambda c, k: answer(c[::-1])), "in another order"),
    "a negative cost": (
        Planted(lambda c, k: answer(c, cost_seconds=np.full(len(c), -1.0))),
        "cost_seconds is negative",
    ),
    "an empty error": (Planted(lambda c, k: answer(c, errors={2: ""})), "the error of crystal 2 is empty"),
    "a silent failure": (Planted(lambda c, k: with_value(c, 4, np.nan)), "crystal 4 has neither"),
    "nothing said": (Planted(lambda c, k: answer(c, values={})), "crystal 0 has neither"),
    "an infinite value": (Planted(lambda c, k: with_value(c, 4, np.inf)), "some values are infinite"),
    "chance": (Planted(lambda c, k: with_value(c, 4, float(k))), "two verifications of the same crystals differ"),
    "errors by chance": (Planted(lambda c, k: answer(c, errors={k: "no"})), "two verifications"),
    "changed crystals": (Planted(lambda c, k: spoil(c)), "changed the crystals"),
}


def test_a_faultless_oracle_passes() -> None:
    relaxed = single(sample_relaxed())
    assert check_oracle(Planted(), relaxed.crystals) == []
    computing = Planted(lambda c, k: answer(c, values={}, relaxed=relaxed, errors={2: "it melted"}))
    assert check_oracle(computing, relaxed.crystals) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    planted, words = FAULTS[fault]
    problems = check_oracle(planted, sample_relaxed().crystals)
    assert any(words in problem for problem in problems), problems


def test_a_changing_level_is_found() -> None:
    class Drifting(Planted):
        def verify(self, crystals: Crystals) -> Verified:
            self.level = Level(engine="made-up", version=f"drift-{self.calls}", functional="none")
            return super().verify(crystals)  # type: ignore[no-any-return]

    assert any("level changed" in p for p in check_oracle(Drifting(), sample_relaxed().crystals))


def test_no_oracle_at_all() -> None:
    assert check_oracle(object(), sample_relaxed().crystals) == ["a object is no oracle: it lacks level, verify"]  # type: ignore[arg-type]


@dataclass
class Priced(Planted):
    """A faultless oracle whose costs are as told; given the crystals and how often it was asked."""

    price: Any = None
    asked: int = 0

    def cost(self, crystals: Crystals) -> Any:
        self.asked += 1
        return self.price(crystals, self.asked)


def test_costs_are_those_of_the_oracle_and_ones_where_it_has_none() -> None:
    crystals = sample_relaxed().crystals
    assert estimated_costs(Planted(), crystals).tolist() == [1.0] * len(crystals)
    priced = Priced(price=lambda c, k: c.n_atoms**3)
    assert isinstance(priced, CostedOracle)
    assert estimated_costs(priced, crystals).tolist() == (crystals.n_atoms**3.0).tolist()
    assert check_oracle(priced, crystals) == []
    assert estimated_costs(priced, crystals[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("price", "words"),
    [
        (lambda c, k: np.ones(len(c) - 1), r"Priced\.cost gave the shape \(5,\) for 6 crystals"),
        (lambda c, k: 1.0, r"gave the shape \(\) for 6"),
        (lambda c, k: np.arange(len(c)), r"gave 0\.0 for crystal '.*give a finite number above 0"),
        (lambda c, k: np.full(len(c), np.nan), "gave nan for crystal"),
        (lambda c, k: np.full(len(c), np.inf), "gave inf for crystal"),
        (lambda c, k: ["dear"] * len(c), "raised ValueError"),
    ],
)
def test_costs_that_cannot_be_used_are_refused(price: Any, words: str) -> None:
    crystals = sample_relaxed().crystals
    with pytest.raises(InputError, match=words) as refused:
        estimated_costs(Priced(price=price), crystals)
    assert str(refused.value) in check_oracle(Priced(price=price), crystals)


def test_costs_by_chance_and_costs_that_are_no_method_are_found() -> None:
    crystals = sample_relaxed().crystals
    drifting = Priced(price=lambda c, k: np.full(len(c), float(k)))
    assert any("two estimates" in problem for problem in check_oracle(drifting, crystals))
    plain = Planted()
    plain.cost = 3.0  # type: ignore[attr-defined]
    assert any("Planted.cost is a float" in problem for problem in check_oracle(plain, crystals))

"""`Verified` and `check_oracle`: refusals, and every fault an oracle's author can be told of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from paragenesis.crystals import Crystals, Relaxed
from paragenesis.engine.level import Level
from paragenesis.engine.oracles import Verified, check_oracle
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

"""`check_objective` finds every fault that it claims to find: each is planted here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paragenesis.crystals import FloatArray, Relaxed
from paragenesis.errors import InputError
from paragenesis.objectives import (
    BulkModulus,
    Density,
    Estimate,
    Goal,
    Minimize,
    RawMaterialCost,
    SupplyRisk,
    check_objective,
    objective,
    sample_relaxed,
)
from paragenesis.objectives.check import without_strains


@dataclass(frozen=True)
class Planted:
    """A faultless objective, but for what is planted."""

    values: Callable[[Relaxed], Any] = lambda relaxed: densities(relaxed)
    name: Any = "planted"
    unit: Any = "g/cm3"
    goal: Any = field(default_factory=Minimize)
    needs: Any = frozenset()
    baggage: Any = field(default=None)

    def estimate(self, relaxed: Relaxed) -> Any:
        return self.values(relaxed)


def densities(relaxed: Relaxed) -> Estimate:
    values = relaxed.crystals.densities
    return Estimate(values, np.zeros_like(values))


def certain(values: FloatArray) -> Estimate:
    return Estimate(values, np.zeros_like(values))


def changed(relaxed: Relaxed, index: int, mean: float | None = None, std: float | None = None) -> Estimate:
    """The densities with one value or std replaced, for the crystal of that id."""
    honest = densities(relaxed)
    which = np.array([name == f"sample-{index}" for name in relaxed.crystals.ids])
    return Estimate(
        honest.mean if mean is None else np.where(which, mean, honest.mean),
        honest.std if std is None else np.where(which, std, honest.std),
    )


def spoil(relaxed: Relaxed) -> Estimate:
    relaxed.energies[0, 0] += 1.0
    return densities(relaxed)


def raise_late(relaxed: Relaxed) -> Estimate:
    if len(relaxed) == 1:
        raise ValueError("too few")
    return densities(relaxed)


class Counter:
    """Says something else each time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, relaxed: Relaxed) -> Estimate:
        self.calls += 1
        return certain(relaxed.crystals.densities + self.calls)


def test_a_faultless_objective_passes() -> None:
    assert check_objective(Planted()) == []


FAULTS = {
    "no name": (Planted(name=""), "the name '' is no name"),
    "a name with a space": (Planted(name="my density"), "is no name"),
    "no unit": (Planted(unit=""), "the unit is missing"),
    "a blank unit": (Planted(unit=" "), "the unit is missing"),
    "no goal": (Planted(goal="minimize"), "the goal is 'minimize'"),
    "the bare goal": (Planted(goal=Goal()), "give Maximize()"),
    "unknown needs": (Planted(needs={"phonons"}), "any of 'strain'"),
    "needs in a list": (Planted(needs=["strain"]), "give a frozenset"),
    "an array instead of an estimate": (Planted(lambda r: r.crystals.densities), "returned a ndarray"),
    "one value too few": (Planted(lambda r: certain(r.crystals.densities[1:])), "shape (5,) for 6 crystals"),
    "a scalar": (Planted(lambda r: Estimate(np.array(1.0), np.array(0.0))), "of shape n"),
    "an exception": (Planted(lambda r: r.nonsense), "AttributeError"),
    "an InputError": (Planted(lambda r: raise_input_error()), "estimate failed: a price is missing"),
    "an infinite mean": (Planted(lambda r: changed(r, 2, mean=np.inf)), "the mean is infinite for 1 of 6 crystals"),
    "a NaN mean": (Planted(lambda r: changed(r, 2, mean=np.nan)), "the mean is NaN"),
    "a NaN mean with one member": (Planted(lambda r: changed(r, 5, mean=np.nan)), "the mean is NaN"),
    "an infinite std": (Planted(lambda r: changed(r, 0, std=np.inf)), "the std is infinite"),
    "a NaN std with two members": (Planted(lambda r: changed(r, 0, std=np.nan)), "the std is NaN"),
    "a negative std": (Planted(lambda r: changed(r, 0, std=-0.1)), "the std is negative"),
    "chance": (Planted(lambda r: certain(np.random.default_rng().random(len(r)))), "two calls"),
    "state": (Planted(Counter()), "two calls"),
    "rank in the batch": (Planted(lambda r: certain(np.arange(float(len(r))))), "its own crystal only"),
    "share of the batch": (
        Planted(lambda r: certain(r.crystals.densities / r.crystals.densities.max())),
        "asked one by one, the crystals get other values",
    ),
    "a batch of one": (Planted(raise_late), "asked one by one, estimate raised ValueError: too few"),
    "a changed input": (Planted(spoil), "changed its input (energies)"),
    "a lock": (Planted(baggage=threading.Lock()), "cannot be pickled"),
}


def raise_input_error() -> Estimate:
    raise InputError("a price is missing")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    planted, words = FAULTS[fault]
    problems = check_objective(planted)
    assert any(words in problem for problem in problems), problems


def test_a_missing_part_is_named() -> None:
    thing = SimpleNamespace(name="thing", goal=Minimize(), estimate=densities)
    assert check_objective(thing) == ["a SimpleNamespace is no objective: it lacks unit, needs"]  # type: ignore[arg-type]


def test_the_line_that_raised_is_named() -> None:
    problems = check_objective(Planted(raise_late), sample_relaxed()[:1])
    assert "test_check.py, line" in problems[0]


def test_nan_is_no_fault_where_it_is_the_truth() -> None:
    # crystal 5 was refused by the second member: no spread
    assert check_objective(Planted(lambda r: changed(r, 5, std=np.nan))) == []
    relaxed = sample_relaxed()
    relaxed.energies[:, 2] = np.nan  # nobody answered: no value
    assert check_objective(Planted(lambda r: changed(r, 2, mean=np.nan, std=np.nan)), relaxed) == []


def test_the_equation_of_state_must_be_asked_for() -> None:
    @objective(goal=Minimize(), unit="GPa")
    def modulus(relaxed: Relaxed) -> Estimate:
        return BulkModulus().estimate(relaxed)

    @objective(goal=Minimize(), unit="eV/atom")
    def first_strained(relaxed: Relaxed) -> FloatArray:
        return relaxed.strain_energies[0, :, 0]

    for forgetful in (modulus, first_strained):
        assert 'declare needs={"strain"}' in check_objective(forgetful)[0]
        assert check_objective(replace(forgetful, needs=frozenset({"strain"}))) == []


def test_the_check_leaves_the_given_crystals_alone() -> None:
    relaxed, untouched = sample_relaxed(), sample_relaxed()
    check_objective(Planted(spoil), relaxed)
    np.testing.assert_array_equal(relaxed.energies, untouched.energies)


def test_a_campaigns_own_elements_can_be_tried() -> None:
    cost = RawMaterialCost(prices={"Ca": 1.0, "Ti": 10.0, "O": 0.1})
    assert check_objective(cost, sample_relaxed(("Ca", "Ti", "O"))) == []
    assert "no price for Ba" in check_objective(cost, sample_relaxed(("Ba", "Ti", "O")))[0]
    assert "the mean is NaN" in check_objective(SupplyRisk(), sample_relaxed(("Mg", "H")))[0]


@pytest.mark.parametrize("elements", [("Fe",), ("Na", "Cl"), ("Na", "Cl", "Mg", "O", "Fe", "Si", "Ti")])
def test_sample_crystals_hold_every_element(elements: tuple[str, ...]) -> None:
    relaxed = sample_relaxed(elements)
    assert {e.symbol for c in relaxed.crystals.compositions for e in c} == set(elements)
    assert check_objective(Density(), relaxed) == []
    assert check_objective(BulkModulus(), relaxed) == []
    assert without_strains(relaxed).strain_energies.shape == (2, len(relaxed), 0)

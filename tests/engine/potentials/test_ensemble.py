"""The ensemble: shapes, who relaxed, refusals and failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.potentials.contract import Potential
from paragenesis.engine.potentials.ensemble import Ensemble
from paragenesis.engine.potentials.judge import judge
from paragenesis.engine.potentials.relax import RelaxSettings
from paragenesis.errors import InputError
from paragenesis.testing import lennard_jones_potential


class Shift:
    """Elemental references that are the same for all elements."""

    def __init__(self, by: float) -> None:
        self.by = by

    def formation_energies(self, crystals: Crystals, energies: FloatArray) -> FloatArray:
        assert len(crystals) == len(energies)
        return energies - self.by


class FlatHull:
    """A hull at -1 eV/atom."""

    def distances(self, compositions: Sequence[Any], formation_energies: FloatArray) -> FloatArray:
        assert len(compositions) == len(formation_energies)
        return formation_energies + 1.0


@pytest.fixture
def members() -> list[Potential]:
    first = lennard_jones_potential()
    return [first, replace(first, name="narrow", elements=frozenset({11, 17, 12, 8}))]


def test_all_judge_what_the_first_relaxed(members: list[Potential], rattled: Crystals) -> None:
    ensemble = Ensemble(members, [Shift(1.0), Shift(2.0)], FlatHull())
    relaxed, failures, refusals = ensemble.relax_and_judge(rattled, RelaxSettings(), frozenset({"strain"}))
    assert not failures
    assert relaxed.members == ("lennard-jones", "narrow")
    assert relaxed.converged.all()
    np.testing.assert_allclose(relaxed.energies[0], judge(members[0], relaxed.crystals).energies)
    np.testing.assert_allclose(relaxed.formation_energies[1, :2], relaxed.energies[1, :2] - 2)
    np.testing.assert_allclose(relaxed.hull_distances[0], relaxed.energies[0])
    np.testing.assert_allclose(relaxed.initial_volumes, rattled.volumes)
    assert relaxed.strain_energies.shape == (2, 4, 7)
    middle = relaxed.strains.tolist().index(1.0)
    np.testing.assert_allclose(relaxed.strain_energies[0, :, middle], relaxed.energies[0])
    assert [(r.member, r.id) for r in refusals] == [("narrow", "NiAl"), ("narrow", "GaAs")]
    assert np.isnan(relaxed.energies[1]).tolist() == [False, False, True, True]
    assert np.isnan(relaxed.strain_energies[1, 2]).all()
    assert "does not know" in refusals[0].error


def test_crystals_that_cannot_be_relaxed_are_left_out_and_named(members: list[Potential], rattled: Crystals) -> None:
    ensemble = Ensemble(members[::-1], [Shift(0.0), Shift(0.0)], FlatHull())
    relaxed, failures, refusals = ensemble.relax_and_judge(rattled, RelaxSettings(), frozenset())
    assert list(failures) == [2, 3]
    assert relaxed.crystals.ids == ("NaCl", "MgO")
    assert relaxed.strain_energies.shape == (2, 2, 0)
    assert not refusals


def test_nothing_left_is_an_empty_answer(members: list[Potential], rattled: Crystals) -> None:
    relaxed, failures, _ = Ensemble(members[1:], [Shift(0.0)], FlatHull()).relax_and_judge(
        rattled[[2, 3]], RelaxSettings(), frozenset({"strain"})
    )
    assert len(relaxed) == 0
    assert sorted(failures) == [0, 1]


def test_an_ensemble_is_checked_when_it_is_made(members: list[Potential]) -> None:
    with pytest.raises(InputError, match="distinct names"):
        Ensemble([members[0], members[0]], [Shift(0), Shift(0)], FlatHull())
    with pytest.raises(InputError, match="distinct names"):
        Ensemble([], [], FlatHull())
    with pytest.raises(InputError, match="came with 1"):
        Ensemble(members, [Shift(0)], FlatHull())

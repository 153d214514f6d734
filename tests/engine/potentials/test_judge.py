"""Judgements: per atom, in GPA, with the right signs; equations of state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from paragenesis.crystals import Crystals
from paragenesis.engine.potentials.contract import Potential
from paragenesis.engine.potentials.evaluate import batches
from paragenesis.engine.potentials.judge import equation_of_state, judge
from paragenesis.testing import lennard_jones_potential


def test_energies_are_per_atom_and_refer_to_the_right_crystal(rattled: Crystals) -> None:
    potential = lennard_jones_potential()
    doubled = Crystals.from_atoms([atoms.repeat((2, 1, 1)) for atoms in rattled.to_atoms()])
    one, two = judge(potential, rattled), judge(potential, doubled, batch_atoms=5)
    np.testing.assert_allclose(one.energies, two.energies, atol=1e-10)
    np.testing.assert_allclose(one.max_forces, two.max_forces, atol=1e-10)
    np.testing.assert_allclose(one.pressures, two.pressures, atol=1e-8)
    assert np.isnan(one.magnetic_moments).all()


def test_pressure_is_positive_in_a_compressed_crystal_and_in_gigapascal(rattled: Crystals) -> None:
    potential = lennard_jones_potential()
    h = 1e-4
    small, large = (replace(rattled, lattices=rattled.lattices * (1 + s) ** (1 / 3)) for s in (-h, h))
    slope = (judge(potential, large).energies - judge(potential, small).energies) * rattled.n_atoms
    expected = -slope / (2 * h * rattled.volumes) * 160.21766208
    np.testing.assert_allclose(judge(potential, rattled).pressures, expected, rtol=1e-4, atol=1e-3)
    assert (judge(potential, replace(rattled, lattices=rattled.lattices * 0.9)).pressures > 10).all()


def test_equation_of_state_scales_the_volume(rattled: Crystals) -> None:
    potential = lennard_jones_potential()
    strains = (0.9, 1.0, 1.1)
    energies = equation_of_state(potential, rattled, strains)
    assert energies.shape == (len(rattled), 3)
    for k, strain in enumerate(strains):
        scaled = replace(rattled, lattices=rattled.lattices * strain ** (1 / 3))
        np.testing.assert_allclose(scaled.volumes / rattled.volumes, strain)
        np.testing.assert_allclose(energies[:, k], judge(potential, scaled).energies, atol=1e-12)


def test_what_does_not_fit_into_memory_together_is_judged_in_parts(
    rattled: Crystals, small_memory: Callable[[int], Potential]
) -> None:
    judged = judge(small_memory(int(rattled.n_atoms.max())), rattled)
    assert not judged.errors
    np.testing.assert_allclose(judged.energies, judge(lennard_jones_potential(), rattled).energies)


def test_no_memory_for_a_single_crystal_is_no_fault_of_the_crystal(
    rattled: Crystals, small_memory: Callable[[int], Potential]
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        judge(small_memory(0), rattled)


@pytest.mark.parametrize(("atoms", "expected"), [(1, [1, 1, 1, 1]), (8, [1, 3]), (10, [2, 2]), (100, [4])])
def test_batches_hold_what_fits_in_order(rattled: Crystals, atoms: int, expected: list[int]) -> None:
    parts = list(batches(rattled, atoms))
    assert [len(part) for part in parts] == expected
    assert [i for part in parts for i in part] == list(range(len(rattled)))

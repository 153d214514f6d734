from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.flow.state import cell_numbers, lattice_rows, metric_of, niggli, pack, unpack


@given(
    st.lists(st.floats(2.0, 15.0), min_size=3, max_size=3),
    st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3),
    st.integers(1, 20),
)
def test_six_numbers_hold_the_metric(lengths: list[float], shears: list[float], n: int) -> None:
    lower = torch.eye(3, dtype=torch.float64)
    lower[1, 0], lower[2, 0], lower[2, 1] = (torch.tensor(x) for x in shears)
    rows = lower @ torch.diag(torch.tensor(lengths, dtype=torch.float64))
    metric, atoms = (rows @ rows.T)[None], torch.tensor([n])
    numbers = cell_numbers(metric, atoms)
    assert torch.allclose(metric_of(numbers, atoms), metric, rtol=1e-9)
    volume = torch.linalg.det(lattice_rows(numbers, atoms))
    assert torch.allclose(numbers[:, 0].exp() * n, volume)


def test_a_rotated_crystal_has_the_same_numbers(classics: Crystals) -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = Crystals(
        ids=classics.ids,
        n_atoms=classics.n_atoms,
        numbers=classics.numbers,
        frac=classics.frac,
        lattices=classics.lattices @ turn,
    )
    assert torch.allclose(pack(turned).cell, pack(classics).cell, atol=1e-5)


def test_niggli_keeps_the_crystal_and_ends_at_one_cell(classics: Crystals) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    skew = np.array([[1, 1, 0], [0, 1, 2], [0, 0, 1]])
    skewed = Crystals(
        ids=classics.ids,
        n_atoms=classics.n_atoms,
        numbers=classics.numbers,
        frac=classics.frac @ np.linalg.inv(skew),
        lattices=skew @ classics.lattices,
    )
    reduced, moves = niggli(skewed)
    assert torch.allclose(pack(reduced).cell[:, :1], pack(niggli(classics)[0]).cell[:, :1], atol=1e-5)
    assert np.allclose(np.abs(np.linalg.det(moves)), 1)
    lengths = np.linalg.norm(reduced.lattices, axis=2)
    assert np.allclose(np.sort(lengths), np.sort(np.linalg.norm(niggli(classics)[0].lattices, axis=2)))
    for one, other in zip(reduced.to_structures(), classics.to_structures(), strict=True):
        assert StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.5).fit(one, other)


def test_pack_and_unpack_are_inverse(classics: Crystals) -> None:
    again = unpack(pack(classics, torch.float64), classics.origins or [""] * len(classics))
    assert np.array_equal(again.numbers, classics.numbers)
    assert np.allclose(again.frac, classics.frac)
    metric = classics.lattices @ classics.lattices.transpose(0, 2, 1)
    assert np.allclose(again.lattices @ again.lattices.transpose(0, 2, 1), metric)

"""Crystals that the tests of the potentials share."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from paragenesis.crystals import Crystals


@pytest.fixture(scope="session")
def rattled() -> Crystals:
    """Four small crystals off their equilibrium: two rocksalts, an intermetallic, a semiconductor."""
    atoms = [
        bulk("NaCl", "rocksalt", 5.8, cubic=True),
        bulk("MgO", "rocksalt", 4.1),
        bulk("NiAl", "cesiumchloride", 2.95),
        bulk("GaAs", "zincblende", 5.6),
    ]
    for seed, one in enumerate(atoms):
        one.rattle(0.05, seed=seed)
        strain = np.random.default_rng(seed).normal(0, 0.02, (3, 3))
        one.set_cell(one.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return Crystals.from_atoms(atoms, ids=["NaCl", "MgO", "NiAl", "GaAs"])

"""Small crystals that screening tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from paragenesis.crystals import Crystals


@pytest.fixture(scope="session")
def structures() -> dict[str, Structure]:
    """Real crystals by name."""
    p1 = {
        "NaCl": ("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "rutile": ("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.3053, 0.3053, 0]]),
        "anatase": ("I4_1/amd", Lattice.tetragonal(3.785, 9.514), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.2081]]),
        "SrTiO3": ("Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]),
        "Fe3O4": ("Fd-3m", Lattice.cubic(8.396), ["Fe", "Fe", "O"], [[0, 0, 0], [0.625] * 3, [0.3799] * 3]),
        "MoSi2": ("I4/mmm", Lattice.tetragonal(3.2, 7.85), ["Mo", "Si"], [[0, 0, 0], [0, 0, 0.335]]),
        "Cs": ("Im-3m", Lattice.cubic(6.14), ["Cs"], [[0, 0, 0]]),
        "diamond": ("Fd-3m", Lattice.cubic(3.567), ["C"], [[0, 0, 0]]),
    }
    made = {}
    for name, (group, lattice, species, sites) in p1.items():
        made[name] = Structure.from_spacegroup(group, lattice, species, sites)
    return made


@pytest.fixture(scope="session")
def batch(structures: dict[str, Structure]) -> Callable[..., Crystals]:
    """Crystals by name, in one batch."""

    def make(*names: str) -> Crystals:
        return Crystals.from_structures([structures[name] for name in names], ids=names)

    return make


@pytest.fixture(scope="session")
def other_cell() -> Callable[..., Structure]:
    """The same crystal in a skewed supercell, rotated, moved, its atoms permuted, and rattled by so many angstrom."""

    def make(structure: Structure, seed: int, rattle: float = 0.0) -> Structure:
        rng = np.random.default_rng(seed)
        larger = structure.copy().make_supercell([[2, 1, 0], [0, 1, 0], [0, 0, 1]], in_place=False)
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        rotation *= np.sign(np.linalg.det(rotation))
        lattice = larger.lattice.matrix @ rotation
        cart = larger.frac_coords @ lattice + rng.normal(size=3)
        cart += rng.normal(size=cart.shape) * rattle / np.sqrt(3)
        order = rng.permutation(len(larger))
        species = [larger.species[i] for i in order]
        return Structure(Lattice(lattice), species, cart[order], coords_are_cartesian=True)

    return make

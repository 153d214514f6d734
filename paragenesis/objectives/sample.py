"""Made-up relaxed crystals on which objectives can be tried without a potential."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, Relaxed

STRAINS = np.linspace(0.94, 1.06, 7)
_EV_PER_A3_TO_GPA = 160.21766208


def sample_relaxed(elements: Sequence[str] = ("Na", "Cl", "Mg", "O", "Fe", "Si")) -> Relaxed:
    """Deterministic `Relaxed` of at least four rock-salt crystals and two members; plausible but made-up numbers.

    Every element occurs; neighbours in `elements` form pairs. The second member refused the last crystal. Equations
    of state are complete, with bulk moduli near 100 GPa.

    Args:
        elements: Symbols of the elements that the crystals are made of, at least one.
    """
    crystals = _rock_salts(elements)
    m, n = 2, len(crystals)
    rng = np.random.default_rng(0)
    formation = -0.5 - 1.5 * rng.random(n) + 0.02 * rng.standard_normal((m, n))
    hull = 0.2 * rng.random(n) + 0.02 * rng.standard_normal((m, n))
    energies = formation - 4.0 - rng.random(n)
    tables = {
        "energies": energies,
        "formation_energies": formation,
        "hull_distances": hull,
        "max_forces": 0.05 * rng.random((m, n)),
        "pressures": 0.1 * rng.standard_normal((m, n)),
        "magnetic_moments": 4.0 * rng.random((m, n)),
    }
    strain_energies = energies[..., None] + _strain_energies(crystals, 80.0 + 40.0 * rng.random((m, n)))
    for table in (*tables.values(), strain_energies):
        table[1, -1] = np.nan
    return Relaxed(
        crystals=crystals,
        members=("sample-a", "sample-b"),
        strains=STRAINS.copy(),
        strain_energies=strain_energies,
        converged=np.ones(n, dtype=np.bool_),
        steps=np.arange(10, 10 + n, dtype=np.int64),
        initial_volumes=crystals.volumes * 1.02,
        **tables,
    )


def _rock_salts(elements: Sequence[str]) -> Crystals:
    """Primitive rock-salt cells of neighbouring elements, each pair at another volume."""
    from ase.data import atomic_numbers, covalent_radii

    n = max(4, len(elements))
    pairs = [[atomic_numbers[elements[(i + j) % len(elements)]] for j in (0, 1)] for i in range(n)]
    edges = [2.0 * covalent_radii[pair].sum() * (1.0 + 0.01 * i) for i, pair in enumerate(pairs)]
    face_centred = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    return Crystals(
        ids=tuple(f"sample-{i}" for i in range(n)),
        n_atoms=np.full(n, 2),
        numbers=np.concatenate(pairs),
        frac=np.tile([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], (n, 1)),
        lattices=np.array(edges)[:, None, None] * face_centred,
    )


def _strain_energies(crystals: Crystals, moduli: FloatArray) -> FloatArray:
    """Birch's energies, eV/atom, of given bulk moduli (GPa, `m x n`) with `B' = 4`, shape `m x n x k`."""
    volume_per_atom = crystals.volumes / crystals.n_atoms
    eulerian = STRAINS ** (-2.0 / 3.0) - 1.0
    return (9.0 / 8.0 * moduli / _EV_PER_A3_TO_GPA * volume_per_atom)[..., None] * eulerian**2

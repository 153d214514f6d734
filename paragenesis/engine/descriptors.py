"""Descriptors: a crystal as a row of numbers, for the Gaussian process and for diversity.

Statistics of elemental properties over the composition (in the manner of Ward et al., npj Comput. Mater. 2, 16028
(2016)), and of volume and nearest-neighbour distances. They do not depend on the order of atoms, the choice of cell,
its orientation or its origin, and are finite for every valid crystal. They are not scaled.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

import numpy as np

from paragenesis.crystals import ATOMIC_MASS_TO_G_PER_CM3, Crystals, FloatArray
from paragenesis.engine.screening.neighbours import nearest_distances, pair_distances
from paragenesis.engine.screening.validity import LAST_ELEMENT, covalent_radii

_PROPERTIES = (
    "electronegativity",  # Pauling
    "covalent_radius",  # angstrom, Cordero
    "mass",  # u
    "group",
    "row",
    "mendeleev_number",
    "ionization_energy",  # first, eV
    "melting_point",  # K
)
_SHELLS = ("s", "p", "d", "f")
_STATISTICS = ("mean", "std", "min", "max")
_STRUCTURE = (
    "n_elements",
    "stoichiometry_norm",  # 2-norm of the atomic fractions
    "volume_per_atom",  # A^3
    "density",  # g/cm^3
    "packing_fraction",  # spheres of covalent radius over cell volume
    "nearest_distance_mean",  # angstrom, over atoms
    "nearest_distance_std",
    "nearest_distance_scaled",  # mean over the cube root of the volume per atom
    "bond_ratio_mean",  # smallest distance over sum of covalent radii, mean over atoms
    "bond_ratio_std",
)
DESCRIPTOR_NAMES: tuple[str, ...] = (
    *(f"{name}_{statistic}" for statistic in _STATISTICS for name in _PROPERTIES),
    *(f"valence_{shell}_mean" for shell in _SHELLS),
    *_STRUCTURE,
)


def describe(crystals: Crystals) -> FloatArray:
    """Descriptors of valid crystals, shape `n x d`, columns as in `DESCRIPTOR_NAMES`."""
    if not len(crystals):
        return np.zeros((0, len(DESCRIPTOR_NAMES)))
    table = _element_table()
    values = table[crystals.numbers, : len(_PROPERTIES)]
    mean = _mean(values, crystals)
    std = np.sqrt(_mean((values - mean[crystals.batch]) ** 2, crystals))
    starts = crystals.offsets[:-1]
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    shells = _mean(table[crystals.numbers, len(_PROPERTIES) :], crystals)
    return np.column_stack([mean, std, low, high, shells, _structure(crystals)])


def _mean(values: FloatArray, crystals: Crystals) -> FloatArray:
    """Mean over the atoms of each crystal of values of shape `N` or `N x k`, shape `n` or `n x k`."""
    totals = np.add.reduceat(values, crystals.offsets[:-1], axis=0)
    return np.asarray(totals / crystals.n_atoms.reshape((-1,) + (1,) * (values.ndim - 1)))


def _structure(crystals: Crystals) -> FloatArray:
    """The columns `_STRUCTURE`, shape `n x 10`."""
    counts = np.zeros((len(crystals), LAST_ELEMENT + 1))
    np.add.at(counts, (crystals.batch, crystals.numbers), 1.0)
    fractions = counts / crystals.n_atoms[:, None]
    radii = covalent_radii()[crystals.numbers]
    volume = crystals.volumes / crystals.n_atoms
    mass = _mean(_element_table()[crystals.numbers, _PROPERTIES.index("mass")], crystals)
    nearest, ratio = np.empty(len(radii)), np.empty(len(radii))
    for pairs in pair_distances(crystals):
        atoms = crystals.offsets[pairs.crystals][:, None] + np.arange(int(pairs.j.max()) + 1)
        nearest[atoms] = nearest_distances(pairs)
        ratio[atoms] = nearest_distances(pairs, radii[atoms])
    nearest_mean, ratio_mean = _mean(nearest, crystals), _mean(ratio, crystals)
    return np.column_stack(
        [
            (counts > 0).sum(axis=1),
            np.linalg.norm(fractions, axis=1),
            volume,
            mass * ATOMIC_MASS_TO_G_PER_CM3 / volume,
            _mean(4 / 3 * np.pi * radii**3, crystals) / volume,
            nearest_mean,
            np.sqrt(_mean((nearest - nearest_mean[crystals.batch]) ** 2, crystals)),
            nearest_mean / np.cbrt(volume),
            ratio_mean,
            np.sqrt(_mean((ratio - ratio_mean[crystals.batch]) ** 2, crystals)),
        ]
    )


@lru_cache(maxsize=1)
def _element_table() -> FloatArray:
    """Properties and valence electrons by atomic number, shape `119 x 12`; what is unknown is the known mean."""
    from pymatgen.core import Element

    table = np.full((LAST_ELEMENT + 1, len(_PROPERTIES) + len(_SHELLS)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of every property it does not know
        for number in range(1, LAST_ELEMENT + 1):
            element = Element.from_Z(number)
            properties = (
                element.X,
                covalent_radii()[number],
                element.atomic_mass,
                element.group,
                element.row,
                element.mendeleev_no,
                element.ionization_energy,
                element.melting_point,
            )
            table[number, : len(_PROPERTIES)] = [np.nan if p is None else float(p) for p in properties]
            if "Electronic structure" in element.data:
                table[number, len(_PROPERTIES) :] = _valence(element.electronic_structure)
    known = np.nanmean(table, axis=0)
    return np.where(np.isfinite(table), table, known)


def _valence(structure: str) -> list[float]:
    """Electrons in s, p, d and f shells outside the noble-gas core of "[Ar].3d6.4s2"."""
    return [float(sum(int(n) for n in re.findall(rf"\d{shell}(\d+)", structure))) for shell in _SHELLS]

"""Distances between atoms of periodic crystals, for whole batches and any choice of cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, IntArray

_IMAGES = np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=np.float64)
_SELF = len(_IMAGES) // 2  # the image (0, 0, 0)
_PAIRS_AT_ONCE = 40_000  # 27 images of 3 numbers each: about 30 MB


@dataclass(frozen=True)
class PairDistances:
    """Shortest distances between all pairs of atoms of m crystals with equally many atoms.

    Attributes:
        crystals: Indices of the crystals in the batch, shape `m`.
        i: First atom of each pair, counted inside the crystal, shape `p`.
        j: Second atom, `i <= j`; where equal, the distance is that to the atom's own nearest image, shape `p`.
        distances: Shortest distance over all periodic images, angstrom, shape `m x p`.
    """

    crystals: IntArray
    i: IntArray
    j: IntArray
    distances: FloatArray


def minkowski_reduced(lattice: FloatArray) -> FloatArray:
    """The Minkowski-reduced basis of a lattice, rows, angstrom; its first row is a shortest lattice vector.

    Raises:
        ValueError: The lattice is singular, not finite, or too distorted for double precision.
    """
    import moyopy

    return np.asarray(moyopy.minkowski_reduce(lattice.tolist())[0], dtype=np.float64)


def pair_distances(crystals: Crystals) -> Iterator[PairDistances]:
    """Shortest distances between all pairs of atoms, all periodic images included, in groups of equal size.

    In a Minkowski-reduced cell the image nearest to a difference vector wrapped to [-1/2, 1/2] is one of the 27
    nearest (Nguyen and Stehle, ACM Trans. Algorithms 5, 46 (2009)), so no cutoff is needed and skewed cells are safe.

    Raises:
        ValueError: A lattice cannot be reduced (see `minkowski_reduced`).
    """
    for size in np.unique(crystals.n_atoms[crystals.n_atoms > 0]):
        which = np.flatnonzero(crystals.n_atoms == size)
        i, j = np.triu_indices(int(size))
        step = max(1, _PAIRS_AT_ONCE // len(i))
        for start in range(0, len(which), step):
            some = which[start : start + step]
            yield PairDistances(some, i, j, _distances(crystals, some, i, j))


def nearest_distances(pairs: PairDistances, radii: FloatArray | None = None) -> FloatArray:
    """The distance from each atom to its nearest neighbour, angstrom, shape `m x n_atoms`.

    Args:
        pairs: The distances of all pairs.
        radii: If given, shape `m x n_atoms`, distances are divided by the sum of the two atoms' radii first.
    """
    size = int(pairs.j.max()) + 1
    distances = pairs.distances
    if radii is not None:
        distances = distances / (radii[:, pairs.i] + radii[:, pairs.j])
    square = np.empty((len(distances), size, size))
    square[:, pairs.i, pairs.j] = distances
    square[:, pairs.j, pairs.i] = distances
    return np.asarray(square.min(axis=2))


def _distances(crystals: Crystals, which: IntArray, i: IntArray, j: IntArray) -> FloatArray:
    """Shortest distances of the pairs (i, j) in some crystals of equal size, shape `m x p`."""
    lattices = crystals.lattices[which]
    reduced = np.stack([minkowski_reduced(lattice) for lattice in lattices])
    atoms = crystals.offsets[which][:, None] + np.arange(int(crystals.n_atoms[which[0]]))
    frac = crystals.frac[atoms]
    change = lattices @ np.linalg.inv(reduced)  # fractional coordinates in the old cell times this: in the new one
    delta = (frac[:, j] - np.rint(frac[:, j]) - frac[:, i] + np.rint(frac[:, i])) @ change
    delta -= np.rint(delta)
    vectors = (delta @ reduced)[:, :, None, :] + (_IMAGES @ reduced)[:, None, :, :]
    squared = np.einsum("mpkx,mpkx->mpk", vectors, vectors)
    squared[:, i == j, _SELF] = np.inf  # an atom is no neighbour of itself, only of its images
    return np.asarray(np.sqrt(squared.min(axis=2)))

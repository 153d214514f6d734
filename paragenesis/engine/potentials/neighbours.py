"""Neighbour lists of periodic crystals, for the graph potentials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pymatgen.optimization.neighbors import find_points_in_spheres

from paragenesis.crystals import FloatArray, IntArray

_PERIODIC = np.array([1, 1, 1], dtype=np.int64)
_SAME_POINT = 1e-8  # angstrom; closer than this a point is its own image of zero shift


@dataclass(frozen=True, kw_only=True)
class Bonds:
    """The bonds of a batch, each pair of atoms (or images) once.

    Attributes:
        i: Atom at one end, counted through the batch, shape `E`.
        j: Atom at the other end, shape `E`.
        images: The lattice translation of `j`'s end, shape `E x 3`.
        vectors: From the image of `j` to `i`, angstrom, shape `E x 3`.
        crystal: The crystal a bond belongs to, shape `E`.
    """

    i: IntArray
    j: IntArray
    images: IntArray
    vectors: FloatArray
    crystal: IntArray


def find_bonds(positions: FloatArray, lattices: FloatArray, n_atoms: IntArray, cutoff: float) -> Bonds:
    """All bonds shorter than `cutoff`, each once: i < j, or i = j and the first non-zero shift positive.

    Args:
        positions: Cartesian, angstrom, shape `N x 3`; atoms may lie outside their cell.
        lattices: Lattice vectors as rows, angstrom, shape `n x 3 x 3`.
        n_atoms: Atoms per crystal, shape `n`.
        cutoff: Longest bond, angstrom.
    """
    parts: list[tuple[IntArray, IntArray, IntArray, FloatArray, IntArray]] = []
    first = 0
    for crystal, (n, lattice) in enumerate(zip(n_atoms.tolist(), np.ascontiguousarray(lattices), strict=True)):
        own = np.ascontiguousarray(positions[first : first + n])
        i, j, images, _ = find_points_in_spheres(own, own, r=cutoff, pbc=_PERIODIC, lattice=lattice, tol=_SAME_POINT)
        a, b, c = images.T
        once = (i < j) | ((i == j) & (np.where(a != 0, a, np.where(b != 0, b, c)) > 0))
        i, j, images = i[once], j[once], images[once]
        parts.append((i + first, j + first, images, own[i] - own[j] - images @ lattice, np.full(len(i), crystal)))
        first += n
    i, j, images, vectors, crystals = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Bonds(i=i, j=j, images=images.astype(np.int64), vectors=vectors, crystal=crystals)


def refuse_isolated(bonds: Bonds, n_atoms: IntArray, cutoff: float) -> None:
    """Raise where an atom has no bond: a graph potential knows nothing about it.

    Raises:
        ValueError: With the number of such atoms.
    """
    total = int(n_atoms.sum())
    bound = np.bincount(bonds.i, minlength=total) + np.bincount(bonds.j, minlength=total)
    alone = int(np.count_nonzero(bound == 0))
    if alone:
        raise ValueError(f"{alone} isolated atom(s): no neighbour within {cutoff:g} A")


def find_angles(bonds: Bonds, n_atoms: IntArray, cutoff: float) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """All pairs of short bonds that meet at an atom, each pair once.

    Returns:
        The short bonds (indices into `bonds`, shape `S`); then for each of `A` angles the atom, the two bonds (indices
        into the short ones, shape `A x 2`), and the sign (+1, -1) that makes both vectors point from the atom.
    """
    short = np.flatnonzero(np.einsum("ec,ec->e", bonds.vectors, bonds.vectors) < cutoff**2)
    ends = np.concatenate([bonds.i[short], bonds.j[short]])
    order = np.argsort(ends, kind="stable")
    centres = ends[order]
    last = np.cumsum(np.bincount(ends, minlength=int(n_atoms.sum())))[centres]  # where each atom's ends stop
    position = np.arange(len(order))
    partners = last - position - 1
    p = np.repeat(position, partners)
    q = p + 1 + np.arange(len(p)) - np.repeat(np.cumsum(partners) - partners, partners)
    one, two = order[p], order[q]
    k = max(len(short), 1)
    sign = np.where((one >= k) == (two >= k), 1, -1)
    return short, centres[p], np.stack([one % k, two % k], axis=1), sign

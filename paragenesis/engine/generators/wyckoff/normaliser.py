"""Other descriptions of one crystal: the changes of axes and origin that map a space group onto itself.

They form the group's affine normaliser (International Tables A, chapter 3.5). Those that belong to the group itself
change nothing, so one representative of each of their cosets is kept. Orthorhombic axes may be permuted, monoclinic
and triclinic ones mixed without end; of the latter only matrices of -1, 0 and 1 are considered. Along a polar axis
the origin is free; there only the shift 0 is listed. Mirror images count as the same crystal.

All shifts are whole numbers of 1/`GRID` of the cell, all matrices are whole, so that nothing is ever rounded.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from paragenesis.crystals import IntArray
from paragenesis.engine.generators.wyckoff.sites import (
    SpaceGroup,
    WyckoffSite,
    pivots,
    space_group,
    wyckoff_sites,
)

GRID = 960_000  # steps of coordinates: about 1e-5 A; a multiple of 24, so every special position lies on it
_STEP = 24  # all translations of space groups and normalisers are multiples of 1/24
_IDENTITY = np.eye(3, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Move:
    """A change of description that maps a space group onto itself: x comes to `rotation @ x + translation`.

    Attributes:
        group: Number of the space group.
        rotation: Shape `3 x 3`, whole.
        translation: In 24ths of the cell, shape `3`.
    """

    group: int
    rotation: IntArray
    translation: IntArray


@cache
def image_of(move: Move, site: int) -> tuple[int, IntArray, IntArray]:
    """The site that a site becomes by a move, and the matrix and shift, in steps, that take the parameters there."""
    group, sites = space_group(move.group), wyckoff_sites(move.group)
    linear, offset = _subspace(sites[site])
    images = _images(group, move.rotation @ linear, move.rotation @ offset + move.translation)
    for index, target in enumerate(sites):
        if target.multiplicity == sites[site].multiplicity and len(target.free) == len(sites[site].free):
            matrices, shifts = _covering(*images, target)
            if len(matrices):
                return index, matrices[0], shifts[0] % _STEP * (GRID // _STEP)
    raise AssertionError(f"a move of group {group.number} takes site {sites[site].letter} to no site")


@cache
def site_symmetries(number: int, site: int) -> tuple[IntArray, IntArray]:
    """All maps of a site's free parameters (at least one) that leave its orbit unchanged: matrices, shifts in steps."""
    own = wyckoff_sites(number)[site]
    matrices, shifts = _covering(*_images(space_group(number), *_subspace(own)), own)
    size = len(own.free)
    if size == 0:
        return matrices[:1], shifts[:1]
    both = np.concatenate([matrices.reshape(len(matrices), -1), shifts % _STEP * (GRID // _STEP)], axis=1)
    both = np.unique(both, axis=0)
    return both[:, : size * size].reshape(-1, size, size), both[:, size * size :]


@cache
def rotations(number: int) -> IntArray:
    """The matrices that moves of a group may have, one for each coset of its point group, identity first."""
    group = space_group(number)
    points = np.unique(group.rotations, axis=0)
    candidates = _candidates(group.family)
    keep, seen = [], set()
    known = {point.tobytes() for point in points}
    for matrix in candidates:
        inverse = inverse_of(matrix)
        if all((matrix @ point @ inverse).tobytes() in known for point in points):
            coset = min((matrix @ point).tobytes() for point in points)
            if coset not in seen:
                seen.add(coset)
                keep.append(matrix)
    return np.array(keep)


@cache
def moves(number: int, index: int) -> tuple[Move, ...]:
    """The moves of a group with one of its `rotations`; none if no shift of the origin goes with it."""
    group = space_group(number)
    matrix = rotations(number)[index]
    return tuple(Move(number, matrix, shift) for shift in _shifts(group, matrix))


@cache
def site_permutations(number: int) -> IntArray:
    """All ways in which the moves of a group exchange its sites, one a row, the identity first."""
    group, every = space_group(number), range(len(wyckoff_sites(number)))
    matrices = _SPANNING if group.family == "triclinic" else rotations(number)
    changes = [Move(number, matrix, shift) for matrix in matrices for shift in _shifts(group, matrix)]
    generators = {tuple(image_of(move, site)[0] for site in every) for move in changes}
    found = {tuple(range(len(wyckoff_sites(number))))}
    fresh = list(found)
    while fresh:
        fresh = list({tuple(g[s] for s in one) for one in fresh for g in generators} - found)
        found.update(fresh)
    return np.array(sorted(found), dtype=np.int64)


def inverse_of(matrix: IntArray) -> IntArray:
    """The inverse of a whole matrix of determinant 1 or -1."""
    return np.asarray(np.rint(np.linalg.inv(matrix)).astype(np.int64))


# --- the moves -------------------------------------------------------------------------------------------------------

# These matrices generate all whole matrices of determinant 1 or -1.
_SPANNING = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
        [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
    ]
)


@cache
def _candidates(family: str) -> IntArray:
    """The matrices that may map a group of a crystal family onto itself, identity first."""
    if family == "hexagonal":
        sixth, mirror = np.array([[1, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
        turns = [np.linalg.matrix_power(sixth, n) for n in range(6)]
        found = [s * t @ m for s in (1, -1) for m in (_IDENTITY, mirror) for t in turns]
        return np.array(found)
    if family in ("triclinic", "monoclinic"):
        any_, two = range(-1, 2), range(-2, 3)  # centred monoclinic cells may need a + 2c
        choices = [any_] * 9 if family == "triclinic" else [two, [0], two, [0], (1, -1), [0], two, [0], two]
        every = np.array(list(itertools.product(*choices)), dtype=np.int64).reshape(-1, 3, 3)
        every = every[np.abs(np.rint(np.linalg.det(every))) == 1]
    else:
        signs = np.array(list(itertools.product((1, -1), repeat=3)))
        every = np.array([_IDENTITY[list(p)] * s for p in itertools.permutations(range(3)) for s in signs])
        if family == "tetragonal":
            every = every[np.abs(every[:, 2, 2]) == 1]
    order = np.argsort(np.abs(every - _IDENTITY).sum(axis=(1, 2)), kind="stable")
    return np.asarray(every[order])


def _shifts(group: SpaceGroup, matrix: IntArray) -> IntArray:
    """The shifts of the origin, 24ths, with which a matrix maps the group onto itself; one of each coset.

    The operation (R, v) becomes (R', M v + t - R' t) with R' = M R M^-1, which must be in the group.
    """
    grids = [range(1) if axis in group.polar else _grid(group.family) for axis in range(3)]
    shifts = np.array(list(itertools.product(*grids)), dtype=np.int64)
    known = {r.tobytes(): _in_steps(t) for r, t in zip(group.rotations[::-1], group.translations[::-1], strict=True)}
    pure = _in_steps(group.translations[np.all(group.rotations == _IDENTITY, axis=(1, 2))]) % _STEP
    codes = pure @ [_STEP * _STEP, _STEP, 1]
    if not np.isin(pure @ matrix.T % _STEP @ [_STEP * _STEP, _STEP, 1], codes).all():
        return np.zeros((0, 3), dtype=np.int64)  # it would map the centred lattice onto another one
    inverse = inverse_of(matrix)
    for rotation, translation in _one_of_each_rotation(group):
        image = matrix @ rotation @ inverse
        if image.tobytes() not in known:
            return np.zeros((0, 3), dtype=np.int64)
        moved = matrix @ translation + shifts - shifts @ image.T - known[image.tobytes()]
        shifts = shifts[np.isin(moved % _STEP @ [_STEP * _STEP, _STEP, 1], codes)]
    same = (shifts[:, None] + pure) % _STEP @ [_STEP * _STEP, _STEP, 1]  # a centring translation changes nothing
    _, first = np.unique(same.min(axis=1), return_index=True)
    return np.asarray(shifts[np.sort(first)])


def _one_of_each_rotation(group: SpaceGroup) -> list[tuple[IntArray, IntArray]]:
    """One operation for each rotation of a group, translations in 24ths."""
    _, first = np.unique(group.rotations, axis=0, return_index=True)
    return [(group.rotations[i], _in_steps(group.translations[i])) for i in first]


def _grid(family: str) -> range:
    """Coordinates that the origin may be shifted by, 24ths: multiples of 1/12 on hexagonal axes, else of 1/8."""
    return range(0, _STEP, 2 if family == "hexagonal" else 3)


def _images(group: SpaceGroup, linear: IntArray, offset: IntArray) -> tuple[IntArray, IntArray]:
    """The images of an affine subspace `linear @ u + offset` (24ths) under a group: `n x 3 x f` and `n x 3`."""
    return group.rotations @ linear, group.rotations @ offset + _in_steps(group.translations)


def _covering(linear: IntArray, offset: IntArray, site: WyckoffSite) -> tuple[IntArray, IntArray]:
    """Which of some subspaces (`n x 3 x f` and `n x 3`) are the representative one of a site, modulo the lattice.

    Returns:
        For each that is, the `matrix` and `shift` (24ths) with which its point u has the site's parameters
        `matrix @ u + shift`, shapes `k x f x f` and `k x f`.
    """
    target, origin = _subspace(site)
    rows, signs = pivots(site)
    apart = offset - origin
    matrices, shifts = signs[:, None] * linear[:, rows, :], signs * apart[:, rows]
    fits = np.all(target @ matrices == linear, axis=(1, 2)) & np.all((apart - shifts @ target.T) % _STEP == 0, axis=1)
    return matrices[fits], shifts[fits]


@cache
def _subspace(site: WyckoffSite) -> tuple[IntArray, IntArray]:
    """A site's representative subspace: its used columns, whole, and its offset in 24ths."""
    return np.rint(site.linear[:, list(site.free)]).astype(np.int64), _in_steps(site.offset)


def _in_steps(values: np.ndarray) -> IntArray:  # type: ignore[type-arg]
    """Fractions of the cell in 24ths."""
    return np.asarray(np.rint(np.asarray(values) * _STEP).astype(np.int64))

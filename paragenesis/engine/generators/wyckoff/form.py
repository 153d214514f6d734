"""A crystal by its symmetry: space group, occupied Wyckoff sites, cell and free parameters.

A Wyckoff form is short (the parameters that symmetry leaves free, nothing else), and every form is a crystal of at
least its space group. One crystal has many forms, because origin and axes may be chosen anew (`equivalents`);
`canonical` picks one of them. Parameters are whole multiples of 1/`GRID` of the cell, so that changing the description
is exact. moyopy finds the symmetry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, IntArray
from paragenesis.engine.generators.wyckoff.cell import Cell, cells_of, metric_of, snapped
from paragenesis.engine.generators.wyckoff.normaliser import (
    GRID,
    Move,
    image_of,
    inverse_of,
    moves,
    rotations,
    site_permutations,
)
from paragenesis.engine.generators.wyckoff.orbits import Orbit, anchored, electronegativity, moved, order, smallest
from paragenesis.engine.generators.wyckoff.sites import pivots, space_group, wyckoff_sites
from paragenesis.errors import InputError

if TYPE_CHECKING:
    import moyopy

_OFF_SITE = 0.02  # angstrom; how far a refined atom may be from the site that its letter names
_SAME_LENGTH = 1e-5  # relative; cell choices whose lengths differ by less are equally short
_ALMOST_RIGHT = 1e-4  # degrees


@dataclass(frozen=True)
class WyckoffForm:
    """A crystal by its symmetry.

    Attributes:
        group: Space group, 1 to 230, in the setting of `sites`.
        sites: Index into `wyckoff_sites(group)`, one per orbit.
        numbers: Atomic number, one per orbit.
        cell: a, b, c (angstrom), alpha, beta, gamma (degrees) of the conventional cell.
        parameters: The free parameters of each orbit, in [0, 1).
    """

    group: int
    sites: tuple[int, ...]
    numbers: tuple[int, ...]
    cell: tuple[float, ...]
    parameters: tuple[tuple[float, ...], ...]


# --- crystal to form -------------------------------------------------------------------------------------------------


def wyckoff_forms(crystals: Crystals, symprec: float = 0.1) -> list[WyckoffForm | str]:
    """The Wyckoff form of each of n crystals, or why there is none.

    Args:
        crystals: Crystals in any cell.
        symprec: How far atoms may be from their symmetric places, angstrom; the form has them there.
    """
    import moyopy

    setting = moyopy.Setting.standard()
    out: list[WyckoffForm | str] = []
    for i in range(len(crystals)):
        if not crystals.n_atoms[i]:
            out.append("it has no atoms")
            continue
        atoms = crystals.atoms_of(i)
        cell = (crystals.lattices[i].tolist(), crystals.frac[atoms].tolist(), crystals.numbers[atoms].tolist())
        try:
            dataset = moyopy.MoyoDataset(moyopy.Cell(*cell), symprec=symprec, setting=setting)
        except ValueError as error:  # no symmetry was found, or the cell is no cell
            out.append(f"no space group at {symprec:g} A: {error}")
            continue
        out.append(_form_of(dataset))
    return out


def _form_of(dataset: moyopy.MoyoDataset) -> WyckoffForm | str:
    """The form of what moyopy found."""
    group = int(dataset.number)
    basis, points, letters, numbers = _representatives(dataset)
    known = {site.letter: index for index, site in enumerate(wyckoff_sites(group))}
    orbits: list[Orbit] = []
    for point, letter, number in zip(points, letters, numbers, strict=True):
        steps, off = _on_site(group, known[letter], point, basis)
        if off > _OFF_SITE:
            return f"an atom is {off:.3f} A off site {letter} of group {group}, which moyopy names for it"
        orbits.append((known[letter], number, smallest(group, known[letter], steps)))
    atoms = sum(wyckoff_sites(group)[site].multiplicity for site, _, _ in orbits)
    if atoms != dataset.std_cell.num_atoms:
        return f"its orbits make {atoms} atoms in the conventional cell, not {dataset.std_cell.num_atoms}"
    cell = cells_of((basis @ basis.T)[None])[0]
    return _form(group, orbits, snapped(cell, space_group(group).family))


def _representatives(dataset: moyopy.MoyoDataset) -> tuple[FloatArray, FloatArray, list[str], list[int]]:
    """The conventional basis, and of one atom per orbit the coordinates in it, the Wyckoff letter and the element."""
    basis, primitive = np.array(dataset.std_cell.basis), dataset.prim_std_cell
    inside = np.array(primitive.positions) @ np.array(primitive.basis) @ np.linalg.inv(basis)
    place = dataset.mapping_std_prim
    first = {place[orbit]: i for i, orbit in reversed(list(enumerate(dataset.orbits)))}
    atoms = sorted(first)
    letters = [dataset.wyckoffs[first[atom]] for atom in atoms]
    return basis, inside[[place[first[a]] for a in atoms]], letters, [int(primitive.numbers[a]) for a in atoms]


def _on_site(group: int, site: int, point: FloatArray, basis: FloatArray) -> tuple[IntArray, float]:
    """The parameters, in steps, of the image of a point nearest to a site, and its distance from it in angstrom."""
    own, symmetry = wyckoff_sites(group)[site], space_group(group)
    rows, signs = pivots(own)
    apart = symmetry.rotations @ point + symmetry.translations - own.offset
    values = signs * apart[:, rows]
    left = apart - values @ own.linear[:, list(own.free)].T
    off = np.linalg.norm((left - np.rint(left)) @ basis, axis=1)
    best = int(np.argmin(np.rint(off * 1e6)))  # the first of equally near ones
    return np.rint(values[best] * GRID).astype(np.int64) % GRID, float(off[best])


# --- other descriptions ----------------------------------------------------------------------------------------------


def equivalents(form: WyckoffForm) -> list[WyckoffForm]:
    """The same crystal in its other descriptions: origins and axes that its space group leaves open.

    The form itself comes first, as it is. Of monoclinic and triclinic cells only the shortest are given; along polar
    axes the origin is put on atoms of the rarest kind. Mirror images count as the same crystal.

    Raises:
        InputError: No cell has the form's angles.
    """
    seen = {_rounded(form)}
    out = [form]
    for other in _others(form):
        key = _rounded(other)
        if key not in seen:
            seen.add(key)
            out.append(other)
    return out


def canonical(form: WyckoffForm) -> WyckoffForm:
    """The same crystal's description with the smallest sites, then elements, parameters and cell.

    Orbits are sorted by site, electronegativity and parameters. `canonical` of an equivalent is the same form.

    Raises:
        InputError: No cell has the form's angles.
    """
    settled = _settled(form)
    orbits = _orbits(settled)
    kept = _kept_moves(settled)
    heads = [_head(settled, move) for move in kept]
    first = min(heads)
    best: tuple[tuple[tuple[int, ...], ...], Cell] | None = None
    chosen = settled
    for move, head in zip(kept, heads, strict=True):
        if head != first:
            continue
        cell = _moved_cell(settled.cell, move, space_group(form.group).family)
        for own in anchored(form.group, moved(form.group, orbits, move)):
            key = (tuple(orbit[2] for orbit in own), tuple(round(x, 4) for x in cell))
            if best is None or key < best:
                best, chosen = key, _form(form.group, own, cell)
    return chosen


def template_key(form: WyckoffForm) -> str:
    """The space group and its occupied sites, elements anonymous: "225|a,b"; equal for all equivalents of a form.

    Letters of one element stand together, the smallest of all equivalent descriptions is taken.
    """
    sites = site_permutations(form.group)[:, np.array(form.sites, dtype=np.int64)]
    kinds = [np.flatnonzero(np.array(form.numbers) == number) for number in dict.fromkeys(form.numbers)]
    best = min(sorted(sorted(row[kind].tolist()) for kind in kinds) for row in np.unique(sites, axis=0))
    letters = [site.letter for site in wyckoff_sites(form.group)]
    return f"{form.group}|" + ",".join("".join(letters[site] for site in kind) for kind in best)


def crystal_key(form: WyckoffForm) -> str:
    """The space group and its occupied sites with their elements: "225|11:a,17:b|"; equal for all equivalents."""
    numbers = np.array(form.numbers, dtype=np.int64)
    sites = site_permutations(form.group)[:, np.array(form.sites, dtype=np.int64)]
    best = min(sorted(zip(row.tolist(), numbers.tolist(), strict=True)) for row in np.unique(sites, axis=0))
    letters = [site.letter for site in wyckoff_sites(form.group)]
    return f"{form.group}|" + ",".join(f"{number}:{letters[site]}" for site, number in best) + "|"


def _others(form: WyckoffForm) -> Iterator[WyckoffForm]:
    """All descriptions of a crystal in its shortest cells, with repetitions."""
    settled = _settled(form)
    orbits = _orbits(settled)
    for move in _kept_moves(settled):
        cell = _moved_cell(settled.cell, move, space_group(form.group).family)
        for own in anchored(form.group, moved(form.group, orbits, move)):
            yield _form(form.group, own, cell)


# --- cells -----------------------------------------------------------------------------------------------------------


def _settled(form: WyckoffForm) -> WyckoffForm:
    """The form in one of its shortest cells; only monoclinic and triclinic ones have longer ones.

    Raises:
        InputError: No cell has these angles.
    """
    family = space_group(form.group).family
    if family not in ("monoclinic", "triclinic"):
        return form
    if not np.linalg.det(metric_of(np.array([form.cell]))[0]) > 0:
        angles = ", ".join(f"{angle:g}" for angle in form.cell[3:])
        raise InputError(f"no cell has the angles {angles} degrees; give angles that close a parallelepiped")
    while True:
        allowed, cells = _cell_choices(form)
        lengths = cells[:, :3].sum(axis=1)
        best = int(np.argmin(lengths))
        if lengths[best] >= lengths[0] * (1 - _SAME_LENGTH):
            return form
        move = moves(form.group, int(allowed[best]))[0]
        form = _form(form.group, moved(form.group, _orbits(form), move), _moved_cell(form.cell, move, family))


def _kept_moves(form: WyckoffForm) -> list[Move]:
    """The moves of a settled form that keep its cell among the shortest and tidiest ones."""
    if space_group(form.group).family not in ("monoclinic", "triclinic"):
        return [move for index in range(len(rotations(form.group))) for move in moves(form.group, index)]
    allowed, cells = _cell_choices(form)
    untidy = _untidiness(cells, space_group(form.group).family)
    return [move for index in allowed[untidy == untidy.min()] for move in moves(form.group, int(index))]


def _cell_choices(form: WyckoffForm) -> tuple[IntArray, FloatArray]:
    """The matrices that a form's group allows and the cells that they lead to, the present one first."""
    allowed = _allowed(form.group)
    inverse = np.linalg.inv(rotations(form.group)[allowed])
    metric = metric_of(np.array([form.cell]))[0]
    return allowed, cells_of(np.einsum("nji,jk,nkl->nil", inverse, metric, inverse))


@cache
def _allowed(group: int) -> IntArray:
    """The indices of the matrices for which there are moves."""
    if group <= 2:
        return np.arange(len(rotations(group)))  # any matrix does, and there are thousands
    return np.array([index for index in range(len(rotations(group))) if moves(group, index)])


def _untidiness(cells: FloatArray, family: str) -> FloatArray:
    """How far cells are from the customary choice: the shortest, in order of length, angles all obtuse or all acute."""
    lengths, angles = cells[:, :3], cells[:, 3:]
    slack = 1 + _SAME_LENGTH
    long = lengths.sum(axis=1) > lengths.sum(axis=1).min() * slack
    a, b, c = lengths.T
    if family == "monoclinic":
        disorder, odd = (a > c * slack).astype(float), np.asarray(cells[:, 4] < 90 - _ALMOST_RIGHT)
    else:
        disorder = (a > b * slack).astype(float) + (b > c * slack)
        acute, obtuse = (angles < 90 + _ALMOST_RIGHT).all(axis=1), (angles > 90 - _ALMOST_RIGHT).all(axis=1)
        odd = np.asarray(~(acute | obtuse))
    return np.asarray(long * 100.0 + disorder * 10.0 + odd)


def _moved_cell(cell: Cell, move: Move, family: str) -> Cell:
    """A cell in another description."""
    metric = metric_of(np.array([cell]))[0]
    inverse = inverse_of(move.rotation).astype(np.float64)
    changed = inverse.T @ metric @ inverse
    if np.allclose(changed, metric, rtol=1e-9, atol=1e-9):
        return cell
    return snapped(cells_of(changed[None])[0], family)


# --- orders ----------------------------------------------------------------------------------------------------------


def _form(group: int, orbits: Sequence[Orbit], cell: Cell) -> WyckoffForm:
    """The form of orbits."""
    return WyckoffForm(
        group=group,
        sites=tuple(site for site, _, _ in orbits),
        numbers=tuple(number for _, number, _ in orbits),
        cell=cell,
        parameters=tuple(tuple(step / GRID for step in steps) for _, _, steps in orbits),
    )


def _orbits(form: WyckoffForm) -> list[Orbit]:
    """The orbits of a form, parameters in steps."""
    steps = (tuple(round(value * GRID) % GRID for value in values) for values in form.parameters)
    return list(zip(form.sites, form.numbers, steps, strict=True))


def _head(form: WyckoffForm, move: Move) -> tuple[tuple[int, float, int], ...]:
    """Sites and elements of a form after a move, sorted: what is compared first."""
    both = zip(form.sites, form.numbers, strict=True)
    return tuple(sorted((image_of(move, site)[0], electronegativity(number), number) for site, number in both))


def _rounded(form: WyckoffForm) -> tuple[tuple[Orbit, ...], Cell]:
    """What two forms that are alike have in common."""
    return tuple(sorted(_orbits(form), key=order)), tuple(round(value, 4) for value in form.cell)

"""A crystal in Wyckoff form as a sequence of tokens, and back.

    START, space group, (site, element)*, END, volume, axis ratios and angles that are free, free coordinates

Orbits come in the order of their sites (a, b, c, ...) and, on one site, by electronegativity; the coordinates follow
in the order of the orbits. The volume is told as its logarithm relative to the volume predicted for the composition
(`volume`), the axis ratios as logarithms, angles in degrees, coordinates in units of the cell; all in bins. One flat
vocabulary holds them all, and which part of it may come next, the slot, follows from what came before: so every
sequence that obeys the slots is a crystal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
import numpy.typing as npt

from paragenesis.crystals import Crystals, FloatArray, IntArray
from paragenesis.engine.generators.volume import predict_volumes
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.sites import WyckoffSite, wyckoff_sites


class Slot(IntEnum):
    """What a token says."""

    START = 0
    GROUP = 1
    SITE = 2
    ELEMENT = 3
    VOLUME = 4
    RATIO_B = 5
    RATIO_C = 6
    ALPHA = 7
    BETA = 8
    GAMMA = 9
    COORDINATE = 10


GROUPS, SITES, ELEMENTS = 230, 28, 103  # a group has at most 27 sites; the last of the 28 tokens says END
END = SITES - 1
VOLUMES, RATIOS, ANGLES, COORDINATES = 64, 96, 110, 64
VOLUME_STEP, RATIO_STEP, ANGLE_STEP = 0.025, 0.05, 1.0  # of the logarithm, of the logarithm, degrees
RATIO_LOWEST, ANGLE_LOWEST = -2.0, 40.0
MAX_ORBITS = 20

# where each slot's tokens lie in the flat vocabulary; ratios share theirs, and so do angles
GROUP_AT = 1
SITE_AT = GROUP_AT + GROUPS
ELEMENT_AT = SITE_AT + SITES
VOLUME_AT = ELEMENT_AT + ELEMENTS
RATIO_AT = VOLUME_AT + VOLUMES
ANGLE_AT = RATIO_AT + RATIOS
COORDINATE_AT = ANGLE_AT + ANGLES
VOCABULARY = COORDINATE_AT + COORDINATES

BLOCKS: dict[Slot, tuple[int, int]] = {
    Slot.START: (0, 1),
    Slot.GROUP: (GROUP_AT, GROUPS),
    Slot.SITE: (SITE_AT, SITES),
    Slot.ELEMENT: (ELEMENT_AT, ELEMENTS),
    Slot.VOLUME: (VOLUME_AT, VOLUMES),
    Slot.RATIO_B: (RATIO_AT, RATIOS),
    Slot.RATIO_C: (RATIO_AT, RATIOS),
    Slot.ALPHA: (ANGLE_AT, ANGLES),
    Slot.BETA: (ANGLE_AT, ANGLES),
    Slot.GAMMA: (ANGLE_AT, ANGLES),
    Slot.COORDINATE: (COORDINATE_AT, COORDINATES),
}


@dataclass(frozen=True, eq=False)
class GroupTable:
    """What the 230 space groups allow, as arrays; row 0 is unused.

    Attributes:
        exists: Whether a group has a site, shape `231 x 28`; END always exists.
        in_primitive: Atoms of a site in the primitive cell, shape `231 x 28`.
        free: Free parameters of a site, shape `231 x 28`.
        symmetry: Number of its site symmetry's name, shape `231 x 28`.
        symmetries: How many names there are.
        cell: The free slots of the cell after the volume, by group.
    """

    exists: npt.NDArray[np.bool_]
    in_primitive: IntArray
    free: IntArray
    symmetry: IntArray
    symmetries: int
    cell: tuple[tuple[Slot, ...], ...]


@cache
def group_table() -> GroupTable:
    """The table, made once."""
    exists = np.zeros((GROUPS + 1, SITES), dtype=np.bool_)
    count, free, symmetry = (np.zeros((GROUPS + 1, SITES), dtype=np.int64) for _ in range(3))
    names: dict[str, int] = {}
    for group in range(1, GROUPS + 1):
        for i, site in enumerate(wyckoff_sites(group)):
            exists[group, i] = True
            count[group, i], free[group, i] = site.in_primitive, len(site.free)
            symmetry[group, i] = names.setdefault(site.site_symmetry, len(names) + 1)
    exists[1:, END] = True
    return GroupTable(exists, count, free, symmetry, len(names) + 1, ((), *map(free_cell_slots, range(1, GROUPS + 1))))


def free_cell_slots(group: int) -> tuple[Slot, ...]:
    """The free numbers of a group's conventional cell beside its volume."""
    if group <= 2:
        return (Slot.RATIO_B, Slot.RATIO_C, Slot.ALPHA, Slot.BETA, Slot.GAMMA)
    if group <= 15:
        return (Slot.RATIO_B, Slot.RATIO_C, Slot.BETA)
    if group <= 74:
        return (Slot.RATIO_B, Slot.RATIO_C)
    return (Slot.RATIO_C,) if group <= 194 else ()


@dataclass(frozen=True, eq=False)
class Sequences:
    """The tokens of n crystals, T of them at most; padded with START behind the end.

    Attributes:
        tokens: Numbers in the flat vocabulary, shape `n x T`.
        slots: What each token says, shape `n x T`; START where there is none.
        groups: Space groups, shape `n`.
        lengths: Tokens of each, START included, shape `n`.
        atoms: Atoms in the primitive cell up to and including this token, shape `n x T`.
        lowest: For a site token, the first site still allowed there, shape `n x T`.
        site: For a coordinate, the site of its orbit, shape `n x T`.
        element: For a coordinate, the atomic number of its orbit, shape `n x T`.
        axis: For a coordinate, which of x, y, z, shape `n x T`.
    """

    tokens: IntArray
    slots: IntArray
    groups: IntArray
    lengths: IntArray
    atoms: IntArray
    lowest: IntArray
    site: IntArray
    element: IntArray
    axis: IntArray

    def __len__(self) -> int:
        """How many crystals there are."""
        return len(self.groups)

    def rows(self, index: IntArray) -> Sequences:
        """Some of the crystals, cut to the longest of them."""
        end = int(self.lengths[index].max())
        table = {name: getattr(self, name)[index, :end] for name in _TABLES}
        return Sequences(groups=self.groups[index], lengths=self.lengths[index], **table)


_TABLES = ("tokens", "slots", "atoms", "lowest", "site", "element", "axis")


def encode(forms: Sequence[WyckoffForm]) -> Sequences:
    """Forms as tokens."""
    relative = np.log(cell_volumes(forms) / predicted_volumes(forms))
    rows = [_encode_one(form, float(v)) for form, v in zip(forms, relative, strict=True)]
    longest = max((len(row) for row in rows), default=1)
    out = np.zeros((len(rows), longest, len(_TABLES)), dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return Sequences(
        groups=np.array([form.group for form in forms], dtype=np.int64),
        lengths=np.array([len(row) for row in rows], dtype=np.int64),
        **{name: out[:, :, k] for k, name in enumerate(_TABLES)},
    )


def _encode_one(form: WyckoffForm, relative_volume: float) -> list[tuple[int, ...]]:
    """The rows (token, slot, atoms, lowest, site, element, axis) of one crystal."""
    sites = wyckoff_sites(form.group)
    rows = [(0, int(Slot.START), 0, 0, 0, 0, 0), (GROUP_AT + form.group - 1, int(Slot.GROUP), 0, 0, 0, 0, 0)]
    atoms, lowest = 0, 0
    for index, number in zip(form.sites, form.numbers, strict=True):
        rows.append((SITE_AT + index, Slot.SITE, atoms, lowest, 0, 0, 0))
        atoms += sites[index].in_primitive
        rows.append((ELEMENT_AT + number - 1, Slot.ELEMENT, atoms, 0, index, 0, 0))
        lowest = index + (not sites[index].free)
    rows.append((SITE_AT + END, Slot.SITE, atoms, lowest, 0, 0, 0))
    values = cell_numbers(form.cell)
    values[Slot.VOLUME] = relative_volume
    for slot in (Slot.VOLUME, *free_cell_slots(form.group)):
        rows.append((BLOCKS[slot][0] + binned(slot, values[slot]), slot, atoms, 0, 0, 0, 0))
    for index, number, parameters in zip(form.sites, form.numbers, form.parameters, strict=True):
        for axis, value in zip(sites[index].free, parameters, strict=True):
            token = COORDINATE_AT + round(value * COORDINATES) % COORDINATES
            rows.append((token, Slot.COORDINATE, atoms, 0, index, number, axis))
    return [tuple(map(int, row)) for row in rows]


def in_order(form: WyckoffForm) -> WyckoffForm:
    """The form with its orbits in the order of the tokens."""
    order = sorted(
        range(len(form.sites)),
        key=lambda i: (form.sites[i], electronegativity(form.numbers[i]), form.numbers[i], form.parameters[i]),
    )
    return WyckoffForm(
        group=form.group,
        sites=tuple(form.sites[i] for i in order),
        numbers=tuple(form.numbers[i] for i in order),
        cell=form.cell,
        parameters=tuple(form.parameters[i] for i in order),
    )


# --- numbers and bins ---------------------------------------------------------------------------------------------


def binned(slot: Slot, value: float) -> int:
    """The bin of a value: relative log volume, log ratio, or degrees."""
    if slot == Slot.VOLUME:
        place, count = value / VOLUME_STEP + VOLUMES / 2, VOLUMES
    elif slot in (Slot.RATIO_B, Slot.RATIO_C):
        place, count = (value - RATIO_LOWEST) / RATIO_STEP, RATIOS
    else:
        place, count = (value - ANGLE_LOWEST) / ANGLE_STEP, ANGLES
    return min(max(round(place), 0), count - 1)


def unbinned(slot: Slot, bins: FloatArray) -> FloatArray:
    """The values of bins, which may be fractional."""
    if slot == Slot.VOLUME:
        return (bins - VOLUMES / 2) * VOLUME_STEP
    if slot in (Slot.RATIO_B, Slot.RATIO_C):
        return bins * RATIO_STEP + RATIO_LOWEST
    return bins * ANGLE_STEP + ANGLE_LOWEST


def cell_numbers(cell: Sequence[float]) -> dict[Slot, float]:
    """Log axis ratios and angles of a cell (a, b, c in angstrom, angles in degrees)."""
    a, b, c, alpha, beta, gamma = cell
    return {
        Slot.RATIO_B: math.log(b / a),
        Slot.RATIO_C: math.log(c / a),
        Slot.ALPHA: alpha,
        Slot.BETA: beta,
        Slot.GAMMA: gamma,
    }


def cells_from_numbers(groups: IntArray, volumes: FloatArray, numbers: dict[Slot, FloatArray]) -> FloatArray:
    """Conventional cells from their volumes and free numbers.

    Args:
        groups: Space groups, shape `n`.
        volumes: Of the conventional cells, A^3, shape `n`.
        numbers: Log ratios and angles, shape `n` each; what a group does not leave free is not looked at.

    Returns:
        a, b, c (angstrom) and alpha, beta, gamma (degrees), shape `n x 6`; NaN where no cell has such angles.
    """
    b = np.exp(np.where(groups <= 74, numbers[Slot.RATIO_B], 0.0))
    c = np.exp(np.where(groups <= 194, numbers[Slot.RATIO_C], 0.0))
    alpha = np.where(groups <= 2, numbers[Slot.ALPHA], 90.0)
    beta = np.where(groups <= 15, numbers[Slot.BETA], 90.0)
    hexagonal = (groups >= 143) & (groups <= 194)
    gamma = np.where(groups <= 2, numbers[Slot.GAMMA], np.where(hexagonal, 120.0, 90.0))
    x, y, z = np.cos(np.radians([alpha, beta, gamma]))
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.sqrt(1 - x * x - y * y - z * z + 2 * x * y * z)
        a = np.cbrt(volumes / (b * c * unit))
    return np.column_stack([a, a * b, a * c, alpha, beta, gamma])


def cell_volumes(forms: Sequence[WyckoffForm]) -> FloatArray:
    """Volumes of the primitive cells, A^3, shape `n`."""
    cells = np.array([form.cell for form in forms], dtype=np.float64).reshape(-1, 6)
    x, y, z = np.cos(np.radians(cells[:, 3:])).T
    whole = cells[:, :3].prod(1) * np.sqrt(1 - x * x - y * y - z * z + 2 * x * y * z)
    return np.asarray(whole / np.array([primitive_share(form.group) for form in forms]), dtype=np.float64)


def predicted_volumes(forms: Sequence[WyckoffForm]) -> FloatArray:
    """Volumes predicted for the compositions of the primitive cells, A^3, shape `n`."""
    numbers, counts = [], []
    for form in forms:
        table = group_table().in_primitive[form.group]
        numbers.append(np.repeat(form.numbers, table[list(form.sites)]))
        counts.append(len(numbers[-1]))
    total = sum(counts)
    crystals = Crystals(
        ids=tuple(map(str, range(len(forms)))),
        n_atoms=np.array(counts, dtype=np.int64),
        numbers=np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int64),
        frac=np.zeros((total, 3)),
        lattices=np.broadcast_to(np.eye(3), (len(forms), 3, 3)),
    )
    return predict_volumes(crystals)


@cache
def primitive_share(group: int) -> int:
    """Primitive cells in the conventional cell: 1, 2, 3 or 4."""
    site: WyckoffSite = wyckoff_sites(group)[-1]
    return site.multiplicity // site.in_primitive


@cache
def electronegativity(number: int) -> float:
    """Pauling's electronegativity; 0 where there is none."""
    from ase.data import chemical_symbols
    from pymatgen.core import Element

    value = Element(chemical_symbols[number]).data.get("X")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0

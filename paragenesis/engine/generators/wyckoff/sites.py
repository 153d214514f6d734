"""Wyckoff positions and operations of the 230 space groups, in one setting.

The setting is moyopy's `Setting.standard()`: unique axis b and cell choice 1 for monoclinic groups, hexagonal axes for
rhombohedral ones, origin choice 2 for centrosymmetric ones; all coordinates are of the conventional cell. The table
`sites.json` beside this file holds one representative of each of the 1,731 positions; `scripts/wyckoff_table.py`
computes it anew. The operations come from moyopy.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.errors import InputError

TABLE = Path(__file__).with_name("sites.json")
GROUPS = range(1, 231)
_AXES = "xyz"
_TERM = re.compile(r"([+-]?)(\d+(?:/\d+)?)?([xyz])?")

# Rows are the primitive lattice vectors in the conventional basis (International Tables A, table 1.5.1.1).
_PRIMITIVE = {
    "P": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "A": ((1, 0, 0), (0, 1 / 2, -1 / 2), (0, 1 / 2, 1 / 2)),
    "C": ((1 / 2, -1 / 2, 0), (1 / 2, 1 / 2, 0), (0, 0, 1)),
    "I": ((-1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (1 / 2, 1 / 2, -1 / 2)),
    "F": ((0, 1 / 2, 1 / 2), (1 / 2, 0, 1 / 2), (1 / 2, 1 / 2, 0)),
    "R": ((2 / 3, 1 / 3, 1 / 3), (-1 / 3, 1 / 3, 1 / 3), (-1 / 3, -2 / 3, 1 / 3)),
}


@dataclass(frozen=True, eq=False)
class WyckoffSite:
    """A Wyckoff position: the points `linear @ (x, y, z) + offset` and their images under the group.

    Attributes:
        letter: Its letter, "a" ... "z", then "A" (group 47 has 27 positions).
        multiplicity: Points in the conventional cell.
        in_primitive: Points in the primitive cell.
        site_symmetry: Oriented site-symmetry symbol, such as "-43m" or "m.2m".
        linear: Shape `3 x 3`; columns of coordinates that the position does not use are zero.
        offset: Shape `3`.
        free: Which of x, y, z the position uses, its free parameters in order.
    """

    letter: str
    multiplicity: int
    in_primitive: int
    site_symmetry: str
    linear: FloatArray
    offset: FloatArray
    free: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """The operations `x -> rotation @ x + translation` of a space group modulo whole lattice vectors.

    Attributes:
        number: Its number in the International Tables, 1 to 230.
        family: Crystal family, "triclinic" ... "cubic" ("hexagonal" holds the trigonal groups).
        rotations: In the conventional basis, centring included, shape `n x 3 x 3`; the first one is the identity.
        translations: In [0, 1), shape `n x 3`.
        primitive: Rows are the primitive lattice vectors in the conventional basis, shape `3 x 3`.
        polar: The axes along which the origin is free, in order.
    """

    number: int
    family: str
    rotations: IntArray
    translations: FloatArray
    primitive: FloatArray
    polar: tuple[int, ...]

    @property
    def centring(self) -> int:
        """How many primitive cells the conventional cell holds."""
        return round(1 / float(np.linalg.det(self.primitive)))


def wyckoff_sites(group: int) -> tuple[WyckoffSite, ...]:
    """The Wyckoff positions of a space group, a, b, c, ..., the general one last.

    Raises:
        InputError: There is no such group.
    """
    return _sites(_checked(group))


def space_group(group: int) -> SpaceGroup:
    """The operations of a space group.

    Raises:
        InputError: There is no such group.
    """
    return _space_group(_checked(group))


def family_of(group: int) -> str:
    """The crystal family of a space group; trigonal groups are hexagonal, their cells having hexagonal axes."""
    bounds = ((2, "triclinic"), (15, "monoclinic"), (74, "orthorhombic"), (142, "tetragonal"), (194, "hexagonal"))
    return next((family for last, family in bounds if group <= last), "cubic")


def parsed_expression(expression: str) -> tuple[FloatArray, FloatArray]:
    """The linear part (`3 x 3`) and offset (`3`) of coordinates such as "x,2x,1/4".

    Raises:
        InputError: It is no such expression.
    """
    linear, offset = np.zeros((3, 3)), np.zeros(3)
    components = expression.split(",")
    if len(components) != 3:
        raise InputError(f"'{expression}' has {len(components)} coordinates; give three, such as 'x,2x,1/4'")
    for row, component in enumerate(components):
        end = 0
        while end < len(component):
            match = _TERM.match(component, end)
            if match is None or match.end() == end or not (match[2] or match[3]):
                raise InputError(f"'{component}' in '{expression}' is no coordinate such as 'x', '-x+1/2' or '1/4'")
            value = float(Fraction(match[2] or "1")) * (-1 if match[1] == "-" else 1)
            if match[3]:
                linear[row, _AXES.index(match[3])] += value
            else:
                offset[row] += value
            end = match.end()
    return linear, offset


@cache
def pivots(site: WyckoffSite) -> tuple[IntArray, IntArray]:
    """For each free parameter a coordinate that is plus or minus this parameter (and an offset): rows and signs."""
    rows, signs = [], []
    for axis in site.free:
        unit = np.eye(3)[axis]
        row, sign = next((r, s) for s in (1, -1) for r in range(3) if np.array_equal(site.linear[r], s * unit))
        rows.append(row)
        signs.append(sign)
    return np.array(rows, dtype=np.int64), np.array(signs, dtype=np.int64)


def _checked(group: int) -> int:
    """The number of a group that exists."""
    if group not in GROUPS:
        raise InputError(f"there is no space group {group}; give a number from 1 to 230")
    return int(group)


@lru_cache(maxsize=1)
def _table() -> dict[str, list[str]]:
    """The shipped table: for each group, "letter multiplicity site-symmetry expression" a position."""
    table: dict[str, list[str]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


@cache
def _sites(group: int) -> tuple[WyckoffSite, ...]:
    """The positions of a group, parsed."""
    centring = _space_group(group).centring
    return tuple(site_of(line, centring) for line in _table()[str(group)])


def site_of(line: str, centring: int) -> WyckoffSite:
    """A position from its line in the table; `centring` is the number of primitive cells in the conventional one."""
    letter, multiplicity, symmetry, expression = line.split(" ")
    linear, offset = parsed_expression(expression)
    free = tuple(int(axis) for axis in np.flatnonzero(np.any(linear != 0, axis=0)))
    points = int(multiplicity)
    return WyckoffSite(letter, points, points // centring, symmetry, linear, offset, free)


@cache
def _space_group(group: int) -> SpaceGroup:
    """The operations of a group, from moyopy."""
    import moyopy

    operations = moyopy.operations_from_number(group, setting=moyopy.Setting.standard())
    rotations = np.array(operations.rotations, dtype=np.int64)
    translations = exact(np.array(operations.translations, dtype=np.float64)) % 1.0
    first = np.lexsort((translations.sum(axis=1), np.abs(rotations - np.eye(3, dtype=np.int64)).sum(axis=(1, 2))))
    rotations, translations = rotations[first], translations[first]
    free = [axis for axis in range(3) if np.all(rotations[:, :, axis] == np.eye(3)[axis])]
    return SpaceGroup(
        number=group,
        family=family_of(group),
        rotations=rotations,
        translations=translations,
        primitive=np.array(_PRIMITIVE[_centring_type(rotations, translations)]),
        polar=tuple(free),
    )


def exact(values: FloatArray) -> FloatArray:
    """Fractions that occur in space groups, multiples of 1/24, freed of rounding errors."""
    return np.asarray(np.rint(np.asarray(values) * 24) / 24)


def _centring_type(rotations: IntArray, translations: FloatArray) -> str:
    """The centring letter of a group from its pure translations."""
    pure = translations[np.all(rotations == np.eye(3), axis=(1, 2))]
    if len(pure) == 4:
        return "F"
    if len(pure) == 3:
        return "R"
    halves = {(1, 1, 0): "C", (0, 1, 1): "A", (1, 1, 1): "I", (0, 0, 0): "P"}
    shift: tuple[int, ...] = tuple(int(v) for v in np.rint(pure.max(axis=0) * 2))
    return halves[shift]  # type: ignore[index]

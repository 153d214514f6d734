"""Compute the table of Wyckoff positions that ships with the package.

    python scripts/wyckoff_table.py

There is no table in moyopy to read, but it names the position of any atom. So, group by group, atoms are put on points
that random operations of the group leave in place, together with two orbits of general points that keep the group from
being a larger one, and moyopy is asked for the letters, until none is missing: the general position has the last one.
Takes a minute.
"""

from __future__ import annotations

import argparse
import json
import string
from pathlib import Path

import moyopy
import numpy as np

from paragenesis.crystals import FloatArray
from paragenesis.engine.generators.wyckoff.cell import lattice_of
from paragenesis.engine.generators.wyckoff.sites import TABLE, SpaceGroup, family_of, parsed_expression, space_group

LETTERS = string.ascii_lowercase + "A"
POSITIONS = 1731  # International Tables A
PATIENCE = 20_000  # candidate points a group; some hundreds are enough
CELLS = {
    "triclinic": (13, 17, 22, 81, 85, 87),
    "monoclinic": (13, 17, 22, 90, 99, 90),
    "orthorhombic": (13, 17, 22, 90, 90, 90),
    "tetragonal": (13, 13, 19, 90, 90, 90),
    "hexagonal": (13, 13, 19, 90, 90, 120),
    "cubic": (17, 17, 17, 90, 90, 90),
}


def main() -> None:
    """Compute the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TABLE, help="JSON file to write (default: the package's)")
    out = parser.parse_args().out
    table = {str(number): positions(space_group(number)) for number in range(1, 231)}
    found = sum(len(lines) for lines in table.values())
    if found != POSITIONS:
        raise SystemExit(f"{found} positions were found, not {POSITIONS}; nothing is written")
    rows = (f'"{number}": {json.dumps(lines)}' for number, lines in table.items())
    out.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    print(f"{found} positions of 230 groups in {out}")


def positions(group: SpaceGroup) -> list[str]:
    """All positions of a group, one "letter multiplicity site-symmetry expression" each."""
    rng = np.random.default_rng(group.number)
    known: dict[str, tuple[int, str, str]] = {}
    for _ in range(PATIENCE):
        point = fixed_point(group, rng)
        if point is None or is_known(group, point, known):
            continue
        for letter, entry in asked(group, point, rng).items():
            if known.setdefault(letter, entry) != entry:
                raise SystemExit(f"group {group.number} {letter}: {entry} and {known[letter]} contradict each other")
        letters = sorted(known, key=LETTERS.index)
        if "".join(letters) == LETTERS[: len(letters)] and known[letters[-1]][2] == "x,y,z":  # it is always the last
            return [" ".join((letter, *map(str, known[letter]))) for letter in letters]
    raise SystemExit(f"group {group.number}: only the positions {sorted(known)} were found")


def fixed_point(group: SpaceGroup, rng: np.random.Generator) -> FloatArray | None:
    """A random point that up to four operations leave in place, mostly such that had little to move it."""
    near = rng.random(3)
    moves = near - group.rotations @ near - group.translations
    distances = np.abs(moves - np.rint(moves)).max(axis=1)
    order = np.argsort(distances * rng.random(len(distances)), kind="stable")
    which = order[1 : 1 + rng.integers(0, 5)]  # the first one is the identity
    if len(which) == 0:
        return near
    matrix = np.concatenate([np.eye(3) - group.rotations[i] for i in which])
    shifts = (group.translations + np.rint(moves))[which].reshape(-1)
    point = near + np.linalg.lstsq(matrix, shifts - matrix @ near, rcond=1e-9)[0]
    return np.round(point, 9) % 1.0 if np.abs(matrix @ point - shifts).max() < 1e-9 else None


def orbit(group: SpaceGroup, point: FloatArray) -> FloatArray:
    """The images of a point in the conventional cell, shape `m x 3`."""
    images = (group.rotations @ point + group.translations) % 1.0
    _, first = np.unique(np.rint(images * 1e6).astype(int) % 1_000_000, axis=0, return_index=True)
    return np.asarray(images[first])


def is_known(group: SpaceGroup, point: FloatArray, known: dict[str, tuple[int, str, str]]) -> bool:
    """True if the point belongs to one of the known positions."""
    images = orbit(group, point)
    for multiplicity, _, expression in known.values():
        if multiplicity != len(images):
            continue
        linear, offset = parsed_expression(expression)
        shifts = np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T
        points = (images[:, None] + shifts[None]).reshape(-1, 3) - offset
        if np.abs(points - points @ (linear @ np.linalg.pinv(linear)).T).max(axis=1).min() < 1e-6:
            return True
    return False


def asked(group: SpaceGroup, point: FloatArray, rng: np.random.Generator) -> dict[str, tuple[int, str, str]]:
    """What moyopy says of a crystal with an orbit through this point: the positions by their letters."""
    orbits = [orbit(group, p) for p in (point, rng.random(3), rng.random(3))]
    numbers = [10 + i for i, one in enumerate(orbits) for _ in one]
    lattice = lattice_of(np.array([CELLS[family_of(group.number)]], dtype=np.float64))[0]
    cell = moyopy.Cell(lattice.tolist(), np.concatenate(orbits).tolist(), numbers)
    try:
        dataset = moyopy.MoyoDataset(cell, symprec=1e-4, setting=moyopy.Setting.standard())
    except ValueError:  # random points came too near to each other; completeness is checked in the end
        return {}
    if dataset.number != group.number:
        return {}
    settings = dataset.normalizer_wyckoff_positions().coset_representatives
    return {p.letter: (p.multiplicity, p.site_symmetry, p.coordinates) for _, atoms in settings for p in atoms}


if __name__ == "__main__":
    main()

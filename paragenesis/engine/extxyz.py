"""Crystals as one extended XYZ file, which ASE, OVITO and most other programs of the field read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paragenesis.crystals import Crystals
from paragenesis.engine.symmetry import SYMPREC, space_groups
from paragenesis.errors import InputError
from paragenesis.settings import one_line


def write_extxyz(crystals: Crystals, path: Path, infos: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Write crystals with their space groups and what else is known of them; the file is whole or not there.

    `space_group` is the international number, found within `symprec` angstrom; it is left out where none is found.

    Args:
        crystals: `n` crystals.
        path: The file; folders above it are made.
        infos: What else stands beside each, by name; id and origin by default.

    Raises:
        InputError: The file cannot be written.
    """
    from ase.io import write

    atoms = crystals.to_atoms()
    notes = infos or [{"id": i, "origin": o} for i, o in zip(crystals.ids, crystals.origins, strict=True)]
    groups = space_groups(crystals, SYMPREC).tolist()
    for one, info, group in zip(atoms, notes, groups, strict=True):
        # A line break in a text would begin an atom, or another crystal.
        plain = {one_line(key): one_line(v) if isinstance(v, str) else v for key, v in info.items()}
        one.info = plain | ({"space_group": group, "symprec": SYMPREC} if group else {})
    aside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)  # what a crash left, or a link that somebody put there
        write(aside, atoms, format="extxyz")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"'{path}' cannot be written: {error.strerror}; give another file") from None

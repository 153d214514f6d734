"""An extended XYZ file carries what is known of each crystal, its space group among it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import read

from paragenesis.crystals import Crystals
from paragenesis.engine.extxyz import write_extxyz
from paragenesis.engine.symmetry import SYMPREC
from paragenesis.errors import InputError


@pytest.fixture
def two() -> Crystals:
    """A rock salt, and two atoms on each other."""
    salt = Crystals.from_atoms([bulk("NaCl", "rocksalt", 5.64)] * 2, ids=["a", "b"], origins=["x", "y"])
    frac = salt.frac.copy()
    frac[2:] = 0.25
    return replace(salt, frac=frac, numbers=salt.numbers * [1, 1, 0, 0] + [0, 0, 11, 11])


def test_the_space_group_stands_beside_what_else_is_known(two: Crystals, tmp_path: Path) -> None:
    write_extxyz(two, tmp_path / "new" / "two.extxyz", [{"energy_per_atom": -3.5}, {"steps": 7}])
    first, second = read(tmp_path / "new" / "two.extxyz", ":")
    assert first.info == {"energy_per_atom": -3.5, "space_group": 225, "symprec": SYMPREC}
    assert second.info == {"steps": 7}  # no space group was found


def test_crystals_come_back_with_their_ids(two: Crystals, tmp_path: Path) -> None:
    write_extxyz(two, tmp_path / "two.extxyz")
    again = read(tmp_path / "two.extxyz", ":")
    assert [(a.info["id"], a.info["origin"]) for a in again] == [("a", "x"), ("b", "y")]
    back = Crystals.from_atoms(again)
    assert back.frac == pytest.approx(two.frac, abs=1e-6)
    assert back.lattices == pytest.approx(two.lattices, abs=1e-6)


def test_a_file_is_whole_or_not_there(two: Crystals, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_extxyz(two, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]

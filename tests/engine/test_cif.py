"""CIFs hold the space group, and read back as the crystals that they were."""

from __future__ import annotations

import csv
import gzip
import itertools
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from paragenesis.crystals import Crystals
from paragenesis.engine.cif import to_cif
from paragenesis.engine.screening import sanitise_text
from paragenesis.engine.symmetry import space_groups

MATCHER = StructureMatcher(ltol=0.01, stol=0.02, angle_tol=0.5, scale=False)
HEXAGONAL, TRICLINIC = [4.91, 4.91, 5.4, 90, 90, 120], [4.0, 5.0, 6.0, 80, 95, 100]
MADE = Crystals.from_atoms(
    [
        bulk("NaCl", "rocksalt", 5.64),
        bulk("NaCl", "rocksalt", 5.64) * (1, 1, 2),
        bulk("ZnS", "wurtzite", a=3.8, c=6.2, u=0.38),
        crystal(["Si", "O"], [(0.47, 0, 2 / 3), (0.41, 0.27, 0.78)], spacegroup=154, cellpar=HEXAGONAL),
        crystal(["Na", "Cl"], [(0.1, 0.2, 0.3), (0.55, 0.6, 0.7)], spacegroup=1, cellpar=TRICLINIC),
    ]
)


def group_of(text: str) -> int:
    """The space group that a CIF names."""
    found = re.search(r"_symmetry_Int_Tables_number\s+(\d+)", text)
    assert found is not None
    return int(found[1])


def parsed(text: str) -> Structure:
    """A CIF as pymatgen reads it, without its remark that 0.33333333 was taken for a third."""
    with warnings.catch_warnings(action="ignore"):
        return Structure.from_str(text, fmt="cif")


def assert_read_back(given: Crystals, text: str) -> None:
    assert text.startswith("# generated")
    assert group_of(text) == space_groups(given)[0]
    assert MATCHER.fit(given.to_structures()[0], parsed(text))
    again = sanitise_text(text, "cif")
    assert again.formulas == given.formulas
    assert space_groups(again, 1e-3)[0] == group_of(text)


@pytest.mark.parametrize("index", range(len(MADE)))
def test_a_crystal_comes_back_from_its_cif_with_its_space_group(index: int) -> None:
    assert_read_back(MADE[index], to_cif(MADE[index]))


def test_real_crystals_come_back(shared_data: Path) -> None:
    with gzip.open(shared_data / "mp20_train.csv.gz", "rt", newline="") as file:
        rows = list(itertools.islice(csv.DictReader(file), 0, 2000, 100))
    crystals = Crystals.from_structures([parsed(row["cif"]) for row in rows])
    for one in crystals:
        assert_read_back(one, to_cif(one))


def test_only_the_asymmetric_unit_is_listed() -> None:
    text = to_cif(MADE[0])
    assert len(re.findall(r"^\s+(?:Na|Cl)\s", text, re.MULTILINE)) == 2
    assert text.count("'x, y, z'") == 1
    assert len(re.findall(r"^\s+\d+\s+'", text, re.MULTILINE)) == 192


def test_a_tolerance_decides_what_is_symmetric() -> None:
    atoms = bulk("NaCl", "rocksalt", 5.64)
    atoms.positions[1] += 0.03
    given = Crystals.from_atoms([atoms])
    assert group_of(to_cif(given, symprec=0.1)) == 225
    assert group_of(to_cif(given)) == space_groups(given)[0] == 160


@pytest.mark.parametrize(
    ("numbers", "apart", "said"),
    [([11, 11], 0.0, "no symmetry was found"), ([11, 17], 5e-4, "would read back as another crystal")],
)
def test_what_has_no_symmetry_that_reads_back_is_written_atom_by_atom(
    numbers: list[int], apart: float, said: str
) -> None:
    atoms = bulk("NaCl", "rocksalt", 5.64)
    atoms.numbers[:], atoms.positions[1] = numbers, atoms.positions[0] + [apart, 0, 0]
    text = to_cif(Crystals.from_atoms([atoms]))
    assert text.splitlines()[0].startswith("# in P1: ")
    assert said in text.splitlines()[0]
    assert group_of(text) == 1
    lengths = [float(x) for x in re.findall(r"_cell_length_[abc]\s+(\S+)", text)]
    np.testing.assert_allclose(lengths, 5.64 / np.sqrt(2), atol=1e-6)

"""What cannot be read is counted with its reason; it neither stops the evaluation nor disappears."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.build import bulk
from ase.io import write
from pymatgen.core import Structure

from paragenesis.crystals import Crystals
from paragenesis.engine.evaluation.read import read_sample
from paragenesis.engine.screening import InputLimits
from paragenesis.errors import RejectedInput

CIF = Structure(5.69 * np.eye(3), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(fmt="cif")


def test_frames_that_cannot_be_read_stand_between_those_that_can(tmp_path: Path) -> None:
    file = tmp_path / "g.extxyz"
    write(file, [bulk("NaCl", "rocksalt", 5.69), bulk("MgO", "rocksalt", 4.2)], format="extxyz")
    first, second = file.read_text().splitlines()[:4], file.read_text().splitlines()[4:]
    hopeless = ["1", 'Lattice="1 0 0 0 1 0 0 0 1" Properties=species:S:1:pos:R:3', "Xx zero 0 0"]
    file.write_text("\n".join([*first, *hopeless, *second]) + "\n")
    sample = read_sample(file)
    assert sample.crystals.formulas == ("NaCl", "MgO")
    assert [name for name, _ in sample.unreadable] == ["g-1"]
    assert len(sample) == 3
    file.write_text(file.read_text() + "a line too many\n")
    assert len(read_sample(file).unreadable) == 2


def test_each_block_of_a_cif_is_read_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "g.cif.gz"
    partial = CIF.replace("  1\n", "  0.5\n")
    with gzip.open(file, "wt") as out:
        out.write(CIF + partial + CIF)  # blocks of one name are no obstacle
    sample = read_sample(file)
    assert sample.crystals.formulas == ("NaCl", "NaCl")
    assert "occupancy" in sample.unreadable[0][1]


def test_rows_of_a_table_may_share_a_name(tmp_path: Path) -> None:
    file = tmp_path / "g.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerows([["id", "cif"], ["a", CIF], ["a", "nonsense"], ["a", "nonsense"]])
    sample = read_sample(file)
    assert (len(sample), len(sample.crystals), len(sample.unreadable)) == (3, 1, 2)


def test_crystals_that_are_not_valid_are_read_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "g.parquet"
    clash = Crystals(
        ids=("x", "y"),
        n_atoms=[2, 1],
        numbers=[11, 17, 200],
        frac=[[0, 0, 0], [0.01, 0, 0], [np.nan, 0, 0]],
        lattices=np.stack([np.eye(3), np.zeros((3, 3))]),
    )
    pq.write_table(clash.to_arrow(), file)
    assert read_sample(file).crystals == clash
    few = read_sample(file, InputLimits(max_atoms=1))
    assert few.crystals.ids == ("y",)
    assert few.unreadable == (("x", "it has 2 atoms; at most 1 are accepted"),)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.cif", None, "cannot be read"),
        ("empty.extxyz", "", "holds no crystals"),
        ("what.txt", "1", "format of what.txt is unknown"),
        ("no.parquet", "not a table", "cannot be read"),
        ("no.csv", "id\n1\n", "no column 'cif'"),
    ],
)
def test_files_without_any_crystal_are_refused(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(RejectedInput, match=said):
        read_sample(tmp_path / name)

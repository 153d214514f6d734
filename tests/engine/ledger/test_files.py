"""Crystals leave the ledger in formats that other programs read."""

from __future__ import annotations

import ase.io
import duckdb
import numpy as np
import pytest
from pymatgen.core import Structure

from paragenesis.engine.ledger import Ledger, export_crystals
from paragenesis.engine.ledger.files import file_name, pareto_ids
from paragenesis.errors import InputError, LedgerError


def test_extxyz_carries_what_is_known_of_each_crystal(filled, tmp_path):
    out = tmp_path / "new" / "selected.extxyz"
    assert export_crystals(filled, "selected", "extxyz", out) == 4
    first = ase.io.read(out, index=0)
    assert first.get_chemical_formula() == "MgO"
    assert first.info["id"] == "r1-c0-0"
    assert first.info["round"] == 1
    assert first.info["hull"] == "a test hull"
    assert first.info["space_group"] == 225
    assert first.info["hardness_mean"] == 1.5  # the posterior, not the ensemble
    assert first.info["hardness_std"] == 0.3
    assert first.info["cost_mean"] == 1.0  # no posterior: the ensemble
    assert first.info["hardness_verified"] == 1.25
    assert "hardness_verified" not in ase.io.read(out, index=1).info  # its verification failed


def test_verified_crystals_have_the_geometry_at_which_they_were_verified(filled, tmp_path):
    assert export_crystals(filled, "verified", "extxyz", tmp_path / "v.xyz") == 2
    assert export_crystals(filled, "selected", "extxyz", tmp_path / "s.xyz") == 4
    ratio = ase.io.read(tmp_path / "v.xyz", index=0).cell.volume / ase.io.read(tmp_path / "s.xyz", index=0).cell.volume
    assert ratio == pytest.approx(1.02**3)


def test_cif_is_symmetrised_one_file_a_crystal(filled, tmp_path):
    assert export_crystals(filled, "verified", "cif", tmp_path / "cifs") == 2
    assert sorted(p.name for p in (tmp_path / "cifs").iterdir()) == ["r1-c0-0.cif", "r2-c0-0.cif"]
    text = (tmp_path / "cifs" / "r1-c0-0.cif").read_text()
    assert "Fm-3m" in text
    structure = Structure.from_str(text, fmt="cif", primitive=True)
    assert structure.reduced_formula == "MgO"
    assert structure.lattice.a == pytest.approx(4.2 * 1.02 / np.sqrt(2), rel=1e-3)


@pytest.mark.parametrize(("hardness", "front"), [(2.5, ["r2-c0-0"]), (1.0, ["r1-c0-0", "r2-c0-0"])])
def test_pareto_exports_only_what_nothing_verified_dominates(filled, tmp_path, hardness, front):
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:  # round 1: hardness 1.25, cost 3; both wanted
        sql = "UPDATE verifications SET value = ? WHERE round = 2 AND property = 'hardness'"  # cost 1.5: wins by cost
        connection.execute(sql, [hardness])
    with Ledger.open(filled) as ledger:
        assert pareto_ids(ledger) == front
    assert export_crystals(filled, "pareto", "extxyz", tmp_path / "front.xyz") == len(front)


def test_an_objective_that_the_oracle_leaves_out_counts_as_predicted(filled):
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:
        connection.execute("DELETE FROM verifications WHERE property = 'cost'")
    with Ledger.open(filled) as ledger:  # predicted cost 1.0 for both: only hardness differs
        assert pareto_ids(ledger) == ["r2-c0-0"]


def test_what_cannot_be_exported_is_said(filled, tmp_path):
    with pytest.raises(InputError, match="choose one of selected"):
        export_crystals(filled, "best", "cif", tmp_path)
    with pytest.raises(InputError, match="choose one of cif"):
        export_crystals(filled, "selected", "poscar", tmp_path)
    Ledger.create(tmp_path / "empty", {}).close()
    with pytest.raises(InputError, match="no selected crystals yet"):
        export_crystals(tmp_path / "empty", "selected", "cif", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        export_crystals(filled, "selected", "cif", tmp_path / "file")


def test_a_ledger_that_does_not_name_its_objectives_is_refused(tmp_path):
    meta = {"objectives": '[{"name": "a", "goal": {"kind": "win"}}]'}
    with Ledger.create(tmp_path, meta) as ledger, pytest.raises(LedgerError, match="objectives"):
        pareto_ids(ledger)


def test_ids_become_file_names_that_stay_inside_the_folder():
    names = [file_name(name) for name in ("a/b", "a_b", "../x", "..", "r1-c0-0")]
    assert len(set(names)) == 5
    assert not any("/" in name or name.startswith(".") for name in names)

"""Validity, uniqueness, novelty, templates: each crystal of a mixed batch gets what it deserves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from paragenesis.crystals import Crystals
from paragenesis.engine.evaluation.known import Known, anonymous, known_from_files, listed_formulas
from paragenesis.engine.evaluation.measures import cdvae_valid, measure
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.errors import InputError


def test_every_measure_of_a_mixed_batch(mixed: Crystals, known: Known) -> None:
    found = measure(mixed, known)
    assert found.strict.tolist() == [True, True, True, True, False, False]
    assert found.reasons[4].startswith("overlap")
    assert found.reasons[5].startswith("not_finite")
    assert found.cdvae.tolist() == [True, True, True, True, True, False]  # the clash passes the older rule
    assert found.unique.tolist() == [True, False, True, True, False, False]
    assert found.first.tolist() == [0, 0, 2, 3, -1, -1]
    assert found.novel.tolist() == [True, True, False, True, False, False]
    assert found.twins[2] == "k in the known"
    assert found.new.tolist() == [True, False, False, True, False, False]
    assert found.unlisted.tolist() == [False, False, False, True, False, True]
    assert found.space_groups.tolist() == [225, 225, 225, 221, 0, 0]
    assert found.new_template.tolist() == [False, False, False, True, False, False]
    assert found.smact.tolist() == [True] * 6
    assert found.formulas == ("NaCl", "NaCl", "KCl", "CsCl", "NaCl", "Na")


def test_a_duplicate_of_something_known_is_not_novel(mixed: Crystals, known: Known) -> None:
    found = measure(Crystals.concatenate([mixed[[2]], mixed[[2]]]), known)  # even under the same id
    assert found.unique.tolist() == [True, False]
    assert found.novel.tolist() == [False, False]


def test_impossible_compositions_and_numbers_of_no_element(mixed: Crystals, known: Known) -> None:
    wrong = replace(mixed[[0, 0]], numbers=np.array([11, 11, 11, 200]))
    odd = replace(mixed[[0]], numbers=np.array([8, 17]))  # no metal, and no neutral combination
    found = measure(Crystals.concatenate([wrong, odd]), known)
    assert found.chemistry.tolist() == [True, False, True]
    assert found.strict.tolist()[1] is False
    assert found.formulas[1] == ""
    assert not measure(replace(mixed[[3]], numbers=np.array([55, 18])), known).chemistry.any()


def test_cells_that_cannot_be_reduced_are_invalid_and_harm_no_other(mixed: Crystals, known: Known) -> None:
    flat = replace(mixed[[0]], lattices=np.array([[[5.0, 0, 0], [0, 5.0, 0], [5.0, 5.0, 0]]]))
    needle = replace(mixed[[0]], lattices=np.diag([1e3, 1e3, 1e-7])[None])
    found = measure(Crystals.concatenate([flat, mixed[[0]], needle]), known)
    assert found.strict.tolist() == found.cdvae.tolist() == [False, True, False]


def test_images_of_an_atom_do_not_count_in_the_older_rule() -> None:
    chain = Crystals.from_atoms([Atoms("H", cell=[0.4, 5, 5], pbc=True)])
    assert cdvae_valid(chain).all()
    pair = Crystals.from_atoms([Atoms("H2", [[0, 0, 0], [0.45, 0, 0]], cell=[5, 5, 5], pbc=True)])
    assert not cdvae_valid(pair).any()


def test_nothing_at_all(known: Known) -> None:
    assert len(measure(Crystals.empty(), known)) == 0


# --- what is known ---------------------------------------------------------------------------------------------------


def test_formulas_are_compared_however_they_are_written(tmp_path: Path) -> None:
    table = tmp_path / "hull.csv"
    table.write_text("formula,formation_energy_per_atom\nCa(OH)2,-1\nSb0.5Fe,-1\nMg2O2,-1\nNaN,-1\n")
    name, formulas = listed_formulas(table)
    assert name == "hull.csv"
    assert formulas == {"H2O2Ca", "Fe2Sb", "OMg", "NNa"}
    table.write_text("formula,formation_energy_per_atom\nwhat,-1\n")
    with pytest.raises(InputError, match="'what' is no chemical formula"):
        listed_formulas(table)


def test_without_files_the_prototypes_and_the_embedded_hull_serve_and_that_is_said(mixed: Crystals) -> None:
    known = known_from_files([], None, ScreeningSettings())
    assert "AFLOW" in known.name
    assert known.templates is None
    assert any("AFLOW" in note for note in known.notes)
    assert any("embedded" in note for note in known.notes)
    found = measure(mixed, known)
    assert not found.novel[0]  # rock salt is a prototype
    assert not found.unlisted[0]
    assert not found.new_template.any()


def test_templates_of_a_table_are_found_by_stoichiometry_and_group(mixed: Crystals, tmp_path: Path) -> None:
    table = tmp_path / "known.csv"
    cifs = [s.to(fmt="cif", symprec=0.1) for s in mixed[[2, 3]].to_structures()]
    quoted = ['"' + cif.replace('"', '""') + '"' for cif in cifs]
    table.write_text("id,cif\n" + "".join(f"{i},{cif}\n" for i, cif in enumerate(quoted)))
    known = known_from_files([table], None, ScreeningSettings())
    found = measure(mixed, known)
    assert found.novel.tolist()[:4] == [True, True, False, False]
    assert not found.new_template.any()
    only_caesium = tmp_path / "few.csv"
    only_caesium.write_text(f"id,cif\n0,{quoted[1]}\n")
    assert measure(mixed, known_from_files([only_caesium], None, ScreeningSettings())).new_template[:4].tolist() == [
        True,
        True,
        True,
        False,
    ]


def test_anonymous_formulas() -> None:
    assert anonymous([6, 2, 2]) == anonymous([1, 3, 1]) == (1, 1, 3)

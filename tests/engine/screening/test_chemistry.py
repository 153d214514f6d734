from __future__ import annotations

import csv
import gzip
import time
import warnings
from pathlib import Path

import pytest
from pymatgen.core import Composition
from smact.screening import smact_validity

from paragenesis.engine.screening.chemistry import ReducedComposition, chemistry_reason, reduced_composition


def _reduced(formula: str) -> ReducedComposition:
    return reduced_composition({e.Z: int(n) for e, n in Composition(formula).items()})


@pytest.mark.parametrize("formula", ["NaCl", "Fe3O4", "Co3O4", "Ti5O9", "H2O", "Ni3Al", "MoSi2", "Ru", "PmCl3", "XeF2"])
def test_known_compounds_pass(formula: str) -> None:
    assert chemistry_reason(_reduced(formula)) == ""


@pytest.mark.parametrize("formula", ["NaCl2", "Na3Cl", "Ca2Cl", "LiO3", "MgF3"])
def test_unbalanced_compounds_do_not(formula: str) -> None:
    assert chemistry_reason(_reduced(formula)).startswith("charge: no combination of oxidation states makes")


def test_the_rule_is_that_of_smact(shared_data: Path) -> None:
    """What SMACT accepts, with mixed valence, is accepted; what it rejects is rejected or exempt by our own rule."""
    with gzip.open(shared_data / "mp20_train.csv.gz", "rt") as file:
        formulas = [row["pretty_formula"] for row, _ in zip(csv.DictReader(file), range(400), strict=False)]
    exempt = {"B", "Si", "Pm"}
    for formula in formulas:
        with warnings.catch_warnings(record=True) as gave_up:
            warnings.simplefilter("always")
            theirs = smact_validity(Composition(formula), mixed_valence=True)
        ours = chemistry_reason(_reduced(formula)) == ""
        if theirs or not (gave_up or exempt & {e.symbol for e in Composition(formula)}):
            assert ours == theirs, formula


def test_a_composition_that_smact_gives_up_on_is_decided_fast() -> None:
    began = time.perf_counter()
    assert chemistry_reason(_reduced("Fe11Mn13Cr7V5Ni3O64")) == ""
    assert time.perf_counter() - began < 5

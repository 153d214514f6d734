"""Charge neutrality of compositions is the rule of screening, without its exemption for intermetallics."""

from __future__ import annotations

import csv
import gzip
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition

from paragenesis.engine.generators.neutrality import (
    combined,
    composition_reason,
    differences,
    elements_reason,
    is_neutral,
    neutral_compositions,
    set_bits,
)
from paragenesis.engine.screening.chemistry import chemistry_reason, reduced_composition

SETS = st.integers(0, 2**40 - 1)


@pytest.mark.parametrize("formula", ["NaCl", "CaTiO3", "Fe3O4", "Li3PS4", "Na", "Si", "XeF2"])
def test_compounds_and_elements_are_neutral(formula: str) -> None:
    assert is_neutral({e.symbol: int(n) for e, n in Composition(formula).items()})


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("NaCl2", "the closest leaves -1"),
        ("Na3Cl", "the closest leaves +2"),
        ("CuZn", "no combination of oxidation states"),
        ("NaHe", "no oxidation states are known of He"),
    ],
)
def test_others_are_not_and_the_closest_charge_is_told(formula: str, words: str) -> None:
    counts = {e.symbol: int(n) for e, n in Composition(formula).items()}
    assert words in composition_reason(counts)
    assert not is_neutral(counts)


def test_what_is_neutral_passes_the_screen(shared_data: Path) -> None:
    with gzip.open(shared_data / "mp20_train.csv.gz", "rt") as file:
        formulas = sorted({row["pretty_formula"] for row in csv.DictReader(file)})[::5]
    passed = 0
    for formula in formulas:
        composition = Composition(formula)
        counts = {e.symbol: int(n) for e, n in composition.items()}
        if is_neutral(counts):
            passed += 1
            assert chemistry_reason(reduced_composition({e.Z: int(n) for e, n in composition.items()})) == ""
    assert passed > len(formulas) / 2


@pytest.mark.parametrize("elements", [("Na",), ("Na", "Cl"), ("Fe", "O"), ("Cl", "Na", "S"), ("Na", "K"), ("Na", "He")])
def test_neutral_compositions_are_all_there_are(elements: tuple[str, ...]) -> None:
    every = product(range(1, 10), repeat=len(elements))
    expected = [
        counts for counts in every if 3 <= sum(counts) <= 9 and is_neutral(dict(zip(elements, counts, strict=True)))
    ]
    assert neutral_compositions(elements, 3, 9) == expected


def test_elements_that_never_balance_are_told() -> None:
    assert "no crystal of K, Na" in elements_reason(("K", "Na"), ("K", "Na"), 1, 20)
    assert "alone or with Li" in elements_reason(("K", "Li", "Na"), ("K", "Na"), 1, 20)
    assert "He" in elements_reason(None, ("Na", "He"), 1, 20)
    assert elements_reason(None, ("K", "Na"), 1, 20) == ""  # an oxide will do
    assert elements_reason(("K", "Na"), (), 1, 20) == ""  # so will an element
    assert elements_reason(("Na", "Cl"), ("Na", "Cl"), 1, 2) == ""
    assert "7 to 7 atoms" in elements_reason(("Na", "Cl"), ("Na", "Cl"), 7, 7)
    assert elements_reason(("Al", "O"), ("Al", "O"), 40, 50) == ""  # larger than the cells tried first


@given(SETS, SETS)
def test_sums_and_differences_of_sets(one: int, other: int) -> None:
    first, second = set(set_bits(one)), set(set_bits(other))
    assert set(set_bits(combined(one, other))) == {a + b for a in first for b in second}
    assert set(set_bits(differences(one, other))) == {a - b for a in first for b in second if a >= b}

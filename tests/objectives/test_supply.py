"""Supply risk and raw-material cost, by hand; and what goes wrong with a price table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paragenesis.crystals import Crystals, Relaxed
from paragenesis.errors import InputError
from paragenesis.objectives import RawMaterialCost, SupplyRisk, build_objective, sample_relaxed

# atomic masses: Mg 24.305, O 15.999, Fe 55.845, H 1.008
MG_SHARE = 24.305 / (24.305 + 15.999)


def one(numbers: list[int]) -> Relaxed:
    """A crystal of the given atoms, judged like the first of the samples."""
    crystal = Crystals(
        ids=("a",),
        n_atoms=np.array([len(numbers)]),
        numbers=np.array(numbers),
        frac=np.zeros((len(numbers), 3)),
        lattices=4.0 * np.eye(3)[None],
    )
    return replace(sample_relaxed()[:1], crystals=crystal)


def test_supply_risk_is_weighted_by_mass() -> None:
    # Gaultois et al. (2013): Mg 5300 and 500, O 500 and 500
    production = SupplyRisk().estimate(one([12, 8]))
    assert production.mean[0] == pytest.approx(5300 * MG_SHARE + 500 * (1 - MG_SHARE), rel=1e-4)
    assert production.std[0] == 0.0
    assert SupplyRisk(of="reserve").estimate(one([12, 8])).mean[0] == pytest.approx(500.0)


def test_an_element_without_an_index_has_no_value_until_one_is_given() -> None:
    hydride = one([12, 1, 1])
    assert np.isnan(SupplyRisk().estimate(hydride).mean[0])
    share = 24.305 / (24.305 + 2 * 1.008)
    given = SupplyRisk(values={"H": 1000.0}).estimate(hydride)
    assert given.mean[0] == pytest.approx(5300 * share + 1000 * (1 - share), rel=1e-4)


def test_cost_is_weighted_by_mass() -> None:
    # Fe2O3 from iron at 0.5 and oxygen at 0.1 USD/kg
    iron = 2 * 55.845 / (2 * 55.845 + 3 * 15.999)
    cost = RawMaterialCost(prices={"Fe": 0.5, "O": 0.1}).estimate(one([26, 26, 8, 8, 8]))
    assert cost.mean[0] == pytest.approx(0.5 * iron + 0.1 * (1 - iron), rel=1e-4)


def test_a_missing_price_names_the_elements() -> None:
    with pytest.raises(InputError, match="no price for O, Mg; add"):
        RawMaterialCost(prices={"Fe": 0.5}).estimate(one([12, 8, 26]))


def test_prices_are_read_from_a_file_beside_the_campaign(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("# USD/kg, 2024\nelement, price\nMg, 2.5\nO, 0\n")
    cost = build_objective("raw_material_cost", {"prices": "prices.csv"}, tmp_path)
    assert cost.estimate(one([12, 8])).mean[0] == pytest.approx(2.5 * MG_SHARE, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no price table"),
        ("symbol,price\nMg,1\n", "needs element, price"),
        ("element,price\nMg,1\nMg,2\n", "two prices for Mg"),
        ("element,price\nMg,cheap\n", "'cheap', which is no number"),
        ("element,price\nMg\n", "Mg the price None"),
        ("element,price\nMg,nan\n", "prices.Mg"),
        ("element,price\nMagnesium,1\n", "'Magnesium' is no chemical element"),
        ("price,element\n1\n", "'' is no chemical element"),
        ("element,price\nMg\xff,1\n", "cannot be read as CSV"),
        (f"element,price\nMg,{'1' * 200_000}\n", "cannot be read as CSV"),
        ("element,price\n" + "Mg,1\n" * 300_000, "is larger than 1000000 bytes"),
    ],
)
def test_an_unusable_price_table_says_why(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "prices.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=words):
        build_objective("raw_material_cost", {"prices": "prices.csv"}, tmp_path)

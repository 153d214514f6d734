from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.screening import ScreeningSettings, sanitise_text
from paragenesis.engine.screening.validity import invalid_reasons
from paragenesis.errors import InputError

SETTINGS = ScreeningSettings()
Batch = Callable[..., Crystals]


def _crystal(numbers: list[int], frac: object, lattice: object) -> Crystals:
    return Crystals(
        ids=("x",), n_atoms=np.array([len(numbers)]), numbers=np.array(numbers), frac=np.array(frac, dtype=float),
        lattices=np.array(lattice, dtype=float),
    )  # fmt: skip


ROCKSALT = [[0, 2.82, 2.82], [2.82, 0, 2.82], [2.82, 2.82, 0]]
HALVES = [[0, 0, 0], [0.5, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("crystal", "reason"),
    [
        (_crystal([], np.zeros((0, 3)), np.eye(3)), "empty: it has no atoms"),
        (_crystal([11, 17], HALVES, np.full((3, 3), np.nan)), "not_finite: its lattice"),
        (_crystal([11, 17], [[0, 0, 0], [np.inf, 0, 0]], ROCKSALT), "not_finite: 1 of its 2 atoms"),
        (_crystal([11, 17], [[0, 0, 0], [1e18, 0, 0]], ROCKSALT), "not_finite: a fractional coordinate of size 1e+18"),
        (_crystal([0, 17], HALVES, ROCKSALT), "unknown_element: no element has Z = 0"),
        (_crystal([11, 119], HALVES, ROCKSALT), "unknown_element: no element has Z = 119"),
        (_crystal([11], [[0, 0, 0]], 1e300 * np.eye(3)), "lattice: a cell vector of 1e+300 A"),
        (_crystal([11], [[0, 0, 0]], np.diag([1e9, 1e-5, 1e-3])), "lattice: a cell vector of 1e+09 A"),
        (_crystal([11, 17], HALVES, 1.8 * np.eye(3)), "volume: 2.92 A^3/atom is outside 4 to 150"),
        (_crystal([11, 17], HALVES, np.zeros((3, 3))), "volume: 0 A^3/atom"),
        (_crystal([11, 17], HALVES, 20 * np.eye(3)), "volume: 4e+03 A^3/atom"),
        (_crystal([11, 17], [[0, 0, 0], [0.1, 0, 0]], 5 * np.eye(3)), "overlap: Na-Cl 0.50 A is below 0.6 of"),
        (_crystal([11, 17], [[0, 0, 0.01], [0, 0, 0.99]], 5 * np.eye(3)), "overlap: Na-Cl 0.10 A"),
        (_crystal([11], [[0, 0, 0]], np.diag([1.0, 6, 6])), "overlap: Na-Na (its own image) 1.00 A is below 0.6"),
        (_crystal([12, 9], HALVES, ROCKSALT), "charge: no combination of oxidation states makes MgF neutral"),
        (_crystal([11, 18], HALVES, ROCKSALT), "charge: no oxidation states are known of Ar"),
    ],
)  # fmt: skip
def test_each_check_names_what_it_failed_on(crystal: Crystals, reason: str) -> None:
    (found,) = invalid_reasons(crystal, SETTINGS)
    assert found.startswith(reason)


def test_an_overlap_hidden_by_a_skewed_cell_is_found() -> None:
    """Lattice vectors are long, but their difference is not."""
    (found,) = invalid_reasons(_crystal([11], [[0, 0, 0]], [[6, 0, 0], [7, 0.2, 0], [0, 0, 60]]), SETTINGS)
    assert found.startswith("overlap: Na-Na (its own image) 1.02 A")


def test_electronegativity_is_checked_after_charge() -> None:
    """I(-1) with F(+1) would be neutral, but fluorine is no cation: SMACT's example of the second rule."""
    (found,) = invalid_reasons(
        _crystal([15, 46, 62], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]], 5 * np.eye(3)), SETTINGS
    )
    assert found.startswith("electronegativity: every neutral combination of oxidation states in SmPPd")


def test_real_crystals_of_every_kind_pass(batch: Batch) -> None:
    names = ("NaCl", "rutile", "SrTiO3", "Fe3O4", "MoSi2", "Cs", "diamond")  # mixed valence, intermetallic, elements
    assert invalid_reasons(batch(*names), SETTINGS) == [""] * len(names)


def test_reasons_stay_with_their_crystals(batch: Batch) -> None:
    good = batch("NaCl", "rutile")
    thin = replace(good[0], lattices=good.lattices[:1] * 4)
    both = Crystals.concatenate([good[0], thin, good[1]])
    reasons = invalid_reasons(both, SETTINGS)
    assert [bool(r) for r in reasons] == [False, True, False]


def test_chemistry_can_be_switched_off() -> None:
    fluoride = _crystal([12, 9], HALVES, ROCKSALT)
    assert invalid_reasons(fluoride, ScreeningSettings(charge_neutrality=False)) == [""]


def test_limits_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(InputError, match="must be below max_volume_per_atom"):
        ScreeningSettings.parse({"min_volume_per_atom": 200})


def test_most_real_crystals_pass(shared_data: Path) -> None:
    """A check that rejects what exists is wrong: 97 % pass, and chemistry alone speaks against the others."""
    with gzip.open(shared_data / "mp20_train.csv.gz", "rt") as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(300), strict=False)]
    crystals = Crystals.concatenate(
        [sanitise_text(row["cif"], "cif") for row in rows if row["pretty_formula"] != "LiS4"]
    )
    causes = Counter(reason.split(":")[0] for reason in invalid_reasons(crystals, SETTINGS))
    assert causes[""] >= 0.96 * len(crystals)
    assert set(causes) <= {"", "charge", "electronegativity"}

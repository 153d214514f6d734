"""Copies add nothing to diversity, strangers do."""

from __future__ import annotations

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.evaluation.diversity import diversity, vendi_score
from paragenesis.engine.evaluation.known import Known
from paragenesis.engine.evaluation.measures import measure


def test_vendi_counts_what_differs() -> None:
    assert vendi_score(np.eye(5)) == pytest.approx(5)
    assert vendi_score(np.ones((5, 5))) == pytest.approx(1)
    blocks = np.kron(np.eye(3), np.ones((2, 2)))
    assert vendi_score(blocks) == pytest.approx(3)


def test_kinds_and_distances(mixed: Crystals, known: Known) -> None:
    found = diversity(mixed, measure(mixed, known), 0)
    assert (found.n, found.formulas, found.chemical_systems, found.space_groups, found.templates) == (4, 3, 3, 2, 2)
    assert 2 < found.vendi < 3.5  # the supercell is nearly a copy
    copies = mixed[[0, 0, 0]]
    same = diversity(copies, measure(copies, known), 0)
    assert same.vendi == pytest.approx(1)
    assert same.pair_distance == pytest.approx(0, abs=1e-6)


def test_one_crystal_or_none(mixed: Crystals, known: Known) -> None:
    one = diversity(mixed[[0]], measure(mixed[[0]], known), 0).record()
    assert (one["vendi"], one["pair_distance"]) == (pytest.approx(1), None)
    none = diversity(mixed[[4]], measure(mixed[[4]], known), 0)
    assert (none.n, none.vendi) == (0, 0.0)

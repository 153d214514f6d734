from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.crystals import IntArray, Relaxed
from paragenesis.engine.stages import estimate_all, isolate
from paragenesis.objectives import Minimize, objective
from paragenesis.testing import sample_relaxed


@given(st.integers(0, 40), st.sets(st.integers(0, 39)))
def test_isolate_finds_exactly_the_guilty_rows_and_does_the_rest(n: int, guilty: set[int]) -> None:
    guilty = {g for g in guilty if g < n}

    def work(rows: IntArray) -> list[int]:
        if guilty & set(rows.tolist()):
            raise ValueError("poison")
        return [2 * row for row in rows.tolist()]

    results, errors = isolate(work, n)
    done = {row: value for rows, values in results for row, value in zip(rows.tolist(), values, strict=True)}
    assert set(errors) == guilty
    assert done == {row: 2 * row for row in range(n) if row not in guilty}


@objective(goal=Minimize(), unit="1")
def picky(relaxed: Relaxed) -> np.ndarray:
    """Raises on one crystal, has no finite value for another."""
    if relaxed.crystals.ids[0] in relaxed.crystals.ids and "bad" in relaxed.crystals.ids:
        raise RuntimeError("cannot bear it")
    return np.where(np.array(relaxed.crystals.ids) == "nan", np.nan, 1.0)


def test_a_crystal_without_a_finite_estimate_is_an_error_with_the_objective_named() -> None:
    relaxed = sample_relaxed()
    names = ["bad", "nan", *(f"good{i}" for i in range(len(relaxed) - 2))]
    object.__setattr__(relaxed, "crystals", relaxed.crystals.with_ids(names))
    estimates, errors = estimate_all([picky], relaxed)
    assert errors == {0: "objective 'picky': RuntimeError: cannot bear it", 1: "objective 'picky' gave nan"}
    assert estimates["picky"].mean[2:] == pytest.approx(1.0)

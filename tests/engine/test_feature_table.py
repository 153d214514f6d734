"""Features as numbers: no unit, and no column in which the candidates hardly differ, may decide what is chosen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paragenesis import Maximize, Minimize, decide
from paragenesis.engine.acquisition.select import DecisionSettings


def tables(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    pool, tried = (pd.DataFrame(rng.random((n, 2)), columns=["a", "b"]) for n in (120, 40))
    return pool, tried.assign(y=np.sin(6 * tried["a"]) + tried["b"], z=tried["b"] - tried["a"])


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=2), st.lists(st.floats(-3, 3), min_size=2, max_size=2))
@settings(max_examples=8)
def test_neither_units_nor_zeros_of_features_matter(powers: list[float], shifts: list[float]) -> None:
    pool, tried = tables()
    goals = [Maximize("y"), Minimize("z")]
    batch = list(decide(pool, tried, goals, q=4))
    pool, tried = pool.copy(), tried.copy()
    for column, power, shift in zip(("a", "b"), powers, shifts, strict=True):
        for table in (pool, tried):
            table[column] = (table[column] + shift) * 10.0**power
    assert list(decide(pool, tried, goals, q=4)) == batch


@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e3])
@pytest.mark.parametrize("jitter", [0.0, 1e-3])
def test_a_column_that_hardly_varies_in_the_pool_outweighs_no_other(unit: float, jitter: float) -> None:
    pool, tried = tables()
    rng = np.random.default_rng(1)
    pool["T"] = unit * (300 + jitter * rng.standard_normal(len(pool)))
    tried["T"] = unit * rng.uniform(200, 400, len(tried))
    everything = DecisionSettings(q=len(pool), strategy="greedy")
    told = decide(pool, tried, Maximize("y"), settings=everything).table
    truth = np.sin(6 * pool["a"]) + pool["b"]
    assert (told["y mean"] - truth.loc[told.index]).abs().mean() < 0.05


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_of_one_candidate_as_much_is_known_in_any_unit(unit: float) -> None:
    pool, tried = tables()
    one, tried = pool.iloc[:1].assign(a=pool["a"] * unit), tried.assign(a=tried["a"] * unit)
    truth = np.sin(6 * pool["a"][0]) + pool["b"][0]
    assert decide(one, tried, Maximize("y"), q=1).table["y mean"].iloc[0] == pytest.approx(truth, abs=0.05)

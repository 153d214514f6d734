"""What was tried at several levels of fidelity, or with a known noise, and what cannot be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from paragenesis import Maximize, decide
from paragenesis.errors import InputError

FEATURES = ["a", "b"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Candidates with a wavy outcome, and a cheap imitation of it that is far off by a constant."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.random(400), "b": rng.random(400)})
    table["y"] = np.sin(9 * table["a"]) + np.cos(7 * table["b"])
    table["cheap"] = 0.9 * table["y"] - 40 + 0.05 * rng.normal(size=400)
    return table


def tried(table: pd.DataFrame) -> pd.DataFrame:
    """Eight at the level that is wanted, ninety others at a cheaper one."""
    dear = table.iloc[:8].assign(level=0)
    return pd.concat([dear, table.iloc[8:98].assign(level=2, y=table["cheap"])])


def test_cheaper_outcomes_tell_where_to_look(table: pd.DataFrame) -> None:
    seen, pool = tried(table), table[FEATURES]
    alone = decide(pool, seen[seen["level"] == 0], Maximize("y"), q=5)
    batch = decide(pool, seen, Maximize("y"), q=5, fidelity="level")
    found, without = table.loc[list(batch), "y"], table.loc[list(alone), "y"]
    assert found.mean() > without.mean() + 0.3
    assert np.abs(batch.table["y mean"] - found).mean() < 0.3, "told at the level that is wanted"


def test_what_was_tried_at_a_cheaper_level_only_can_be_chosen(table: pd.DataFrame) -> None:
    seen = tried(table)
    batch = decide(table[FEATURES], seen, Maximize("y"), q=400, fidelity="level")
    assert set(batch.excluded.index) == set(range(8))
    assert len(batch) == 392


def test_all_at_a_cheaper_level_says_something_too(table: pd.DataFrame) -> None:
    seen = tried(table).query("level == 2")
    batch = decide(table[FEATURES], seen, Maximize("y"), q=5, fidelity="level")
    assert table.loc[list(batch), "y"].mean() > 1.5


@pytest.mark.parametrize("noise", [{"y": 0.5}, {"y": "doubt"}], ids=["number", "column"])
def test_what_is_known_to_be_noise_is_not_followed(table: pd.DataFrame, noise: dict[str, Any]) -> None:
    seen = table.iloc[:60].assign(doubt=0.5)
    seen["y"] = seen["y"] + 0.5 * np.random.default_rng(1).normal(size=60)
    exact = decide(table[FEATURES], seen, Maximize("y"), q=300, noise={"y": 1e-3})
    noisy = decide(table[FEATURES], seen, Maximize("y"), q=300, noise=noise)
    errors = [np.abs(one.table["y mean"] - table.loc[list(one), "y"]).mean() for one in (exact, noisy)]
    assert errors[1] < 0.8 * errors[0]


def test_the_noise_of_cheaper_outcomes_need_not_be_known(table: pd.DataFrame) -> None:
    seen = tried(table)
    seen["doubt"] = np.where(seen["level"] == 0, 0.01, np.nan)
    batch = decide(table[FEATURES], seen, Maximize("y"), q=5, fidelity="level", noise={"y": "doubt"})
    assert table.loc[list(batch), "y"].mean() > 1.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fidelity": "depth"}, "no column 'depth' with their fidelity"),
        ({"fidelity": "cheap"}, "whole numbers: 0 for what is wanted"),
        ({"fidelity": "a"}, "no feature; leave it out of the pool"),
        ({"noise": {"z": 0.1}}, "'z', which is no objective; there are y"),
        ({"noise": {"y": "doubt"}}, "'doubt', which is no column of numbers"),
        ({"noise": {"y": -0.1}}, "noise of 'y' is missing, infinite or negative"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(table: pd.DataFrame, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        decide(table[FEATURES], tried(table), Maximize("y"), q=2, **options)

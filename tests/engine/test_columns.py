"""Columns of tables as users have them: what counts as numbers, and what is refused in a sentence."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from paragenesis import Maximize, decide
from paragenesis.engine.columns import numbers_of, numerals_among, words_of
from paragenesis.errors import InputError

POOL = pd.DataFrame({"a": np.linspace(0, 1, 12), "b": np.tile([0.0, 1.0, 2.0], 4)})
TRIED = POOL.iloc[:6].assign(y=[0.1, 0.3, 0.2, 0.5, 0.4, 0.6])


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series([True, False]), [1, 0]),
        (pd.Series([True, None, False], dtype=object), [1, np.nan, 0]),  # as read from a file with gaps
        (pd.Series([1, None], dtype="Int64"), [1, np.nan]),
        (pd.Series([Decimal("0.5"), 2.0, None], dtype=object), [0.5, 2, np.nan]),
        (pd.Series(["1", "2"]), None),
        (pd.Series([1.0, "high"], dtype=object), None),
        (pd.Series([1j, 2.0]), None),
    ],
)
def test_numbers_are_numbers_whatever_holds_them(values: pd.Series[Any], numbers: list[float] | None) -> None:
    found = numbers_of(values)
    if numbers is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, numbers)


def test_numerals_are_counted() -> None:
    assert numerals_among(["1", "2.5e3", "?", "nan", "low"]) == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pd.date_range("2026-01-01", periods=12), "holds dates; make real numbers"),
        (np.arange(12) * 1j, "holds complex numbers"),
        ([[1]] * 12, "holds a list, but numbers or words are wanted"),
    ],
)
def test_what_is_no_feature_is_refused(values: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        decide(POOL.assign(c=values), None, Maximize("y"))


def test_a_category_with_thousands_of_words_is_refused_however_large_the_pool() -> None:
    words = pd.DataFrame({"c": [f"w{i % 1001}" for i in range(5000)]})
    with pytest.raises(InputError, match="1001 different words in 5000 rows"):
        decide(words, None, Maximize("y"))
    with pytest.raises(InputError, match="holds dates"):
        words_of("when", pd.Series(pd.date_range("2026-01-01", periods=2)))


def test_text_that_reads_as_numbers_is_told_of() -> None:
    text = POOL.assign(b=POOL["b"].map(str))
    batch = decide(text, text.iloc[:6].assign(y=TRIED["y"]), Maximize("y"), q=2)
    assert "the column 'b' holds text, 18 of 18 times a number" in batch.note
    assert decide(POOL, TRIED, Maximize("y"), q=2).note == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pool": [1, 2]}, "the pool must be a pandas DataFrame, but a list was given"),
        ({"observations": {"a": 1}}, "the observations must be a pandas DataFrame"),
        ({"pending": 3}, "the pending must be a pandas DataFrame"),
        ({"objectives": None}, "no objective was given"),
        ({"observations": TRIED[["a", "b", "y", "y"]]}, "the columns of the observations must differ, but 'y' stands"),
        ({"observations": TRIED[["a", "a", "b", "y"]]}, "the columns of the observations must differ, but 'a' stands"),
        ({"noise": 0.1}, r"noise is given by objective, such as \{'y': 0.1\}, but 0.1 was given"),
        ({"noise": {"y": [0.1]}}, r"read from \[0.1\], which is no column of numbers"),
        ({"noise": {"y": "a"}, "observations": TRIED.assign(a=np.nan)}, "the noise of 'y' is missing"),
        ({"settings": {}}, r"settings must be DecisionSettings\(...\), but \{\} was given"),
        ({"triage": {}}, "triage must be TriageSettings"),
        ({"seed": -1}, "a seed is a whole number from 0 on, but -1 was given"),
        ({"seed": "x"}, "a seed is a whole number"),
        ({"cost": pd.Series(["dear"] * 12)}, "costs must be numbers"),
        ({"cost": pd.concat([pd.Series(np.ones(12))] * 2)}, "the row 0 has two costs"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(change: dict[str, Any], said: str) -> None:
    arguments = {"pool": POOL, "observations": TRIED, "objectives": Maximize("y"), "q": 2} | change
    with pytest.raises(InputError, match=said) as error:
        decide(**arguments)
    assert "\n" not in str(error.value)


def test_an_empty_table_is_as_good_as_none() -> None:
    none = decide(POOL, None, Maximize("y"), q=3)
    empty = decide(POOL, pd.DataFrame(), Maximize("y"), q=3, pending=pd.DataFrame())
    assert list(empty) == list(none)


def test_an_infinite_outcome_is_told_of() -> None:
    batch = decide(POOL, TRIED.assign(y=[np.inf, *TRIED["y"][1:]]), Maximize("y"), q=2)
    assert "1 observations have an infinite outcome, which counts as missing" in batch.note

"""Columns of a user's tables: what holds numbers, and what no table can be."""

from __future__ import annotations

from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from paragenesis.crystals import FloatArray
from paragenesis.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def check_table(what: str, table: object) -> None:
    """Refuse what is no table, or has two columns of one name.

    Raises:
        InputError: So.
    """
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise InputError(f"the {what} must be a pandas DataFrame, but a {type(table).__name__} was given")
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise InputError(f"the columns of the {what} must differ, but {twice!r} stands twice; rename one")


def numbers_of(column: pd.Series[Any]) -> FloatArray | None:
    """A column of real numbers or truth values as floats, NaN where missing; None if it holds something else.

    Objects count as numbers if all that are there are: a column of truth values with gaps is read so from a file.
    """
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype, is_object_dtype

    if (is_bool_dtype(column) or is_numeric_dtype(column)) and not is_complex_dtype(column):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    there = column.dropna()
    if is_object_dtype(column) and len(there) and all(isinstance(v, Real | Decimal | np.bool_) for v in there):
        values = np.full(len(column), np.nan)
        values[column.notna().to_numpy()] = [float(v) for v in there]
        return values
    return None


def words_of(name: object, column: pd.Series[Any]) -> list[Any]:
    """The words of a column that holds no numbers; what is missing is left out.

    Raises:
        InputError: It holds dates, complex numbers, or what cannot be compared, such as lists.
    """
    from pandas.api.types import is_complex_dtype, is_datetime64_any_dtype, is_timedelta64_dtype

    for kind, holds in (
        ("dates", is_datetime64_any_dtype),
        ("times", is_timedelta64_dtype),
        ("complex numbers", is_complex_dtype),
    ):
        if holds(column):
            raise InputError(f"the column '{name}' holds {kind}; make real numbers of them, or leave it out")
    words: list[Any] = column.dropna().tolist()
    try:
        set(words)
    except TypeError:
        odd = next(type(word).__name__ for word in words if getattr(word, "__hash__", None) is None)
        raise InputError(
            f"the column '{name}' holds a {odd}, but numbers or words are wanted; make columns of it"
        ) from None
    return words


def numerals_among(words: list[Any]) -> int:
    """How many of the words are numbers written as text."""

    def numeral(word: object) -> bool:
        try:
            return isinstance(word, str) and np.isfinite(float(word))
        except ValueError:
            return False

    return sum(map(numeral, words))

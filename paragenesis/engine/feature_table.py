"""Tables of features as numbers: columns of numbers are standardised, all others one-hot encoded."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paragenesis.crystals import FloatArray
from paragenesis.engine.columns import check_table, numbers_of, numerals_among, words_of
from paragenesis.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_MOST_CATEGORIES = 100  # with more, a column whose words hardly repeat is taken for names
_MOST_ONE_HOT = 1000  # each is a column of its own, as long as the pool
_REACH = 3.0  # deviations that a column usually reaches
_MOST_COMPONENTS = 64  # features beyond are turned to so many principal components


@dataclass(frozen=True)
class Encoding:
    """How rows of features become numbers.

    Attributes:
        columns: All feature columns in order.
        numbers: Where each numeric column has its zero, and what is one in it.
        categories: The values of every other column.
        note: What may be meant otherwise.
    """

    columns: tuple[Hashable, ...]
    numbers: dict[Hashable, tuple[float, float]]
    categories: dict[Hashable, tuple[Any, ...]]
    note: str

    @classmethod
    def of(
        cls, pool: pd.DataFrame, observations: pd.DataFrame | None, pending: pd.DataFrame | None, names: Sequence[str]
    ) -> Encoding:
        """Read the kinds of the columns.

        Raises:
            InputError: The pool has no features, holds an objective or repeats a label; a table lacks a column or has
                another kind of values in it.
        """
        _check_pool(pool, names)
        tables = [pool]
        for what, table in {"observations": observations, "pending": pending}.items():
            if table is None:
                continue
            check_table(what, table)
            missing = [column for column in pool.columns if column not in table.columns]
            if missing and len(table):
                raise InputError(f"the {what} lack the column '{missing[0]}', which the pool has; add it")
            if len(table):
                tables.append(table)
        numbers: dict[Hashable, tuple[float, float]] = {}
        categories: dict[Hashable, tuple[Any, ...]] = {}
        notes = []
        for column in pool.columns:
            parts = [table[column] for table in tables if table[column].notna().any()]
            values = [numbers_of(part) for part in parts]
            there = [v for v in values if v is not None]
            if parts and not there:
                words = [word for part in parts for word in words_of(column, part)]
                categories[column] = _categories(column, words, len(pool))
                if 2 * (numerals := numerals_among(words)) > len(words):
                    notes.append(
                        f"the column '{column}' holds text, {numerals} of {len(words)} times a number: it is taken for "
                        "categories; make numbers of it if they are meant"
                    )
            elif len(there) < len(values):
                raise InputError(
                    f"the column '{column}' holds numbers in one table and words in another; make them one"
                )
            else:
                empty = numbers_of(pool[column])
                numbers[column] = _scale(np.zeros(0) if empty is None else empty, there)
        return cls(tuple(pool.columns), numbers, categories, "; ".join(notes))

    @property
    def components(self) -> int:
        """How many principal components are kept, at most."""
        return _MOST_COMPONENTS

    def __call__(self, table: pd.DataFrame | None) -> FloatArray:
        """Rows as numbers, shape `n x d`: two categories are as far apart as two numbers usually are; NaN stays."""
        parts = []
        for column in self.columns:
            if table is None or not len(table):
                width = len(self.categories.get(column, (None,)))
                parts.append(np.zeros((0, width)))
            elif column in self.numbers:
                zero, one = self.numbers[column]
                values = numbers_of(table[column])
                parts.append(((np.full(len(table), np.nan) if values is None else values - zero) / one)[:, None])
            else:
                known = self.categories[column]
                place = {value: i for i, value in enumerate(known)}
                one_hot = np.full((len(table), len(known)), np.nan)
                for row, value in enumerate(table[column].tolist()):
                    if value in place:
                        one_hot[row] = np.arange(len(known)) == place[value]
                parts.append(one_hot)
        return np.hstack(parts) + 0.0  # no negative zeros: rows are compared


def _check_pool(pool: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse pools without features, with an outcome among them, or with labels that name two rows.

    Raises:
        InputError: So.
    """
    check_table("pool", pool)
    if not len(pool.columns):
        raise InputError("the pool has no columns; give at least one feature")
    inside = [name for name in names if name in pool.columns]
    if inside:
        raise InputError(
            f"the pool holds the column '{inside[0]}', which is an objective and no feature; leave it out of the pool"
        )
    if not pool.index.is_unique:
        twice = pool.index[pool.index.duplicated()].tolist()[0]
        raise InputError(f"the pool's index labels must differ, but {twice!r} stands twice; try pool.reset_index()")


def _scale(pool: FloatArray, tables: Sequence[FloatArray]) -> tuple[float, float]:
    """Zero and one of a numeric column: mean and standard deviation over the pool.

    Where something was tried further off than any candidate lies, the deviation grows by as much as that is further:
    a column in which the candidates hardly differ would outweigh all others else.
    """
    pool = pool[np.isfinite(pool)]
    everything = np.concatenate([table[np.isfinite(table)] for table in tables]) if tables else pool
    if not len(everything):
        return 0.0, 1.0
    zero = float(pool.mean() if len(pool) else everything.mean())
    reach, far = float(np.abs(pool - zero).max(initial=0.0)), float(np.abs(everything - zero).max())
    rounding = 1e-12 * abs(zero)
    if far <= rounding:
        return zero, 1.0
    if reach <= rounding:
        return zero, far / _REACH
    return zero, float(pool.std()) * max(1.0, far / reach)


def _categories(column: Hashable, words: Sequence[Any], n: int) -> tuple[Any, ...]:
    """The different words.

    Raises:
        InputError: They are too many to be categories.
    """
    found = set(words)
    if len(found) > _MOST_ONE_HOT or (len(found) > _MOST_CATEGORIES and len(found) > n // 2):
        raise InputError(
            f"the column '{column}' holds {len(found)} different words in {n} rows, which teach nothing of one "
            "another; make it the index, or numbers that describe them, or leave it out"
        )
    return tuple(sorted(found, key=str))


def reasons_against(X: FloatArray, labels: Sequence[Hashable], tried: FloatArray) -> list[str]:
    """Why each row of the pool cannot be chosen, "" where it can."""
    done = {row.tobytes() for row in tried}
    first: dict[bytes, Hashable] = {}
    reasons = []
    for label, row in zip(labels, X, strict=True):
        key = row.tobytes()
        if not np.isfinite(row).all():
            reasons.append("a feature is missing or not finite")
        elif key in done:
            reasons.append("tried already: an observation or a pending row has the same features")
        elif key in first:
            reasons.append(f"has the same features as row {first[key]!r}")
        else:
            reasons.append("")
            first[key] = label
    return reasons

"""Tables of features as numbers: columns of numbers are standardised, all others one-hot encoded."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paragenesis.crystals import FloatArray
from paragenesis.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_MOST_CATEGORIES = 100  # with more, a column whose words hardly repeat is taken for names
_MOST_COMPONENTS = 64  # features beyond are turned to so many principal components


@dataclass(frozen=True)
class Encoding:
    """How rows of features become numbers.

    Attributes:
        numbers: Mean and standard deviation of each numeric column over the pool.
        categories: The values of every other column.
        columns: All feature columns in order.
    """

    columns: tuple[Hashable, ...]
    numbers: dict[Hashable, tuple[float, float]]
    categories: dict[Hashable, tuple[Any, ...]]

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
        others = {"observations": observations, "pending": pending}
        tables = [pool]
        for what, table in others.items():
            if table is None or not len(table):
                continue
            missing = [column for column in pool.columns if column not in table.columns]
            if missing:
                raise InputError(f"the {what} lack the column '{missing[0]}', which the pool has; add it")
            tables.append(table)
        numbers: dict[Hashable, tuple[float, float]] = {}
        categories: dict[Hashable, tuple[Any, ...]] = {}
        for column in pool.columns:
            kinds = {is_number(table[column]) for table in tables}
            if len(kinds) > 1:
                raise InputError(
                    f"the column '{column}' holds numbers in one table and words in another; make them one"
                )
            if kinds.pop():
                values = pool[column].to_numpy(dtype=np.float64)
                values = values[np.isfinite(values)]
                numbers[column] = (float(values.mean()), float(values.std())) if len(values) else (0.0, 0.0)
            else:
                found = {value for table in tables for value in table[column].dropna().tolist()}
                if len(found) > _MOST_CATEGORIES and len(found) > len(pool) // 2:
                    raise InputError(
                        f"the column '{column}' holds {len(found)} different words in {len(pool)} rows, which teach "
                        "nothing of one another; make it the index, or numbers that describe them, or leave it out"
                    )
                categories[column] = tuple(sorted(found, key=str))
        return cls(tuple(pool.columns), numbers, categories)

    @property
    def components(self) -> int:
        """How many principal components are kept, at most."""
        return _MOST_COMPONENTS

    def __call__(self, table: pd.DataFrame | None) -> FloatArray:
        """Rows as numbers, shape `n x d`: two categories are as far apart as two numbers usually are; NaN stays."""
        parts = []
        for column in self.columns:
            if table is None:
                width = len(self.categories.get(column, (None,)))
                parts.append(np.zeros((0, width)))
            elif column in self.numbers:
                mean, deviation = self.numbers[column]
                values = table[column].to_numpy(dtype=np.float64)
                parts.append(((values - mean) / (deviation if deviation > 0 else 1.0))[:, None])
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
    if not len(pool.columns):
        raise InputError("the pool has no columns; give at least one feature")
    inside = [name for name in names if name in pool.columns]
    if inside:
        raise InputError(
            f"the pool holds the column '{inside[0]}', which is an objective and no feature; leave it out of the pool"
        )
    for what, labels in (("index labels", pool.index), ("columns", pool.columns)):
        if not labels.is_unique:
            twice = labels[labels.duplicated()][0]
            raise InputError(f"the pool's {what} must differ, but {twice!r} stands twice; try pool.reset_index()")


def is_number(column: pd.Series[Any]) -> bool:
    """Whether a column holds real numbers or truth values."""
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    return bool(is_bool_dtype(column) or (is_numeric_dtype(column) and not is_complex_dtype(column)))


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

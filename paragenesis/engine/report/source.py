"""Where a report reads from: a campaign's directory, or a ledger that is open already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paragenesis.crystals import FloatArray
from paragenesis.engine.ledger.query import LedgerReader
from paragenesis.errors import LedgerError


class Readable(Protocol):
    """What a report needs of a ledger; an open `Ledger` or `LedgerReader` is one."""

    def query(self, sql: str, params: tuple[Any, ...] = ()) -> pa.Table:
        """The answer to a SELECT."""
        ...

    def meta(self) -> Mapping[str, str]:
        """What the ledger says of the campaign, by key."""
        ...


@contextmanager
def opened(source: Readable | str | Path) -> Iterator[Readable]:
    """`source` itself if it can be read, else the ledger in that directory, closed afterwards.

    Raises:
        LedgerError: The directory holds no ledger, or one that cannot be read now.
    """
    if not isinstance(source, str | Path):
        yield source
        return
    with LedgerReader.open(source) as reader:
        yield reader


def parsed(meta: Mapping[str, str], key: str, default: Any) -> Any:
    """The JSON under `key`, or `default` where the ledger has none.

    Raises:
        LedgerError: The text is not JSON.
    """
    text = meta.get(key)
    if not text:
        return default
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LedgerError(
            f"the ledger's meta entry '{key}' is not JSON ({error}); run `verify` on the ledger"
        ) from error


def column(source: Readable, ids: pa.Array, sql: str, params: tuple[Any, ...] = ()) -> FloatArray:
    """The second column of a query, laid out along `ids` by its first column, shape `n`; NaN where it says nothing."""
    values = np.full(len(ids), np.nan)
    table = source.query(sql, params)
    where = pc.index_in(table.column(0), value_set=ids)
    known = np.asarray(pc.is_valid(where))
    rows = np.asarray(where.filter(where.is_valid()), dtype=np.int64)
    values[rows] = np.asarray(table.column(1).cast(pa.float64()).fill_null(np.nan))[known]
    return values

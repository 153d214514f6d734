"""Digests of what the ledger holds, independent of the order in which it came and of clocks.

A row's hash is the blake2b of its cells; the hash of many rows is their sum modulo 2^128. A sum can be split: over
rows, commits and rounds alike, so the digests kept with the commits add up to that of the tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from paragenesis.engine.ledger.schema import tables, to_numpy

OF_CANDIDATES = (
    "candidates",
    "predictions",
    "triage",
    "probes",
    "probe_answers",
    "selections",
    "verifications",
    "verified_structures",
)
OF_GENERATORS = ("chunks", "yields", "learning")  # their rows belong to a round and a generator, not to a candidate
SCIENCE = (*OF_CANDIDATES, *OF_GENERATORS)
_VOLATILE = frozenset({"cost_seconds", "note", "error", "attempts"})  # may differ between two runs of the same science
# added by a migration: empty, it adds nothing to the sums of older rows
_YOUNG = frozenset({"before_decision", "most_like", "similarity", "noise", "half_widths", "fault"})
_BITS = 128


@dataclass(frozen=True)
class RowSum:
    """How many rows, and the sum of their hashes."""

    rows: int = 0
    hash: int = 0

    def __add__(self, other: RowSum) -> RowSum:
        """The sum over both sets of rows."""
        return RowSum(self.rows + other.rows, (self.hash + other.hash) % 2**_BITS)


def rows_of_rounds(table: str) -> str:
    """SQL for all rows of a science table with the round they belong to as the last column, `of_round`.

    A prediction belongs to its candidate's round, a posterior ("posterior:2") to the round it names.
    """
    if table != "predictions":
        return f"SELECT *, round AS of_round FROM {table}"
    return (
        "SELECT p.*, CASE WHEN regexp_full_match(p.model, 'posterior:[0-9]+') "
        "THEN TRY_CAST(split_part(p.model, ':', 2) AS INT) ELSE c.round END AS of_round "
        "FROM predictions p LEFT JOIN candidates c ON c.candidate_id = p.candidate_id"
    )


def row_hashes(table: str, content: pa.Table | pa.RecordBatch) -> list[int]:
    """One hash a row of a science table, over all columns that are science."""
    names = [name for name in tables()[table].schema.names if name not in _VOLATILE]
    columns = []
    for name in names:
        column = content.column(name)
        cells = _cells(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
        columns.append([b"" if cell == b"\0" else cell for cell in cells] if name in _YOUNG else cells)
    digest = hashlib.blake2b
    return [
        int.from_bytes(digest(b"".join(row), digest_size=_BITS // 8).digest()) for row in zip(*columns, strict=True)
    ]


def _cells(column: pa.Array) -> list[bytes]:
    """Every cell as bytes from which it could be read back: a missing one is one zero byte."""
    if pa.types.is_string(column.type):
        cells = [len(text).to_bytes(4) + text for text in (c.encode() for c in column.fill_null("").to_pylist())]
    elif pa.types.is_list(column.type):
        lengths = np.asarray(column.value_lengths().fill_null(0))
        ends = (np.cumsum(lengths) * 8).tolist()
        values = _canonical(to_numpy(column.flatten())).tobytes()
        sizes = lengths.tolist()
        cells = [n.to_bytes(4) + values[end - 8 * n : end] for n, end in zip(sizes, ends, strict=True)]
    else:
        cells = _canonical(to_numpy(column)).view("V8").tolist()
    if not column.null_count:
        return [b"\1" + cell for cell in cells]
    missing = column.is_null().to_pylist()
    return [b"\0" if gone else b"\1" + cell for gone, cell in zip(missing, cells, strict=True)]


def _canonical(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One bit pattern for NaN and one for zero."""
    return np.where(np.isnan(values), np.nan, values) + 0.0


def commit_digest(content: Mapping[str, pa.Table]) -> str:
    """What a commit adds to each science table, as text: "table:rows:hash", one word a table."""
    words = []
    for table in SCIENCE:
        if table in content and content[table].num_rows:
            hashes = row_hashes(table, content[table])
            words.append(f"{table}:{len(hashes)}:{sum(hashes) % 2**_BITS:032x}")
    return " ".join(words)


def parse_commit_digest(text: str) -> dict[str, RowSum]:
    """What `commit_digest` wrote, by table."""
    words = (word.split(":") for word in text.split())
    return {table: RowSum(int(count), int(value, 16)) for table, count, value in words}


def table_sums(connection: Any, table: str) -> dict[int | None, RowSum]:
    """Number and hash of the rows of a science table, by the round they belong to (None: to no candidate)."""
    sums: dict[int | None, RowSum] = {}
    for batch in connection.sql(rows_of_rounds(table)).to_arrow_reader(50_000):
        hashes = row_hashes(table, batch)
        for of_round, value in zip(batch.column("of_round").to_pylist(), hashes, strict=True):
            sums[of_round] = sums.get(of_round, RowSum()) + RowSum(1, value)
    return sums


def science_digest(connection: Any, rounds: Collection[int] | None = None) -> str:
    """sha256 over the values of the science tables, in all rounds or the given ones."""
    content = {}
    for table in SCIENCE:
        sums = table_sums(connection, table)
        total = sum((s for r, s in sums.items() if rounds is None or r in rounds), RowSum())
        content[table] = [total.rows, f"{total.hash:032x}"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

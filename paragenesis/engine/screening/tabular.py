"""CSV and Parquet files from outside as Arrow tables; runs in a process of its own, see `apart.py`."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.texts import guarded, one_line
from paragenesis.errors import RejectedInput

_MOST_COLUMNS = 10_000
_VALUE_BYTES = 8  # what a value costs at least where it is used


def read_bytes(path: Path, limits: InputLimits) -> bytes:
    """A file's content, decompressed if its name ends with .gz.

    Raises:
        RejectedInput: The file is missing or too large.
    """
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            content: bytes = file.read(limits.max_file_bytes + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:  # a NUL in a path is a ValueError
        raise RejectedInput(f"{path} cannot be read: {error}") from None
    if len(content) > limits.max_file_bytes:
        raise RejectedInput(f"{path.name} is larger than {limits.max_file_bytes} bytes; split it")
    return content


def read_table(path: Path, limits: InputLimits, columns: Sequence[str] | None) -> pa.Table:
    """A CSV or Parquet file, also gzipped; every value of a CSV is text, because "NaN" is sodium nitride.

    Args:
        path: The file.
        limits: How large it may be; a few bytes of Parquet may stand for any number of rows.
        columns: Which columns to read, as far as they are there; all by default.

    Raises:
        RejectedInput: The file is missing, too large, or no table.
    """
    content = read_bytes(path, limits)
    read = _from_parquet if path.name.lower().removesuffix(".gz").endswith(".parquet") else _from_csv
    return guarded("a table", path.name, lambda: _checked(read(content, path.name, columns), path.name, limits))


def _checked(table: pa.Table, name: str, limits: InputLimits) -> pa.Table:
    """A table that is not too large, has no two columns of a name, and whose names and texts are UTF-8, unlike Arrow's.

    Raises:
        RejectedInput: It is too large, or two columns have one name.
        ValueError: A name or a text is no UTF-8.
    """
    names = [column for column in table.column_names if column]  # several columns without a name are nobody's
    if double := next((column for column in names if names.count(column) > 1), None):
        raise RejectedInput(f"{name} has {names.count(double)} columns {one_line(double, 40)!r}; keep one")
    if table.nbytes + _VALUE_BYTES * table.num_rows * table.num_columns > limits.max_file_bytes:
        raise RejectedInput(f"{name} is larger than {limits.max_file_bytes} bytes when unpacked; split it")
    table.validate(full=True)
    for column in table.column_names:
        column.encode()
    return table


def _from_csv(content: bytes, name: str, columns: Sequence[str] | None) -> pa.Table:
    """A CSV with every column as text."""
    import pyarrow.csv as pc

    header = content.partition(b"\n")[0].decode("utf-8", "replace")
    names = next(csv.reader([header.removeprefix("\ufeff")]), [])
    _check_columns(len(names), name)
    return pc.read_csv(
        io.BytesIO(content),
        parse_options=pc.ParseOptions(newlines_in_values=True),  # a CIF is one quoted value
        convert_options=pc.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=False,
            include_columns=None if columns is None else [column for column in names if column in columns],
        ),
    )


def _from_parquet(content: bytes, name: str, columns: Sequence[str] | None) -> pa.Table:
    """A Parquet file with texts as texts, whatever they were encoded as."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    names = file.schema_arrow.names
    _check_columns(len(names), name)
    table = file.read(None if columns is None else [column for column in names if column in columns])
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(field.type.value_type))
    return table.replace_schema_metadata(None)


def _check_columns(n: int, name: str) -> None:
    if n > _MOST_COLUMNS:
        raise RejectedInput(f"{name} has {n} columns; at most {_MOST_COLUMNS} are accepted")

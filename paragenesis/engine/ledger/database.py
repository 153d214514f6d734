"""Connections to the ledger's DuckDB file: one writer, or several readers, never both."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from paragenesis.engine.interruption import finishing
from paragenesis.errors import DiskFullError, InputError, LedgerError
from paragenesis.naming import path_inside

LEDGER_FILE = "ledger.duckdb"
EXPORTS = "exports"
REBUILT = f".{LEDGER_FILE}.recovered"  # what a recovery puts together before it touches anything

# No file but the ledger's is touched, extensions are never fetched, and a table name in SQL never means a Python
# variable.
_SAFE = {
    "enable_external_access": False,
    "lock_configuration": True,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
_HOLDER = re.compile(r"PID (\d+)")


def connect(file: Path, *, read_only: bool) -> Any:
    """A DuckDB connection to `file` that can touch nothing outside it.

    Raises:
        LedgerError: Another connection holds the file (the message names its process), or it is no sound DuckDB file.
    """
    # A user agent of its own makes DuckDB refuse a second writer inside this process as well, where its file lock
    # would let it through.
    config = _SAFE | ({} if read_only else {"custom_user_agent": f"paragenesis-{uuid.uuid4().hex}"})
    try:
        return duckdb.connect(str(file), read_only=read_only, config=config)
    except duckdb.ConnectionException:
        raise LedgerError(_in_use(file, os.getpid())) from None
    except duckdb.Error as error:
        holder = _HOLDER.search(str(error))
        if holder:
            raise LedgerError(_in_use(file, int(holder[1]))) from None
        raise LedgerError(
            f"{file} cannot be opened as a ledger ({first_line(error)}); put the right file back, or "
            f"`paragenesis recover {file.parent}` rebuilds it"
        ) from None


def _in_use(file: Path, pid: int) -> str:
    return (
        f"the ledger {file} is in use by process {pid}; wait for it or stop it "
        f"(closed rounds can be read from {file.parent / EXPORTS} meanwhile)"
    )


def leads_out(path: Path) -> bool:
    """Whether a file that belongs to a ledger is a link that leads out of its folder, such as no ledger has."""
    try:
        path_inside(path.parent, path.name)
    except InputError:
        return True
    return False


def first_line(error: BaseException) -> str:
    """The first line of a DuckDB message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def refusal(error: BaseException, what: str) -> LedgerError:
    """The ledger's error for one of DuckDB or of the operating system; a full disk is a kind of its own."""
    words = getattr(error, "strerror", None) or first_line(error)
    if disk_is_full(error):
        return DiskFullError(f"{what}: the disk is full; make room, and the campaign goes on from here")
    return LedgerError(f"{what}: {words}")


def disk_is_full(error: BaseException) -> bool:
    """Whether an error of DuckDB or of the operating system says that there is no room, on the disk or in a quota."""
    known = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return known or "No space left" in str(error) or "Disk quota exceeded" in str(error)


@contextmanager
def legible(file: Path) -> Iterator[None]:
    """What is done inside takes the ledger's file for whole: DuckDB finds some damage only when it reads the block.

    Raises:
        LedgerError: It is damaged, or there is no room where something is written.
    """
    try:
        yield
    except duckdb.Error as error:
        if disk_is_full(error):
            raise refusal(error, f"{file} could not be opened") from None
        raise LedgerError(
            f"{file} is damaged ({first_line(error)}); put the right file back, or `paragenesis recover {file.parent}` "
            "rebuilds it"
        ) from None


@finishing()
def run_select(connection: Any, sql: str, params: tuple[Any, ...] = ()) -> Any:
    """The answer to one reading statement as an Arrow table.

    Raises:
        InputError: The text is not one statement that reads, or DuckDB refuses it.
        LedgerError: A part of the file that it needs is damaged.
    """
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type not in (
            duckdb.StatementType.SELECT,
            duckdb.StatementType.EXPLAIN,
        ):
            raise InputError("the ledger answers one SELECT statement at a time; give exactly one, without others")
        return connection.sql(sql, params=list(params)).to_arrow_table()
    except InputError:
        raise
    except (duckdb.Error, ValueError, TypeError) as error:  # the latter for a text that is no UTF-8, or a kind unknown
        if "Corrupt database file" in str(error):
            raise LedgerError(
                f"the ledger is damaged ({first_line(error)}); `paragenesis recover` rebuilds it"
            ) from None
        raise InputError(f"the SQL was refused: {first_line(error)}") from None

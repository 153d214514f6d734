"""The reading side of the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from paragenesis.crystals import Crystals
from paragenesis.engine.interruption import finishing
from paragenesis.engine.ledger.chain import HEAD_FILE, Head, check_chain
from paragenesis.engine.ledger.content import science_digest
from paragenesis.engine.ledger.database import LEDGER_FILE, REBUILT, connect, leads_out, legible, run_select
from paragenesis.engine.ledger.export import exported_rounds
from paragenesis.engine.ledger.schema import newest_version, schema_version
from paragenesis.errors import InputError, LedgerError


class LedgerReader:
    """A ledger that is read: SQL, crystals, digests; a context manager that closes its connection."""

    def __init__(self, directory: Path, connection: Any) -> None:
        """Wrap an open connection; use `open`."""
        self.directory = directory
        self.connection = connection

    @classmethod
    def open(cls, directory: Path | str) -> Self:
        """Open the ledger in `directory` for reading only; nothing outside its file can be reached.

        Raises:
            LedgerError: There is none, a writer holds it, commits are missing or changed, or it is of another version.
        """
        reader = cls.open_unchecked(directory)
        try:
            with legible(reader.directory / LEDGER_FILE):
                check_chain(reader.connection, reader.directory, reader.meta())
        except LedgerError:
            reader.close()
            raise
        return reader

    @classmethod
    def open_unchecked(cls, directory: Path | str) -> Self:
        """The same whether or not all commits are there, to find out what is wrong.

        Raises:
            LedgerError: There is none, a writer holds it, DuckDB cannot read it, or it is of another version.
        """
        file = existing(directory)
        connection = connect(file, read_only=True)
        check_version(connection, file, older_too=True)
        return cls(file.parent, connection)

    def query(self, sql: str, params: tuple[Any, ...] = ()) -> pa.Table:
        """The answer to one SELECT statement; every `?` takes one of `params`.

        Raises:
            InputError: The text is not one statement that reads, or DuckDB refuses it.
        """
        return run_select(self.connection, sql, params)

    def crystals(self, where: str = "", params: tuple[Any, ...] = (), *, initial: bool = False) -> Crystals:
        """The candidates that match a condition in SQL and have a structure, sorted by id.

        Args:
            where: A condition on the columns of `candidates`, such as "round = ? AND verdict = 'kept'"; "" for all.
            params: The values of its `?`.
            initial: Their geometry before relaxation instead of the final one.

        Raises:
            InputError: DuckDB refuses the condition.
            LedgerError: The numbers, coordinates and lattice of a candidate do not belong together, or a kept one has
                some that are not finite.
        """
        before = "initial_" if initial else ""
        table = self.query(
            "SELECT candidate_id AS id, coalesce(origin, '') AS origin, numbers, verdict, "
            f"coalesce({before}frac, frac) AS frac, coalesce({before}lattice, lattice) AS lattice FROM candidates "
            f"WHERE numbers IS NOT NULL AND ({where or 'true'}) ORDER BY candidate_id",
            params,
        )
        crystals = self.structures(table)
        if not initial:
            self.structures(table.filter(pc.field("verdict") == "kept"), finite=True)
        return crystals

    def structures(self, table: pa.Table, *, finite: bool = False) -> Crystals:
        """The crystals in a table that this ledger gave; see `Crystals.from_arrow`.

        Raises:
            LedgerError: They are none; the ledger was changed by something else than Paragenesis.
        """
        try:
            return Crystals.from_arrow(table, finite=finite)
        except InputError as error:
            raise LedgerError(
                f"the ledger in {self.directory} holds crystals that are none: {error}; `paragenesis verify` names them"
            ) from None

    @finishing()
    def meta(self) -> dict[str, str]:
        """What was said of the campaign when the ledger was created."""
        return dict(self.connection.execute("SELECT key, value FROM meta ORDER BY key").fetchall())

    @finishing()
    def committed(self, round: int, kind: str) -> set[str]:  # noqa: A002  the field's word
        """Keys of the commits of one kind in a round."""
        sql = "SELECT commit_key FROM commits WHERE round = ? AND kind = ?"
        return {key for (key,) in self.connection.execute(sql, [round, kind]).fetchall()}

    @finishing()
    def closed_rounds(self) -> list[int]:
        """Numbers of the closed rounds, ascending."""
        sql = "SELECT round FROM rounds WHERE state = 'closed' ORDER BY round"
        return [number for (number,) in self.connection.execute(sql).fetchall()]

    def close(self) -> None:
        """Give the file back."""
        self.connection.close()

    def __enter__(self) -> Self:
        """The ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close on leaving."""
        self.close()


def had_a_ledger(directory: Path) -> bool:
    """Whether there are commits of a ledger whose file is absent: exports, a head, or half a recovery.

    A head without commits is what a crash during the creation of a ledger leaves.
    """
    try:
        commits = (directory / HEAD_FILE).exists() and Head.read(directory).seq > 0
    except LedgerError:
        commits = True
    return commits or bool(exported_rounds(directory)) or (directory / REBUILT).exists()


def existing(directory: Path | str) -> Path:
    """The ledger's file in `directory`.

    Raises:
        LedgerError: There is none, or only a link to one elsewhere, or what is left of one.
    """
    file = Path(directory) / LEDGER_FILE
    if not file.exists() and had_a_ledger(file.parent):
        raise LedgerError(
            f"{directory} had a campaign, but its {LEDGER_FILE} is absent; put it back, or `paragenesis recover "
            f"{directory}` rebuilds it"
        )
    if not file.is_file():
        raise LedgerError(f"there is no ledger in {directory}; give the directory of a campaign that was started")
    for path in (file, file.with_name(f"{LEDGER_FILE}.wal")):
        if leads_out(path):
            raise LedgerError(
                f"{path} is a link out of the campaign, which is not followed; give the ledger's directory"
            )
    return file


def check_version(connection: Any, file: Path, *, older_too: bool) -> None:
    """Close the connection and refuse if the file is no ledger or of a version that cannot be used.

    Raises:
        LedgerError: Says which of it is the case.
    """
    version, newest = schema_version(connection), newest_version()
    problem = ""
    if version == 0:
        problem = f"{file} is a DuckDB file, but no ledger of Paragenesis; give the directory of a campaign"
    elif version > newest:
        problem = f"{file} has version {version}, this Paragenesis knows up to {newest}; update Paragenesis"
    elif older_too and version < newest:
        problem = f"{file} has version {version}, but {newest} is needed; `paragenesis run` brings it up to date"
    if problem:
        connection.close()
        raise LedgerError(problem)


def read_only_sql(directory: Path | str, sql: str) -> pa.Table:
    """The answer of the ledger in `directory` to one SELECT statement that a user typed.

    Raises:
        InputError: The text is not one statement that reads, or DuckDB refuses it.
        LedgerError: There is no ledger, it is damaged, or a writer holds it.
    """
    with LedgerReader.open(directory) as ledger:
        return ledger.query(sql)


def digest(ledger: LedgerReader | Path | str, rounds: list[int] | None = None) -> str:
    """sha256 over the science in a ledger: no order of commits, no times, no costs, no error texts.

    Two campaigns with the same digest found, predicted, chose and verified the same.

    Args:
        ledger: An open ledger, or the directory of one.
        rounds: Only these rounds; all by default.

    Raises:
        LedgerError: There is no ledger, or it is damaged.
    """
    if not isinstance(ledger, LedgerReader):
        with LedgerReader.open(ledger) as opened:
            return digest(opened, rounds)
    with legible(ledger.directory / LEDGER_FILE):
        return science_digest(ledger.connection, rounds)

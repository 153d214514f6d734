"""Recovery: a sound ledger from what is left of one.

Closed rounds come from their exports, which are immutable and carry their hashes, or from the old file where an export
is damaged but the file's rows still add up to what was committed. The open round comes from the old file if its rows
add up. What is lost is computed again, with the same ids, when the campaign goes on. Nothing is deleted: the old files
go into a folder aside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from paragenesis.engine.failpoints import reach
from paragenesis.engine.ledger.chain import HEAD_FILE, Head, following, genesis
from paragenesis.engine.ledger.content import SCIENCE, RowSum, parse_commit_digest, row_hashes, rows_of_rounds
from paragenesis.engine.ledger.database import EXPORTS, LEDGER_FILE, connect
from paragenesis.engine.ledger.disk import sync
from paragenesis.engine.ledger.export import export_closed_rounds, export_folder, manifest_problems
from paragenesis.engine.ledger.schema import conform, migrate, newest_version, schema_version
from paragenesis.errors import LedgerError

Tables = dict[str, pa.Table]
_OF_ALL = ("meta", "levels")  # they belong to no round


@dataclass(frozen=True)
class Recovered:
    """What a recovery brought back.

    Attributes:
        closed: Numbers of the closed rounds.
        commits: How many commits of the open round.
        problems: What was damaged or missing, in sentences.
        aside: Where the old files are.
    """

    closed: Sequence[int]
    commits: int
    problems: Sequence[str]
    aside: Path


@dataclass
class _Left:
    """What is left in one place: tables by round, tables of no round, and what is wrong there."""

    rounds: dict[int, Tables] = field(default_factory=dict)
    common: Tables = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def recover(directory: Path | str) -> Recovered:
    """Rebuild the ledger in `directory` from what is left of it.

    Raises:
        LedgerError: A writer holds it, or nothing is left to start from.
    """
    folder = Path(directory)
    exports, file = _exports(folder), _file(folder)
    common = [left.common for left in (exports, file) if left.common]
    if not common:
        raise LedgerError(
            f"neither a sound export nor a readable {LEDGER_FILE} is left in {folder}, so nothing can be recovered: "
            f"{'; '.join(exports.problems + file.problems)}"
        )
    if len(common) == 2 and not common[0]["meta"].equals(common[1]["meta"]):
        file = _Left(problems=[f"{folder / LEDGER_FILE} is of another campaign than the exports"])
        common.pop()
    closed: dict[int, Tables] = {}
    number = 0 if 0 in {*_exported(folder), *file.rounds} else 1  # campaigns begin with either
    while tables := exports.rounds.get(number) or _adding_up(file.rounds.get(number), "closed"):
        closed[number], number = tables, number + 1
    last = _adding_up(file.rounds.get(number), "open")
    problems = [*exports.problems, *file.problems]
    problems += [f"round {n} is dropped, as round {number} before it is lost" for n in exports.rounds if n > number]
    aside = _rebuild(
        folder, common, [*closed.values(), *([last] if last else [])], kept=set(exports.rounds) & set(closed)
    )
    return Recovered(sorted(closed), last["commits"].num_rows if last else 0, problems, aside)


# --- what is left ------------------------------------------------------------------------------------------------


def _exports(folder: Path) -> _Left:
    """The closed rounds whose exports are as they were written."""
    left = _Left()
    for number in _exported(folder):
        if problems := manifest_problems(folder, number):
            left.problems += problems
            continue
        files = export_folder(folder, number).glob("*.parquet")
        tables = {path.stem: pq.read_table(path) for path in sorted(files)}
        left.common = {name: conform(name, tables.pop(name)) for name in _OF_ALL}
        left.rounds[number] = {name: conform(name, table) for name, table in tables.items()}
    return left


def _exported(folder: Path) -> list[int]:
    names = [path.name.partition("=")[2] for path in (folder / EXPORTS).glob("round=*")]
    return sorted(int(name) for name in names if name.isdecimal())


def _file(folder: Path) -> _Left:
    """What the old file holds as far as DuckDB can read it; a copy is opened, so that it stays as it is.

    Raises:
        LedgerError: A writer holds it.
    """
    file, copy = folder / LEDGER_FILE, folder / f".recover-{os.getpid()}"
    if not file.is_file():
        return _Left(problems=[f"{file} is absent"])
    _refuse_held(file)
    left = _Left()
    try:
        copy.mkdir(exist_ok=True)
        for name in (LEDGER_FILE, f"{LEDGER_FILE}.wal"):
            if (folder / name).is_file():
                shutil.copy(folder / name, copy / name)
        with closing(connect(copy / LEDGER_FILE, read_only=False)) as connection:
            _read(connection, left)
    except (LedgerError, duckdb.Error, UnicodeDecodeError, pa.ArrowException):
        return _Left(problems=[f"{file} cannot be read by DuckDB"])
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return left


def _refuse_held(file: Path) -> None:
    try:
        connect(file, read_only=True).close()
    except LedgerError as error:
        if "in use by process" in str(error):
            raise


def _read(connection: Any, left: _Left) -> None:
    """Everything in a ledger, round by round."""
    if not 0 < schema_version(connection) <= newest_version():
        left.problems.append("the file is no ledger that this Paragenesis can read")
        return
    migrate(connection)

    def table(name: str, sql: str) -> pa.Table:
        return conform(name, connection.sql(sql).to_arrow_table())

    for (number,) in connection.execute("SELECT round FROM rounds ORDER BY round").fetchall():
        own = {name: f"SELECT * FROM {name} WHERE round = {number}" for name in ("rounds", "commits")}
        for name in SCIENCE:
            own[name] = f"SELECT * EXCLUDE of_round FROM ({rows_of_rounds(name)}) WHERE of_round = {number}"
        left.rounds[number] = {name: table(name, sql) for name, sql in own.items()}
    left.common = {name: table(name, f"SELECT * FROM {name} ORDER BY ALL") for name in _OF_ALL}


def _adding_up(tables: Tables | None, state: str) -> Tables | None:
    """The tables of a round, if it is in that state and has exactly the rows that its commits wrote."""
    if tables is None or tables["rounds"].column("state").to_pylist() != [state]:
        return None
    promised: dict[str, RowSum] = {}
    for kind, digest in zip(*(tables["commits"].column(c).to_pylist() for c in ("kind", "digest")), strict=True):
        for name, value in ({} if kind == "close" else parse_commit_digest(digest)).items():
            promised[name] = promised.get(name, RowSum()) + value
    for name in SCIENCE:
        found = sum((RowSum(1, value) for value in row_hashes(name, tables[name])), RowSum())
        if found != promised.get(name, RowSum()):
            return None
    return tables


# --- the new ledger ----------------------------------------------------------------------------------------------


def _rebuild(folder: Path, common: Sequence[Tables], rounds: Sequence[Tables], kept: set[int]) -> Path:
    """Write a new ledger, put the old files aside, and the new one in their place; the folder aside.

    Args:
        folder: The campaign's.
        common: Tables of no round, those that count first.
        rounds: Tables of each round in order.
        kept: Rounds whose exports stay.
    """
    new = folder / f".{LEDGER_FILE}.recovered"
    for old in (new, new.with_name(f"{new.name}.wal")):
        old.unlink(missing_ok=True)  # what a crash left
    epoch = _last_epoch(folder, rounds)
    with closing(connect(new, read_only=False)) as connection:
        migrate(connection)
        head = replace(_filled(connection, common, rounds), epoch=epoch)
        connection.execute("CHECKPOINT")
    sync(new)
    aside = _free_name(folder)
    aside.mkdir()
    reach("before the old files are put aside")
    for name in (LEDGER_FILE, f"{LEDGER_FILE}.wal", HEAD_FILE):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    for number in set(_exported(folder)) - kept:
        place = export_folder(folder, number)
        place.rename(aside / place.name)
    head.write(folder)
    reach("before the new ledger is put in place")
    new.rename(folder / LEDGER_FILE)
    sync(folder)
    with closing(connect(folder / LEDGER_FILE, read_only=False)) as connection:
        export_closed_rounds(connection, folder)
    return aside


def _filled(connection: Any, common: Sequence[Tables], rounds: Sequence[Tables]) -> Head:
    """The head of a ledger after all rows are put into it."""
    meta = dict(zip(*(common[0]["meta"].column(c).to_pylist() for c in ("key", "value")), strict=True))
    head = genesis(meta)
    connection.execute("BEGIN")
    _insert(connection, "meta", common[0]["meta"])
    for tables in common:
        _insert(connection, "levels", tables["levels"])
    for tables in rounds:
        for name in ("rounds", *SCIENCE):
            _insert(connection, name, tables[name])
        head, commits = _chained(head, tables["commits"])
        _insert(connection, "commits", commits)
    connection.execute("COMMIT")
    return head


def _chained(head: Head, commits: pa.Table) -> tuple[Head, pa.Table]:
    """The head after the commits of a round, and these, numbered and chained anew in their old order."""
    rows = sorted(commits.to_pylist(), key=lambda row: (row["seq"] or 0, row["committed_at"], row["commit_key"]))
    for row in rows:
        head = following(head, *(row[c] for c in ("commit_key", "round", "kind", "n_rows", "digest")))
        row |= {"seq": head.seq, "chain": head.chain}
    return head, pa.Table.from_pylist(rows, schema=commits.schema)


def _insert(connection: Any, name: str, table: pa.Table) -> None:
    connection.register("batch", table)
    connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM batch ON CONFLICT DO NOTHING")
    connection.unregister("batch")


def _last_epoch(folder: Path, rounds: Sequence[Mapping[str, pa.Table]]) -> int:
    """The number of the last run that is known of."""
    epochs = [e or 0 for tables in rounds for e in tables["commits"].column("epoch").to_pylist()]
    with suppress(LedgerError):  # it is one of the damaged files
        epochs.append(Head.read(folder).epoch)
    return max(epochs, default=0) + 1


def _free_name(folder: Path) -> Path:
    """A folder for the old files that is not there yet."""
    number = 1
    while (aside := folder / f"damaged-{number}").exists():
        number += 1
    return aside

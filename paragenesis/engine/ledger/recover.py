"""Recovery: a sound ledger from what is left of one.

Closed rounds come from their exports, which are immutable and carry their hashes, or from the old file where an export
is damaged. The open round comes from the old file, where a commit counts only if it follows from the one before it: the
rows of one that was changed would be there twice once it is made again. An earlier recovery that was ended half-way has
left what it had put together, and that is looked at last. A round is taken only if its rows add up to what its commits
wrote. What is lost is computed again, with the same ids, when the campaign goes on. Nothing is deleted: the old files
go into a folder aside.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paragenesis.engine.failpoints import reach
from paragenesis.engine.ledger.chain import linked
from paragenesis.engine.ledger.content import SCIENCE, RowSum, parse_commit_digest, row_hashes, rows_of_rounds
from paragenesis.engine.ledger.database import LEDGER_FILE, REBUILT, connect, leads_out, refusal
from paragenesis.engine.ledger.export import check_place, export_folder, exported_rounds, manifest_problems
from paragenesis.engine.ledger.rebuild import OF_ALL, Tables, rebuild
from paragenesis.engine.ledger.schema import conform, migrate, newest_version, schema_version
from paragenesis.errors import LedgerError

_COPY = ".recover-"
_NO_DAMAGE = ("No space left", "Out of Memory", "Too many open files")  # it may be readable another time


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


@dataclass(frozen=True, eq=False)
class _Left:
    """What is left in one place.

    Attributes:
        place: An export's folder or a ledger's file.
        common: Tables of no round.
        rounds: Tables by round.
    """

    place: Path
    common: Tables
    rounds: dict[int, Tables]


def recover(directory: Path | str) -> Recovered:
    """Rebuild the ledger in `directory` from what is left of it; another time if the first one was ended half-way.

    Raises:
        LedgerError: A writer or another recovery holds it, nothing is left to start from, its exports are a link that
            leads elsewhere, or there is no room for a new one.
    """
    folder = Path(directory)
    try:
        with _alone(folder):
            return _recover(folder)
    except (OSError, duckdb.Error) as error:
        what = f"the ledger in {folder} was not rebuilt; what is left is kept for another `paragenesis recover`"
        raise refusal(error, what) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other recoveries of a folder out, which would put theirs together under the same name.

    Raises:
        LedgerError: One is at work.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LedgerError(f"another `paragenesis recover` is at work in {folder}; wait for its end") from None
    except OSError:  # a file system that cannot lock folders: two at once are then up to who starts them
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def _recover(folder: Path) -> Recovered:
    check_place(folder)
    problems: list[str] = []
    exports, files = list(_exports(folder, problems)), list(_files(folder, problems))
    places = _of_one_campaign([*exports, *files], problems)
    if not places:
        raise LedgerError(
            f"neither a sound export nor a readable {LEDGER_FILE} is left in {folder}, so nothing can be recovered: "
            f"{'; '.join(problems)}"
        )
    exported = set(exported_rounds(folder))
    closed: dict[int, Tables] = {}
    kept: set[int] = set()
    number = 0 if any(0 in known for known in (exported, *(left.rounds for left in places))) else 1  # either is first
    while left := _first(places, number, "closed"):
        closed[number] = left.rounds[number]
        kept |= {number} if left in exports else set()
        number += 1
    last = _first(places, number, "open")
    later = {n for left in places for n, tables in left.rounds.items() if n > number and _state(tables) == "closed"}
    problems += [f"round {n} is dropped, as round {number} before it is lost" for n in sorted(later)]
    rounds = [*closed.values(), *([last.rounds[number]] if last else [])]
    aside = rebuild(folder, [left.common for left in places], rounds, kept)
    commits = last.rounds[number]["commits"].num_rows if last else 0
    return Recovered(sorted(closed), commits, problems, aside)


def _first(places: Sequence[_Left], number: int, state: str) -> _Left | None:
    """The first place that has a round in some state, with exactly the rows that its commits wrote."""
    there = (left for left in places if number in left.rounds and _state(left.rounds[number]) == state)
    return next((left for left in there if _adds_up(left.rounds[number])), None)


def _of_one_campaign(places: Sequence[_Left], problems: list[str]) -> list[_Left]:
    """The places that hold the campaign which most of them hold, in case of doubt the first."""
    metas = ["\n".join(map(str, left.common["meta"].sort_by("key").to_pylist())) for left in places]
    counted = Counter(metas).most_common(1)
    same = [left for left, meta in zip(places, metas, strict=True) if meta == counted[0][0]]
    problems += [f"{left.place} is of another campaign than the rest" for left in places if left not in same]
    return same


# --- what is left ------------------------------------------------------------------------------------------------


def _exports(folder: Path, problems: list[str]) -> Iterator[_Left]:
    """The closed rounds whose exports are as they were written."""
    for number in exported_rounds(folder):
        if found := manifest_problems(folder, number):
            problems += found
            continue
        place = export_folder(folder, number)
        try:
            tables = {path.stem: pq.read_table(path) for path in sorted(place.glob("*.parquet"))}
            common = {name: conform(name, tables.pop(name)) for name in OF_ALL}
            # an export of an older version lacks the tables that came later
            tables = {name: conform(name, tables.get(name, pa.table({}))) for name in ("rounds", "commits", *SCIENCE)}
        except MemoryError:  # Arrow's is also one of its own errors, but no damage
            raise
        except (LedgerError, pa.ArrowException, KeyError) as error:
            problems.append(f"{place} holds no round as it was exported: {error}")
            continue
        if (held := tables["rounds"].column("round").to_pylist()) != [number]:
            problems.append(f"{place} holds the rounds {held} instead of round {number}")
            continue
        yield _Left(place, common, {number: tables})


def _files(folder: Path, problems: list[str]) -> Iterator[_Left]:
    """What the old file holds, and what an earlier recovery had put together.

    Raises:
        LedgerError: A writer holds the file.
    """
    for copy in folder.glob(f"{_COPY}*"):  # what a crash left
        shutil.rmtree(copy, ignore_errors=True)
    for name in (LEDGER_FILE, REBUILT):
        file = folder / name
        if leads_out(file):
            problems.append(f"{file} is a link; it is not followed")
        elif file.is_file():
            _refuse_held(file)
            log = file.with_name(f"{file.name}.wal")
            ways = [[file, log], [file]] if log.is_file() and not leads_out(log) else [[file]]
            yield from islice((left for way in ways if (left := _in_files(way, problems))), 1)
        elif name == LEDGER_FILE:
            problems.append(f"{file} is absent")


def _refuse_held(file: Path) -> None:
    try:
        connect(file, read_only=True).close()
    except LedgerError as error:
        if "in use by process" in str(error):
            raise


def _in_files(paths: Sequence[Path], problems: list[str]) -> _Left | None:
    """What a ledger's file, alone or with its write-ahead log, holds as far as DuckDB can read a copy of them.

    Raises:
        LedgerError: It cannot be read now, but perhaps another time.
    """
    file, *logs = paths
    copy = Path(tempfile.mkdtemp(prefix=_COPY, dir=file.parent))
    try:
        reach(f"before {file.name} is copied")
        for path in paths:
            shutil.copy(path, copy / path.name)
        with closing(connect(copy / file.name, read_only=False)) as connection:
            if not 0 < schema_version(connection) <= newest_version():
                problems.append(f"{file} is no ledger that this Paragenesis can read")
                return None
            migrate(connection)
            return _Left(file, *_read(connection, file, problems))
    except MemoryError:
        raise
    except (LedgerError, duckdb.Error, UnicodeDecodeError, pa.ArrowException) as error:
        if any(words in str(error) for words in _NO_DAMAGE):
            raise refusal(error, f"{file} cannot be read now") from None
        problems.append(f"{file} cannot be read by DuckDB" + (", not with its write-ahead log" if logs else ""))
        return None
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _read(connection: Any, file: Path, problems: list[str]) -> tuple[Tables, dict[int, Tables]]:
    """Everything in a ledger: tables of no round, and tables by round, an open one with its sound commits."""

    def table(sql: str) -> pa.Table:
        return connection.sql(sql).to_arrow_table()

    sql = {name: f"SELECT *, round AS of_round FROM {name}" for name in ("rounds", "commits")}
    sql |= {name: rows_of_rounds(name) for name in SCIENCE}
    whole = {name: table(text) for name, text in sql.items()}
    rounds = {
        number: {
            name: conform(name, rows.filter(pc.field("of_round") == number).drop_columns("of_round"))
            for name, rows in whole.items()
        }
        for number in sorted(whole["rounds"].column("round").to_pylist())
    }
    common = {name: conform(name, table(f"SELECT * FROM {name} ORDER BY ALL")) for name in OF_ALL}
    sound = linked(connection, dict(connection.execute("SELECT key, value FROM meta").fetchall()))
    for number, tables in rounds.items():
        if _state(tables) == "open":
            keys = tables["commits"].column("commit_key").to_pylist()
            problems += [
                f"{file}: commit '{key}' of round {number} does not follow from the one before it: one was changed, "
                "removed or put in"
                for key in keys
                if key not in sound
            ]
            tables["commits"] = tables["commits"].filter(pa.array([key in sound for key in keys], pa.bool_()))
    return common, rounds


# --- is it sound? ------------------------------------------------------------------------------------------------


def _state(tables: Tables) -> str:
    """Whether a round is "open" or "closed", as its row and its commits say; "" where they contradict each other."""
    numbers, states = (tables["rounds"].column(name).to_pylist() for name in ("round", "state"))
    of_rounds, kinds = (set(tables["commits"].column(name).to_pylist()) for name in ("round", "kind"))
    agree = len(states) == 1 and of_rounds <= set(numbers) and (states == ["closed"]) == ("close" in kinds)
    return states[0] if agree else ""


def _adds_up(tables: Tables) -> bool:
    """Whether a round has exactly the rows that its commits wrote."""
    promised: dict[str, RowSum] = {}
    for kind, digest in zip(*(tables["commits"].column(c).to_pylist() for c in ("kind", "digest")), strict=True):
        try:
            sums = {} if kind == "close" else parse_commit_digest(digest)
        except ValueError:
            return False
        for name, value in sums.items():
            promised[name] = promised.get(name, RowSum()) + value
    for name in SCIENCE:
        found = sum((RowSum(1, value) for value in row_hashes(name, tables[name])), RowSum())
        if found != promised.get(name, RowSum()):
            return False
    return True

"""A new ledger out of rounds that are sound, put in the place of the old one without a moment in which they are gone.

The new ledger is built aside. Once it is whole it gets a name of its own, `REBUILT`, and only then are the old files
moved. So whenever this ends, killed or for want of disk, either the old files are where they were or `REBUILT` holds
all that was in them, and another recovery begins with both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from paragenesis.engine.failpoints import reach
from paragenesis.engine.ledger.chain import HEAD_FILE, Head, following, genesis
from paragenesis.engine.ledger.content import SCIENCE
from paragenesis.engine.ledger.database import LEDGER_FILE, REBUILT, connect
from paragenesis.engine.ledger.disk import sync
from paragenesis.engine.ledger.export import export_closed_rounds, export_folder, exported_rounds
from paragenesis.engine.ledger.schema import migrate
from paragenesis.errors import LedgerError

Tables = dict[str, pa.Table]
OF_ALL = ("meta", "levels")  # they belong to no round


def rebuild(folder: Path, common: Sequence[Tables], rounds: Sequence[Tables], kept: set[int]) -> Path:
    """Write a new ledger, put the old files aside, and the new one in their place; the folder aside.

    Args:
        folder: The campaign's.
        common: Tables of no round, those that count first.
        rounds: Tables of each round in order.
        kept: Rounds whose exports stay.

    Raises:
        OSError: Something cannot be written; another recovery goes on from what is there.
    """
    head = _build(folder, common, rounds)
    aside = _free_name(folder)
    aside.mkdir()
    for name in (LEDGER_FILE, f"{LEDGER_FILE}.wal", HEAD_FILE):
        _move(folder / name, aside)
    for number in sorted(set(exported_rounds(folder)) - kept):
        _move(export_folder(folder, number), aside)
    sync(aside)
    head.write(folder)
    reach("before the new ledger is put in place")
    (folder / REBUILT).rename(folder / LEDGER_FILE)
    sync(folder)
    reach("after the new ledger was put in place")
    with closing(connect(folder / LEDGER_FILE, read_only=False)) as connection:
        export_closed_rounds(connection, folder)
    return aside


def _build(folder: Path, common: Sequence[Tables], rounds: Sequence[Tables]) -> Head:
    """Write the new ledger under the name `REBUILT`, whole and durably; its head."""
    new = folder / f"{REBUILT}.new"
    for old in (new, new.with_name(f"{new.name}.wal")):
        old.unlink(missing_ok=True)  # what a crash left
    epoch = _last_epoch(folder, rounds)
    with closing(connect(new, read_only=False)) as connection:
        migrate(connection)
        head = replace(_filled(connection, common, rounds), epoch=epoch)
        reach("before the checkpoint of the new ledger")
        connection.execute("CHECKPOINT")
        reach("after the checkpoint of the new ledger")
    sync(new)
    reach("before the new ledger is named")
    new.replace(folder / REBUILT)
    sync(folder)
    reach("after the new ledger was named")
    return head


def _move(path: Path, aside: Path) -> None:
    """Put a file or a folder aside, if it is there; a link is moved, not what it leads to."""
    if path.is_symlink() or path.exists():
        reach(f"before {path.name} is put aside")
        path.rename(aside / path.name)
        reach(f"after {path.name} was put aside")


def _filled(connection: Any, common: Sequence[Tables], rounds: Sequence[Tables]) -> Head:
    """The head of a ledger after all rows are put into it."""
    meta = dict(zip(*(common[0]["meta"].column(c).to_pylist() for c in ("key", "value")), strict=True))
    head = genesis(meta)
    connection.execute("BEGIN")
    _insert(connection, "meta", common[0]["meta"])
    for tables in common:
        _insert(connection, "levels", tables["levels"])
    commits = []
    for tables in rounds:
        head, chained = _chained(head, tables["commits"])
        commits.append({"commits": chained})
    for name in ("rounds", *SCIENCE, "commits"):
        parts = [tables[name] for tables in (commits if name == "commits" else rounds)]
        if any(part.num_rows for part in parts):
            _insert(connection, name, pa.concat_tables(parts))
    reach("before the rows of the new ledger are committed")
    connection.execute("COMMIT")
    reach("after the rows of the new ledger were committed")
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
    """A number for this recovery, above that of every run that is known of."""
    epochs = [e or 0 for tables in rounds for e in tables["commits"].column("epoch").to_pylist()]
    for place in (folder, *folder.glob("damaged-*")):  # an earlier recovery may have put the head aside
        with suppress(LedgerError):  # it is one of the damaged files
            epochs.append(Head.read(place).epoch)
    return max(epochs, default=0) + 1


def _free_name(folder: Path) -> Path:
    """A folder for the old files that is not there yet."""
    number = 1
    while (aside := folder / f"damaged-{number}").exists() or aside.is_symlink():
        number += 1
    return aside

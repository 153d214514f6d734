"""Parquet exports of closed rounds: immutable, with a manifest of sha256 sums."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from paragenesis.engine.failpoints import reach
from paragenesis.engine.ledger.content import SCIENCE, rows_of_rounds
from paragenesis.engine.ledger.database import EXPORTS, leads_out
from paragenesis.engine.ledger.disk import sha256_of, sync
from paragenesis.engine.ledger.schema import tables
from paragenesis.errors import LedgerError

MANIFEST = "manifest.json"


def export_folder(directory: Path, number: int) -> Path:
    """Where a closed round's files are."""
    return directory / EXPORTS / f"round={number:02d}"


def check_place(directory: Path) -> None:
    """Refuse to write, or to move anything, where the folder of the exports is a link that leads elsewhere.

    Raises:
        LedgerError: It is.
    """
    if leads_out(directory / EXPORTS):
        raise LedgerError(f"{directory / EXPORTS} is a link out of the campaign; remove it, and exports are made anew")


def exported_rounds(directory: Path) -> list[int]:
    """Numbers of the rounds that have a folder of exports, sound or not, ascending."""
    numbers = {path: path.name.partition("=")[2] for path in (directory / EXPORTS).glob("round=*")}
    return sorted(int(n) for path, n in numbers.items() if n.isdecimal() and path == export_folder(directory, int(n)))


def export_closed_rounds(connection: Any, directory: Path) -> list[int]:
    """Export every closed round that has no files yet; their numbers.

    This heals a crash between the closing of a round and its export.

    Raises:
        LedgerError: The folder of the exports is a link that leads out of the campaign.
    """
    check_place(directory)
    sql = "SELECT round FROM rounds WHERE state = 'closed' ORDER BY round"
    closed = [number for (number,) in connection.execute(sql).fetchall()]
    missing = [number for number in closed if not os.path.lexists(export_folder(directory, number))]
    for number in missing:
        _export_round(connection, directory, number)
    return missing


def _export_round(connection: Any, directory: Path, number: int) -> None:
    """Write one round's files into a folder aside, make them durable, then rename the folder."""
    final = export_folder(directory, number)
    aside = final.with_name(f".{final.name}.new")
    aside.unlink() if aside.is_symlink() else shutil.rmtree(aside, ignore_errors=True)  # what a crash left, or a link
    aside.mkdir(parents=True)
    files = {}
    for name, sql in _selections(number).items():
        path = aside / f"{name}.parquet"
        reach(f"before {name} of round {number} is exported")
        table = connection.sql(sql).to_arrow_table()
        with path.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        files[path.name] = {"sha256": sha256_of(path), "rows": table.num_rows}
        reach(f"after {name} of round {number} was exported")
    manifest = aside / MANIFEST
    reach(f"before the manifest of round {number} is written")
    manifest.write_text(json.dumps({"round": number, "files": files}, indent=1) + "\n")
    for written in (manifest, aside):
        sync(written)
    reach(f"after the manifest of round {number} was written")
    reach(f"before the export of round {number} is renamed")
    aside.rename(final)
    sync(final.parent)
    reach(f"after the export of round {number}")


def _selections(number: int) -> dict[str, str]:
    """SQL for each exported table, in the order of its primary key; all that is needed to rebuild the round."""
    sql = {
        name: f"SELECT * EXCLUDE of_round FROM ({rows_of_rounds(name)}) WHERE of_round = {number}" for name in SCIENCE
    }
    sql |= {name: f"SELECT * FROM {name} WHERE round = {number}" for name in ("rounds", "commits")}
    sql |= {name: f"SELECT * FROM {name}" for name in ("levels", "meta")}
    return {name: f"{text} ORDER BY {', '.join(tables()[name].primary_key)}" for name, text in sql.items()}


def manifest_problems(directory: Path, number: int) -> list[str]:
    """What is wrong with a closed round's files, in sentences; nothing outside of their folder is read."""
    folder = export_folder(directory, number)
    for path in (folder.parent, folder, folder / MANIFEST):
        if leads_out(path):
            return [f"{path} is a link out of the campaign, which is not followed; remove it"]
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        listed = {str(name): (str(one["sha256"]), int(one["rows"])) for name, one in manifest["files"].items()}
        of_round = int(manifest["round"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [f"round {number} is closed, but {folder / MANIFEST} is absent or unreadable"]
    if of_round != number:
        return [f"{folder / MANIFEST} is that of round {of_round}; put the right folder back"]
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    problems = [f"{folder / name} is not in the manifest" for name in sorted(present - set(listed))]
    for name, (sha256, _) in sorted(listed.items()):
        path = folder / name
        if name not in present:  # so it is no path, absolute or with "..", either
            problems.append(f"{path} is in the manifest, but absent")
        elif leads_out(path) or not path.is_file():
            problems.append(f"{path} is no file of the campaign, but a link, a folder or a pipe; remove it")
        elif sha256_of(path) != sha256:
            problems.append(f"{path} was changed: its sha256 differs from the manifest's")
    return problems


def manifest_rows(directory: Path, number: int) -> dict[str, int]:
    """How many rows the manifest of a round gives for each science table; the manifest must be sound."""
    files = json.loads((export_folder(directory, number) / MANIFEST).read_text())["files"]
    return {name: int(files[f"{name}.parquet"]["rows"]) for name in SCIENCE if f"{name}.parquet" in files}

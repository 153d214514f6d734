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
from paragenesis.engine.ledger.database import EXPORTS
from paragenesis.engine.ledger.disk import sha256_of, sync
from paragenesis.engine.ledger.schema import tables

MANIFEST = "manifest.json"


def export_folder(directory: Path, number: int) -> Path:
    """Where a closed round's files are."""
    return directory / EXPORTS / f"round={number:02d}"


def export_closed_rounds(connection: Any, directory: Path) -> list[int]:
    """Export every closed round that has no files yet; their numbers.

    This heals a crash between the closing of a round and its export.
    """
    sql = "SELECT round FROM rounds WHERE state = 'closed' ORDER BY round"
    closed = [number for (number,) in connection.execute(sql).fetchall()]
    missing = [number for number in closed if not export_folder(directory, number).exists()]
    for number in missing:
        _export_round(connection, directory, number)
    return missing


def _export_round(connection: Any, directory: Path, number: int) -> None:
    """Write one round's files into a folder aside, make them durable, then rename the folder."""
    final = export_folder(directory, number)
    aside = final.with_name(f".{final.name}.new")
    shutil.rmtree(aside, ignore_errors=True)  # what a crash left
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
    manifest = aside / MANIFEST
    manifest.write_text(json.dumps({"round": number, "files": files}, indent=1) + "\n")
    for written in (manifest, aside):
        sync(written)
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
    """What is wrong with a closed round's files, in sentences."""
    folder = export_folder(directory, number)
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        listed = {str(name): (str(entry["sha256"]), int(entry["rows"])) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"round {number} is closed, but {folder / MANIFEST} is absent or unreadable"]
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    problems = [f"{folder / name} is not in the manifest" for name in sorted(present - set(listed))]
    for name, (sha256, _) in sorted(listed.items()):
        if name not in present:
            problems.append(f"{folder / name} is in the manifest, but absent")
        elif sha256_of(folder / name) != sha256:
            problems.append(f"{folder / name} was changed: its sha256 differs from the manifest's")
    return problems


def manifest_rows(directory: Path, number: int) -> dict[str, int]:
    """How many rows the manifest of a round gives for each science table; the manifest must be sound."""
    files = json.loads((export_folder(directory, number) / MANIFEST).read_text())["files"]
    return {name: int(files[f"{name}.parquet"]["rows"]) for name in SCIENCE if f"{name}.parquet" in files}

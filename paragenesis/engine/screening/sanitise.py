"""Crystals from outside: accepted as valid crystals, or refused with one sentence that says why.

This is the one door for CIF, POSCAR, extxyz, CSV and Parquet. Sizes are checked on the raw text (`texts.py`), parsers
work in a process of its own with limits on time and memory (`apart.py`), and what they return is judged by the same
function as generated crystals (`validity.invalid_reasons`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from paragenesis.crystals import Crystals
from paragenesis.engine.screening.apart import load_table, parse_apart
from paragenesis.engine.screening.files import cif_table, format_of, is_table, read_text
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.engine.screening.texts import Notes, TextFormat, frames, guarded, one_line, safe_name
from paragenesis.engine.screening.validity import invalid_reasons, of_no_element
from paragenesis.errors import InputError, RejectedInput

T = TypeVar("T")

STORED = frozenset({"id", "numbers", "frac", "lattice"})  # the columns that `Crystals.to_arrow` writes
_LONGEST_ORIGIN = 200


def sanitise(path: str | Path, limits: InputLimits | None = None) -> Crystals:
    """All crystals of a file, every one of them valid.

    Reads CIF, POSCAR/CONTCAR, extxyz, CSV with a column `cif`, and Parquet with a column `cif` or the columns that
    `Crystals.to_arrow` writes; each also gzipped.

    Raises:
        RejectedInput: The file is missing, too large, of unknown format, or one of its crystals is not valid.
    """
    return sanitise_with_notes(path, limits)[0]


def sanitise_with_notes(path: str | Path, limits: InputLimits | None = None) -> tuple[Crystals, list[Notes]]:
    """The same with what stands beside each crystal of an extxyz file.

    Raises:
        RejectedInput: See `sanitise`.
    """
    path, limits = Path(path), limits or InputLimits()
    if not is_table(path):
        kind = format_of(path)
        return _from_text(read_text(path, limits), kind, safe_name(Path(path.name.removesuffix(".gz")).stem), limits)
    if (stored := stored_crystals(path, limits)) is not None:
        crystals = judged(stored, limits, path.name)
    else:
        table = within(cif_table(path, limits), limits, path.name)
        rows = [sanitise_text(cif, "cif", row, limits) for _, (row, _, cif) in table]
        crystals = Crystals.concatenate(rows)
    return crystals, [{} for _ in crystals.ids]


def sanitise_text(
    text: str, text_format: TextFormat, name: str = "input", limits: InputLimits | None = None
) -> Crystals:
    """All crystals in a text, every one of them valid; ids are `name`, or `name-0`, `name-1`, ... for several.

    Raises:
        RejectedInput: The text is too large, cannot be parsed, or one of its crystals is not valid.
    """
    return _from_text(text, text_format, name, limits or InputLimits())[0]


def read_structures(path: Path, limits: InputLimits | None = None) -> Crystals:
    """The crystals of a CIF, POSCAR or extxyz file as they stand, for what needs no real volume, such as a prototype.

    Raises:
        RejectedInput: The file is missing, too large, of unknown format, cannot be read, or holds numbers that are
            not finite or atoms of no element.
    """
    limits = limits or InputLimits()
    crystals, _ = _parsed(read_text(path, limits), format_of(path), path.name, limits)
    if not (np.isfinite(crystals.lattices).all() and np.isfinite(crystals.frac).all() and (crystals.volumes > 0).all()):
        raise RejectedInput(f"{path.name} holds a cell without volume, or numbers that are not finite; mend it")
    if of_no_element(crystals.numbers).any():
        raise RejectedInput(f"{path.name} holds an atom of no element; name the elements of all atoms")
    return crystals


def stored_crystals(path: Path, limits: InputLimits) -> Crystals | None:
    """The crystals that a Parquet file stores as columns, as they stand; None where it has no such columns.

    Raises:
        RejectedInput: The file is missing, too large, no table, or its columns hold no crystals.
    """
    if not path.name.lower().removesuffix(".gz").endswith(".parquet"):
        return None
    table = load_table(path, limits)
    return crystals_of(table, path.name) if set(table.column_names) >= STORED else None


def crystals_of(table: pa.Table, where: str) -> Crystals:
    """The crystals in the columns of a table from outside, as they stand, under safe names.

    Raises:
        RejectedInput: The columns hold no crystals.
    """
    crystals = guarded("crystals", f"the columns of {where}", lambda: _from_columns(table, where))
    return replace(
        crystals,
        ids=tuple(safe_name(str(name)) for name in crystals.ids),
        origins=tuple(one_line(str(origin or ""), _LONGEST_ORIGIN) for origin in crystals.origins),
    )


def judged(crystals: Crystals, limits: InputLimits, where: str) -> Crystals:
    """The crystals, if all of them are small enough and valid.

    Raises:
        RejectedInput: One of them is not, or there are none.
    """
    if not len(crystals):
        raise RejectedInput(f"{where} holds no crystals")
    largest = int(crystals.n_atoms.max())
    if largest > limits.max_atoms:
        raise RejectedInput(f"{where} holds a crystal of {largest} atoms; at most {limits.max_atoms} are accepted")
    for name, reason in zip(crystals.ids, faults(crystals), strict=True):
        if reason:
            raise RejectedInput(f"crystal {name} of {where} is not valid: {reason}")
    return crystals


def faults(crystals: Crystals, max_volume_per_atom: float | None = None) -> list[str]:
    """Why each crystal is not valid, "" where it is.

    Chemistry is a matter of plausibility, for generated crystals only: what exists may well break the rule.

    Args:
        crystals: The crystals.
        max_volume_per_atom: How thin they may be, A^3/atom; as generated ones by default.
    """
    settings = ScreeningSettings(charge_neutrality=False)
    if max_volume_per_atom is not None:
        settings = settings.model_copy(update={"max_volume_per_atom": max_volume_per_atom})
    return guarded("crystals", "what was given", lambda: invalid_reasons(crystals, settings))


def within(pieces: Iterable[T], limits: InputLimits, name: str) -> Iterator[tuple[int, T]]:
    """The pieces of a file with their numbers, as long as there is time for them.

    Raises:
        RejectedInput: They take longer than all of a file may.
    """
    deadline = time.monotonic() + limits.max_file_seconds
    for index, piece in enumerate(pieces):
        if time.monotonic() > deadline:
            raise RejectedInput(
                f"{name} was not read in {limits.max_file_seconds} s, only its first {index} crystals; split it"
            )
        yield index, piece


def _from_text(text: str, text_format: TextFormat, name: str, limits: InputLimits) -> tuple[Crystals, list[Notes]]:
    """The valid crystals in a text, and what stands beside each."""
    crystals, notes = _parsed(text, text_format, name, limits)
    return judged(crystals, limits, name), notes


def _parsed(text: str, text_format: TextFormat, name: str, limits: InputLimits) -> tuple[Crystals, list[Notes]]:
    """The crystals in a text as they stand, at least one, and what stands beside each."""
    found: list[Crystals] = []
    notes: list[Notes] = []
    for index, piece in within(frames(text) if text_format == "extxyz" else [text], limits, name):
        alone = text_format != "extxyz" or (index == 0 and len(piece) == len(text.rstrip()))
        crystals, beside = parse_apart(piece, text_format, limits, name if alone else f"{name}-{index}")
        found.append(crystals)
        notes += beside
    together = Crystals.concatenate(found)
    if not len(together):
        raise RejectedInput(f"{name} holds no crystals")
    ids = [name] if len(together) == 1 else [f"{name}-{i}" for i in range(len(together))]
    return together.with_ids(ids), notes


def _from_columns(table: pa.Table, where: str) -> Crystals:
    """The same under the names that stand there."""
    try:
        return Crystals.from_arrow(table)
    except InputError as error:
        raise RejectedInput(f"the columns of {where} hold no crystals: {one_line(str(error), 400)}") from None

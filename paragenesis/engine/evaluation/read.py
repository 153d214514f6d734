"""Crystals to be evaluated, read one by one: what cannot be read is counted, not refused.

A generator's output holds bad crystals, and leaving them out would flatter it. So every crystal of a file is either
read as it stands, valid or not, or stands among the unreadable ones with the reason.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from paragenesis.crystals import Crystals

# The parsers without the judgement: here a crystal that is not valid is a finding, not an error.
from paragenesis.engine.screening.sanitise import _PARSERS, InputLimits, TextFormat, _format_of, _text, cif_table
from paragenesis.errors import ParagenesisError, RejectedInput

_COLUMNS = frozenset({"id", "numbers", "frac", "lattice"})  # as `Crystals.to_arrow` writes them
_BLOCK = re.compile(r"^(?=data_)", re.MULTILINE)
Piece = tuple[str, str]  # a name and the text of one crystal
Unreadable = tuple[str, str]  # a name, which others may share, and the reason


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a generator made: crystals that could be read, and why the others could not.

    Attributes:
        name: Where it comes from, for reports.
        crystals: As they stand, valid or not.
        unreadable: Name and reason of each of the others.
    """

    name: str
    crystals: Crystals
    unreadable: tuple[Unreadable, ...] = ()

    def __len__(self) -> int:
        """How many crystals were generated, unreadable ones included."""
        return len(self.crystals) + len(self.unreadable)


def read_sample(path: Path, limits: InputLimits | None = None) -> Sample:
    """Every crystal of a file: CIF (any number of blocks), extxyz, POSCAR, CSV or Parquet, each also gzipped.

    Raises:
        RejectedInput: The file is missing, too large, of unknown format, or holds no crystals at all.
    """
    limits = limits or InputLimits()
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet") and (stored := _stored(path, limits)) is not None:
        crystals, unreadable = stored
    elif name.endswith((".csv", ".parquet")):
        crystals, unreadable = _parsed(((row, cif) for row, _, cif in cif_table(path, limits)), "cif", limits)
    else:
        kind = _format_of(path)
        crystals, unreadable = _parsed(_pieces(_text(path, limits), kind, path.stem), kind, limits)
    if not len(crystals) and not unreadable:
        raise RejectedInput(f"{path.name} holds no crystals; give a file with at least one")
    return Sample(name=path.name, crystals=crystals, unreadable=unreadable)


def _parsed(pieces: Iterator[Piece], kind: TextFormat, limits: InputLimits) -> tuple[Crystals, tuple[Unreadable, ...]]:
    """The crystals of some texts, and why the other texts are none."""
    found: list[Crystals] = []
    unreadable: list[Unreadable] = []
    for name, text in pieces:
        try:
            crystals = _PARSERS[kind](text, limits, name)
            if len(crystals) != 1:
                raise RejectedInput(f"{name} holds {len(crystals)} crystals instead of one")
            if crystals.n_atoms[0] > limits.max_atoms:
                raise RejectedInput(_too_large(int(crystals.n_atoms[0]), limits))
        except ParagenesisError as error:
            unreadable.append((name, str(error)))
        else:
            found.append(crystals.with_ids([name]))
    return Crystals.concatenate(found), tuple(unreadable)


def _too_large(n_atoms: int, limits: InputLimits) -> str:
    return f"it has {n_atoms} atoms; at most {limits.max_atoms} are accepted"


def _pieces(text: str, kind: TextFormat, stem: str) -> Iterator[Piece]:
    """A text cut into single crystals."""
    if kind == "poscar":
        yield stem, text
        return
    parts = _frames(text) if kind == "extxyz" else [p for p in _BLOCK.split(text) if p.startswith("data_")] or [text]
    for index, part in enumerate(parts):
        yield f"{stem}-{index}", part


def _frames(text: str) -> Iterator[str]:
    """The frames of an extxyz text; from a line on that is no number of atoms, the rest is one unreadable frame."""
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines) and lines[at].strip():
        count = lines[at].strip()
        last = at + int(count) + 2 if count.isdecimal() and len(count) < 10 else len(lines)
        yield "".join(lines[at:last])
        at = last


def _stored(path: Path, limits: InputLimits) -> tuple[Crystals, tuple[Unreadable, ...]] | None:
    """Crystals that a Parquet file stores as columns; None where it has no such columns."""
    import pyarrow.parquet as pq

    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            content = file.read(limits.max_file_bytes + 1)
        if len(content) > limits.max_file_bytes:
            raise RejectedInput(f"{path.name} is larger than {limits.max_file_bytes} bytes; split it")
        table = pq.read_table(io.BytesIO(content))
        if not _COLUMNS.issubset(table.column_names):
            return None
        crystals = Crystals.from_arrow(table)
    except RejectedInput:
        raise
    except (OSError, EOFError, ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise RejectedInput(f"{path} cannot be read as a table of crystals: {error}") from None
    large = crystals.n_atoms > limits.max_atoms
    refused = [(crystals.ids[i], _too_large(int(crystals.n_atoms[i]), limits)) for i in np.flatnonzero(large)]
    return crystals[~large], tuple(refused)

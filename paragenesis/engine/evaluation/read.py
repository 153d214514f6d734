"""Crystals to be evaluated, read one by one: what cannot be read is counted, not refused.

A generator's output holds bad crystals, and leaving them out would flatter it. So every crystal of a file is either
read as it stands, valid or not, or stands among the unreadable ones with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paragenesis.crystals import Crystals

# The parsers without the judgement: here a crystal that is not valid is a finding, not an error.
from paragenesis.engine.screening.apart import parse_apart
from paragenesis.engine.screening.files import cif_table, format_of, is_table, read_text
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.sanitise import stored_crystals
from paragenesis.engine.screening.texts import TextFormat, frames
from paragenesis.errors import ParagenesisError, RejectedInput

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
    if (stored := stored_crystals(path, limits)) is not None:
        crystals, unreadable = _small(stored, limits)
    elif is_table(path):
        crystals, unreadable = _parsed(((row, cif) for row, _, cif in cif_table(path, limits)), "cif", limits)
    else:
        kind = format_of(path)
        crystals, unreadable = _parsed(_pieces(read_text(path, limits), kind, path.stem), kind, limits)
    if not len(crystals) and not unreadable:
        raise RejectedInput(f"{path.name} holds no crystals; give a file with at least one")
    return Sample(name=path.name, crystals=crystals, unreadable=unreadable)


def _parsed(pieces: Iterator[Piece], kind: TextFormat, limits: InputLimits) -> tuple[Crystals, tuple[Unreadable, ...]]:
    """The crystals of some texts, and why the other texts are none."""
    found: list[Crystals] = []
    unreadable: list[Unreadable] = []
    for name, text in pieces:
        try:
            crystals, _ = parse_apart(text, kind, limits, name)
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
    parts = frames(text) if kind == "extxyz" else [p for p in _BLOCK.split(text) if p.startswith("data_")] or [text]
    for index, part in enumerate(parts):
        yield f"{stem}-{index}", part


def _small(crystals: Crystals, limits: InputLimits) -> tuple[Crystals, tuple[Unreadable, ...]]:
    """The crystals that are not too large, and the others."""
    large = crystals.n_atoms > limits.max_atoms
    refused = [(crystals.ids[i], _too_large(int(crystals.n_atoms[i]), limits)) for i in np.flatnonzero(large)]
    return crystals[~large], tuple(refused)

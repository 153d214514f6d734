"""Training data: crystals in their primitive cells, and what is known of them, from the files that people have.

Tables (CSV, CSV.gz, Parquet) with a column `cif` or with the columns of `Crystals.to_arrow`, extended XYZ, CIF and
POSCAR files, and campaign directories. A column of numbers is a label; names and texts are not.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.generators.learned.sources import Part, content_hash, most_cells, read_source, too_large
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.engine.screening.validity import invalid_reasons
from paragenesis.errors import InputError

SYMPREC = 0.1  # angstrom
_JUDGED_AT_ONCE = 2_000


@dataclass(frozen=True)
class TrainingSet:
    """Crystals to learn from.

    Attributes:
        crystals: n crystals in primitive cells.
        labels: Values of each property, shape `n`, NaN where unknown.
        digest: sha256 over the sources' content and the filter.
        sources: Names of the files or directories.
        licence: Under which the data may be used, in words.
        left_out: How many crystals were not taken, by reason.
    """

    crystals: Crystals
    labels: Mapping[str, FloatArray]
    digest: str
    sources: tuple[str, ...]
    licence: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many crystals there are."""
        return len(self.crystals)

    @property
    def summary(self) -> str:
        """How many crystals there are, and how many were left out and why, in words."""
        left_out = [f"{count} {reason}" for reason, count in self.left_out.items()]
        return f"{len(self)} crystals to learn from" + (f"; left out: {', '.join(left_out)}" if left_out else "")


def read_training_set(paths: Sequence[Path], *, max_atoms: int = 20, licence: str = "") -> TrainingSet:
    """Crystals with at most `max_atoms` atoms in the primitive cell, and their labels, from files and campaigns.

    Args:
        paths: Tables, structure files, and campaign directories.
        max_atoms: Larger primitive cells are left out.
        licence: Under which the data may be used; noted in the weights' card.

    Raises:
        InputError: A source cannot be read, or no crystal is left.
    """
    if not paths:
        raise InputError("no training data were given; name at least one file or campaign directory")
    if max_atoms < 1:
        raise InputError(f"max_atoms must be at least 1, but {max_atoms} was given")
    parts = [read_source(Path(path), max_atoms) for path in paths]
    hashes = [content_hash(Path(path)) for path in paths]
    digest = hashlib.sha256(json.dumps({"sources": hashes, "max_atoms": max_atoms}).encode()).hexdigest()
    return _assembled(parts, max_atoms, digest, tuple(Path(path).name for path in paths), licence)


def training_set(
    crystals: Crystals,
    labels: Mapping[str, FloatArray],
    *,
    max_atoms: int = 20,
    source: str = "memory",
    licence: str = "",
) -> TrainingSet:
    """A training set of crystals that are in memory already, with the same filter as those from files.

    Raises:
        InputError: A label has not one value a crystal, or no crystal is left.
    """
    digest = hashlib.sha256(f"{max_atoms}".encode())
    values = {name: np.asarray(labels[name], dtype=np.float64) for name in sorted(labels)}
    for name, column in values.items():
        if column.shape != (len(crystals),):
            raise InputError(f"label '{name}' has shape {column.shape}, but there are {len(crystals)} crystals")
        digest.update(name.encode() + column.tobytes())
    for array in (crystals.n_atoms, crystals.numbers, crystals.frac, crystals.lattices):
        digest.update(array.tobytes())
    return _assembled([Part(crystals, values)], max_atoms, digest.hexdigest(), (source,), licence)


def _assembled(
    parts: Sequence[Part], max_atoms: int, digest: str, sources: tuple[str, ...], licence: str
) -> TrainingSet:
    """All parts in one, reduced, judged and filtered."""
    left_out: Counter[str] = sum((part.left_out for part in parts), Counter())
    crystals = Crystals.concatenate([part.crystals for part in parts])
    names = sorted({name for part in parts for name in part.labels})
    labels = {
        name: np.concatenate([p.labels.get(name, np.full(len(p.crystals), np.nan)) for p in parts]) for name in names
    }
    valid = _valid(crystals)
    left_out["not a valid crystal"] += int((~valid).sum())
    crystals = primitive(crystals[valid])
    small = crystals.n_atoms <= max_atoms
    left_out[too_large(max_atoms)] += int((~small).sum())
    kept = np.flatnonzero(valid)[small]
    if not len(kept):
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "the sources are empty"
        raise InputError(f"no crystal to train on is left in {', '.join(sources)}: {why}")
    return TrainingSet(
        crystals=crystals[small],
        labels={name: values[kept] for name, values in labels.items() if np.isfinite(values[kept]).any()},
        digest=digest,
        sources=sources,
        licence=licence,
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def _valid(crystals: Crystals) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which crystals are valid; what exists may break the rules of chemistry that are for generated ones."""
    settings = ScreeningSettings(charge_neutrality=False)
    reasons: list[str] = []
    for start in range(0, len(crystals), _JUDGED_AT_ONCE):
        reasons += invalid_reasons(crystals[start : start + _JUDGED_AT_ONCE], settings)
    return np.array([not reason for reason in reasons], dtype=np.bool_)


# --- primitive cells -------------------------------------------------------------------------------------------------


def primitive(crystals: Crystals, symprec: float = SYMPREC) -> Crystals:
    """The same crystals in primitive cells; those that are primitive stay as they are.

    Only cells whose numbers of atoms have a common divisor can be larger than primitive, so few need a search.
    """
    return Crystals.concatenate([_primitive(crystal, symprec) for crystal in crystals])


def _primitive(crystal: Crystals, symprec: float) -> Crystals:
    """The primitive cell of a batch of one; the cell as it is where symmetry fails."""
    import moyopy

    if most_cells(crystal.numbers) == 1:
        return crystal
    # moyo warns of every supercell; without a handler Python would print that
    logging.getLogger("moyo").addHandler(_SILENT)
    cell = moyopy.Cell(crystal.lattices[0].tolist(), crystal.frac.tolist(), crystal.numbers.tolist())
    try:
        found = moyopy.MoyoDataset(cell, symprec=symprec).prim_std_cell
    except ValueError:
        return crystal  # it is a cell, too, only a larger one
    if found.num_atoms >= len(crystal.numbers):
        return crystal
    return Crystals(
        ids=crystal.ids,
        n_atoms=np.array([found.num_atoms]),
        numbers=np.array(found.numbers),
        frac=np.array(found.positions),
        lattices=np.array([found.basis]),
        origins=crystal.origins,
    )


_SILENT = logging.NullHandler()

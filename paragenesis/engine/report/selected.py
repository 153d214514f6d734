"""The selected crystals: why each was chosen, what was predicted then, what verification said, and its geometry."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.report.data import Axis, Campaign
from paragenesis.engine.report.source import Readable

Z90 = 1.645  # half-width of a central 90 % interval of a normal distribution, in standard deviations

_SELECTED = """
    SELECT s.round AS round, s.candidate_id AS candidate_id, s.rank AS rank, s.score AS score, s.why AS why,
           c.formula AS formula, c.space_group AS space_group, c.origin AS origin,
           v.status AS status, v.error AS error
    FROM selections s JOIN candidates c USING (candidate_id) LEFT JOIN (
        SELECT candidate_id, max(status) AS status, max(error) AS error FROM verifications
        WHERE level_key = ? OR status = 'failed' GROUP BY candidate_id) v USING (candidate_id)
    ORDER BY s.round DESC, s.rank, s.candidate_id"""
# the posterior of the round that selected the crystal, else the ensemble's estimate
_EXPECTED = """
    SELECT s.round AS round, s.candidate_id AS candidate_id, p.property AS property,
           arg_max({'mean': p.mean, 'std': p.std}, p.model LIKE 'posterior:%') AS value
    FROM selections s JOIN predictions p ON p.candidate_id = s.candidate_id
         AND (p.model = 'ensemble' OR p.model = 'posterior:' || s.round)
    WHERE isfinite(p.mean) GROUP BY 1, 2, 3"""
_VERIFIED = """
    SELECT candidate_id, property, value FROM verifications
    WHERE level_key = ? AND status = 'verified' AND isfinite(value)"""
_STRUCTURES = """
    SELECT c.candidate_id AS id, coalesce(v.numbers, c.numbers) AS numbers, coalesce(v.frac, c.frac) AS frac,
           coalesce(v.lattice, c.lattice) AS lattice, v.lattice IS NOT NULL AS by_oracle
    FROM candidates c LEFT JOIN verified_structures v ON v.candidate_id = c.candidate_id AND v.level_key = ?
    WHERE c.candidate_id IN (SELECT unnest(?))"""


@dataclass(frozen=True)
class Value:
    """One objective of one selected crystal: expected when it was selected, and verified; NaN where unknown."""

    mean: float
    std: float
    verified: float

    @property
    def half_width(self) -> float:
        """Half the width of the 90 % interval of the expectation."""
        return Z90 * self.std


@dataclass(frozen=True)
class Selected:
    """One crystal of one round's batch; `values` in the order of the campaign's objectives."""

    candidate_id: str
    formula: str
    space_group: int | None
    round: int
    rank: int | None
    score: float | None
    why: str
    origin: str
    status: str
    error: str
    values: tuple[Value, ...]

    @property
    def symbol(self) -> str:
        """Hermann-Mauguin symbol and number of the space group: 'Pm-3m (221)'."""
        from pymatgen.symmetry.groups import sg_symbol_from_int_number

        if self.space_group is None or not 1 <= self.space_group <= 230:
            return "unknown"
        return f"{sg_symbol_from_int_number(self.space_group)} ({self.space_group})"


@dataclass(frozen=True)
class Geometry:
    """A crystal for the viewer and its CIF as a `data:` address."""

    numbers: list[int]
    frac: list[float]
    lattice: list[float]
    by_oracle: bool
    cif: str
    file_name: str


@dataclass(frozen=True)
class Comparison:
    """Expected against verified values of one objective, for the k selected crystals that have both.

    Attributes:
        axis: The objective.
        mean: Expected when selected, shape `k`.
        std: Its standard deviation, shape `k`; NaN where none was given.
        verified: What the oracle found, shape `k`.
        rounds: The round of selection, shape `k`.
        formulas: Reduced formulas, `k`.
    """

    axis: Axis
    mean: FloatArray
    std: FloatArray
    verified: FloatArray
    rounds: IntArray
    formulas: list[str]

    @property
    def coverage(self) -> float:
        """Share of verified values inside their 90 % interval; NaN if no value has an interval."""
        known = np.isfinite(self.std)
        inside = np.abs(self.verified - self.mean)[known] <= Z90 * self.std[known]
        return float(inside.mean()) if known.any() else math.nan

    @property
    def bias(self) -> float:
        """Mean of expected minus verified."""
        return float((self.mean - self.verified).mean())

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(np.abs(self.mean - self.verified).mean())


def read_selected(source: Readable, campaign: Campaign) -> list[Selected]:
    """All selections, latest round first, by rank."""
    nothing = {"mean": math.nan, "std": math.nan}
    expected = {(r["round"], r["candidate_id"], r["property"]): r["value"] for r in source.query(_EXPECTED).to_pylist()}
    verified = {
        (r["candidate_id"], r["property"]): r["value"]
        for r in source.query(_VERIFIED, (campaign.oracle_level,)).to_pylist()
    }

    def value(row: dict[str, Any], axis: Axis) -> Value:
        guess = expected.get((row["round"], row["candidate_id"], axis.name), nothing)
        std = guess["std"]
        found = verified.get((row["candidate_id"], axis.name), math.nan)
        return Value(float(guess["mean"]), math.nan if std is None else float(std), float(found))

    return [
        Selected(
            candidate_id=row["candidate_id"],
            formula=row["formula"] or "",
            space_group=row["space_group"],
            round=row["round"],
            rank=row["rank"],
            score=row["score"],
            why=row["why"] or "",
            origin=row["origin"] or "",
            status=row["status"] or "pending",
            error=row["error"] or "",
            values=tuple(value(row, axis) for axis in campaign.axes),
        )
        for row in source.query(_SELECTED, (campaign.oracle_level,)).to_pylist()
    ]


def comparisons(campaign: Campaign, selected: list[Selected]) -> list[Comparison]:
    """Expected against verified, one entry an objective (with k = 0 where nothing can be compared)."""
    out = []
    for i, axis in enumerate(campaign.axes):
        both = [s for s in selected if math.isfinite(s.values[i].mean) and math.isfinite(s.values[i].verified)]
        out.append(
            Comparison(
                axis=axis,
                mean=np.array([s.values[i].mean for s in both]),
                std=np.array([s.values[i].std for s in both]),
                verified=np.array([s.values[i].verified for s in both]),
                rounds=np.array([s.round for s in both], dtype=np.int64),
                formulas=[s.formula for s in both],
            )
        )
    return out


def read_geometries(source: Readable, campaign: Campaign, ids: list[str]) -> dict[str, Geometry]:
    """Geometries by candidate: the oracle's where it relaxed the crystal, else the ensemble's."""
    if not ids:
        return {}
    rows = source.query(_STRUCTURES, (campaign.oracle_level, ids)).to_pylist()
    return {row["id"]: _geometry(row) for row in rows if row["numbers"] and row["frac"] and row["lattice"]}


def _geometry(row: dict[str, Any]) -> Geometry:
    """A row of the ledger as a geometry; the CIF has the full cell in P1, so that it is exact."""
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.cif import CifWriter

    frac = np.asarray(row["frac"], dtype=np.float64)
    structure = Structure(Lattice(row["lattice"]), row["numbers"], frac.reshape(-1, 3))
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{structure.composition.reduced_formula}_{row['id']}")
    return Geometry(
        numbers=list(row["numbers"]),
        frac=frac.round(6).tolist(),
        lattice=np.asarray(row["lattice"], dtype=np.float64).round(6).tolist(),
        by_oracle=row["by_oracle"],
        cif="data:chemical/x-cif;charset=utf-8," + quote(str(CifWriter(structure))),
        file_name=f"{name}.cif",
    )

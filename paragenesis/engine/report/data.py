"""What the report shows, read from the ledger into arrays and small records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field, TypeAdapter

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.report.source import Readable, column, parsed
from paragenesis.objectives.goals import Goal, Maximize, Minimize, Range, Target

_GOALS: TypeAdapter[Goal] = TypeAdapter(Annotated[Maximize | Minimize | Target | Range, Field(discriminator="kind")])

_CANDIDATES = """
    SELECT candidate_id, formula, round FROM candidates
    WHERE verdict = 'kept' OR candidate_id IN (SELECT candidate_id FROM selections) ORDER BY candidate_id"""
_PREDICTED = """
    SELECT candidate_id, arg_max(mean, coalesce(try_cast(split_part(model, ':', 2) AS INT), -1)) FROM predictions
    WHERE property = ? AND (model = 'ensemble' OR model LIKE 'posterior:%') AND isfinite(mean) GROUP BY candidate_id"""
_MEMBER = "SELECT candidate_id, mean FROM predictions WHERE property = ? AND model = ?"
_MEMBERS_MEAN = """
    SELECT candidate_id, coalesce(avg(mean) FILTER (model = 'ensemble'), avg(mean)) FROM predictions
    WHERE property = ? AND model NOT LIKE 'posterior:%' AND isfinite(mean) GROUP BY candidate_id"""
_VERIFIED = """
    SELECT candidate_id, arg_max(value, round) FROM verifications
    WHERE property = ? AND level_key = ? AND status = 'verified' AND isfinite(value) GROUP BY candidate_id"""
_VERIFIED_ROUND = """
    SELECT candidate_id, max(round) FROM verifications WHERE level_key = ? AND status = 'verified'
    GROUP BY candidate_id"""
_ROUNDS = """
    WITH made AS (
        SELECT round, count(*) AS generated, count(*) FILTER (verdict = 'kept') AS kept,
               count(*) FILTER (verdict = 'rejected') AS rejected, count(*) FILTER (verdict = 'failed') AS failed
        FROM candidates GROUP BY round),
    chosen AS (SELECT round, count(*) AS selected FROM selections GROUP BY round),
    checked AS (SELECT round, count(DISTINCT candidate_id) AS verified FROM verifications
                WHERE status = 'verified' GROUP BY round)
    SELECT round, state, coalesce(made.generated, 0) AS generated, coalesce(made.kept, 0) AS kept,
           coalesce(made.rejected, 0) AS rejected, coalesce(made.failed, 0) AS failed,
           coalesce(chosen.selected, 0) AS selected, coalesce(checked.verified, 0) AS verified,
           rounds.hits AS hits, rounds.hypervolume AS hypervolume, ref_point, condition, calibration
    FROM rounds LEFT JOIN made USING (round) LEFT JOIN chosen USING (round) LEFT JOIN checked USING (round)
    ORDER BY round"""
_LOSSES = """
    SELECT CASE WHEN fault = 'infrastructure' THEN 'lost' ELSE verdict END AS fate, coalesce(stage, '') AS stage,
           left(trim(split_part(coalesce(reason, ''), ':', 1)), 60) AS word, count(*) AS count, min(reason) AS example
    FROM candidates WHERE verdict <> 'kept' GROUP BY 1, 2, 3 ORDER BY count DESC, 1, 2, 3"""
_TRIAGE = """
    SELECT reason, count(DISTINCT candidate_id) AS count, min(detail) AS example,
           string_agg(DISTINCT CAST(round AS TEXT), ', ' ORDER BY CAST(round AS TEXT)) AS rounds
    FROM triage GROUP BY reason ORDER BY count DESC, reason"""
_LOST_ANSWERS = """
    SELECT count(*) AS n FROM (FROM verifications SELECT fault UNION ALL FROM probe_answers SELECT fault)
    WHERE fault = 'infrastructure'"""
_PASSED_TRIAGE = """
    SELECT count(*) AS n FROM candidates WHERE verdict = 'kept'
    AND (candidate_id IN (SELECT candidate_id FROM selections)
         OR candidate_id NOT IN (SELECT candidate_id FROM triage))"""
_REFUSALS = """
    SELECT model, count(DISTINCT candidate_id) AS count, min(note) AS example FROM predictions
    WHERE mean IS NULL AND note <> '' GROUP BY model ORDER BY model"""
_LEVEL = """
    SELECT level_key, count(DISTINCT candidate_id) AS n FROM verifications WHERE status = 'verified'
    GROUP BY level_key ORDER BY n DESC, level_key"""


@dataclass(frozen=True)
class Axis:
    """An objective as an axis of a figure."""

    name: str
    unit: str
    goal: Goal

    @property
    def words(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")

    @property
    def label(self) -> str:
        """Name and unit: 'density (g/cm3)'."""
        return self.words if self.unit in ("", "1") else f"{self.words} ({self.unit})"

    def with_unit(self, number: str) -> str:
        """A number of this objective with its unit, if it has one."""
        return number if self.unit in ("", "1") else f"{number} {self.unit}"

    @property
    def wish(self) -> str:
        """The goal in words: 'minimise', 'target 1.4', 'between 1 and 2'."""
        match self.goal:
            case Target(value=value):
                return f"target {value:g}"
            case Range(low=low, high=high):
                return _between(low, high)
            case Minimize():
                return "minimise"
            case _:
                return "maximise"

    @property
    def title(self) -> str:
        """Label and goal: 'density (g/cm3), minimise'."""
        return f"{self.label}, {self.wish}"


def _between(low: float | None, high: float | None) -> str:
    """A range in words; None is an open end."""
    if low is not None and high is not None:
        return f"between {low:g} and {high:g}"
    return f"at most {high:g}" if low is None else f"at least {low:g}"


@dataclass(frozen=True)
class Round:
    """The counts of one round; `hits` and `hypervolume` are None while it is open."""

    round: int
    state: str
    generated: int
    kept: int
    rejected: int
    failed: int
    selected: int
    verified: int
    hits: int | None
    hypervolume: float | None
    ref_point: list[float] | None
    condition: str | None
    calibration: str | None


@dataclass(frozen=True)
class Loss:
    """How many crystals left at a stage for one reason; `word` is the reason before its colon.

    The fate is "rejected", "failed", or, where not the crystal failed but the infrastructure, "lost".
    """

    fate: str
    stage: str
    word: str
    count: int
    example: str | None


@dataclass(frozen=True)
class TriageReason:
    """How many candidates triage turned down for one reason, and in which rounds."""

    reason: str
    count: int
    example: str | None
    rounds: str


@dataclass(frozen=True)
class Refusals:
    """How many crystals a member of the ensemble could not judge."""

    model: str
    count: int
    example: str | None


@dataclass(frozen=True)
class Candidates:
    """The n kept or selected candidates with what was predicted and verified; NaN where nothing is known.

    Attributes:
        ids: Their ids, `n`.
        formulas: Their reduced formulas, `n`.
        rounds: The round each was generated in, shape `n`.
        predicted: Latest prediction (posterior, else ensemble) of each of the m objectives, shape `m x n`.
        verified: Verified values of the objectives, shape `m x n`.
        verified_rounds: The round each was verified in, shape `n`; -1 where it was not.
        hull_predicted: Energy above hull by the ensemble, eV/atom, shape `n`.
        hull_verified: Energy above hull by the oracle, eV/atom, shape `n`.
        formation_energies: Per member of the ensemble, eV/atom, shape `k x n`.
        hull_distances: Per member of the ensemble, eV/atom, shape `k x n`.
    """

    ids: list[str]
    formulas: list[str]
    rounds: IntArray
    predicted: FloatArray
    verified: FloatArray
    verified_rounds: IntArray
    hull_predicted: FloatArray
    hull_verified: FloatArray
    formation_energies: FloatArray
    hull_distances: FloatArray


@dataclass(frozen=True)
class Campaign:
    """Everything a report shows except the selected crystals (see `selected.py`)."""

    meta: Mapping[str, str]
    axes: tuple[Axis, ...]
    members: tuple[dict[str, Any], ...]
    hull: dict[str, Any]
    oracle: dict[str, Any]
    oracle_level: str
    oracle_levels: tuple[str, ...]
    rounds: tuple[Round, ...]
    losses: tuple[Loss, ...]
    triage: tuple[TriageReason, ...]
    passed_triage: int
    lost_answers: int
    refusals: tuple[Refusals, ...]
    candidates: Candidates

    @property
    def name(self) -> str:
        """The campaign's name."""
        return self.meta.get("name") or "campaign"

    def total(self, what: str) -> int:
        """The sum of a count over all rounds; rounds that have none yet count as 0."""
        return sum(getattr(r, what) or 0 for r in self.rounds)


def read_campaign(source: Readable) -> Campaign:
    """Everything the report shows of a campaign, from its ledger."""
    meta = dict(source.meta())
    axes = tuple(_axis(entry) for entry in parsed(meta, "objectives", []))
    members = tuple(parsed(meta, "members", []))
    oracle = parsed(meta, "oracle", {})
    levels = tuple(source.query(_LEVEL).column("level_key").to_pylist())
    # values of two levels of theory never share a figure: the campaign's own oracle, else the one used most
    declared = str(oracle.get("level_key", ""))
    level = declared if declared in levels or not levels else levels[0]
    return Campaign(
        meta=meta,
        axes=axes,
        members=members,
        hull=parsed(meta, "hull", {}),
        oracle=oracle,
        oracle_level=level,
        oracle_levels=levels,
        rounds=tuple(Round(**row) for row in source.query(_ROUNDS).to_pylist()),
        losses=tuple(Loss(**row) for row in source.query(_LOSSES).to_pylist()),
        triage=tuple(TriageReason(**row) for row in source.query(_TRIAGE).to_pylist()),
        passed_triage=source.query(_PASSED_TRIAGE).column("n").to_pylist()[0],
        lost_answers=source.query(_LOST_ANSWERS).column("n").to_pylist()[0],
        refusals=tuple(Refusals(**row) for row in source.query(_REFUSALS).to_pylist()),
        candidates=_candidates(source, axes, [str(m.get("name", "")) for m in members], level),
    )


def _axis(entry: Mapping[str, Any]) -> Axis:
    """An objective from its entry in the ledger's meta table; the goal is its settings, or those as JSON."""
    goal = entry["goal"]
    if isinstance(goal, str):
        goal = json.loads(goal) if goal.startswith("{") else {"kind": goal}
    return Axis(str(entry["name"]), str(entry.get("unit", "1")), _GOALS.validate_python(goal))


def _candidates(source: Readable, axes: tuple[Axis, ...], members: list[str], level: str) -> Candidates:
    """The kept and selected candidates with their predictions and verified values."""
    table = source.query(_CANDIDATES)
    ids = table.column("candidate_id").combine_chunks().cast(pa.string())

    def rows(sql: str, params: list[tuple[str, ...]]) -> FloatArray:
        values = [column(source, ids, sql, p) for p in params]
        return np.stack(values) if values else np.zeros((0, len(ids)))

    return Candidates(
        ids=ids.to_pylist(),
        formulas=[formula or "" for formula in table.column("formula").to_pylist()],
        rounds=np.asarray(table.column("round"), dtype=np.int64),
        predicted=rows(_PREDICTED, [(a.name,) for a in axes]),
        verified=rows(_VERIFIED, [(a.name, level) for a in axes]),
        verified_rounds=np.nan_to_num(column(source, ids, _VERIFIED_ROUND, (level,)), nan=-1).astype(np.int64),
        hull_predicted=column(source, ids, _MEMBERS_MEAN, ("energy_above_hull",)),
        hull_verified=column(source, ids, _VERIFIED, ("energy_above_hull", level)),
        formation_energies=rows(_MEMBER, [("formation_energy", m) for m in members]),
        hull_distances=rows(_MEMBER, [("energy_above_hull", m) for m in members]),
    )

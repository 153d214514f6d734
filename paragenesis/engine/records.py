"""What a campaign writes: chunks, decisions and verifications as rows of the ledger's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.asking import Verification
from paragenesis.engine.budget import Yield
from paragenesis.engine.decision import Decision, posterior_model
from paragenesis.engine.learning import Grade, Lesson, Trial
from paragenesis.engine.ledger import rows, structure_columns
from paragenesis.engine.level import Level
from paragenesis.engine.stages import Chunk, ChunkTask
from paragenesis.engine.verdict import Verdict, fault

Tables = dict[str, pa.Table]

MEMBER_PROPERTIES = {  # a member's properties in the ledger, and the tables of Relaxed they come from
    "energy": "energies",
    "formation_energy": "formation_energies",
    "energy_above_hull": "hull_distances",
    "max_force": "max_forces",
    "pressure": "pressures",
    "magnetic_moment": "magnetic_moments",
}


def plan_tables(tasks: Sequence[ChunkTask]) -> Tables:
    """Rows of `chunks` for a round's plan."""
    aims = [json.dumps([wish.model_dump() for wish in task.aim]) if task.aim else None for task in tasks]
    return {
        "chunks": rows(
            "chunks",
            round=[task.round for task in tasks],
            generator=[task.generator for task in tasks],
            chunk=[task.index for task in tasks],
            n=[task.n for task in tasks],
            aim=aims,
        )
    }


def yield_tables(round_: int, yields: Sequence[Yield], next_shares: FloatArray) -> Tables:
    """Rows of `yields` for what the generators gave in a round."""
    columns = {field.name: [getattr(one, field.name) for one in yields] for field in fields(Yield)}
    return {"yields": rows("yields", round=round_, next_share=next_shares, **columns)}


def learning_tables(round_: int, lesson: Lesson, grade: Grade, file: str) -> Tables:
    """The row of `learning` for a lesson: what became of it, why, and where its weights are if they are used."""
    learnt, accepted = grade.learnt, grade.outcome == "accepted"
    trials = {} if learnt is None else {"before": learnt.before, "after": learnt.after}
    counts = {f"{name}_{when}": [getattr(trial, name)] for when, trial in trials.items() for name in Trial.COUNTS}
    return {
        "learning": rows(
            "learning",
            round=[round_],
            generator=lesson.generator,
            outcome=grade.outcome,
            reason=[grade.reason or None],
            error=[grade.error or None],
            crystals=len(lesson.crystals),
            weights=[file if accepted else None],
            sha256=[learnt.weights.sha256 if learnt and accepted else None],
            asked=[learnt.after.asked if learnt else None],
            **counts,
        )
    }


def chunk_tables(chunk: Chunk) -> Tables:
    """Rows of `candidates` and `predictions` for a finished chunk."""
    return {"candidates": _candidates(chunk), "predictions": _chunk_predictions(chunk)}


def unmade_tables(task: ChunkTask, verdict: Verdict) -> Tables:
    """Rows of `candidates` for a chunk that its generator could not make: no structures."""
    columns = {"round": task.round, "generator": task.generator, "chunk": task.index}
    ids = task.candidate_ids(task.n)
    return {"candidates": rows("candidates", candidate_id=ids, **columns, **_verdicts([verdict] * task.n))}


def decision_tables(round_: int, decision: Decision, objectives: Sequence[str]) -> Tables:
    """Rows of `triage`, `selections` and `predictions` for a round's decision."""
    ids, chosen, selection = decision.ids, decision.chosen.tolist(), decision.selection
    return {
        "selections": rows(
            "selections",
            round=round_,
            candidate_id=[ids[i] for i in chosen],
            rank=list(range(1, len(chosen) + 1)),
            score=selection.score,
            gain=selection.gain,
            uncertainty=selection.uncertainty,
            why=list(selection.why),
            **_most_like(decision),
        ),
        "triage": rows(
            "triage",
            round=round_,
            candidate_id=[ids[t.index] for t in decision.triaged],
            reason=[t.reason for t in decision.triaged],
            detail=[t.detail for t in decision.triaged],
        ),
        "predictions": rows(
            "predictions",
            candidate_id=[ids[i] for i in chosen for _ in objectives],
            model=posterior_model(round_),
            property=list(objectives) * len(chosen),
            mean=decision.mean[chosen].reshape(-1),
            std=decision.std[chosen].reshape(-1),
            note=[c.sentence for c in decision.calibration] * len(chosen),
            **_half_widths(decision),
        ),
    }


def _half_widths(decision: Decision) -> dict[str, list[Any]]:
    """Half the widths of the recalibrated intervals of each selected crystal, objective by objective."""
    found = [
        (std * np.array(calibration.half_widths)).tolist() if np.isfinite(std) else None
        for row in decision.std[decision.chosen]
        for std, calibration in zip(row, decision.calibration, strict=True)
    ]
    return {"half_widths": found}


def _most_like(decision: Decision) -> dict[str, list[Any]]:
    """For each selected crystal the verified, pending or better ranked one that it is most like, and how much."""
    selection = decision.selection
    ids: list[str | None] = []
    similarity: list[float | None] = []
    for given, to_given, before, to_before in zip(
        selection.nearest_given.tolist(),
        selection.similarity_given.tolist(),
        selection.nearest_chosen.tolist(),
        selection.similarity_chosen.tolist(),
        strict=True,
    ):
        known = (to_given, decision.known[given]) if given >= 0 else None
        chosen = (to_before, decision.ids[int(decision.chosen[before])]) if before >= 0 else None
        likest = max((one for one in (known, chosen) if one is not None), default=(None, None))
        similarity.append(likest[0])
        ids.append(likest[1])
    return {"most_like": ids, "similarity": similarity}


def probe_tables(round_: int, decision: Decision, fidelity: int) -> Tables:
    """Rows of `probes` for what a cheaper oracle is asked about in a round."""
    chosen, selection = decision.chosen.tolist(), decision.selection
    return {
        "probes": rows(
            "probes",
            round=round_,
            fidelity=fidelity,
            candidate_id=[decision.ids[i] for i in chosen],
            rank=list(range(1, len(chosen) + 1)),
            score=selection.score,
            gain=selection.gain,
            uncertainty=selection.uncertainty,
            why=list(selection.why),
        )
    }


def probe_answer_tables(
    round_: int, answer: Verification, level: Level, objectives: Sequence[str], fidelity: int
) -> Tables:
    """Rows of `probe_answers`, `verified_structures` and `levels` for a cheaper oracle's answer."""
    said = _answer(round_, answer, level, objectives)
    return {"probe_answers": rows("probe_answers", fidelity=fidelity, **said), **_at_level(round_, answer, level)}


def verification_tables(
    round_: int, answer: Verification, level: Level, objectives: Sequence[str], *, before_decision: bool = False
) -> Tables:
    """Rows of `verifications`, `verified_structures` and `levels` for the oracle's answer.

    Args:
        round_: The round in which it came.
        answer: The answer.
        level: Its level of theory.
        objectives: Names of the objectives.
        before_decision: It is of an earlier round's crystal, and came before this round's decision.
    """
    said = _answer(round_, answer, level, objectives)
    table = rows("verifications", before_decision=before_decision or None, **said)
    return {"verifications": table, **_at_level(round_, answer, level)}


def _answer(round_: int, answer: Verification, level: Level, objectives: Sequence[str]) -> dict[str, Any]:
    """The columns that `verifications` and `probe_answers` share: a row an objective, or one that says what failed."""
    verified, errors, m = answer.verified, answer.errors, len(objectives)
    ids, cost = verified.crystals.ids, verified.cost_seconds
    good = [i for i in range(len(ids)) if i not in errors]
    bad = [i for i in range(len(ids)) if i in errors]
    nothing = np.full(len(bad), np.nan)
    return {
        "candidate_id": [ids[i] for i in good for _ in objectives] + [ids[i] for i in bad],
        "level_key": level.key,
        "property": list(objectives) * len(good) + [""] * len(bad),
        "round": round_,
        "status": ["verified"] * (len(good) * m) + ["failed"] * len(bad),
        "value": np.concatenate([answer.values[good].reshape(-1), nothing]),
        "noise": np.concatenate([answer.noise[good].reshape(-1), nothing]),
        "error": [None] * (len(good) * m) + [errors[i] for i in bad],
        "fault": [None] * (len(good) * m) + [fault(answer.lost)] * len(bad),
        "attempts": [None] * (len(good) * m) + [answer.attempts] * len(bad),
        "cost_seconds": np.concatenate([np.repeat(cost[good], m), cost[bad]]),
    }


def _at_level(round_: int, answer: Verification, level: Level) -> Tables:
    """Rows of `levels` and, where the oracle relaxed, `verified_structures`."""
    tables = {"levels": rows("levels", level_key=[level.key], level=level.model_dump_json())}
    relaxed, ids = answer.verified.relaxed, answer.verified.crystals.ids
    good = [i for i in range(len(ids)) if i not in answer.errors]
    if relaxed is not None and good:
        tables["verified_structures"] = rows(
            "verified_structures",
            candidate_id=[ids[i] for i in good],
            level_key=level.key,
            round=round_,
            energy=relaxed.energies[0][good],
            **structure_columns(relaxed.crystals[good]),
        )
    return tables


def _candidates(chunk: Chunk) -> pa.Table:
    """One row for every crystal of a chunk, with its final and its initial geometry."""
    crystals, task, n = chunk.crystals, chunk.task, len(chunk.crystals)
    relaxed = {} if chunk.relaxed is None else {c: i for i, c in enumerate(chunk.relaxed.crystals.ids)}
    row = [relaxed.get(candidate, -1) for candidate in crystals.ids]
    names = [_names(crystals, i) for i in range(n)]
    return rows(
        "candidates",
        candidate_id=list(crystals.ids),
        round=task.round,
        generator=task.generator,
        chunk=task.index,
        origin=list(crystals.origins),
        formula=[formula for formula, _ in names],
        chemical_system=[system for _, system in names],
        space_group=chunk.space_groups,
        n_atoms=crystals.n_atoms,
        key=list(chunk.keys),
        **_verdicts(chunk.verdicts),
        **structure_columns(_final_geometry(chunk, row)),
        **structure_columns(crystals, prefix="initial_"),
        converged=[_at(chunk, "converged", r) for r in row],
        steps=[_at(chunk, "steps", r) for r in row],
    )


def _verdicts(verdicts: Sequence[Verdict]) -> dict[str, list[Any]]:
    """The columns that say what became of crystals."""
    return {
        "verdict": [v.status for v in verdicts],
        "stage": [v.stage or None for v in verdicts],
        "reason": [v.reason or None for v in verdicts],
        **_faults(verdicts),
    }


def _faults(verdicts: Sequence[Verdict]) -> dict[str, list[Any]]:
    """Of those that failed, whose fault it was, and in how many calls."""
    return {"fault": [v.fault for v in verdicts], "attempts": [v.attempts if v.fault else None for v in verdicts]}


def _at(chunk: Chunk, name: str, row: int) -> Any:
    """An entry of a per-crystal array of the chunk's judgements; None for a crystal that was not relaxed."""
    return None if chunk.relaxed is None or row < 0 else getattr(chunk.relaxed, name)[row].item()


def _final_geometry(chunk: Chunk, row: Sequence[int]) -> Crystals:
    """The relaxed geometry where there is one, else the generated one."""
    if chunk.relaxed is None:
        return chunk.crystals
    n, both = len(chunk.crystals), Crystals.concatenate([chunk.crystals, chunk.relaxed.crystals])
    return both[[n + r if r >= 0 else i for i, r in enumerate(row)]]


def _names(crystals: Crystals, index: int) -> tuple[str, str]:
    """Formula and chemical system; empty for a crystal with impossible elements, which a generator may make."""
    try:
        return crystals[index].formulas[0], crystals[index].chemical_systems[0]
    except (ValueError, KeyError):
        return "", ""


def _chunk_predictions(chunk: Chunk) -> pa.Table:
    """What every member and the ensemble say of the crystals still kept."""
    kept = {chunk.crystals.ids[i] for i in chunk.alive}
    refused = {(member, candidate): error for member, candidate, error in chunk.refusals}
    out: list[tuple[str, str, str, float, float, str | None]] = []
    if chunk.relaxed is not None:
        for i, candidate in enumerate(chunk.relaxed.crystals.ids):
            if candidate not in kept:
                continue
            for m, member in enumerate(chunk.relaxed.members):
                note = refused.get((member, candidate))
                for name, table in MEMBER_PROPERTIES.items():
                    value = getattr(chunk.relaxed, table)[m, i]
                    if np.isfinite(value) or note:
                        out.append((candidate, member, name, value, np.nan, note))
            for name, estimate in chunk.estimates.items():
                out.append((candidate, "ensemble", name, estimate.mean[i], estimate.std[i], None))
    names = ("candidate_id", "model", "property", "mean", "std", "note")
    columns = {name: [row[k] for row in out] for k, name in enumerate(names)}
    return rows("predictions", **columns)

"""What the ledger says of candidates, as arrays in the order of their ids: expected, verified, probed.

Everything here reads. The conditions are on the columns of `candidates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, IntArray
from paragenesis.engine.ledger import LedgerReader
from paragenesis.engine.preflight import Kit, hit_rules
from paragenesis.engine.verification import known_before, verified_where
from paragenesis.objectives.contract import Objective

POOL = "verdict = 'kept' AND candidate_id NOT IN (SELECT candidate_id FROM selections)"
KEPT = "verdict = 'kept'"


@dataclass(frozen=True)
class Labelled:
    """k crystals of which an oracle has spoken.

    Attributes:
        crystals: Their geometries as the ensemble relaxed them.
        values: The oracle's values, shape `k x m`; NaN where there is none.
        noise: The oracle's own standard deviations of them, shape `k x m`; NaN where it does not say.
        mean: The ensemble's means, shape `k x m`.
        std: The ensemble's standard deviations, shape `k x m`.
    """

    crystals: Crystals
    values: FloatArray
    noise: FloatArray
    mean: FloatArray
    std: FloatArray


@dataclass(frozen=True)
class Probed(Labelled):
    """What cheaper oracles said: a row for each crystal and level, levels in ascending order.

    Attributes:
        fidelity: The level of each row, from 1 on, shape `k`.
    """

    fidelity: IntArray


def verified_before(ledger: LedgerReader, kit: Kit, number: int) -> Labelled:
    """What the oracle had said before the decision of round `number`."""
    return verified_in(ledger, kit, known_before(number))


def verified_in(ledger: LedgerReader, kit: Kit, rounds: str) -> Labelled:
    """What the oracle said in some rounds, with what the ensemble had said of the same crystals."""
    which = verified_where(rounds)
    mean, std = predicted(ledger, kit, which, "ensemble")
    values, noise = _answers(ledger, kit, which, "verifications", kit.level.key)
    return Labelled(ledger.crystals(which), values, noise, mean, std)


def verified_values(ledger: LedgerReader, kit: Kit, which: str, answers: str = "true") -> FloatArray:
    """The oracle's values of every objective, for candidates that match a condition, shape `N x m`; NaN where none.

    Args:
        ledger: The campaign's ledger.
        kit: Its parts.
        which: A condition on `candidates`.
        answers: A condition on `verifications`: which answers count.
    """
    return _answers(ledger, kit, which, f"(SELECT * FROM verifications WHERE {answers})", kit.level.key)[0]


def probed_before(ledger: LedgerReader, kit: Kit, number: int, fidelity: int = 0) -> Probed:
    """What cheaper oracles had said before a round's decision, or before that round probed the level `fidelity`."""
    parts, levels = [], []
    for level, probe in enumerate(kit.probes, start=1):
        rounds = f"round < {int(number)}" if level <= fidelity else f"round <= {int(number)}"
        answered = f"SELECT candidate_id FROM probe_answers WHERE fidelity = {level} AND status = 'verified' AND "
        which = f"candidate_id IN ({answered}{rounds})"
        values, noise = _answers(ledger, kit, which, "probe_answers", probe.level.key)
        parts.append(Labelled(ledger.crystals(which), values, noise, *predicted(ledger, kit, which, "ensemble")))
        levels.append(np.full(len(values), level))
    nothing = np.zeros((0, len(kit.objectives)))

    def stacked(name: str) -> FloatArray:
        return np.vstack([nothing, *(getattr(part, name) for part in parts)])

    return Probed(
        crystals=Crystals.concatenate([ledger.crystals("false"), *(part.crystals for part in parts)]),
        values=stacked("values"),
        noise=stacked("noise"),
        mean=stacked("mean"),
        std=stacked("std"),
        fidelity=np.concatenate([np.zeros(0, dtype=np.int64), *levels]).astype(np.int64),
    )


def predicted(ledger: LedgerReader, kit: Kit, which: str, model: str) -> tuple[FloatArray, FloatArray]:
    """What a model predicts of every objective, for candidates that match a condition: mean and std, shape `N x m`."""
    tables = [prediction(ledger, which, model, objective.name) for objective in kit.objectives]
    return np.stack([t[0] for t in tables], axis=1), np.stack([t[1] for t in tables], axis=1)


def prediction(ledger: LedgerReader, which: str, model: str, name: str) -> tuple[FloatArray, FloatArray]:
    """Mean and std of one property in the order of the candidates, shape `N` each; NaN where there is none."""
    found = ledger.query(
        f"WITH pool AS (SELECT candidate_id FROM candidates WHERE {which}) "
        "SELECT p.mean, p.std FROM pool LEFT JOIN predictions p ON p.candidate_id = pool.candidate_id "
        "AND p.model = ? AND p.property = ? ORDER BY pool.candidate_id",
        (model, name),
    )
    return _floats(found, "mean"), _floats(found, "std")


def utilities(objectives: Sequence[Objective], values: FloatArray) -> FloatArray:
    """Utilities of exact values, shape `n x m`."""
    columns = [o.goal.utility(values[:, j]) for j, o in enumerate(objectives)]
    return np.stack(columns, axis=1)


def is_hit(kit: Kit, values: FloatArray) -> bool:
    """Whether verified values, shape `m`, obey every one of `hit_rules`; without rules nothing is a hit."""
    names = [o.name for o in kit.objectives]
    rules = hit_rules(kit.spec, kit.objectives)
    return bool(rules) and all(rule.holds(float(values[names.index(rule.objective)])) for rule in rules)


def _answers(ledger: LedgerReader, kit: Kit, which: str, table: str, level_key: str) -> tuple[FloatArray, FloatArray]:
    """Values and noise of every objective at one level of theory, for candidates that match a condition, `N x m`."""
    found = [
        ledger.query(
            f"WITH pool AS (SELECT candidate_id FROM candidates WHERE {which}) "
            f"SELECT v.value, v.noise FROM pool LEFT JOIN {table} v ON v.candidate_id = pool.candidate_id "
            "AND v.level_key = ? AND v.property = ? ORDER BY pool.candidate_id",
            (level_key, objective.name),
        )
        for objective in kit.objectives
    ]
    values, noise = (np.stack([_floats(one, name) for one in found], axis=1) for name in ("value", "noise"))
    return values, noise


def _floats(table: Any, name: str) -> FloatArray:
    """A column of numbers; NULL becomes NaN."""
    return np.asarray(table.column(name).to_numpy(zero_copy_only=False), dtype=np.float64).reshape(-1)

"""A batch: one pick after another by what a plan says candidates are worth, within the budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paragenesis.crystals import BoolArray, FloatArray, IntArray
from paragenesis.engine.acquisition.dpp import greedy_map_dpp
from paragenesis.engine.acquisition.pool import Pool
from paragenesis.engine.acquisition.strategies import DecisionSettings, Plan, Scores, exploration

_FLOOR = 1e-12  # quality of a candidate that scores nothing, relative to the best


@dataclass(frozen=True)
class Pick:
    """One place of the batch.

    Attributes:
        row: Of the pool.
        score: What it was chosen by, times its feasibility.
        gain: The same when it was picked, after those before it.
        rank: Of its score per cost in the pool, from 1.
        meaning: What the score is, in words.
        idle: What is to be said of it if it scores nothing.
        explored: Whether it is there for its uncertainty.
    """

    row: int
    score: float
    gain: float
    rank: int
    meaning: str
    idle: str
    explored: bool


def choose(pool: Pool, settings: DecisionSettings, plan: Plan) -> list[Pick]:
    """Fill the batch: the places of the strategy first, then those of exploration, which has its share of the budget.

    Candidates are ranked by score x feasibility / cost; one that the rest of the budget does not pay for is passed
    over for others that it does. What exploration leaves is the strategy's again; where the strategy's share pays for
    nothing, its first pick may take all of the budget.
    """
    q, budget = settings.q, settings.budget
    places = int(settings.explore * q + 0.5)
    picks = _fill(pool, settings, plan, [], q - places, None if budget is None else budget * (1.0 - places / q))
    if not picks and q > places:
        picks = _fill(pool, settings, plan, [], 1, budget)
    picks += _fill(pool, settings, exploration(pool), picks, places, budget, explored=True)
    return picks + _fill(pool, settings, plan, picks, q - len(picks), budget)


def _fill(
    pool: Pool,
    settings: DecisionSettings,
    plan: Plan,
    before: list[Pick],
    k: int,
    budget: float | None,
    *,
    explored: bool = False,
) -> list[Pick]:
    """Up to k more picks, all picks within the budget."""
    picks: list[Pick] = []
    while len(picks) < k:
        picked = np.array([pick.row for pick in before + picks], dtype=np.int64)
        usable = pool.usable(picked, budget)
        if not usable.any():
            break
        scores = plan.score(picked, usable)
        value = scores.value * pool.worth
        weight = plan.weight(settings)
        if weight is not None:
            rows, gains = _diverse(pool, settings, plan, weight, scores, picked, usable, k - len(picks), budget)
        else:
            rows = _ranking(value, scores.appeal, usable)[:1]
            gains = scores.value[rows]
        for row, gain in zip(rows.tolist(), gains.tolist(), strict=True):
            feasible = float(pool.feasible[row])
            rank = 1 + int(
                ((value > value[row]) | ((value == value[row]) & (scores.appeal > scores.appeal[row]))).sum()
            )
            score = float(scores.value[row]) * feasible
            picks.append(Pick(row, score, gain * feasible, rank, plan.meaning, plan.idle, explored))
    return picks


def _diverse(
    pool: Pool,
    settings: DecisionSettings,
    plan: Plan,
    weight: float,
    scores: Scores,
    before: IntArray,
    usable: BoolArray,
    k: int,
    budget: float | None,
) -> tuple[IntArray, FloatArray]:
    """Picks from the shortlist by a DPP, at least one, and what each scored when it was picked.

    Fewer than k come if nothing on the shortlist may be picked any more, while there may be something beside it.
    """
    most = max(settings.shortlist, settings.q)
    short = _ranking(scores.value * pool.worth, scores.appeal, usable, most)
    gains: list[FloatArray] = []

    def quality(picked: IntArray) -> FloatArray:
        so_far = np.concatenate([before, short[picked]])
        anew = plan.rescore if len(so_far) or pool.waiting else None
        gains.append(scores.value[short] if anew is None else anew(short, so_far))
        log_quality = _log_quality(gains[-1] * pool.worth[short], scores.appeal[short])
        return np.where(pool.usable(so_far, budget)[short], np.exp(0.5 * log_quality), 0.0)

    picked, _ = greedy_map_dpp(
        pool.features[short],
        quality,
        k,
        given=np.concatenate([pool.given, pool.features[before]]),
        length_scale=settings.similarity_length,
        weight=weight,
    )
    return short[picked], np.array([gains[t][row] for t, row in enumerate(picked)])


def _ranking(value: FloatArray, appeal: FloatArray, usable: BoolArray, most: int = 1) -> IntArray:
    """The best usable rows by value, equal ones by appeal, then by their place in the pool."""
    rows = np.flatnonzero(usable)
    if len(rows) > most:
        # sorting everything for a few would cost more than all the rest
        least = np.partition(value[rows], len(rows) - most)[len(rows) - most]
        rows = rows[value[rows] >= least]
    return rows[np.lexsort((-appeal[rows], -value[rows]))][:most].astype(np.int64)


def _log_quality(value: FloatArray, appeal: FloatArray) -> FloatArray:
    """Logarithm of the values relative to the best; those worth nothing follow far below, by their appeal."""
    best = float(value.max())
    relative = value / best if best > 0 else np.zeros_like(value)
    last = np.log(_FLOOR) + np.maximum(appeal - appeal.max(), -600.0)
    return np.where(relative > _FLOOR, np.log(np.maximum(relative, _FLOOR)), last)

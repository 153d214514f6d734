"""Selection: the q candidates of a pool that deserve verification, in order, each with the reasons for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.acquisition.batch import Pick, choose
from paragenesis.engine.acquisition.candidates import (
    Candidates,
    build_pool,
    check_candidates,
    check_costs,
    check_known,
    check_probabilities,
)
from paragenesis.engine.acquisition.features import FeatureSpace
from paragenesis.engine.acquisition.pool import Correlation, Pool
from paragenesis.engine.acquisition.strategies import STRATEGIES, DecisionSettings, Plan
from paragenesis.errors import InputError
from paragenesis.objectives.goals import Goal

__all__ = ["DecisionSettings", "Selection", "reference_utilities", "select_batch"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The chosen candidates, best first, then those chosen to explore, then what these left the budget for.

    Attributes:
        indices: Rows of the pool, shape `q` or fewer.
        score: What each was chosen by, shape as `indices`: the strategy's score, of explored ones the uncertainty;
            times the probability of being feasible.
        gain: What each is expected to add to those before it: for `ehvi_dpp` the hypervolume, else the score itself.
        uncertainty: Mean over objectives of the standard deviation, in units of the objective's spread over the pool.
        nearest_given: What is most alike of the given and pending: a row of `given`, or beyond it of `pending`; -1
            where there is none.
        similarity_given: How alike, from 0 to 1; 0 where there is none.
        nearest_chosen: What is most alike of the batch before it: a place in the batch; -1 where there is none.
        similarity_chosen: How alike, from 0 to 1; 0 where there is none.
        why: One sentence each.
        reference_point: In utilities, shape `m`.
        excluded: Rows that could not be considered, with the reason.
        note: What is unusual about this choice; empty if nothing.
    """

    indices: IntArray
    score: FloatArray
    gain: FloatArray
    uncertainty: FloatArray
    nearest_given: IntArray
    similarity_given: FloatArray
    nearest_chosen: IntArray
    similarity_chosen: FloatArray
    why: tuple[str, ...]
    reference_point: FloatArray
    excluded: dict[int, str] = field(default_factory=dict)
    note: str = ""

    def __len__(self) -> int:
        """How many were chosen."""
        return len(self.indices)


def select_batch(
    descriptors: FloatArray,
    mean: FloatArray,
    std: FloatArray,
    *,
    observed: FloatArray,
    given: FloatArray | None = None,
    pending: tuple[FloatArray, FloatArray] | None = None,
    hit_probability: FloatArray | None = None,
    feasible: FloatArray | None = None,
    cost: FloatArray | None = None,
    correlation: Correlation | None = None,
    ceiling: FloatArray | None = None,
    settings: DecisionSettings | None = None,
    reference_point: FloatArray | None = None,
    space: FeatureSpace | None = None,
    seed: int = 0,
) -> Selection:
    """Choose the q candidates to verify next.

    The same candidates are chosen in whatever order the pool comes and in whatever units, but for identical ones.

    Args:
        descriptors: Features of the candidates, shape `N x d`; `N` may be 0.
        mean: Expected utilities (larger is better), shape `N x m`.
        std: Their standard deviations, shape `N x m`.
        observed: Utilities of the verified crystals, shape `k x m`; `k` may be 0; rows with NaN are left out.
        given: Features of what is verified, shape `g x d`; the batch is diverse from these too.
        pending: Features and expected utilities of what is being verified, shapes `p x d` and `p x m`: counted as
            given, and in scores as if it had come out as expected, but not as observed.
        hit_probability: Probability of each candidate to be a hit, shape `N`; the strategy `hits` needs it, and is the
            default where it is given.
        feasible: Probability that constraints on its outcomes hold, shape `N`: scores are multiplied by it, and
            candidates with 0 are chosen when no others are left.
        cost: What the verification of each takes, shape `N`, positive, such as CPU seconds: candidates are ranked by
            score per cost, and the batch keeps to `settings.budget`.
        correlation: For some rows of the pool, shape `k`, how the errors of their expected utilities go together,
            shape `m x k x k` with 1 on the diagonals: what one pick would tell about others. Rows from `N` on are
            those of `pending`. It is asked of the shortlist of `ehvi_dpp`; without it picks tell nothing.
        ceiling: The utilities that nothing can exceed, shape `m`, infinite where there is no limit: that of a target is
            0. Normal moments promise more, but nothing is gained by it.
        settings: How to choose.
        reference_point: In utilities, shape `m`; inferred from what was observed and the pool if not given.
        space: How descriptors are scaled, where that is known already.
        seed: For strategies that draw.

    Returns:
        At most q candidates; all of them, and a note that says so, if there are not more; none if the budget pays for
        none. Candidates whose numbers are not finite are never chosen; `excluded` names them.

    Raises:
        InputError: Shapes disagree, a standard deviation, probability or cost is out of range, or something that the
            settings ask for is not given.
    """
    settings = settings or DecisionSettings()
    if settings.budget is not None and cost is None:
        raise InputError(f"a budget of {settings.budget:g} needs costs, but none were given; give `cost` or no budget")
    candidates = check_candidates(descriptors, mean, std)
    n, rows = len(candidates.mean), candidates.rows
    known = check_known(candidates, observed, given, pending)
    columns = {
        "hit_probability": check_probabilities("hit_probability", hit_probability, n, rows),
        "feasible": check_probabilities("feasible", feasible, n, rows),
        "cost": check_costs(cost, n, rows),
    }
    if rows.size == 0:
        return _nothing(candidates, reference_point)
    pool = build_pool(candidates, known, columns, reference_point, space, correlation, ceiling)
    plan = STRATEGIES[settings.strategy or ("ehvi_dpp" if hit_probability is None else "hits")](pool, seed)
    picks = choose(pool, settings, plan)
    picked = np.array([pick.row for pick in picks], dtype=np.int64)
    nearest = _nearest(pool, picked, settings.similarity_length)
    return Selection(
        indices=rows[picked],
        score=np.array([pick.score for pick in picks]),
        gain=np.array([pick.gain for pick in picks]),
        uncertainty=pool.uncertainty[picked],
        **nearest,
        why=_reasons(picks, len(pool), nearest),
        reference_point=pool.reference_point,
        excluded=candidates.excluded,
        note=_note(picks, pool, settings, plan),
    )


def reference_utilities(settings: DecisionSettings, goals: Sequence[Goal]) -> FloatArray | None:
    """The reference point of the settings as utilities, None if it is to be inferred.

    Raises:
        InputError: It has another number of values than there are objectives.
    """
    if settings.reference_point is None:
        return None
    if len(settings.reference_point) != len(goals):
        raise InputError(
            f"reference_point has {len(settings.reference_point)} values, but there are {len(goals)} objectives; "
            "give one each, in their order"
        )
    pairs = zip(goals, settings.reference_point, strict=True)
    return np.array([float(goal.utility(np.array([value]))[0]) for goal, value in pairs])


class _Nearest(TypedDict):
    """See the attributes of `Selection`."""

    nearest_given: IntArray
    similarity_given: FloatArray
    nearest_chosen: IntArray
    similarity_chosen: FloatArray


def _nearest(pool: Pool, picked: IntArray, length: float) -> _Nearest:
    """What each pick is most alike, of the given and of the picks before it."""
    given = [_most_alike(pool.given, pool.features[row], length) for row in picked]
    chosen = [_most_alike(pool.features[picked[:t]], pool.features[row], length) for t, row in enumerate(picked)]
    return {
        "nearest_given": np.array([index for index, _ in given], dtype=np.int64),
        "similarity_given": np.array([alike for _, alike in given], dtype=np.float64),
        "nearest_chosen": np.array([index for index, _ in chosen], dtype=np.int64),
        "similarity_chosen": np.array([alike for _, alike in chosen], dtype=np.float64),
    }


def _most_alike(others: FloatArray, features: FloatArray, length: float) -> tuple[int, float]:
    if not len(others):
        return -1, 0.0
    square = ((others - features) ** 2).sum(1)
    index = int(square.argmin())
    return index, float(np.exp(-0.5 * square[index] / length**2))


def _nothing(candidates: Candidates, reference_point: FloatArray | None) -> Selection:
    none, nowhere = np.zeros(0), np.zeros(0, dtype=np.int64)
    unknown = np.full(candidates.mean.shape[1], np.nan)
    return Selection(
        indices=nowhere,
        score=none,
        gain=none,
        uncertainty=none,
        nearest_given=nowhere,
        similarity_given=none,
        nearest_chosen=nowhere,
        similarity_chosen=none,
        why=(),
        reference_point=unknown if reference_point is None else np.asarray(reference_point, dtype=np.float64),
        excluded=candidates.excluded,
        note="no candidate has finite numbers" if candidates.excluded else "the pool is empty",
    )


def _reasons(picks: Sequence[Pick], n: int, nearest: _Nearest) -> tuple[str, ...]:
    """One sentence for each pick: its score and rank, and what it is most alike."""
    sentences = []
    for t, pick in enumerate(picks):
        words = [f"{pick.meaning} {pick.score:.3g}, rank {pick.rank} of {n}"]
        if nearest["nearest_given"][t] >= 0:
            words.append(f"similarity to the nearest verified or pending {nearest['similarity_given'][t]:.2f}")
        if nearest["nearest_chosen"][t] >= 0:
            words.append(f"similarity to the nearest already chosen {nearest['similarity_chosen'][t]:.2f}")
        sentences.append("; ".join(words))
    return tuple(sentences)


def _note(picks: Sequence[Pick], pool: Pool, settings: DecisionSettings, plan: Plan) -> str:
    """What is unusual about the batch."""
    n, q = len(pool), settings.q
    notes = [plan.note] if plan.note else []
    rows = np.array([pick.row for pick in picks], dtype=np.int64)
    if len(picks) < min(n, q) and settings.budget is not None:
        notes.append(_too_dear(pool, rows, settings.budget, q))
    elif n <= q:
        notes.append(f"{q} were asked for and {n} could be considered: all are chosen")
    infeasible = int((pool.feasible[rows] <= 0).sum())
    if infeasible:
        notes.append(f"{infeasible} of the chosen cannot hold the constraints; none that might was left")
    copies = len(rows) - len(np.unique(pool.group[rows]))
    if copies:
        notes.append(f"{copies} of the chosen repeat another; none that differs was left")
    for words in dict.fromkeys(pick.idle for pick in picks):
        idle = sum(pick.idle == words and pick.score <= 0 and pool.feasible[pick.row] > 0 for pick in picks)
        if idle:
            notes.append(f"{idle} of the chosen are {words}; they are the best of the rest")
    return "; ".join(notes)


def _too_dear(pool: Pool, rows: IntArray, budget: float, q: int) -> str:
    if not len(rows):
        return f"the budget of {budget:g} does not pay for the cheapest candidate, which costs {pool.cost.min():g}"
    spent = float(pool.cost[rows].sum())
    return f"{q} were asked for, but the budget of {budget:g} pays for {len(rows)}, which cost {spent:g}"

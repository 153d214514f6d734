"""Strategies: ways to value the candidates of a pool, behind one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import Field, field_validator

from paragenesis.crystals import BoolArray, FloatArray, IntArray
from paragenesis.engine.acquisition.believer import Believer, Front
from paragenesis.engine.acquisition.hypervolume import MOST_OBJECTIVES, Boxes, decompose, largest_gains
from paragenesis.engine.acquisition.pool import Pool
from paragenesis.engine.acquisition.scalarise import (
    WEIGHTINGS,
    Scalarisations,
    Scale,
    front_scale,
    scalarised_improvement,
    weightings,
)
from paragenesis.errors import InputError
from paragenesis.settings import Settings

_NO_GAIN = "not expected to improve on what is verified"


class DecisionSettings(Settings):
    """How a batch is chosen.

    Attributes:
        q: How many candidates are chosen.
        strategy: One of `STRATEGIES`. By default `hits` where all goals are ranges, else `ehvi_dpp`.
        shortlist: How many of the best scores the diverse choice is made from.
        diversity: Weight of diversity against the logarithm of the score; 0 is none. By default the strategy's own:
            0.03 with `ehvi_dpp`, of which the joint posterior keeps picks apart already, and 0.2 with `hits`, of which
            nothing else does (evidence: `benchmarks/README.md`, "Choosing 5 of" and "Decisions").
        similarity_length: Distance at which two crystals count as alike, as a share of the pool's root mean square
            distance.
        reference_point: What each objective must at least reach, in its own unit and in the order of the objectives;
            inferred if not given. `select.reference_utilities` turns it into utilities.
        budget: The most that the batch may cost, in the unit of the costs; no limit if not given.
        explore: Share of q, rounded, and of the budget that goes to the most uncertain candidates, whatever their
            score. They are chosen after the others, which get what they leave of the budget.
    """

    q: int = Field(default=8, ge=1)
    strategy: str | None = None
    shortlist: int = Field(default=1000, ge=1)
    diversity: float | None = Field(default=None, ge=0.0, le=100.0)
    similarity_length: float = Field(default=0.5, gt=0.0)
    reference_point: tuple[float, ...] | None = None
    budget: float | None = Field(default=None, gt=0.0)
    explore: float = Field(default=0.0, ge=0.0, le=1.0)

    @field_validator("strategy")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in STRATEGIES:
            raise ValueError(f"'{value}' is no strategy; choose one of {', '.join(sorted(STRATEGIES))}")
        return value


@dataclass(frozen=True)
class Scores:
    """What candidates are worth before a pick.

    Attributes:
        value: Never negative, shape `N`; feasibility and cost are not in it.
        appeal: Orders those of equal value, shape `N`; of the order of 1.
    """

    value: FloatArray
    appeal: FloatArray


@dataclass(frozen=True)
class Plan:
    """How a strategy values a pool.

    Attributes:
        meaning: What a score is, in words.
        idle: What is to be said of a candidate that scores nothing.
        score: Values the whole pool before a pick, given those picked so far (rows in order) and which may be picked
            next (shape `N`); it need be exact only for the best of these and for what exceeds it.
        rescore: Values some rows anew, given those picked so far; None if the first scores stay.
        diversity: Where the batch is chosen by a DPP with the first scores, or anew scored ones, as qualities: the
            weight of diversity unless the settings have one; else None.
        note: What is unusual about it.
    """

    meaning: str
    idle: str
    score: Callable[[IntArray, BoolArray], Scores]
    rescore: Callable[[IntArray, IntArray], FloatArray] | None = None
    diversity: float | None = None
    note: str = ""

    def weight(self, settings: DecisionSettings) -> float | None:
        """The weight of diversity; None where the batch is not chosen by a DPP."""
        return self.diversity if self.diversity is None or settings.diversity is None else settings.diversity


Strategy = Callable[[Pool, int], Plan]


def ehvi_dpp(pool: Pool, seed: int) -> Plan:
    """Shortlist by expected hypervolume improvement (EHVI), then choose jointly: log EHVI + diversity x log det.

    After each pick the shortlist is scored anew as if the pick had come out as expected, see `Believer`, so that the
    batch spreads along the front as well as over the descriptors. A pick's gain is its EHVI at that moment.
    """
    rescore = Believer(pool, _front(pool)).gain
    return _fixed(pool, *_expected(pool), rescore=rescore, diversity=0.03, note=_many(pool))


def ehvi(pool: Pool, seed: int) -> Plan:
    """The q largest expected hypervolume improvements."""
    return _fixed(pool, *_expected(pool), note=_many(pool))


def greedy(pool: Pool, seed: int) -> Plan:
    """The q largest hypervolume improvements of the expected utilities, whatever their uncertainty: the baseline."""
    value = _front(pool).expected_gain(pool.mean, np.zeros_like(pool.std))
    return _fixed(pool, value, f"{_measure(pool)} of the mean", note=_many(pool))


def thompson(pool: Pool, seed: int) -> Plan:
    """For each place in the batch one draw from the posterior: the candidate whose draw improves most.

    Posteriors are marginal, so that utilities are drawn from independent normals, a candidate and an objective at a
    time. Picks are not taken as verified; every place looks at a draw of its own.
    """
    front = _front(pool)

    def score(picked: IntArray, usable: BoolArray) -> Scores:
        normal = np.random.default_rng([seed, len(picked)]).normal(size=pool.mean.shape)
        draw = pool.mean + pool.std * normal
        if pool.ceiling is not None:
            draw = np.minimum(draw, pool.ceiling)
        if isinstance(front, Boxes):
            value = largest_gains(front, draw, pool.worth, usable)
        else:
            value = front.expected_gain(draw, np.zeros_like(draw))
        return Scores(value, pool.appeal_of(draw))

    return Plan(f"{_measure(pool)} of a posterior draw", _NO_GAIN, score, note=_many(pool))


def parego(pool: Pool, seed: int) -> Plan:
    """For each place in the batch one random weighting of the objectives: the largest expected improvement of it.

    J. Knowles, IEEE Trans. Evol. Comput. 10, 50 (2006): an augmented Chebyshev scalarisation of utilities normalised
    by the front, with weights from the simplex. Its expectation is taken over fixed quasi-random draws of each
    candidate's utilities, see `scalarised_improvement`. Picks count as verified with their expected utilities.
    """
    scale = _scale(pool)

    def score(picked: IntArray, usable: BoolArray) -> Scores:
        weights = np.random.default_rng([seed, len(picked)]).dirichlet(np.ones(pool.mean.shape[1]))
        believed = np.concatenate([pool.believed, pool.mean[picked]])
        return Scores(*scalarised_improvement(pool.mean, pool.std, believed, scale, weights[None]))

    return Plan("expected improvement of a random Chebyshev scalarisation", _NO_GAIN, score)


def hits(pool: Pool, seed: int) -> Plan:
    """The likeliest hits, chosen diversely.

    Raises:
        InputError: The probabilities are not known.
    """
    if pool.hit_probability is None:
        raise InputError(
            "the strategy 'hits' needs the probability of each candidate to be a hit, but none were given; "
            "give `hit_probability` (in a campaign: hit rules), or choose another strategy"
        )
    return _fixed(pool, pool.hit_probability, "probability of a hit", idle="not expected to be a hit", diversity=0.2)


def random(pool: Pool, seed: int) -> Plan:
    """Any q; the score is the draw."""
    return _fixed(pool, np.random.default_rng(seed).random(len(pool)), "random draw")


def exploration(pool: Pool) -> Plan:
    """The most uncertain candidates, chosen diversely: for the places of `DecisionSettings.explore`."""
    meaning = "explored for its uncertainty: mean of std / spread"
    return _fixed(pool, pool.uncertainty, meaning, idle="known exactly", diversity=0.1)


STRATEGIES: dict[str, Strategy] = {
    "ehvi_dpp": ehvi_dpp,
    "ehvi": ehvi,
    "greedy": greedy,
    "thompson": thompson,
    "parego": parego,
    "hits": hits,
    "random": random,
}


def _fixed(
    pool: Pool,
    value: FloatArray,
    meaning: str,
    *,
    idle: str = _NO_GAIN,
    rescore: Callable[[IntArray, IntArray], FloatArray] | None = None,
    diversity: float | None = None,
    note: str = "",
) -> Plan:
    """A plan in which the whole pool is scored once."""
    return Plan(meaning, idle, lambda picked, usable: Scores(value, pool.appeal), rescore, diversity, note)


def _expected(pool: Pool) -> tuple[FloatArray, str]:
    """The expected improvement of the pool, and what it is in words."""
    return _front(pool).expected_gain(pool.mean, pool.std), f"expected {_measure(pool)}"


def _front(pool: Pool) -> Front:
    """What is verified or pending, by hypervolume or, of more objectives than that is feasible for, scalarised."""
    scale, m = _scale(pool), pool.mean.shape[1]
    if m > MOST_OBJECTIVES:
        return Scalarisations(pool.believed, scale, weightings(m))
    return decompose(pool.believed, pool.reference_point, scale.high - scale.low, pool.ceiling)


def _scale(pool: Pool) -> Scale:
    return front_scale(pool.observed, pool.reference_point, pool.mean, pool.ceiling)


def _measure(pool: Pool) -> str:
    return "hypervolume improvement" if pool.mean.shape[1] <= MOST_OBJECTIVES else "scalarised improvement"


def _many(pool: Pool) -> str:
    m = pool.mean.shape[1]
    if m <= MOST_OBJECTIVES:
        return ""
    return (
        f"with {m} objectives the improvement of {WEIGHTINGS} Chebyshev scalarisations stands for that of the "
        f"hypervolume, which is computed for up to {MOST_OBJECTIVES}"
    )

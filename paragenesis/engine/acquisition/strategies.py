"""Strategies: ways to choose q candidates of a pool, behind one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import Field, field_validator

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.acquisition.dpp import greedy_map_dpp
from paragenesis.engine.acquisition.hypervolume import hypervolume_scores
from paragenesis.settings import Settings

_FLOOR = 1e-12  # quality of a candidate that scores nothing, relative to the best


class DecisionSettings(Settings):
    """How a batch is chosen.

    Attributes:
        q: How many candidates are chosen.
        strategy: One of `STRATEGIES`.
        shortlist: How many of the best scores the diverse choice is made from.
        diversity: Weight of diversity against the logarithm of the score; 0 is none.
        similarity_length: Distance at which two crystals count as alike, as a share of the pool's root mean square
            distance.
        reference_point: What each objective must at least reach, in its own unit and in the order of the objectives;
            inferred if not given. `select.reference_utilities` turns it into utilities.
    """

    q: int = Field(default=8, ge=1)
    strategy: str = "ehvi_dpp"
    shortlist: int = Field(default=1000, ge=1)
    diversity: float = Field(default=0.1, ge=0.0, le=100.0)
    similarity_length: float = Field(default=0.5, gt=0.0)
    reference_point: tuple[float, ...] | None = None

    @field_validator("strategy")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in STRATEGIES:
            raise ValueError(f"'{value}' is no strategy; choose one of {', '.join(sorted(STRATEGIES))}")
        return value


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What a strategy chooses from: N candidates, all finite.

    Attributes:
        features: Standardised descriptors in units of the root mean square distance, shape `N x d`.
        given: The same of what is already verified or pending, shape `g x d`.
        mean: Expected utilities, shape `N x m`.
        std: Their standard deviations, shape `N x m`.
        observed: Utilities of verified crystals, shape `k x m`.
        reference_point: Shape `m`.
    """

    features: FloatArray
    given: FloatArray
    mean: FloatArray
    std: FloatArray
    observed: FloatArray
    reference_point: FloatArray

    @property
    def spread(self) -> FloatArray:
        """The standard deviation of each mean utility over the pool, 1 where it does not vary, shape `m`."""
        spread = self.mean.std(0)
        return np.where(spread > 0, spread, 1.0)

    @property
    def appeal(self) -> FloatArray:
        """The sum of the mean utilities in units of their spread; orders candidates that score the same, shape `N`."""
        appeal: FloatArray = ((self.mean - self.mean.mean(0)) / self.spread).sum(1)
        return appeal


@dataclass(frozen=True)
class Choice:
    """A strategy's answer.

    Attributes:
        picked: Rows of the pool in order.
        gain: What each pick added.
        score: Of the whole pool, shape `N`.
        meaning: What a score is, in words.
    """

    picked: IntArray
    gain: FloatArray
    score: FloatArray
    meaning: str


Strategy = Callable[[Pool, DecisionSettings, int], Choice]


def ehvi_dpp(pool: Pool, settings: DecisionSettings, seed: int) -> Choice:
    """Shortlist by expected hypervolume improvement (EHVI), then choose jointly: log EHVI + diversity x log det.

    After each pick the shortlist is scored anew as if the pick had come out as expected (the Kriging believer of
    Ginsbourger et al., 2010), so that the batch spreads along the front as well as over the descriptors. A pick's gain
    is its EHVI at that moment.
    """
    chosen = ehvi(pool, settings, seed)
    short = _ranking(pool, chosen.score)[: max(settings.shortlist, settings.q)]
    mean, std, appeal = pool.mean[short], pool.std[short], pool.appeal[short]
    gains: list[FloatArray] = []

    def quality(picked: IntArray) -> FloatArray:
        believed = np.vstack([pool.observed, mean[picked]])
        gains.append(hypervolume_scores(mean, std, believed, pool.reference_point))
        return np.exp(0.5 * _log_quality(gains[-1], appeal))

    picked, _ = greedy_map_dpp(
        pool.features[short],
        quality,
        settings.q,
        given=pool.given,
        length_scale=settings.similarity_length,
        weight=settings.diversity,
    )
    gain = np.array([gains[t][row] for t, row in enumerate(picked)])
    return Choice(short[picked], gain, chosen.score, chosen.meaning)


def ehvi(pool: Pool, settings: DecisionSettings, seed: int) -> Choice:
    """The q largest expected hypervolume improvements."""
    score = hypervolume_scores(pool.mean, pool.std, pool.observed, pool.reference_point)
    return _best(pool, settings, score, "expected hypervolume improvement")


def greedy(pool: Pool, settings: DecisionSettings, seed: int) -> Choice:
    """The q largest hypervolume improvements of the expected utilities, whatever their uncertainty: the baseline."""
    score = hypervolume_scores(pool.mean, np.zeros_like(pool.std), pool.observed, pool.reference_point)
    return _best(pool, settings, score, "hypervolume improvement of the mean")


def random(pool: Pool, settings: DecisionSettings, seed: int) -> Choice:
    """Any q; the score is the draw."""
    score = np.random.default_rng(seed).random(len(pool.mean))
    return _best(pool, settings, score, "random draw")


STRATEGIES: dict[str, Strategy] = {"ehvi_dpp": ehvi_dpp, "ehvi": ehvi, "greedy": greedy, "random": random}


def _ranking(pool: Pool, score: FloatArray) -> IntArray:
    """Rows by score, equal ones by appeal, then by their place in the pool."""
    return np.lexsort((-pool.appeal, -score)).astype(np.int64)


def _best(pool: Pool, settings: DecisionSettings, score: FloatArray, meaning: str) -> Choice:
    picked = _ranking(pool, score)[: settings.q]
    return Choice(picked, score[picked], score, meaning)


def _log_quality(score: FloatArray, appeal: FloatArray) -> FloatArray:
    """Logarithm of the scores relative to the best; those that score nothing follow far below, by their appeal."""
    best = float(score.max())
    relative = score / best if best > 0 else np.zeros_like(score)
    last = np.log(_FLOOR) + np.maximum(appeal - appeal.max(), -600.0)
    return np.where(relative > _FLOOR, np.log(np.maximum(relative, _FLOOR)), last)

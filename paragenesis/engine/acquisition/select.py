"""Selection: the q candidates of a pool that deserve verification, in order, each with the reasons for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.acquisition.features import FeatureSpace, feature_matrix
from paragenesis.engine.acquisition.pareto import infer_reference_point
from paragenesis.engine.acquisition.strategies import STRATEGIES, Choice, DecisionSettings, Pool
from paragenesis.errors import InputError
from paragenesis.objectives.goals import Goal

__all__ = ["DecisionSettings", "Selection", "reference_utilities", "select_batch"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The chosen candidates, best first.

    Attributes:
        indices: Rows of the pool, shape `q` or fewer.
        score: The strategy's score of each, shape as `indices`.
        gain: What each is expected to add to those before it: for `ehvi_dpp` the hypervolume, else the score itself.
        uncertainty: Mean over objectives of the standard deviation, in units of the objective's spread over the pool.
        why: One sentence each.
        reference_point: In utilities, shape `m`.
        excluded: Rows that could not be considered, with the reason.
        note: What is unusual about this choice; empty if nothing.
    """

    indices: IntArray
    score: FloatArray
    gain: FloatArray
    uncertainty: FloatArray
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
    settings: DecisionSettings | None = None,
    reference_point: FloatArray | None = None,
    seed: int = 0,
) -> Selection:
    """Choose the q candidates to verify next.

    Args:
        descriptors: Features of the candidates, shape `N x d`; `N` may be 0.
        mean: Expected utilities (larger is better), shape `N x m`.
        std: Their standard deviations, shape `N x m`.
        observed: Utilities of the verified crystals, shape `k x m`; `k` may be 0.
        given: Features of what is verified or pending, shape `g x d`; the batch is diverse from these too.
        settings: How to choose.
        reference_point: In utilities, shape `m`; inferred from what was observed and the pool if not given.
        seed: For strategies that draw.

    Returns:
        At most q candidates; all of them, and a note that says so, if there are not more. Candidates whose numbers
        are not finite are never chosen; `excluded` names them.

    Raises:
        InputError: Shapes disagree.
    """
    settings = settings or DecisionSettings()
    descriptors, mean, std = (
        feature_matrix(*pair) for pair in (("descriptors", descriptors), ("mean", mean), ("std", std))
    )
    if not len(descriptors) == len(mean) or mean.shape != std.shape:
        raise InputError(
            f"a choice needs descriptors N x d and mean and std N x m, but {descriptors.shape}, {mean.shape} and "
            f"{std.shape} came"
        )
    excluded = _excluded(descriptors, mean, std)
    rows = np.setdiff1d(np.arange(len(mean)), list(excluded)).astype(np.int64)
    known = np.asarray(observed, dtype=np.float64).reshape(-1, mean.shape[1])
    if rows.size == 0:
        return _nothing(excluded, mean.shape[1], reference_point)
    reference = (
        infer_reference_point(known, mean[rows])
        if reference_point is None
        else np.asarray(reference_point, dtype=np.float64)
    )
    fixed = np.zeros((0, descriptors.shape[1])) if given is None else feature_matrix("given", given, finite=True)
    space = FeatureSpace(np.vstack([descriptors[rows], fixed]))
    pool = Pool(
        features=space(descriptors[rows]),
        given=space(fixed),
        mean=mean[rows],
        std=std[rows],
        observed=known,
        reference_point=reference,
    )
    choice = STRATEGIES[settings.strategy](pool, settings, seed)
    return Selection(
        indices=rows[choice.picked],
        score=choice.score[choice.picked],
        gain=choice.gain,
        uncertainty=(pool.std / pool.spread).mean(1)[choice.picked],
        why=_reasons(choice, pool, settings),
        reference_point=reference,
        excluded=excluded,
        note=_note(choice, len(rows), settings.q),
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


def _excluded(descriptors: FloatArray, mean: FloatArray, std: FloatArray) -> dict[int, str]:
    """Rows with numbers that are not finite, and which numbers those are."""
    reasons: dict[int, str] = {}
    for name, table in (("descriptor", descriptors), ("expected utility", mean), ("standard deviation", std)):
        bad = ~np.isfinite(table)
        for row in np.flatnonzero(bad.any(1)).tolist():
            reasons.setdefault(row, f"{name} {int(np.argmax(bad[row]))} is {table[row, int(np.argmax(bad[row]))]}")
    return dict(sorted(reasons.items()))


def _nothing(excluded: dict[int, str], m: int, reference_point: FloatArray | None) -> Selection:
    none = np.zeros(0)
    return Selection(
        indices=np.zeros(0, dtype=np.int64),
        score=none,
        gain=none,
        uncertainty=none,
        why=(),
        reference_point=np.full(m, np.nan) if reference_point is None else np.asarray(reference_point),
        excluded=excluded,
        note="no candidate has finite numbers" if excluded else "the pool is empty",
    )


def _reasons(choice: Choice, pool: Pool, settings: DecisionSettings) -> tuple[str, ...]:
    """One sentence for each pick: its score and rank, and what it is most alike."""
    rank = np.empty(len(choice.score), dtype=np.int64)
    rank[np.argsort(-choice.score, kind="stable")] = np.arange(1, len(rank) + 1)
    sentences = []
    for t, row in enumerate(choice.picked):
        words = [f"{choice.meaning} {choice.score[row]:.3g}, rank {rank[row]} of {len(rank)}"]
        for name, others in (("verified or pending", pool.given), ("already chosen", pool.features[choice.picked[:t]])):
            if len(others):
                square = ((others - pool.features[row]) ** 2).sum(1).min()
                alike = np.exp(-0.5 * square / settings.similarity_length**2)
                words.append(f"similarity to the nearest {name} {alike:.2f}")
        sentences.append("; ".join(words))
    return tuple(sentences)


def _note(choice: Choice, n: int, q: int) -> str:
    notes = []
    if n <= q:
        notes.append(f"{q} were asked for and {n} could be considered: all are chosen")
    idle = int((choice.score[choice.picked] <= 0).sum())
    if idle:
        notes.append(
            f"{idle} of the chosen are not expected to improve on what is verified; they are the best of the rest"
        )
    return "; ".join(notes)

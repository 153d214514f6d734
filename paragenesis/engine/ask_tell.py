"""Ask and tell: the decision layer for any table of candidates, crystals or not.

    batch = decide(pool, observations, [Maximize("y0"), Minimize("y1")], q=5, seed=0)

`pool` holds a row of features for each candidate, `observations` the same columns for what was tried already, and one
column for each objective. Gaussian processes learn the objectives from the observations; the batch is chosen by
expected hypervolume improvement and diversity, or by another of the `STRATEGIES`. Beside other goals a `Range` is a
constraint, on a column of its own or on that of another goal: scores count as far as it is likely to be met. Where all
goals are ranges, probable hits are chosen.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.acquisition.features import FeatureSpace
from paragenesis.engine.acquisition.select import DecisionSettings, Selection, reference_utilities, select_batch
from paragenesis.engine.acquisition.triage import Evidence, TriageSettings
from paragenesis.engine.acquisition.triage import triage as triaged
from paragenesis.engine.columns import numbers_of
from paragenesis.engine.feature_table import Encoding, reasons_against
from paragenesis.engine.formulation import Formulation
from paragenesis.engine.metrics import CURVE_LEVELS
from paragenesis.engine.observations import Observations
from paragenesis.engine.surrogate import Calibration, ResidualSurrogate, SurrogateSettings
from paragenesis.errors import InputError
from paragenesis.objectives.goals import Goal, Maximize, Range
from paragenesis.settings import shown

if TYPE_CHECKING:
    import pandas as pd

_NINETY = CURVE_LEVELS.index(0.9)


@dataclass(frozen=True)
class Batch:
    """What to try next; iterates over the index labels of the chosen rows in the order in which they were picked.

    Attributes:
        labels: Their index labels in the pool.
        table: A row for each, by label: score, gain, uncertainty, each objective's predicted mean and standard
            deviation ("y0 mean", "y0 std"), the interval that should hold 90 % ("y0 low", "y0 high"), which of those
            before it is most like it, and why it was chosen.
        excluded: Rows of the pool that could not be chosen or were held back by triage, by label, with the column
            "reason".
        reference_point: What each objective must at least reach to count, in its own unit; for a Target or Range as
            the largest distance.
        intervals: By objective how its standard deviations were held against what was observed, a sentence each.
        note: What is unusual about this choice; empty if nothing.
    """

    labels: tuple[Hashable, ...]
    table: pd.DataFrame
    excluded: pd.DataFrame
    reference_point: dict[str, float]
    intervals: dict[str, str]
    note: str

    def __iter__(self) -> Iterator[Hashable]:
        """The labels."""
        return iter(self.labels)

    def __len__(self) -> int:
        """How many were chosen."""
        return len(self.labels)


def decide(
    pool: pd.DataFrame,
    observations: pd.DataFrame | None,
    objectives: Goal | Sequence[Goal],
    q: int | None = None,
    *,
    seed: int = 0,
    pending: pd.DataFrame | None = None,
    cost: pd.Series[float] | None = None,
    noise: Mapping[str, float | str] | None = None,
    fidelity: str | None = None,
    settings: DecisionSettings | None = None,
    surrogate: SurrogateSettings | None = None,
    triage: TriageSettings | None = None,
) -> Batch:
    """Choose the q candidates of a table to try next.

    Numbers and truth values are features as they are, standardised; every other column is a category and one-hot
    encoded. A candidate with the features of an observation or of a pending one has been tried and is not chosen again.

    Args:
        pool: A row of features for each candidate; its index labels name them.
        observations: The same columns, and one for each objective; None or empty if nothing was tried yet. An outcome
            may be missing (NaN): the others of its row are still learned from. Further columns are not used.
        objectives: Goals with the names of their columns: `Maximize("y0")`, `Target("gap", value=1.4)`.
        q: How many; `settings.q` if not given.
        seed: The same seed gives the same batch.
        pending: Rows of features that are being tried, without outcomes yet; the batch keeps away from them.
        cost: What it takes to try each candidate, by the pool's labels: candidates are ranked by score per cost, and
            with `settings.budget` the batch keeps to it.
        noise: The standard deviation of an objective's outcomes, where it is known: a number, or the column of the
            observations that holds it. It is learnt for the objectives that are not named.
        fidelity: The column of the observations that holds the level of each: 0 for the outcomes that are wanted, 1, 2,
            ... for cheaper and less accurate ones of whatever offset. Those teach, as far as the levels prove to agree,
            but a candidate that was tried at a cheaper level only can be chosen. All are of level 0 if not given.
        settings: How to choose. By default `ehvi_dpp`, or `hits` where all goals are ranges.
        surrogate: How to learn. The share of an ensemble is left out: there is none.
        triage: Holds back what is too uncertain, falsely confident or hopeless by these limits, named by column; what
            it held back is in `excluded`, with the reason and its numbers. Nothing is held back if not given.

    Returns:
        At most q candidates: fewer, with a note, if there are not more that differ.

    Raises:
        InputError: Columns are missing or of another kind, labels repeat, or there is no objective.
    """
    objectives = [objectives] if isinstance(objectives, Goal) else list(objectives or ())
    goals = _objective_names(objectives)
    _check_kinds(seed, settings, surrogate, triage)
    names = list(dict.fromkeys(goals))
    column = [names.index(name) for name in goals]
    settings = settings or DecisionSettings()
    settings = settings if q is None else DecisionSettings.parse({**settings.model_dump(), "q": q}, where="decide")
    encoding = Encoding.of(pool, observations, pending, names)
    X, tried, waiting = encoding(pool), encoding(observations), encoding(pending)
    prices = None if cost is None else _costs(cost, pool)
    known = Observations.read(observations, pool, tried, names, noise, fidelity)
    done = known.at_target
    notes = [encoding.note, known.note, *known.silent(names)]
    if lost := int((~np.isfinite(waiting).all(1)).sum()):
        notes.append(f"{lost} pending rows with missing features are not used")
        waiting = waiting[np.isfinite(waiting).all(1)]
    reasons = reasons_against(X, pool.index.tolist(), np.vstack([done.X, waiting]))
    rows = np.flatnonzero([not reason for reason in reasons])
    space = FeatureSpace(np.vstack([X[rows], known.X]), encoding.components, standardise=False)
    posterior = _Posterior(np.vstack([X[rows], waiting]), known, space, surrogate or SurrogateSettings())
    formulation, outcomes = Formulation.of(objectives, settings.strategy), posterior.believed(done)[:, column]
    if triage is not None:
        evidence = _evidence(goals, formulation, posterior.moments(column, len(rows)), outcomes, posterior.calibrated)
        held = {rows[one.index]: f"{one.reason}: {one.detail}" for one in triaged(evidence, triage)}
        reasons = [held.get(row, reason) for row, reason in enumerate(reasons)]
        posterior, rows = posterior.without(np.flatnonzero(np.isin(rows, list(held)))), np.setdiff1d(rows, list(held))
    n = len(rows)
    mean, std = posterior.moments(column)
    utilities, spread = formulation.moments(mean, std)
    likely = formulation.probability(mean, std)[:n]
    reference = reference_utilities(settings, objectives)
    selection = select_batch(
        X[rows],
        utilities[:n],
        spread[:n],
        observed=formulation.observed(outcomes),
        given=done.X,
        pending=(waiting, utilities[n:]) if len(waiting) else None,
        hit_probability=likely if formulation.hits else None,
        feasible=None if formulation.hits else likely,
        cost=None if prices is None else prices[rows],
        correlation=lambda at: formulation.correlation(mean[at], posterior.correlation(at)[column]),
        ceiling=formulation.ceiling,
        settings=settings,
        reference_point=None if reference is None else reference[list(formulation.along)],
        space=space,
        seed=seed,
    )
    notes.append(selection.note if n else f"none of the {len(pool)} rows can be chosen; see `excluded`")
    return Batch(
        labels=tuple(pool.index[rows[selection.indices]]),
        table=_table(pool.index[rows], names, selection, posterior),
        excluded=_excluded(pool, reasons),
        reference_point=_in_units(formulation.axes, selection.reference_point),
        intervals={name: c.sentence for name, c in zip(names, posterior.calibration, strict=True)},
        note="; ".join(filter(None, notes)),
    )


# --- what was tried ----------------------------------------------------------------------------------------------


def _check_kinds(seed: int, settings: object, surrogate: object, triage: object) -> None:
    """Refuse what is of another kind than `decide` takes.

    Raises:
        InputError: So.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"a seed is a whole number from 0 on, but {shown(seed)} was given")
    kinds = {"settings": DecisionSettings, "surrogate": SurrogateSettings, "triage": TriageSettings}
    for (name, kind), given in zip(kinds.items(), (settings, surrogate, triage), strict=True):
        if given is not None and not isinstance(given, kind):
            raise InputError(f"{name} must be {kind.__name__}(...), but {shown(given)} was given")


def _objective_names(objectives: Sequence[Goal]) -> list[str]:
    """The column of each objective; a range may read that of another goal.

    Raises:
        InputError: There is no objective, one names no column, or two name the same.
    """
    strangers = [goal for goal in objectives if not isinstance(goal, Goal)]
    if strangers:
        raise InputError(f'an objective is a goal such as Maximize("y0"), but {strangers[0]!r} was given')
    names = [goal.of for goal in objectives]
    if not names:
        raise InputError('no objective was given; give at least one, such as Maximize("y0")')
    if "" in names:
        goal = objectives[names.index("")]
        raise InputError(f'{goal!r} names no column; write {type(goal).__name__}("y0", ...) with the column\'s name')
    for kind, those in (("ranges", True), ("goals", False)):
        same = [goal.of for goal in objectives if isinstance(goal, Range) is those]
        if len(set(same)) < len(same):
            raise InputError(
                f"two {kind} read the column '{max(same, key=same.count)}'; a column may have one goal and one range"
            )
    return names


def _costs(cost: pd.Series[float], pool: pd.DataFrame) -> FloatArray:
    """Costs in the order of the pool.

    Raises:
        InputError: One is missing or stands twice, is no number, or there are no labels.
    """
    import pandas as pd

    if not isinstance(cost, pd.Series):
        raise InputError(f"costs come by label, as a pandas Series, but a {type(cost).__name__} was given")
    if not cost.index.is_unique:
        twice = cost.index[cost.index.duplicated()].tolist()[0]
        raise InputError(f"the row {twice!r} has two costs; give one for each label")
    prices = numbers_of(cost)
    if prices is None:
        raise InputError("costs must be numbers, but the Series holds something else; convert it")
    missing = pool.index.difference(cost.index)
    if len(missing):
        raise InputError(f"the row {missing.tolist()[0]!r} of the pool has no cost; give one for each label")
    return np.asarray(prices[cost.index.get_indexer(pool.index)], dtype=np.float64)


# --- learning and telling --------------------------------------------------------------------------------------------


class _Posterior:
    """What is expected of N candidates.

    An objective that was never observed, or always with the same outcome, says nothing about where to look: all
    candidates get that outcome (0 if there is none) with a deviation of its size (1 if it is 0).

    Attributes:
        mean: Expected outcomes, shape `N x m`.
        std: Their standard deviations, shape `N x m`.
        calibration: How these were made, for each objective.
        calibrated: Whether enough was observed of each objective to hold its deviations against it.
    """

    def __init__(self, X: FloatArray, known: Observations, space: FeatureSpace, settings: SurrogateSettings) -> None:
        there = np.isfinite(known.Y)
        wanted = there & (known.levels == 0)[:, None]
        self.calibrated = bool(wanted.sum(0).min() >= settings.min_calibration)
        wanted = np.where(wanted.any(0), wanted, there)  # cheaper outcomes alone say something, too
        centre = np.where(wanted, known.Y, 0.0).sum(0) / np.maximum(wanted.sum(0), 1)
        spread = np.where(there, np.abs(known.Y - centre), 0.0).max(0, initial=0.0)
        self._centre = centre
        self.mean = np.tile(centre, (len(X), 1))
        self.std = np.tile(np.where(centre == 0, 1.0, np.abs(centre)), (len(X), 1))
        self._X, self._model = X, ResidualSurrogate(settings.model_copy(update={"ensemble_weight": 0.0}))
        unlearnt = Calibration.none(settings.level, "nothing to learn from: as wide as the value is large")
        self.calibration = [unlearnt] * self.mean.shape[1]
        self._learnt = np.flatnonzero(spread > 1e-12 * np.abs(centre)) if len(X) else np.zeros(0, dtype=np.int64)
        if len(self._learnt):
            residuals, noise = (known.Y - centre)[:, self._learnt], known.noise[:, self._learnt]
            self._model.fit(known.X, residuals, noise_std=noise, space=space, fidelity=known.levels)
            for j, calibration in zip(self._learnt, self._model.calibration, strict=True):
                self.calibration[j] = calibration
            prior = self.mean[:, self._learnt], np.full((len(X), len(self._learnt)), np.nan)
            self.mean[:, self._learnt], self.std[:, self._learnt] = self._model.predict(X, *prior)

    def moments(self, columns: Sequence[int], n: int | None = None) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of some outcomes, of the first n candidates."""
        return self.mean[:n, columns], self.std[:n, columns]

    def believed(self, done: Observations) -> FloatArray:
        """Outcomes of what was tried, shape `k x m`; of those with noise of a known size what is expected of them."""
        values = done.Y.copy()
        if len(self._learnt):
            learnt, centre = self._learnt, self._centre[self._learnt]
            prior = np.tile(centre, (len(values), 1))
            values[:, learnt] = self._model.believed(values[:, learnt], done.noise[:, learnt], done.X, prior)
        return values

    def without(self, rows: IntArray) -> _Posterior:
        """The same of the other candidates."""
        other = copy(self)
        other.mean, other.std, other._X = (np.delete(table, rows, axis=0) for table in (self.mean, self.std, self._X))
        return other

    def correlation(self, rows: IntArray) -> FloatArray:
        """How the errors of some candidates' expected outcomes go together, shape `m x k x k`."""
        together = np.tile(np.eye(len(rows)), (self.mean.shape[1], 1, 1))
        if len(self._learnt):
            together[self._learnt] = self._model.correlation(self._X[rows])
        return together


def _evidence(
    names: Sequence[str],
    problem: Formulation,
    moments: tuple[FloatArray, FloatArray],
    outcomes: FloatArray,
    calibrated: bool,
) -> Evidence:
    """What triage can know of a table: no potentials' opinions."""
    utilities = [goal.utility(outcomes[:, j]) for j, goal in enumerate(problem.goals)]
    return Evidence(
        names=names,
        goals=problem.goals,
        mean=moments[0],
        std=moments[1],
        observed=np.stack(utilities, axis=1),
        hits=problem.within if problem.hits else None,
        calibrated=calibrated,
    )


def _table(labels: pd.Index[Any], names: Sequence[str], selection: Selection, posterior: _Posterior) -> pd.DataFrame:
    """The chosen rows with their reasons; `labels` and `posterior` begin with what the selection chose from."""
    import pandas as pd

    chosen = labels[selection.indices]
    columns: dict[str, Any] = {
        "score": selection.score,
        "gain": selection.gain,
        "uncertainty": selection.uncertainty,
    }
    for j, name in enumerate(names):
        mean, std = posterior.mean[selection.indices, j], posterior.std[selection.indices, j]
        half = std * posterior.calibration[j].half_widths[_NINETY]
        columns |= {f"{name} mean": mean, f"{name} std": std, f"{name} low": mean - half, f"{name} high": mean + half}
    near = selection.nearest_chosen
    columns["most like"] = pd.Series([chosen[i] if i >= 0 else None for i in near.tolist()], chosen, dtype=object)
    columns["similarity"] = np.where(near >= 0, selection.similarity_chosen, np.nan)
    columns["similarity to tried"] = np.where(selection.nearest_given >= 0, selection.similarity_given, np.nan)
    return pd.DataFrame({**columns, "why": list(selection.why)}, index=chosen)


def _excluded(pool: pd.DataFrame, reasons: Sequence[str]) -> pd.DataFrame:
    """Rows that could not be chosen, and why."""
    import pandas as pd

    table = pd.DataFrame({"reason": list(reasons)}, index=pool.index, dtype=object)
    return table[table["reason"] != ""]


def _in_units(objectives: Sequence[Goal], reference: FloatArray) -> dict[str, float]:
    """The reference point in the objectives' units."""
    return {
        goal.of: float(value if isinstance(goal, Maximize) else -value)
        for goal, value in zip(objectives, reference, strict=True)
    }

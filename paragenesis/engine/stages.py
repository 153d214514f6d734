"""The stations of a crystal's route: Generate, Screen, Relax, Assess, and Verify for the chosen few.

Each station is a plain class: built once on its worker, then called as `stage(item, context)`. What travels is a
`Chunk`: crystals that were generated together, each with a verdict, and whatever is known of them so far. Nothing
is dropped: a crystal that is rejected or fails stays in its chunk with the stage and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, IntArray, Relaxed
from paragenesis.engine.executor import describe
from paragenesis.engine.generators.condition import Condition, PropertyRange
from paragenesis.engine.generators.contract import Generator
from paragenesis.engine.learning import Taught, Weights
from paragenesis.engine.oracles.contract import Oracle, Verified, unjudged
from paragenesis.engine.potentials.ensemble import Ensemble
from paragenesis.engine.potentials.relax import RelaxSettings
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.screening.screen import Screen
from paragenesis.engine.verdict import KEPT, Verdict
from paragenesis.errors import InputError
from paragenesis.objectives.contract import Estimate, Need, Objective

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ChunkTask:
    """A unit of work and of commit; its fields fix its content.

    Attributes:
        round: The round it belongs to, from 1.
        generator: The generator's name.
        index: The chunk's number among that generator's chunks of the round.
        n: How many crystals to generate.
        seed: Fixes every random choice in it.
        aim: Properties to pursue beside the round's condition (see `aims`).
    """

    round: int
    generator: str
    index: int
    n: int
    seed: int
    aim: tuple[PropertyRange, ...] = ()

    @property
    def key(self) -> str:
        """The key under which the chunk is committed."""
        return f"r{self.round:03d}/chunk/{self.generator}/{self.index:05d}"

    def candidate_ids(self, n: int) -> list[str]:
        """Ids of its first n crystals."""
        return [f"r{self.round:03d}-{self.generator}-{self.index:05d}-{i:03d}" for i in range(n)]

    def condition(self, of_round: Condition) -> Condition:
        """What its crystals are asked to be: the round's condition, and the aim."""
        if not self.aim:
            return of_round
        wishes = sorted((*of_round.properties, *self.aim), key=lambda wish: wish.property)
        return of_round.model_copy(update={"properties": tuple(wishes)})


@dataclass(frozen=True)
class RoundContext:
    """What all chunks of a round share.

    Attributes:
        condition: What every crystal must obey.
        seen: The crystals of earlier rounds.
        weights: What generators have learnt, by name; the others have their own weights.
    """

    condition: Condition
    seen: Seen
    weights: Mapping[str, Weights] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Crystals on their way, n of them.

    Attributes:
        task: What they were made for.
        crystals: All of them as generated.
        verdicts: One each.
        keys: Fingerprint keys of the latest geometry, one each; "" where none could be made.
        space_groups: International numbers of the latest geometry, shape `n`; 0 where none was found.
        relaxed: Judgements of those that could be relaxed, found by their ids.
        refusals: (member, candidate id, error) for every crystal that a member refused to judge.
        estimates: What each objective says of `relaxed`.
    """

    task: ChunkTask
    crystals: Crystals
    verdicts: tuple[Verdict, ...]
    keys: tuple[str, ...]
    space_groups: IntArray
    relaxed: Relaxed | None = None
    refusals: tuple[tuple[str, str, str], ...] = ()
    estimates: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def alive(self) -> list[int]:
        """Indices of the crystals still kept."""
        return [i for i, verdict in enumerate(self.verdicts) if verdict == KEPT]

    def ruled(self, rulings: Mapping[int, Verdict]) -> Chunk:
        """The chunk with new verdicts for some of its crystals."""
        return replace(self, verdicts=tuple(rulings.get(i, v) for i, v in enumerate(self.verdicts)))

    def index_of(self) -> dict[str, int]:
        """Where each candidate id stands."""
        return {candidate: i for i, candidate in enumerate(self.crystals.ids)}


class Generate:
    """Makes the crystals of a chunk."""

    def __init__(self, generators: Mapping[str, Callable[[], Generator]]) -> None:
        """Build every generator of the campaign.

        Args:
            generators: How to build each, by name.
        """
        self._generators = Taught(generators)

    def __call__(self, task: ChunkTask, context: RoundContext) -> Chunk:
        """At most `task.n` crystals under the round's condition and the task's aim, named by the task.

        An aim is a wish: where no crystal comes of it, the chunk is made without, and the origins say so.
        """
        generator = self._generators.get(task.generator, context.weights.get(task.generator))
        try:
            crystals = generator.generate(task.n, task.condition(context.condition), task.seed)
        except InputError as error:
            if not task.aim:
                raise
            crystals = generator.generate(task.n, context.condition, task.seed)
            crystals = replace(crystals, origins=tuple(f"{o}; aim given up: {error}" for o in crystals.origins))
        n = len(crystals)
        return Chunk(
            task=task,
            crystals=crystals.with_ids(task.candidate_ids(n)),
            verdicts=(KEPT,) * n,
            keys=("",) * n,
            space_groups=np.zeros(n, dtype=np.int64),
        )


class Screening:
    """Rejects what is no valid crystal, breaks the condition, or is known already."""

    def __init__(self, build: Callable[[], Screen]) -> None:
        """Build the screen, which loads the reference crystals."""
        self._screen = build()

    def __call__(self, chunk: Chunk, context: RoundContext) -> Chunk:
        """The chunk with verdicts, keys and space groups."""
        result = self._screen.screen(chunk.crystals, context.condition, context.seen)
        return replace(chunk, verdicts=result.verdicts, keys=result.keys, space_groups=result.space_groups)


class Relax:
    """Relaxes with the first potential of the ensemble, judges with all."""

    def __init__(self, build: Callable[[], Ensemble], settings: RelaxSettings, needs: frozenset[Need]) -> None:
        """Load the ensemble.

        Args:
            build: How to load it.
            settings: How to relax.
            needs: What the objectives ask for beyond energies.
        """
        self._ensemble = build()
        self._settings = settings
        self._needs = needs

    def __call__(self, chunk: Chunk, context: RoundContext) -> Chunk:
        """The chunk with the judgements of all crystals still kept."""
        alive = chunk.alive
        if not alive:
            return chunk
        relaxed, failures, refusals = self._ensemble.relax_and_judge(chunk.crystals[alive], self._settings, self._needs)
        rulings = {alive[i]: Verdict("failed", "relax", error) for i, error in failures.items()}
        return replace(chunk.ruled(rulings), relaxed=relaxed, refusals=tuple(refusals))


class Assess:
    """Screens what relaxation made of the crystals and asks every objective for its estimate."""

    def __init__(self, build: Callable[[], Screen], objectives: Sequence[Objective]) -> None:
        """Build the screen and take the objectives."""
        self._screen = build()
        self._objectives = tuple(objectives)

    def __call__(self, chunk: Chunk, context: RoundContext) -> Chunk:
        """The chunk with estimates; crystals that collapsed, turned into known ones or defy an objective leave."""
        if chunk.relaxed is None or not len(chunk.relaxed):
            return chunk
        relaxed, where = chunk.relaxed, chunk.index_of()
        chunk = self._rescreen(chunk, relaxed, context)
        estimates, errors = estimate_all(self._objectives, relaxed)
        failed = {where[relaxed.crystals.ids[i]]: Verdict("failed", "assess", e) for i, e in errors.items()}
        rulings = {i: verdict for i, verdict in failed.items() if chunk.verdicts[i] == KEPT}
        return replace(chunk.ruled(rulings), estimates=estimates)

    def _rescreen(self, chunk: Chunk, relaxed: Relaxed, context: RoundContext) -> Chunk:
        """New keys, space groups and verdicts for the relaxed geometries."""
        result = self._screen.screen(relaxed.crystals, context.condition, context.seen, relaxed=True)
        keys, groups = list(chunk.keys), chunk.space_groups.copy()
        rulings = {}
        for row, index in enumerate(chunk.index_of()[i] for i in relaxed.crystals.ids):
            keys[index], groups[index] = result.keys[row], result.space_groups[row]
            verdict = result.verdicts[row]
            if verdict != KEPT:
                rulings[index] = Verdict(verdict.status, f"{verdict.stage} after relaxation", verdict.reason)
        return replace(chunk.ruled(rulings), keys=tuple(keys), space_groups=groups)


@dataclass(frozen=True)
class Verification:
    """An oracle's answer with the objectives evaluated on it.

    Attributes:
        verified: The answer, for n crystals.
        values: The m objectives' values, shape `n x m`; NaN where there is none.
        noise: The oracle's own standard deviations of them, shape `n x m`; NaN where it does not say.
        errors: Why a crystal has no values, by index.
    """

    verified: Verified
    values: FloatArray
    noise: FloatArray
    errors: Mapping[int, str]

    def words(self, objectives: Sequence[str]) -> str:
        """What was said of the first crystal."""
        values = (f"{name} {value:.4g}" for name, value in zip(objectives, self.values[0], strict=True))
        return f"{self.verified.crystals.formulas[0]}: {self.errors.get(0) or ', '.join(values)}"


class Verify:
    """Asks the oracle about selected crystals."""

    def __init__(self, build: Callable[[], Oracle], objectives: Sequence[Objective]) -> None:
        """Build the oracle and take the objectives."""
        self._oracle = build()
        self._objectives = tuple(objectives)

    def __call__(self, crystals: Crystals, context: Any) -> Verification:
        """Values of every objective at the oracle's level of theory; without all of them a crystal is not verified."""
        verified = self._oracle.verify(crystals)
        good = np.flatnonzero(verified.ok)
        values = np.full((len(crystals), len(self._objectives)), np.nan)
        errors = dict(verified.errors)
        judged = (unjudged(verified.crystals) if verified.relaxed is None else verified.relaxed)[good]
        asked = [o for o in self._objectives if o.name not in verified.values]
        estimates, faults = estimate_all(asked, judged)
        for column, objective in enumerate(self._objectives):
            if objective.name in verified.values:
                values[good, column] = verified.values[objective.name][good]
            else:
                values[good, column] = estimates[objective.name].mean
        errors.update({int(good[i]): fault for i, fault in faults.items()})
        for i in np.flatnonzero(~np.isfinite(values).all(1)).tolist():
            errors.setdefault(i, "the oracle gave no finite value for every objective")
        return Verification(verified, values, self._noise(verified), errors)

    def _noise(self, verified: Verified) -> FloatArray:
        """The oracle's standard deviations of every objective, shape `n x m`; NaN for what cannot be one."""
        nothing = np.full(len(verified.crystals), np.nan)
        noise = np.stack([verified.noise.get(o.name, nothing) for o in self._objectives], axis=1)
        return np.where(np.isfinite(noise) & (noise >= 0), noise, np.nan)


def estimate_all(objectives: Sequence[Objective], relaxed: Relaxed) -> tuple[dict[str, Estimate], dict[int, str]]:
    """Every objective's estimate, and for crystals that an objective cannot judge the reason by index.

    An objective that raises on a batch is asked again on halves until the crystals it cannot bear stand alone.
    """
    n = len(relaxed)
    estimates: dict[str, Estimate] = {}
    errors: dict[int, str] = {}
    for objective in objectives:
        mean, std = np.full(n, np.nan), np.full(n, np.nan)

        def ask(rows: IntArray, objective: Objective = objective) -> Estimate:
            answer = objective.estimate(relaxed[rows])
            if answer.mean.shape != rows.shape:
                raise ValueError(f"returned {answer.mean.shape[0]} values for {len(rows)} crystals")
            return answer

        answers, faults = isolate(ask, n)
        for rows, answer in answers:
            mean[rows], std[rows] = answer.mean, answer.std
        for i, fault in faults.items():
            errors.setdefault(i, f"objective '{objective.name}': {fault}")
        for i in np.flatnonzero(~np.isfinite(mean)).tolist():
            errors.setdefault(i, f"objective '{objective.name}' gave {mean[i]}")
        estimates[objective.name] = Estimate(mean, std)
    return estimates, errors


def isolate(work: Callable[[IntArray], T], n: int) -> tuple[list[tuple[IntArray, T]], dict[int, str]]:
    """Do work on n rows together, halving what raises until each guilty row stands alone.

    Args:
        work: Takes row numbers, returns a result for them.
        n: How many rows there are.

    Returns:
        The results with their rows, and the error of each row that failed by itself.
    """
    results: list[tuple[IntArray, T]] = []
    errors: dict[int, str] = {}
    open_rows = [np.arange(n)] if n else []
    while open_rows:
        rows = open_rows.pop(0)
        try:
            results.append((rows, work(rows)))
        except Exception as error:  # noqa: BLE001  a plug-in may raise anything; each error is recorded
            if len(rows) == 1:
                errors[int(rows[0])] = describe(error)
            else:
                open_rows[:0] = np.array_split(rows, 2)
    return results, errors

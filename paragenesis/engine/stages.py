"""The stations of a crystal's route: Generate, Screen, Relax, Assess; the chosen few are sent to `asking.Verify`.

Each station is a plain class: built once on its worker, then called as `stage(item, context)`. What travels is a
`Chunk`: crystals that were generated together, each with a verdict, and whatever is known of them so far. Nothing
is dropped: a crystal that is rejected or fails stays in its chunk with the stage and the reason. A stage touches only
the crystals that are still alive, so that a chunk can go on without one that broke a stage (see `attempts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from paragenesis.crystals import Crystals, IntArray, Relaxed
from paragenesis.engine.attempts import Outcome
from paragenesis.engine.estimates import estimate_all
from paragenesis.engine.generators.condition import Condition, PropertyRange
from paragenesis.engine.generators.contract import Generator
from paragenesis.engine.learning import Taught, Weights
from paragenesis.engine.potentials.contract import pick_device
from paragenesis.engine.potentials.ensemble import Ensemble
from paragenesis.engine.potentials.relax import RelaxSettings
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.screening.screen import Screen
from paragenesis.engine.verdict import KEPT, Verdict
from paragenesis.errors import InputError
from paragenesis.objectives.contract import Estimate, Need, Objective

GENERATE = "generate"  # the first station: what fails there has no structure


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

    def part(self, which: Sequence[int]) -> Chunk:
        """The chunk with only some of its crystals."""
        ids = {self.crystals.ids[i] for i in which}
        judged = () if self.relaxed is None else self.relaxed.crystals.ids
        rows = [row for row, candidate in enumerate(judged) if candidate in ids]
        return replace(
            self,
            crystals=self.crystals[list(which)],
            verdicts=tuple(self.verdicts[i] for i in which),
            keys=tuple(self.keys[i] for i in which),
            space_groups=self.space_groups[list(which)],
            relaxed=None if self.relaxed is None else self.relaxed[rows],
            refusals=tuple(refusal for refusal in self.refusals if refusal[1] in ids),
            estimates={name: Estimate(one.mean[rows], one.std[rows]) for name, one in self.estimates.items()},
        )

    def halves(self) -> list[Chunk]:
        """The crystals that are still alive, in two parts; in one or none if there are not two."""
        alive = self.alive
        middle = (len(alive) + 1) // 2
        return [self.part(which) for which in (alive[:middle], alive[middle:]) if which]

    def failed(self, outcome: Outcome) -> Chunk:
        """The chunk with all crystals failed that are still alive, as the outcome says."""
        return self.ruled(dict.fromkeys(self.alive, outcome.verdict))

    def joined(self, parts: Sequence[Chunk]) -> Chunk:
        """The chunk with what became of some of its crystals, each in its place."""
        where = self.index_of()
        verdicts, keys, groups = list(self.verdicts), list(self.keys), self.space_groups.copy()
        for part in parts:
            for row, index in enumerate(where[candidate] for candidate in part.crystals.ids):
                verdicts[index], keys[index], groups[index] = part.verdicts[row], part.keys[row], part.space_groups[row]
        touched = {candidate for part in parts for candidate in part.crystals.ids}
        judged = [
            p for p in (*parts, self.part([where[i] for i in where if i not in touched])) if p.relaxed is not None
        ]
        return replace(
            self,
            verdicts=tuple(verdicts),
            keys=tuple(keys),
            space_groups=groups,
            **(_judgements(judged, where) if judged else {}),
        )


class Generate:
    """Makes the crystals of a chunk."""

    def __init__(self, generators: Mapping[str, Callable[[], Generator]], *, on_gpu: bool = False) -> None:
        """Build every generator of the campaign, weights and all: what is missing must stop it, not fail its crystals.

        Args:
            generators: How to build each, by name.
            on_gpu: Whether this process was given a GPU.

        Raises:
            InputError: It sees none.
        """
        if on_gpu:
            pick_device("cuda")
        self._generators = Taught(generators)
        for name in generators:
            load = getattr(self._generators.get(name), "load", None)
            if load is not None:
                load()

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
        alive = chunk.alive
        if not alive:
            return chunk
        result = self._screen.screen(chunk.crystals[alive], context.condition, context.seen)
        keys, groups = list(chunk.keys), chunk.space_groups.copy()
        for row, index in enumerate(alive):
            keys[index], groups[index] = result.keys[row], result.space_groups[row]
        chunk = chunk.ruled(dict(zip(alive, result.verdicts, strict=True)))
        return replace(chunk, keys=tuple(keys), space_groups=groups)


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
        if chunk.relaxed is None:
            return chunk
        where, n = chunk.index_of(), len(chunk.relaxed)
        rows = [i for i, c in enumerate(chunk.relaxed.crystals.ids) if chunk.verdicts[where[c]] == KEPT]
        if not rows:
            return chunk
        relaxed = chunk.relaxed[rows]
        chunk = self._rescreen(chunk, relaxed, context)
        estimates, errors = estimate_all(self._objectives, relaxed)
        failed = {where[relaxed.crystals.ids[i]]: Verdict("failed", "assess", e) for i, e in errors.items()}
        rulings = {i: verdict for i, verdict in failed.items() if chunk.verdicts[i] == KEPT}
        return replace(
            chunk.ruled(rulings), estimates={name: _among(n, [(rows, one)]) for name, one in estimates.items()}
        )

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


def _judgements(parts: Sequence[Chunk], where: Mapping[str, int]) -> dict[str, Any]:
    """What is known of the relaxed crystals of several parts of a chunk, in the order of their places."""
    relaxed = Relaxed.concatenate([part.relaxed for part in parts if part.relaxed is not None])
    order = np.argsort([where[candidate] for candidate in relaxed.crystals.ids])
    place = {relaxed.crystals.ids[i]: place for place, i in enumerate(order.tolist())}
    rows = [[place[c] for c in part.relaxed.crystals.ids] for part in parts if part.relaxed is not None]
    names = {name: None for part in parts for name in part.estimates}
    return {
        "relaxed": relaxed[order],
        "refusals": tuple(refusal for part in parts for refusal in part.refusals),
        "estimates": {
            name: _among(
                len(relaxed),
                [(at, part.estimates[name]) for at, part in zip(rows, parts, strict=True) if name in part.estimates],
            )
            for name in names
        },
    }


def _among(n: int, parts: Sequence[tuple[Sequence[int], Estimate]]) -> Estimate:
    """The estimates of some of n crystals, each with its places; NaN for the others."""
    mean, std = np.full(n, np.nan), np.full(n, np.nan)
    for rows, estimate in parts:
        mean[list(rows)], std[list(rows)] = estimate.mean, estimate.std
    return Estimate(mean, std)

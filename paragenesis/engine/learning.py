"""Generators learn from what a campaign found, and keep what they learnt only if it does them no harm.

Before a round is filled, each generator that can learn is fine-tuned on the good crystals of the rounds before: a
`Lesson` goes to the stage `Learn`, which starts from the generator's own weights (so no error adds up over the rounds)
and tries the new weights against those in use. A generator that is taught what was good tends to repeat it, or to
forget what a crystal is; so the same number of crystals is drawn with both, and the new weights are refused if fewer
are valid, fewer of the valid are unique, or fewer of the unique are new, by more than the sampling error.

The weights travel as bytes: from the worker that learnt to the campaign, which writes them into its directory, and from
there with the round's context to every worker. No file system needs to be shared.
"""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.executor import Outcome
from paragenesis.engine.folders import claim_folder
from paragenesis.engine.generators.contract import Generator, LearningGenerator
from paragenesis.engine.ledger.disk import replace_bytes
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.screening.screen import Screen
from paragenesis.engine.verdict import KEPT
from paragenesis.errors import InputError
from paragenesis.settings import Settings

if TYPE_CHECKING:
    from paragenesis.engine.stages import RoundContext

FOLDER = "weights"  # in the campaign's directory


class LearnSettings(Settings):
    """What generators learn from a campaign; how long they train is among their own options.

    Attributes:
        generator: Whether those that can are fine-tuned before each round but the first.
        max_hull_distance: A kept crystal counts as good up to this energy above the hull, eV/atom; a hit always does.
        min_crystals: With fewer good crystals nothing is learnt.
        trial: How many crystals are drawn with the old and with the new weights to compare them.
        tolerance: By how many standard errors of the difference a rate may be lower with the new weights.
    """

    generator: bool = False
    max_hull_distance: float = 0.1
    min_crystals: int = Field(default=32, ge=1)
    trial: int = Field(default=128, ge=8)
    tolerance: float = Field(default=1.0, ge=0)


@dataclass(frozen=True)
class Weights:
    """A checkpoint as bytes, with the sha256 that names it."""

    data: bytes = field(repr=False)
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Weights:
        """The weights with their hash."""
        return cls(data, hashlib.sha256(data).hexdigest())

    @classmethod
    def read(cls, path: Path) -> Weights | None:
        """The weights in a file; None if it is not there."""
        return cls.of(path.read_bytes()) if path.is_file() else None

    def write(self, path: Path) -> None:
        """Put them into a file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, self.data)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a generator is to learn.

    Attributes:
        generator: Its name.
        crystals: Good crystals, n of them.
        labels: What is known of them by property, shape `n` each; NaN where nothing is.
        seed: Fixes training and trial.
        trial: Crystals to draw with the old and the new weights; 0 for no trial.
    """

    generator: str
    crystals: Crystals
    labels: Mapping[str, FloatArray]
    seed: int
    trial: int


@dataclass(frozen=True)
class Trial:
    """What came of the crystals that were drawn with some weights.

    Attributes:
        asked: How many were asked for.
        valid: Valid crystals that obey the condition.
        unique: One of each set of equal ones among the valid.
        novel: Those of them that neither the reference nor the campaign holds yet.
    """

    COUNTS: ClassVar[tuple[str, ...]] = ("valid", "unique", "novel")

    asked: int
    valid: int
    unique: int
    novel: int

    @property
    def rates(self) -> dict[str, tuple[int, int]]:
        """Successes and trials of each rate."""
        return {
            "validity": (self.valid, self.asked),
            "uniqueness": (self.unique, self.valid),
            "novelty": (self.novel, self.unique),
        }


@dataclass(frozen=True)
class Learnt:
    """What came of a lesson: new weights, and the trials of the old and of the new ones."""

    weights: Weights
    before: Trial
    after: Trial


def objection(before: Trial, after: Trial, tolerance: float) -> str:
    """Why new weights must not be used, in words; "" if nothing speaks against them.

    The standard error of the difference of two shares is that of the pooled share, as in the two-proportion z-test,
    with one success and one failure added (Laplace's rule), so that it stays above zero where all succeeded.

    Args:
        before: The trial of the weights in use.
        after: The trial of the new weights.
        tolerance: How many standard errors a rate may be lower.
    """
    for name, (k_old, n_old) in before.rates.items():
        k_new, n_new = after.rates[name]
        if not (n_old and n_new):
            continue
        old, new, pooled = k_old / n_old, k_new / n_new, (k_old + k_new + 1) / (n_old + n_new + 2)
        error = float(np.sqrt(pooled * (1 - pooled) * (1 / n_old + 1 / n_new)))
        if old - new > tolerance * error:
            return (
                f"{name} fell from {k_old}/{n_old} = {old:.1%} to {k_new}/{n_new} = {new:.1%}, "
                f"by more than {tolerance:g} standard errors of {error:.1%}"
            )
    return "" if after.valid else "no valid crystal came with the new weights"


@dataclass(frozen=True)
class Grade:
    """What becomes of a lesson.

    Attributes:
        outcome: "accepted"; "refused" by the trial; "failed", the generator raised; "skipped", too little to learn.
        reason: Why it was refused or skipped, in words.
        error: What the generator raised.
        learnt: What came of the lesson, if it was given.
    """

    outcome: Literal["accepted", "refused", "failed", "skipped"]
    reason: str = ""
    error: str = ""
    learnt: Learnt | None = None

    @classmethod
    def of(cls, outcome: Outcome, settings: LearnSettings) -> Grade:
        """The grade of a lesson that the stage `Learn` was sent."""
        if not outcome.ok:
            return cls("failed", error=outcome.reason)
        learnt: Learnt = outcome.value
        reason = objection(learnt.before, learnt.after, settings.tolerance)
        return cls("refused" if reason else "accepted", reason, learnt=learnt)

    @property
    def words(self) -> str:
        """The grade as a sentence."""
        trial = f"trial of {self.learnt.after.asked}: " if self.learnt and not self.reason else ""
        rates = (
            ", ".join(f"{k} {a}/{b}" for k, (a, b) in self.learnt.after.rates.items()) if trial and self.learnt else ""
        )
        return f"{self.outcome}: {self.reason or self.error or trial + rates}"


class Taught:
    """Generators by name, each under the weights that it was taught last."""

    def __init__(self, generators: Mapping[str, Callable[[], Generator]]) -> None:
        """Build them with their own weights.

        Args:
            generators: How to build each.
        """
        self._own = {name: build() for name, build in generators.items()}
        self._taught: dict[str, tuple[str, Generator]] = {}

    def get(self, name: str, weights: Weights | None = None) -> Generator:
        """A generator with its own weights, or with others, which are loaded when they change."""
        if weights is None:
            return self._own[name]
        if name not in self._taught or self._taught[name][0] != weights.sha256:
            self._taught[name] = (weights.sha256, self.loaded(name, weights))
        return self._taught[name][1]

    def loaded(self, name: str, weights: Weights) -> Generator:
        """A generator with weights that are not kept for later."""
        path = self.path(weights.sha256)
        path.write_bytes(weights.data)
        return self.learner(name).with_weights(path)

    def learner(self, name: str) -> LearningGenerator:
        """A generator that can learn.

        Raises:
            InputError: It cannot.
        """
        generator = self._own[name]
        if not isinstance(generator, LearningGenerator):
            raise InputError(f"generator '{name}' cannot learn: it needs learn(...) and with_weights(...)")
        return generator

    def path(self, name: str) -> Path:
        """Where a checkpoint may be put; a generator may read it late, so it stays as long as this object does."""
        return self._folder / f"{name}.safetensors"

    @cached_property
    def _folder(self) -> Path:
        folder, remove = claim_folder(Path(tempfile.gettempdir()))
        weakref.finalize(self, remove)
        return folder


class Learn:
    """Gives a lesson, and tries what was learnt."""

    def __init__(self, generators: Mapping[str, Callable[[], Generator]], screen: Callable[[], Screen]) -> None:
        """Build the generators that learn, and the screen that judges them."""
        self._generators = Taught(generators)
        self._screen = screen()

    def __call__(self, lesson: Lesson, context: RoundContext) -> Learnt:
        """The new weights; `context.weights` holds those in use."""
        learner = self._generators.learner(lesson.generator)
        out = self._generators.path(f"lesson-{lesson.generator}")
        written = learner.learn(lesson.crystals, lesson.labels, out=out, seed=lesson.seed)
        weights = Weights.of(written.read_bytes())
        written.unlink()
        old = self._generators.get(lesson.generator, context.weights.get(lesson.generator))
        new = self._generators.loaded(lesson.generator, weights)
        return Learnt(weights, self._try(old, lesson, context), self._try(new, lesson, context))

    def _try(self, generator: Generator, lesson: Lesson, context: RoundContext) -> Trial:
        """What comes of as many crystals as the trial has."""
        if not lesson.trial:
            return Trial(0, 0, 0, 0)
        crystals = generator.generate(lesson.trial, context.condition, lesson.seed)
        crystals = crystals.with_ids([f"trial-{i}" for i in range(len(crystals))])
        result = self._screen.screen(crystals, context.condition, Seen(self._screen.settings))
        kept = [i for i, verdict in enumerate(result.verdicts) if verdict == KEPT]
        causes = [verdict.cause for verdict in result.verdicts]
        unique = len(kept) + causes.count("known")
        novel = sum(context.seen.match(crystals[i], result.keys[i]) is None for i in kept)
        return Trial(lesson.trial, unique + causes.count("duplicate"), unique, novel)

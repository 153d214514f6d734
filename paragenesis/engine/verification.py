"""Verification that outlasts its round: what is under way, what is pending, and when a round may close.

A crystal that is selected is sent to the oracle and stays under way until it is answered, verified or failed, in
whatever round that is. Its answer is written once, as rows of the round in which it came: `verifications.round` says
when the ledger knew it, `selections.round` which round chose the crystal. A round that is closed never changes.

An answer that comes while a later round is filled is marked `before_decision`: that round's decision knows of it.
So what any decision knew can be read from the ledger alone, and a resumed campaign decides as it did before.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from paragenesis.crystals import FloatArray
from paragenesis.engine.executor import Executor, Outcome, Queue, StageSpec, open_queue
from paragenesis.engine.ledger import LedgerReader
from paragenesis.engine.metrics import CURVE_LEVELS
from paragenesis.engine.preflight import Kit
from paragenesis.engine.spec import VerificationSettings

_UNANSWERED = (
    "candidate_id IN (SELECT candidate_id FROM selections) "
    "AND candidate_id NOT IN (SELECT candidate_id FROM verifications)"
)


@dataclass(frozen=True)
class Asked:
    """A selected crystal and the round that chose it."""

    round: int
    candidate: str


def known_before(number: int) -> str:
    """A condition on `verifications`: the answers that had come before a round's decision."""
    return f"(round < {int(number)} OR (round = {int(number)} AND before_decision))"


def verified_where(answers: str) -> str:
    """A condition on `candidates`: verified by an answer that obeys a condition on `verifications`."""
    return f"candidate_id IN (SELECT candidate_id FROM verifications WHERE status = 'verified' AND ({answers}))"


def pending_where(kit: Kit, number: int) -> str:
    """A condition on `candidates`: chosen in a round before `number` whose decision does not know the answer."""
    if kit.spec.verification.close == "all":
        return "false"  # a round closes with all its answers, so nothing is ever pending
    return (
        f"candidate_id IN (SELECT candidate_id FROM selections WHERE round < {int(number)}) "
        f"AND candidate_id NOT IN (SELECT candidate_id FROM verifications WHERE {known_before(number)})"
    )


@dataclass(frozen=True)
class Foretold:
    """What was expected of N selected crystals when they were chosen; NaN where unknown.

    Attributes:
        mean: Expected values, shape `N x m`.
        std: Their standard deviations, shape `N x m`.
        half_widths: Half the widths of their recalibrated intervals, shape `N x m x 9`, see `Calibration`.
    """

    mean: FloatArray
    std: FloatArray
    half_widths: FloatArray


def foretold(ledger: LedgerReader, kit: Kit, which: str) -> Foretold:
    """What was expected of selected crystals when they were chosen.

    Args:
        ledger: The campaign's ledger.
        kit: Its parts.
        which: A condition on `candidates`; the rows are in the order of their ids.
    """
    mean, std, half_widths = [], [], []
    for objective in kit.objectives:
        found = ledger.query(
            f"WITH pool AS (SELECT candidate_id FROM candidates WHERE {which}) SELECT p.mean, p.std, p.half_widths "
            "FROM pool LEFT JOIN selections s ON s.candidate_id = pool.candidate_id "
            "LEFT JOIN predictions p ON p.candidate_id = pool.candidate_id "
            "AND p.model = 'posterior:' || s.round AND p.property = ? ORDER BY pool.candidate_id",
            (objective.name,),
        )
        mean.append(np.asarray(found.column("mean").to_numpy(zero_copy_only=False), dtype=np.float64).reshape(-1))
        std.append(np.asarray(found.column("std").to_numpy(zero_copy_only=False), dtype=np.float64).reshape(-1))
        unknown = [np.nan] * len(CURVE_LEVELS)
        widths = [row or unknown for row in found.column("half_widths").to_pylist()]
        half_widths.append(np.array(widths, dtype=np.float64).reshape(len(widths), len(CURVE_LEVELS)))
    return Foretold(np.stack(mean, axis=1), np.stack(std, axis=1), np.stack(half_widths, axis=1))


def patience(
    settings: VerificationSettings, *, chosen: int, answered: int, under_way: int, seconds: float, last: bool
) -> float | None:
    """How many seconds a round waits for the next answer: 0 if it may close now, None for as long as it takes.

    Args:
        settings: The campaign's rule.
        chosen: How many crystals the round chose.
        answered: How many of those are answered, verified or failed.
        under_way: How many crystals, of this and of earlier rounds, are not answered.
        seconds: How long the round's verification has taken so far.
        last: It is the campaign's last round, which collects what is pending.
    """
    if not under_way:
        return 0.0
    if last:
        if settings.collect_seconds is None:
            return None
        if seconds < settings.collect_seconds:
            return settings.collect_seconds - seconds
    if answered >= chosen:
        return 0.0
    if settings.close == "all" or not answered:
        return None
    fraction, limit = settings.close.fraction, settings.close.seconds
    if fraction is not None and answered >= ceil(fraction * chosen - 1e-9):  # 0.7 * 10 is a little more than 7
        return 0.0
    return None if limit is None else max(0.0, limit - seconds)


class UnderWay:
    """The crystals that the oracle is asked about, from round to round."""

    def __init__(self, ledger: LedgerReader, executor: Executor, stage: StageSpec) -> None:
        """Start with nothing under way.

        Args:
            ledger: Says what was selected, and what is answered.
            executor: What runs the stage.
            stage: The stage that asks the oracle.
        """
        self._ledger, self._executor, self._stage = ledger, executor, stage
        self._queue: Queue | None = None
        self._asked: dict[str, Asked] = {}

    def __len__(self) -> int:
        """How many crystals are under way."""
        return len(self._asked)

    def send(self) -> None:
        """Ask about every selected crystal that has no answer and is not under way: the oldest, the best first."""
        found = self._ledger.query(
            f"SELECT round, candidate_id FROM selections WHERE {_UNANSWERED} ORDER BY round, rank"
        ).to_pylist()
        new = [Asked(row["round"], row["candidate_id"]) for row in found if row["candidate_id"] not in self._asked]
        if not new:
            return
        if self._queue is None:
            self._queue = open_queue(self._executor, [self._stage], None)
        crystals = self._ledger.crystals(_UNANSWERED)
        where = {candidate: i for i, candidate in enumerate(crystals.ids)}
        for asked in new:
            self._queue.put(asked.candidate, crystals[where[asked.candidate]])
            self._asked[asked.candidate] = asked

    def take(self, timeout: float | None) -> tuple[Asked, Outcome] | None:
        """A crystal that is answered, and its outcome; None if there is none within so many seconds."""
        taken = None if self._queue is None else self._queue.take(timeout)
        return None if taken is None else (self._asked.pop(taken[0]), taken[1])

    def close(self) -> None:
        """Give up what is under way; a resumed campaign asks again."""
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        self._asked.clear()

"""Too many failures: when a round is stopped because something is broken, not the crystals.

A crystal may fail, and is recorded; but where nearly all do, a GPU is broken, a file is missing, an objective cannot
work, the oracle has no licence, and to go on would only waste the budget. What shows it is not written: once the cause
is mended, it is made again.

What counts is what failed since the campaign was last started: what a broken machine has left in the ledger must not
stop it again when that is mended.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self

from pydantic import Field

from paragenesis.engine.verdict import Verdict
from paragenesis.errors import ExecutionError
from paragenesis.settings import Settings

if TYPE_CHECKING:
    from paragenesis.engine.ledger import LedgerReader

_RESUME = "mend the cause or raise failures.max_share, and run the campaign again to resume it"


class FailureSettings(Settings):
    """How much of a round may fail; has no influence on the results, so it may be changed when a campaign is resumed.

    Attributes:
        max_share: If a larger share of a round's crystals has failed (not: was rejected), and of those since the
            campaign was last started, it stops. So it does if a larger share of a round's verifications has, or of the
            answers of a cheaper oracle in a round, or of the latest `answers` verifications.
        least: Of so many crystals at least; of all of them in a smaller round.
        answers: Of so many verifications, of whatever rounds, since the campaign was last started.
    """

    max_share: float = Field(default=0.8, gt=0.0, le=1.0)
    least: int = Field(default=32, ge=1)
    answers: int = Field(default=8, ge=1)


class Failures:
    """What has failed in a round so far, and of that since the campaign was last started."""

    def __init__(self, settings: FailureSettings, verdicts: Iterable[Verdict] = ()) -> None:
        """Begin with the verdicts on the crystals that are there already."""
        self._settings = settings
        self._crystals = self._lost = 0
        self._failed: Counter[tuple[str, str]] = Counter()
        self._count(verdicts)
        self._old, self._old_failed = self._crystals, self._failed.total()

    @classmethod
    def of(cls, ledger: LedgerReader, settings: FailureSettings, number: int) -> Self:
        """What the ledger knows of a round."""
        sql = "SELECT verdict, stage, reason, fault FROM candidates WHERE round = ?"
        verdicts = [
            Verdict(row["verdict"], row["stage"] or "", row["reason"] or "", lost=row["fault"] == "infrastructure")
            for row in ledger.query(sql, (number,)).to_pylist()
        ]
        return cls(settings, verdicts)

    def add(self, verdicts: Iterable[Verdict], *, last: bool) -> None:
        """Count a chunk's crystals before they are written.

        Args:
            verdicts: What became of them.
            last: The round has no more.

        Raises:
            ExecutionError: Too many have failed.
        """
        self._count(verdicts)
        failed, limit = self._failed.total(), self._settings.max_share
        since_start = failed - self._old_failed > limit * (self._crystals - self._old)
        if failed > limit * self._crystals and since_start and (last or self._crystals >= self._settings.least):
            lost = f" ({self._lost} by a fault of the infrastructure)" if self._lost else ""
            raise ExecutionError(
                f"{failed} of the round's {self._crystals} crystals so far failed{lost}, more than failures.max_share "
                f"= {limit:g} allows; {self._most()}; the chunk that was the last straw is not written: {_RESUME}"
            )

    def _count(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            self._crystals += 1
            if verdict.status == "failed":
                self._failed[verdict.stage, verdict.reason] += 1
                self._lost += verdict.lost

    def _most(self) -> str:
        """At which stage most failed, and the commonest reason there."""
        stages: Counter[str] = Counter()
        for (stage, _), count in self._failed.items():
            stages[stage] += count
        [(stage, count)] = stages.most_common(1)
        reasons = Counter({reason: n for (where, reason), n in self._failed.items() if where == stage})
        [(reason, times)] = reasons.most_common(1)
        return f"{count} at stage '{stage}', most often ({times}) because of \"{reason}\""


def check_answers(settings: FailureSettings, errors: Sequence[str], new: Sequence[str], of: str) -> None:
    """Stop a campaign whose oracle has answered for a round, and failed; its answers are written.

    Args:
        settings: How much may fail.
        errors: Why there is no value, of each crystal that was asked about in the round; empty if there is one.
        new: Those of them that came since the campaign was last started.
        of: What was asked.

    Raises:
        ExecutionError: Too many have failed.
    """
    limit, failed = settings.max_share, Counter(filter(None, errors))
    if failed.total() > limit * len(errors) and sum(map(bool, new)) > limit * len(new):
        [(error, times)] = failed.most_common(1)
        raise ExecutionError(
            f"{failed.total()} of {len(errors)} answers of {of} failed, more than failures.max_share = {limit:g} "
            f'allows, most often ({times}) because of "{error}"; they are not asked for again: {_RESUME}'
        )


class FailedAnswers:
    """The latest verifications since the campaign was last started: a few, of whatever rounds."""

    def __init__(self, settings: FailureSettings) -> None:
        """Begin without any."""
        self._limit = settings.max_share
        self._latest: deque[str] = deque(maxlen=settings.answers)

    def add(self, error: str) -> None:
        """Count an answer before it is written.

        Args:
            error: Why there is no value; empty if there is one.

        Raises:
            ExecutionError: Too many of the latest have failed.
        """
        self._latest.append(error)
        errors, n = Counter(filter(None, self._latest)), len(self._latest)
        if n == self._latest.maxlen and errors.total() > self._limit * n:
            [(error, times)] = errors.most_common(1)
            raise ExecutionError(
                f"{errors.total()} of the latest {n} verifications failed, more than failures.max_share = "
                f'{self._limit:g} allows, most often ({times}) because of "{error}"; the latest is not written: '
                + _RESUME
            )

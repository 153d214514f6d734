"""Too many failures: when a round is stopped because something is broken, not the crystals.

A crystal may fail, and is recorded; but where nearly all do, a GPU is broken, a file is missing, an objective cannot
work, and to go on would only waste the budget. The chunk that shows it is not written: once the cause is mended, it is
made again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from pydantic import Field

from paragenesis.engine.verdict import Verdict
from paragenesis.errors import ExecutionError
from paragenesis.settings import Settings

if TYPE_CHECKING:
    from paragenesis.engine.ledger import LedgerReader


class FailureSettings(Settings):
    """How much of a round may fail; has no influence on the results, so it may be changed when a campaign is resumed.

    Attributes:
        max_share: If a larger share of a round's crystals has failed (not: was rejected), the campaign stops; so it
            does if a larger share of a round's verifications has failed since the campaign was last started.
        least: Of so many crystals or verifications at least; of all of them in a smaller round.
    """

    max_share: float = Field(default=0.8, gt=0.0, le=1.0)
    least: int = Field(default=32, ge=1)


class Failures:
    """What has failed in a round so far."""

    def __init__(
        self, settings: FailureSettings, verdicts: Iterable[Verdict] = (), what: str = "crystals", last: str = "chunk"
    ) -> None:
        """Start with the verdicts that are there already.

        Args:
            settings: How much may fail.
            verdicts: What became of the first.
            what: What is counted, in words.
            last: In what it comes, in words.
        """
        self._settings, self._what, self._last = settings, what, last
        self._crystals = 0
        self._failed: Counter[tuple[str, str]] = Counter()
        self._count(verdicts)

    @classmethod
    def of(cls, ledger: LedgerReader, settings: FailureSettings, number: int) -> Self:
        """What the ledger knows of a round."""
        found = ledger.query("SELECT verdict, stage, reason FROM candidates WHERE round = ?", (number,)).to_pylist()
        return cls(settings, [Verdict(row["verdict"], row["stage"] or "", row["reason"] or "") for row in found])

    def add(self, verdicts: Iterable[Verdict], *, last: bool) -> None:
        """Count what has come before it is written.

        Args:
            verdicts: What became of it.
            last: The round has no more.

        Raises:
            ExecutionError: Too many have failed.
        """
        self._count(verdicts)
        failed, limit = self._failed.total(), self._settings.max_share
        if failed > limit * self._crystals and (last or self._crystals >= self._settings.least):
            raise ExecutionError(
                f"{failed} of the round's {self._crystals} {self._what} so far failed, more than failures.max_share = "
                f"{limit:g} allows; {self._most()}; the {self._last} that was the last straw is not written: mend the "
                "cause or raise failures.max_share, and run the campaign again to resume it"
            )

    def _count(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            self._crystals += 1
            if verdict.status == "failed":
                self._failed[verdict.stage, verdict.reason] += 1

    def _most(self) -> str:
        """At which stage most failed, and the commonest reason there."""
        stages: Counter[str] = Counter()
        for (stage, _), count in self._failed.items():
            stages[stage] += count
        [(stage, count)] = stages.most_common(1)
        reasons = Counter({reason: n for (where, reason), n in self._failed.items() if where == stage})
        [(reason, times)] = reasons.most_common(1)
        return f"{count} at stage '{stage}', most often ({times}) because of \"{reason}\""

"""Verdicts: what becomes of a crystal; every generated crystal leaves its chunk with exactly one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paragenesis.errors import InputError

Status = Literal["kept", "rejected", "failed"]
Fault = Literal["scientific", "infrastructure"]


@dataclass(frozen=True)
class Verdict:
    """Kept, rejected by a rule, or failed because something broke.

    Attributes:
        status: "kept", "rejected" (a rule of the stage speaks against the crystal) or "failed" (the stage could not
            judge it).
        stage: The stage that decided; empty for kept crystals.
        reason: Why, in words with numbers, beginning with its cause: "volume: 3.1 A^3/atom is outside 4 to 150";
            empty for kept crystals.
        lost: Of one that failed: its worker died, hung or ran out of memory, which says nothing about the crystal.
        attempts: Of one that failed: how many failed calls it took part in; 1 where the stage says it by itself.
    """

    status: Status
    stage: str = ""
    reason: str = ""
    lost: bool = False
    attempts: int = 1

    def __post_init__(self) -> None:
        """Check that exactly the crystals that are not kept have a stage and a reason."""
        if self.status not in ("kept", "rejected", "failed"):
            raise InputError(f"a verdict is 'kept', 'rejected' or 'failed', not {self.status!r}")
        if self.status == "kept" and (self.stage or self.reason):
            raise InputError(f"a kept crystal has no stage and no reason, but {self.stage!r}, {self.reason!r} came")
        if self.status != "kept" and not (self.stage and self.reason):
            raise InputError(f"a {self.status} crystal needs a stage and a reason, but one of them is empty")

    @property
    def cause(self) -> str:
        """The first word of the reason ("volume", "overlap", ...), to count verdicts by; empty for kept crystals."""
        return self.reason.split(":", 1)[0]

    @property
    def fault(self) -> Fault | None:
        """What failed, the science or the infrastructure; None for a crystal that did not fail."""
        return fault(self.lost) if self.status == "failed" else None


def fault(lost: bool) -> Fault:
    """What failed, if something did."""
    return "infrastructure" if lost else "scientific"


KEPT = Verdict("kept")

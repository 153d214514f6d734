from __future__ import annotations

import pytest

from paragenesis.engine.verdict import KEPT, Verdict
from paragenesis.errors import InputError


def test_the_cause_is_the_first_word_of_the_reason() -> None:
    assert Verdict("rejected", "screen", "volume: 3.1 A^3/atom is outside 4 to 150").cause == "volume"
    assert KEPT.cause == ""


def test_a_failure_is_one_of_the_science_or_of_the_infrastructure() -> None:
    assert KEPT.fault is None
    assert Verdict("rejected", "screen", "overlap: 0.1").fault is None
    assert Verdict("failed", "relax", "ValueError: no").fault == "scientific"
    assert Verdict("failed", "relax", "lost: its worker died (3 attempts)", lost=True).fault == "infrastructure"


@pytest.mark.parametrize(
    ("status", "stage", "reason"),
    [("kept", "screen", ""), ("kept", "", "why"), ("rejected", "", "why"), ("failed", "relax", ""), ("lost", "a", "b")],
)
def test_a_verdict_without_its_reason_is_refused(status: str, stage: str, reason: str) -> None:
    with pytest.raises(InputError):
        Verdict(status, stage, reason)  # type: ignore[arg-type]

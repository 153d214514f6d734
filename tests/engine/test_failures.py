"""When a round is stopped because something is broken, and what is said of it."""

from __future__ import annotations

import pytest

from paragenesis.engine.failures import Failures, FailureSettings
from paragenesis.engine.verdict import KEPT, Verdict
from paragenesis.errors import ExecutionError

BAD = Verdict("failed", "relax", "RuntimeError: no GPU")
NO = Verdict("rejected", "screen", "volume: too small")


def test_rejected_crystals_and_a_few_failed_ones_are_no_reason_to_stop() -> None:
    failures = Failures(FailureSettings(max_share=0.5, least=4))
    failures.add([NO] * 100, last=False)
    failures.add([BAD] * 100, last=False)
    failures.add([KEPT], last=True)


def test_the_share_is_looked_at_from_some_number_on_and_at_the_end() -> None:
    failures = Failures(FailureSettings(max_share=0.5, least=10))
    failures.add([BAD] * 9, last=False)
    with pytest.raises(ExecutionError, match="10 of the round's 10 crystals"):
        failures.add([BAD], last=False)
    with pytest.raises(ExecutionError, match="2 of the round's 3 crystals"):
        Failures(FailureSettings(max_share=0.5, least=10), [KEPT]).add([BAD] * 2, last=True)


def test_the_sentence_names_the_stage_and_the_commonest_reason() -> None:
    other = Verdict("failed", "assess", "ValueError: no")
    said = r"""at stage 'relax', most often \(2\) because of "RuntimeError: no GPU".*mend"""
    with pytest.raises(ExecutionError, match=said):
        Failures(FailureSettings()).add([BAD, other, BAD, Verdict("failed", "relax", "other")], last=True)

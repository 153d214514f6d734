"""When a round is stopped because something is broken, and what is said of it."""

from __future__ import annotations

import pytest

from paragenesis.engine.failures import FailedAnswers, Failures, FailureSettings
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


def test_what_a_broken_machine_left_behind_does_not_stop_what_is_mended() -> None:
    failures = Failures(FailureSettings(max_share=0.5, least=10), [BAD] * 30)
    failures.add([KEPT] * 4, last=False)
    failures.add([BAD] * 3, last=True)
    with pytest.raises(ExecutionError, match="38 of the round's 42 crystals"):
        failures.add([BAD] * 5, last=False)


def test_what_the_infrastructure_lost_is_told_apart() -> None:
    lost = Verdict("failed", "relax", "lost: its worker died (3 attempts)", lost=True)
    with pytest.raises(ExecutionError, match=r"5 of the round's 6 crystals so far failed \(3 by a fault of the infra"):
        Failures(FailureSettings(max_share=0.5), [KEPT]).add([BAD, BAD, lost, lost, lost], last=True)


def test_only_the_latest_answers_count() -> None:
    answers = FailedAnswers(FailureSettings(max_share=0.5, answers=4))
    for error in ("no", "no", "", "", "no", "no", ""):
        answers.add(error)
    with pytest.raises(ExecutionError, match=r'3 of the latest 4 verifications failed.*\(2\) because of "no".*mend'):
        answers.add("other")


def test_a_few_failed_answers_are_no_reason_to_stop() -> None:
    answers = FailedAnswers(FailureSettings())
    for _ in range(7):
        answers.add("it melted")
    with pytest.raises(ExecutionError, match="8 of the latest 8"):
        answers.add("it melted")


def test_the_sentence_names_the_stage_and_the_commonest_reason() -> None:
    other = Verdict("failed", "assess", "ValueError: no")
    said = r"""at stage 'relax', most often \(2\) because of "RuntimeError: no GPU".*mend"""
    with pytest.raises(ExecutionError, match=said):
        Failures(FailureSettings()).add([BAD, other, BAD, Verdict("failed", "relax", "other")], last=True)

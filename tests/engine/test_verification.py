"""Answers in any order and in later rounds: what is pending, what each decision knew, and what a crash leaves."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from paragenesis.engine import answers as taking
from paragenesis.engine.campaign import Progress
from paragenesis.engine.executor import InlineExecutor, OneByOne, Outcome
from paragenesis.engine.ledger import LedgerReader, digest, read_status, verify_ledger
from paragenesis.engine.preflight import Kit, prepare
from paragenesis.engine.spec import CampaignSpec, VerificationSettings
from paragenesis.engine.verification import patience, pending_where
from paragenesis.launch import run

MakeSpec = Callable[..., CampaignSpec]
HALF = {"close": {"fraction": 0.5}}


class Scripted(InlineExecutor):
    """The last crystal sent is answered first; looking without waiting finds an answer only where the script says so.

    A wait advances the clock by a million seconds.
    """

    def __init__(self, *, found_by: frozenset[int] = frozenset(), melts: str = "") -> None:
        super().__init__()
        self.found_by, self.melts = found_by, melts
        self.looks, self.clock = 0, 0.0
        self.under_way: list[str] = []

    def queue(self, stages: Any, context: Any) -> OneByOne:
        return Backwards(self, stages, context)


class Backwards(OneByOne):
    def put(self, name: str, item: Any) -> None:
        super().put(name, item)
        cast(Scripted, self._executor).under_way.append(name)

    def take(self, timeout: float | None = None) -> tuple[str, Outcome] | None:
        script = cast(Scripted, self._executor)
        if timeout == 0:
            script.looks += 1
            if script.looks not in script.found_by:
                return None
        script.clock += 1e6
        if not self._waiting:
            return None
        self._waiting.rotate(1)
        taken = super().take()
        assert taken is not None
        name, outcome = taken
        script.under_way.remove(name)
        if name == script.melts:
            outcome = Outcome(value=replace(outcome.value, errors={0: "it melted"}))
        return name, outcome


def query(directory: Path, sql: str) -> list[dict[str, Any]]:
    with LedgerReader.open(directory) as ledger:
        rows: list[dict[str, Any]] = ledger.query(sql).to_pylist()
    return rows


def pending(directory: Path, spec: CampaignSpec, number: int) -> list[str]:
    with LedgerReader.open(directory) as ledger:
        return list(ledger.crystals(pending_where(cast(Kit, SimpleNamespace(spec=spec)), number)).ids)


def answers(directory: Path) -> list[tuple[int, int, int, str, bool | None]]:
    """Of each answer: the round that chose the crystal, its rank, the round of the answer, its status, its mark."""
    rows = query(
        directory,
        "SELECT DISTINCT s.round AS chosen, s.rank, v.round AS came, v.status, v.before_decision "
        "FROM selections s JOIN verifications v USING (candidate_id) ORDER BY 1, 2",
    )
    return [tuple(row.values()) for row in rows]  # type: ignore[misc]


def test_an_answer_that_comes_while_the_next_round_is_filled_is_known_to_its_decision(
    tiny: MakeSpec, tmp_path: Path
) -> None:
    spec = tiny(verification=HALF)
    # the first look is at the end of round 1, the second after the first chunk of round 2
    run(spec, tmp_path, executor=Scripted(found_by=frozenset({2})))
    assert answers(tmp_path) == [
        (1, 1, 2, "verified", True),
        (1, 2, 1, "verified", None),
        (1, 3, 1, "verified", None),
        *((2, rank, 2, "verified", None) for rank in (1, 2, 3)),
    ]
    rounds = query(tmp_path, "SELECT selected, verified, calibration FROM rounds ORDER BY round")
    assert [(r["selected"], r["verified"]) for r in rounds] == [(3, 2), (3, 4)]
    assert [json.loads(r["calibration"])["learnt_from"] for r in rounds] == [0, 3]
    assert pending(tmp_path, spec, 2) == []
    assert verify_ledger(tmp_path) == []


def test_a_late_failure_is_written_and_the_last_round_collects_what_no_decision_waited_for(
    tiny: MakeSpec, tmp_path: Path
) -> None:
    spec = tiny(verification=HALF)
    executor = Scripted()
    seen: list[str] = []

    def listen(step: Progress) -> None:
        if "pending" in step.text:  # round 1 closes: what it did not wait for will fail
            seen.append(step.text)
            [executor.melts] = executor.under_way

    run(spec, tmp_path, executor=executor, notify=listen)
    assert seen == ["1 verifications are pending"]
    assert pending(tmp_path, spec, 1) == []
    assert pending(tmp_path, spec, 2) == [executor.melts], "decided in ignorance of it"
    assert pending(tmp_path, spec, 3) == [], "a failure is an answer"
    assert answers(tmp_path)[0] == (1, 1, 2, "failed", None)
    rounds = query(tmp_path, "SELECT verified, hits, calibration FROM rounds ORDER BY round")
    assert [r["verified"] for r in rounds] == [2, 3]
    assert [json.loads(r["calibration"])["learnt_from"] for r in rounds] == [0, 2]
    [hits] = query(
        tmp_path, "SELECT count(*) AS n FROM verifications WHERE property = 'formation_energy' AND value <= 0"
    )
    assert sum(r["hits"] for r in rounds) == hits["n"] > 0
    assert len(query(tmp_path, "SELECT DISTINCT candidate_id FROM selections")) == 6, (
        "what is pending is not chosen again"
    )
    assert read_status(tmp_path)["pending"] == 0
    assert verify_ledger(tmp_path) == []


def test_rounds_close_by_the_clock_and_what_was_left_is_collected_when_the_campaign_goes_on(
    tiny: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {"close": {"seconds": 60}, "collect_seconds": 1.5e6}
    executor = Scripted()
    with monkeypatch.context() as patch:
        patch.setattr(taking, "time", SimpleNamespace(monotonic=lambda: executor.clock))
        run(tiny(verification=rule), tmp_path, executor=executor)
    assert [(chosen, rank, came) for chosen, rank, came, *_ in answers(tmp_path)] == [(1, 3, 1), (2, 2, 2), (2, 3, 2)]
    assert read_status(tmp_path)["pending"] == 3
    assert "3 verifications were not waited for" in read_status(tmp_path)["activity"]
    spec = tiny(rounds=3, verification=rule)
    run(spec, tmp_path, executor="inline")
    assert [came for *_, came, _, _ in answers(tmp_path)] == [3, 3, 1, 3, 2, 2, 3, 3, 3]
    assert len(pending(tmp_path, spec, 3)) == 3
    assert verify_ledger(tmp_path) == []


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_killed_campaign_keeps_its_answers_and_asks_again_for_the_others(
    tiny: MakeSpec, script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    faults, kit = script("bench_faults"), prepare(tiny(verification=HALF))
    _, expected = faults.undisturbed(kit, tmp_path / "whole")

    def killed(nth: int) -> None:
        """Killed before it keeps the n-th of the answers that it keeps from here on."""
        shutil.copytree(tmp_path / "c", tmp_path / f"ahead-{nth}")
        ahead = faults.run_child(kit, tmp_path / f"ahead-{nth}").reached
        keeps = [i for i, place in enumerate(ahead, start=1) if "before commit" in place and "/verify/" in place]
        assert faults.run_child(kit, tmp_path / "c", keeps[nth]).code == -signal.SIGKILL

    (tmp_path / "c").mkdir()
    killed(1)  # with an answer of round 1 in memory only
    assert len(answers(tmp_path / "c")) == 1
    killed(2)  # with the late one in round 2
    assert len(answers(tmp_path / "c")) == 3
    faults.run_child(kit, tmp_path / "c")
    assert [came for *_, came, _, _ in answers(tmp_path / "c")] == [1, 1, 2, 2, 2, 2]
    assert digest(tmp_path / "c") == expected
    assert verify_ledger(tmp_path / "c") == []


@pytest.mark.parametrize(
    ("settings", "now", "expected"),
    [
        ({}, {"answered": 9, "seconds": 1e9}, None),
        ({}, {"answered": 10, "under_way": 0}, 0),
        ({"close": {"fraction": 0.7}}, {"answered": 6}, None),
        ({"close": {"fraction": 0.7}}, {"answered": 7}, 0),
        ({"close": {"fraction": 0.01}}, {"answered": 0}, None),
        ({"close": {"seconds": 60}}, {"answered": 0, "seconds": 100}, None),
        ({"close": {"seconds": 60}}, {"answered": 1, "seconds": 45}, 15),
        ({"close": {"seconds": 60}}, {"answered": 1, "seconds": 61}, 0),
        ({"close": {"seconds": 60}}, {"answered": 10, "under_way": 3}, 0),
        ({"close": {"seconds": 60, "fraction": 0.5}}, {"answered": 5, "seconds": 1}, 0),
        ({"close": {"seconds": 60, "fraction": 0.5}}, {"answered": 4, "seconds": 60}, 0),
        ({"close": {"fraction": 0.5}}, {"chosen": 0, "answered": 0, "under_way": 2}, 0),
        ({"close": {"fraction": 0.5}}, {"answered": 10, "under_way": 1, "seconds": 1e9, "last": True}, None),
        ({"close": {"fraction": 0.5}}, {"answered": 10, "under_way": 0, "last": True}, 0),
        (HALF | {"collect_seconds": 50}, {"answered": 10, "under_way": 1, "seconds": 20, "last": True}, 30),
        (HALF | {"collect_seconds": 50}, {"answered": 5, "seconds": 50, "last": True}, 0),
        (HALF | {"collect_seconds": 50}, {"answered": 4, "seconds": 50, "last": True}, None),
    ],
)
def test_a_round_waits_as_its_rule_says(settings: dict[str, Any], now: dict[str, Any], expected: float | None) -> None:
    state = {"chosen": 10, "under_way": 5, "seconds": 0.0, "last": False} | now
    assert patience(VerificationSettings.parse(settings), **state) == expected

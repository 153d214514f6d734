"""The benchmark of reliability counts what it claims to count."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Script = Callable[[str], ModuleType]
Tables = Callable[[], dict[str, list[str]]]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_crash_loses_and_doubles_nothing(script: Script, table: Tables) -> None:
    script("reliability").main(["--task", "crashes", "--faults", "kill", "--stride", "240"])
    steps, same, lost, doubled, _ = table()["kill"]
    tried, of, total = steps.split()
    assert (of, int(tried)) == ("of", (int(total) + 239) // 240)
    assert (same, lost, doubled) == (f"{tried}/{tried}", "0", "0")


def test_the_head_takes_a_share_of_a_campaign(
    script: Script, table: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = script("reliability")
    monkeypatch.setattr(benchmark, "_commits_per_second", partial(benchmark._commits_per_second, n=3))
    benchmark.main(["--task", "cost", "--seeds", "1", "--out", str(tmp_path / "out.json")])
    assert table()["as it is"][1] == "1.00"
    [share] = json.loads((tmp_path / "out.json").read_text())["share"]
    assert 0 < share < 1


def test_commits_that_are_gone_or_new_twice_are_counted(script: Script, tmp_path: Path) -> None:
    faults = script("bench_faults")
    faults.acknowledged_file(tmp_path / "c").write_text("a new\nb new\na known\nb new\nb new\n")
    assert faults.missing(tmp_path / "c") == 2  # there is no ledger
    assert faults.doubled(tmp_path / "c") == 2


def test_a_mutation_that_no_test_notices_is_told(
    script: Script, table: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, ran = script("bench_suite"), []

    def pytest_of(work: Path, test: str) -> Any:
        mutated = (work / "paragenesis" / fence.file).read_text()
        taken_out = fence.old not in mutated
        ran.append(taken_out)
        return subprocess.CompletedProcess([], int(taken_out and test != "blind"), f"FAILED tests/{test}\n")

    fence = next(one for one in suite.MUTATIONS if one.words.startswith("the fence"))
    monkeypatch.setattr(suite, "_pytest", pytest_of)
    monkeypatch.setattr(suite, "MUTATIONS", (fence, replace(fence, words="a blind spot", test="blind")))
    script("reliability").main(["--task", "mutations", "--out", str(tmp_path / "out.json")])
    rows = table()
    assert rows[fence.words] == ["yes", "`" + Path(fence.test).name + "`"]
    assert rows["a blind spot"][0] == "NO"
    assert ran == [False, True, False, True]
    assert [r["caught"] for r in json.loads((tmp_path / "out.json").read_text())["results"]] == [True, False]


def test_every_mutation_is_of_code_that_is_there(script: Script) -> None:
    suite = script("bench_suite")
    for one in suite.MUTATIONS:
        assert one.old in (suite.ROOT / "paragenesis" / one.file).read_text(), one.words
        assert (suite.ROOT / one.test.split("::")[0]).is_file()


def test_hits_and_examples_are_read_from_what_the_tests_say(
    script: Script, table: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, asked = script("bench_suite"), {}

    def pytest_of(work: Path, *words: str, **environment: str) -> Any:
        asked.update(environment)
        said = (
            "seed 7: 3 hits, resumed 0 times: [('killed', 12), ('stalled', 3), ('killed', 4)]\n"
            "seed 8: 1 hits, resumed 2 times: [('stopped', 9)]\nFAILED tests/a.py::b\n"
            "  - during generate phase (2.21 seconds):\n    - 5 passing, 1 failing, and 2 invalid test cases\n"
            "  - during generate phase (0.30 seconds):\n    - 7 passing, 0 failing, and 0 invalid test cases\n"
            "2 passed in 3 s\n"
        )
        return subprocess.CompletedProcess([], 1, said)

    monkeypatch.setattr(suite, "_pytest", pytest_of)
    script("reliability").main(["--task", "nemesis", "--first-seed", "7", "--seeds", "2"])
    assert table()["7 to 8"] == ["2 of 2", "4", "2", "1", "1", "2"]
    script("reliability").main(["--task", "fuzz", "--fuzz", "3"])
    assert table()["2"] == ["12", "1"]
    assert asked == {"PARAGENESIS_CHAOS_SEEDS": "7:9", "PARAGENESIS_FUZZ": "3.0"}

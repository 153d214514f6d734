"""Killed, without disk or without memory at the N-th step: resumed, the campaign ends with the same science.

Here at some of the steps; at all of them with `-m exhaustive`, and by `benchmarks/reliability.py`, which makes a table.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")

STRIDES = {"kill": 61, "disk": 109, "memory": 113}  # primes: no two kinds keep meeting at one step
_ONCE: dict[str, Any] = {}


@pytest.fixture
def faults(script: Callable[[str], ModuleType]) -> Any:
    """The planted faults that the benchmark of reliability uses, too."""
    if "faults" not in _ONCE:
        _ONCE["faults"] = script("bench_faults")
    return _ONCE["faults"]


@pytest.fixture
def kit(faults: Any) -> Any:
    """The checked parts of a tiny campaign."""
    if "kit" not in _ONCE:
        _ONCE["kit"] = faults.tiny_kit()
    return _ONCE["kit"]


@pytest.fixture
def whole(faults: Any, kit: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """The steps of an undisturbed run, and its digest."""
    if "whole" not in _ONCE:
        _ONCE["whole"] = faults.undisturbed(kit, tmp_path_factory.mktemp("crash") / "whole")
    places: tuple[list[str], str] = _ONCE["whole"]
    return places


def crashes(faults: Any, kit: Any, whole: tuple[list[str], str], folder: Path, kind: str, stride: int) -> list[Any]:
    places, expected = whole
    return [
        faults.crash(kit, folder / "c", at, kind, places, expected)
        for at in range(1 + len(kind) % stride, len(places) + 1, stride)
    ]


@pytest.mark.parametrize("kind", sorted(STRIDES))
def test_a_crash_at_some_steps_changes_nothing(faults, kit, whole, tmp_path: Path, kind: str) -> None:
    done = crashes(faults, kit, whole, tmp_path, kind, STRIDES[kind])
    assert len(done) > 3
    assert [one for one in done if one.lost or one.doubled or not one.same or one.resumed > 1] == []


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", sorted(STRIDES))
def test_a_crash_at_any_step_changes_nothing(faults, kit, whole, tmp_path: Path, kind: str) -> None:
    done = crashes(faults, kit, whole, tmp_path, kind, 1)
    assert len(done) == len(whole[0])
    assert [one for one in done if one.lost or one.doubled or not one.same or one.resumed > 1] == []


def test_the_steps_are_those_that_change_something_outside(whole: tuple[list[str], str]) -> None:
    """A step that nobody crashes at is not proven: commits, heads, checkpoints, exports, files, dispatches."""
    places = whole[0]
    for words in (
        "before commit 'r001/plan'", "after commit 'r002/verify", "before the opening of round",
        "before the closing of round 2", "before the checkpoint of round 1", "before migration 1",
        "before ledger.head is", "after ledger.head", "before status.json is", "before the ledger is put in place",
        "before candidates of round 1 is exported", "after the export of round 2",
        "before dispatch of relax", "after verify", "before dispatch of probe-1", "after status.json",
        "after the checkpoint of round 1", "after selections of round 1 was exported", "after the manifest of round 2",
    ):  # fmt: skip
        assert any(place.startswith(words) for place in places), words

"""Signals and full disks: a campaign ends between commits, waits for room, and goes on to the same ledger."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paragenesis import launch
from paragenesis.engine import failpoints
from paragenesis.engine.campaign import Progress
from paragenesis.engine.interruption import Stopped
from paragenesis.engine.ledger import LedgerReader, digest, verify_ledger
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import DiskFullError
from paragenesis.launch import run

CAMPAIGN = """
name = "tiny"
rounds = 2
condition = { allowed_elements = ["Na", "Cl"] }
generators = [{ use = "random", n = 8, chunk = 2 }]
screening = { charge_neutrality = false, novelty = false, overlap_factor = 0.4 }
potentials = ["lennard-jones"]
relax = { fmax = 0.5, max_steps = 5 }
hull = { mixed = true }
objectives = ["formation_energy", "density"]
triage = { min_hull_distance = -100.0, max_std = {}, max_force = 1000.0 }
decision = { q = 1 }
oracle = { use = "potential", options = { potential = "lennard-jones", fmax = 2.0 } }
"""


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """A campaign's file."""
    (tmp_path / "tiny.toml").write_text(CAMPAIGN)
    return tmp_path / "tiny.toml"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the campaign without any disturbance."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.toml").write_text(CAMPAIGN)
    return digest(run(folder / "tiny.toml", folder / "c", executor="inline").directory)


@pytest.fixture
def planted() -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Puts a hook at the failpoints, for as long as the test runs."""

    def plant(hook: Callable[[str], None]) -> None:
        failpoints.hook = hook

    yield plant
    failpoints.hook = None


def commits(directory: Path) -> int:
    with LedgerReader.open(directory) as ledger:
        return ledger.query("SELECT 1 FROM commits").num_rows


@pytest.mark.parametrize(
    ("number", "executor"),
    [
        (signal.SIGINT, "inline"),
        pytest.param(signal.SIGTERM, "ray", marks=pytest.mark.ray),  # which has a handler of its own
    ],
)
def test_a_signal_ends_the_command_resumably(
    campaign: Path, whole: str, tmp_path: Path, number: signal.Signals, executor: str
) -> None:
    command = [sys.executable, "-m", "paragenesis", "run", str(campaign), "--executor", executor]
    process = subprocess.Popen(
        [*command, "--directory", str(tmp_path / "c")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "c" / "status.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    assert f"stopped by {number.name}; everything committed is safe" in said
    assert verify_ledger(tmp_path / "c") == []
    assert digest(run(campaign, tmp_path / "c", executor="inline").directory) == whole


def test_a_signal_within_a_commit_waits_for_its_end(
    campaign: Path, tmp_path: Path, planted: Callable[[Callable[[str], None]], None]
) -> None:
    places = []

    def hook(place: str) -> None:
        places.append(place)
        if place.startswith("before commit 'r001/chunk"):
            os.kill(os.getpid(), signal.SIGTERM)

    planted(hook)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="stopped by SIGTERM") as stopped:
        run(campaign, tmp_path / "c", executor="inline")
    assert stopped.value.signal == signal.SIGTERM
    assert "after commit 'r001/chunk/random/00000'" in places
    assert commits(tmp_path / "c") == 2, "the plan, and the chunk that was being committed"
    assert signal.getsignal(signal.SIGTERM) == before, "the caller's handlers are back"


def full(where: str, times: int) -> Callable[[str], None]:
    """A hook that finds the disk full at a place, some times."""
    left = times

    def hook(place: str) -> None:
        nonlocal left
        if where in place and left:
            left -= 1
            raise OSError(errno.ENOSPC, "No space left on device")

    return hook


@pytest.mark.parametrize(
    "where",
    ["before commit 'r001/chunk/random/00002'", "before ledger.head is written", "before candidates of round 1"],
)
def test_a_full_disk_pauses_the_campaign_until_there_is_room(
    campaign: Path,
    whole: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    planted: Callable[[Callable[[str], None]], None],
    where: str,
) -> None:
    free = iter([0, 0, 2**40, 2**40, 2**40])
    monkeypatch.setattr(launch.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))
    monkeypatch.setattr(launch, "ROOM_LOOK_S", 0.0)
    planted(full(where, 1))
    said: list[Progress] = []
    done = run(campaign, tmp_path / "c", executor="inline", notify=said.append)
    [pause] = [step.text for step in said if step.phase == "pause"]
    assert "disk is full" in pause
    assert digest(done.directory) == whole
    assert verify_ledger(done.directory) == []


def test_a_signal_within_a_commit_that_finds_no_room_ends_the_wait(
    campaign: Path, whole: str, tmp_path: Path, planted: Callable[[Callable[[str], None]], None]
) -> None:
    def hook(place: str) -> None:
        if place.startswith("before commit 'r001/chunk"):
            os.kill(os.getpid(), signal.SIGTERM)
            raise OSError(errno.ENOSPC, "No space left on device")

    planted(hook)
    said: list[Progress] = []
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        run(campaign, tmp_path / "c", executor="inline", notify=said.append)
    assert "pause" not in {step.phase for step in said}
    failpoints.hook = None
    assert digest(run(campaign, tmp_path / "c", executor="inline").directory) == whole


def test_a_disk_that_stays_full_ends_the_campaign_resumably(
    campaign: Path,
    whole: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    planted: Callable[[Callable[[str], None]], None],
) -> None:
    clock = iter(range(0, 10**6, 600))
    times: Any = SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None)
    monkeypatch.setattr(launch, "time", times)
    monkeypatch.setattr(launch.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    planted(full("before commit 'r002", 10**6))
    with pytest.raises(DiskFullError, match="the disk is full; make room"):
        run(campaign, tmp_path / "c", executor="inline")
    failpoints.hook = None
    assert verify_ledger(tmp_path / "c") == []
    monkeypatch.undo()
    assert digest(run(CampaignSpec.from_toml(campaign), tmp_path / "c", executor="inline").directory) == whole


def test_room_is_looked_for_where_the_campaign_has_no_folder_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(launch, "ROOM_LOOK_S", 0.0)
    monkeypatch.setattr(launch.shutil, "disk_usage", lambda p: looked.append(p) or SimpleNamespace(free=2**40))
    launch._wait_for_room(tmp_path / "none" / "c", time.monotonic() + 60)
    assert looked == [tmp_path]

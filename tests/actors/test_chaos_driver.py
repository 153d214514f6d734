"""The campaign's own process is killed, with its cluster, again and again; the same command resumes it.

scripts/test -m chaos tests/actors/test_chaos_driver.py
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from paragenesis.engine.ledger import digest, verify_ledger
from paragenesis.engine.spec import CampaignSpec

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

CAMPAIGN = """
import json, sys
from pathlib import Path
sys.path.append(sys.argv[4])
import bench_faults
from paragenesis.engine.spec import CampaignSpec
from paragenesis.launch import run
bench_faults.note_acknowledged(Path(sys.argv[2]))
run(CampaignSpec.parse(json.loads(sys.argv[1])), sys.argv[2], executor=sys.argv[3])
"""


def run_and_kill(spec: CampaignSpec, directory: Path, executor: str, seconds: float, faults: ModuleType) -> int | None:
    """Run a campaign in a process of its own; its exit status, or None if it was killed after some time at work."""
    words = [spec.model_dump_json(), str(directory), executor, str(Path(faults.__file__).parent)]
    driver = subprocess.Popen([sys.executable, "-c", CAMPAIGN, *words])
    started, deadline = directory / "ledger.duckdb", time.monotonic() + 300
    while not started.exists() and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        return driver.wait(seconds)
    except subprocess.TimeoutExpired:
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
        driver.wait()
        for orphan in family:  # Ray's own helpers may outlive their driver by minutes
            if orphan.is_running():
                orphan.kill()
        return None


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_campaign_survives_the_death_of_its_driver(
    disturbed: CampaignSpec,
    undisturbed: str,
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    seed: int,
    executor: str,
) -> None:
    faults, dice, kills = script("bench_faults"), random.Random(seed), 0
    longest = 3.0 if executor == "inline" else 20.0
    while (status := run_and_kill(disturbed, tmp_path / "c", executor, dice.uniform(0, longest), faults)) is None:
        kills += 1
        assert faults.missing(tmp_path / "c") == 0, "what was acknowledged to the driver is there"
        longest *= 1.3  # so that it comes to an end on any machine
    assert status == 0
    assert faults.doubled(tmp_path / "c") == 0
    print(f"seed {seed}: the driver was killed {kills} times")
    assert verify_ledger(tmp_path / "c") == []
    assert digest(tmp_path / "c") == undisturbed

"""Memory that runs out on Ray: its monitor kills a worker, the chunk goes on in halves, and the campaign ends well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from paragenesis.engine.executor import InlineExecutor
from paragenesis.engine.ledger import digest, verify_ledger
from paragenesis.engine.spec import CampaignSpec
from paragenesis.launch import run

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

MiB = 2**20
ROOM = 4000 * MiB  # for Ray, its workers, the driver, and what else grows on the machine meanwhile

# A worker that judges several crystals at once takes memory until it is killed.
HUNGRY = """
import os, time
import numpy as np
from paragenesis.objectives import Minimize, objective

@objective(goal=Minimize(), unit="1")
def appetite(relaxed):
    driver = os.environ.get("APPETITE_OF_ALL_BUT")
    if driver not in (None, str(os.getpid())):
        with open(os.environ["APPETITE_LOG"], "a") as log:
            log.write(f"{len(relaxed.crystals)}\\n")
        held = []
        while len(relaxed.crystals) > 1 and len(held) < 120:
            held.append(np.ones(8 * 2**20))
            time.sleep(0.05)
    return np.nanmean(relaxed.energies, axis=0)
"""

DRIVER = """
import json, os, sys
os.environ["APPETITE_OF_ALL_BUT"] = str(os.getpid())
from paragenesis.actors.pool import WorkerPool
from paragenesis.engine.spec import CampaignSpec
from paragenesis.launch import run

lost = []
replace = WorkerPool._replace

def note(pool, place, how, why):
    lost.append(how)
    replace(pool, place, how, why)

WorkerPool._replace = note
run(CampaignSpec.parse(json.loads(sys.argv[1])), sys.argv[2])
print(json.dumps(lost))
"""


def test_a_worker_that_is_killed_for_memory_is_given_halves(tiny: Callable[..., CampaignSpec], tmp_path: Path) -> None:
    (tmp_path / "hungry.py").write_text(HUNGRY)
    spec = tiny(
        rounds=1,
        generators=[{"use": "random", "n": 8, "chunk": 4}],
        objectives=("formation_energy", f"{tmp_path}/hungry.py:appetite"),
        resources={"potentials": {"workers": 1}},
    )
    run(spec, tmp_path / "undisturbed", executor=InlineExecutor())
    memory = psutil.virtual_memory()
    limits = {
        "RAY_memory_usage_threshold": str((memory.total - memory.available + ROOM) / memory.total),
        "RAY_memory_monitor_refresh_ms": "100",
        "APPETITE_LOG": str(tmp_path / "log"),
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, spec.model_dump_json(), str(tmp_path / "c")],
        env=os.environ | limits,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tried = [int(line) for line in (tmp_path / "log").read_text().splitlines()]
    print(f"chunks of {tried} crystals; workers lost: {done.stdout}")
    assert max(tried) > 1, "nobody was hungry"
    assert "memory" in json.loads(done.stdout.splitlines()[-1])
    assert verify_ledger(tmp_path / "c") == []
    assert digest(tmp_path / "c") == digest(tmp_path / "undisturbed")

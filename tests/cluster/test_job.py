"""A campaign submitted to a running, authenticated Ray head as a job, and submitted again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from paragenesis.engine.ledger import digest, verify_ledger
from paragenesis.launch import run

if TYPE_CHECKING:
    from tests.cluster.conftest import Head

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SUBMIT = Path(__file__).parent.parent.parent / "cluster" / "submit"
CAMPAIGN = """
name = "tiny"
seed = 1
rounds = 2
condition = { allowed_elements = ["Na", "Cl"] }
generators = [{ use = "random", n = 24, chunk = 8 }]
screening = { charge_neutrality = false, novelty = false, overlap_factor = 0.4 }
potentials = ["lennard-jones"]
relax = { fmax = 0.2, max_steps = 30 }
hull = { mixed = true }
objectives = ["formation_energy", "mine.py:lightness"]
triage = { min_hull_distance = -100.0, max_std = {}, max_force = 1000.0 }
decision = { q = 3 }
oracle = { use = "potential", options = { potential = "lennard-jones", fmax = 0.15 } }
device = "cpu"  # the GPUs of this cluster are only said to be there
resources = { potentials = { workers = 2, gpus = 0.5 } }
"""
OBJECTIVE = '''
from paragenesis.objectives import Minimize, objective


@objective(goal=Minimize(), unit="g/cm3")
def lightness(relaxed):
    """Mass density, in a user's own file."""
    return relaxed.crystals.densities
'''


def test_a_job_runs_to_its_report_and_is_resumed_by_submitting_it_again(head: Head, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(CAMPAIGN)
    (tmp_path / "mine.py").write_text(OBJECTIVE)
    results = tmp_path / "results"
    command = [str(SUBMIT), "tiny.toml", str(results)]
    commits = []
    for _ in range(2):
        job = subprocess.run(command, env=head.environment, cwd=tmp_path, text=True, capture_output=True, check=False)
        assert job.returncode == 0, job.stdout + job.stderr
        commits.append(json.loads((results / "status.json").read_text())["last_commit"])
    assert commits[0] == commits[1], "a finished campaign is not run again"
    assert (results / "report.html").is_file()
    assert verify_ledger(results) == []
    run(tmp_path / "tiny.toml", tmp_path / "here", executor="inline")
    assert digest(results) == digest(tmp_path / "here")

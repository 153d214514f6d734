"""A campaign submitted to a running, authenticated Ray head as a job, and submitted again."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from paragenesis.engine.ledger import digest, verify_ledger
from paragenesis.launch import run

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
resources = { potentials = { workers = 2, gpus = 0.5 } }
"""
OBJECTIVE = '''
from paragenesis.objectives import Minimize, objective


@objective(goal=Minimize(), unit="g/cm3")
def lightness(relaxed):
    """Mass density, in a user's own file."""
    return relaxed.crystals.densities
'''


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """The environment in which a head with two pretended GPUs is found; the head is ended afterwards."""
    folder = tempfile.mkdtemp(prefix="pg-", dir="/tmp")
    gcs, dashboard, agent, client = free_ports(4)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": folder,
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    command = ["ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=4", "--num-gpus=2"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--ray-client-server-port={client}", "--object-store-memory=200000000"]
    with (Path(folder) / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(environment, process, Path(folder) / "head.log")
        yield environment
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=60)
        for each in left:
            each.kill()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(environment: dict[str, str], process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(120):
        assert process.poll() is None, log.read_text()
        if answer(environment, environment["RAY_AUTH_TOKEN"]) == 200:
            return
        time.sleep(1)
    pytest.fail(f"the head did not come up: {log.read_text()}")


def answer(environment: dict[str, str], token: str) -> int:
    """The status with which the dashboard answers a request for the list of jobs; 0 if it does not answer."""
    request = urllib.request.Request(f"{environment['RAY_API_SERVER_ADDRESS']}/api/jobs/")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_a_job_runs_to_its_report_and_is_resumed_by_submitting_it_again(head: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(CAMPAIGN)
    (tmp_path / "mine.py").write_text(OBJECTIVE)
    results = tmp_path / "results"
    command = [str(SUBMIT), "tiny.toml", str(results)]
    commits = []
    for _ in range(2):
        job = subprocess.run(command, env=head, cwd=tmp_path, text=True, capture_output=True, check=False)
        assert job.returncode == 0, job.stdout + job.stderr
        commits.append(json.loads((results / "status.json").read_text())["last_commit"])
    assert commits[0] == commits[1], "a finished campaign is not run again"
    assert (results / "report.html").is_file()
    assert verify_ledger(results) == []
    run(tmp_path / "tiny.toml", tmp_path / "here", executor="inline")
    assert digest(results) == digest(tmp_path / "here")


def test_the_head_refuses_who_has_no_token(head: dict[str, str]) -> None:
    assert answer(head, "") == 401
    assert answer(head, head["RAY_AUTH_TOKEN"]) == 200

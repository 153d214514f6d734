"""Real Ray heads, one authenticated and one open to all: who is let in, and which of them we join."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.conftest import Head

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

# in a process of its own, because Ray keeps mode and token of a process for longer than a test
JOIN = """
import json, os, sys
from paragenesis.actors.cluster import cluster_summary, connected
from paragenesis.errors import ParagenesisError

for variables, address, trusted in json.loads(sys.argv[1]):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        with connected(address, trust_network=trusted):
            print(json.dumps(cluster_summary()))
    except ParagenesisError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def joined(head: Head, *tries: tuple[dict[str, str], str, bool]) -> list[str]:
    """What became of each attempt to join: what the cluster has, or the error."""
    command = [sys.executable, "-c", JOIN, json.dumps(tries)]
    done = subprocess.run(command, env=head.environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_job_api_refuses_to_list_and_to_run_jobs_without_the_token(head: Head) -> None:
    job = json.dumps({"entrypoint": "true"})
    assert head.answer() == 401
    assert head.answer(body=job) == 401
    assert head.answer("a wrong token") == 403, "Ray's answer to a token that is not its own"
    assert head.answer("a wrong token", job) == 403
    assert head.answer(head.token) == 200


def test_an_authenticated_cluster_is_joined_with_its_token_alone(head: Head, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(head.token)
    by_file, wrong, found, none = joined(
        head,
        ({"RAY_AUTH_TOKEN_PATH": str(file)}, head.address, False),
        ({"RAY_AUTH_TOKEN": "wrong"}, head.address, False),
        ({"RAY_AUTH_TOKEN": head.token, "RAY_ADDRESS": head.address}, "auto", False),
        ({"HOME": str(tmp_path), "RAY_ADDRESS": head.address}, "auto", False),
    )
    assert by_file == found == "1 node(s), 4 CPU, 2 GPU"
    assert wrong.startswith("InputError: the Ray cluster at ")
    assert "refuses the token of RAY_AUTH_TOKEN; give the cluster's own" in wrong
    assert none.startswith("InputError: 'auto' was not joined: there is no token")


def test_a_cluster_that_obeys_anyone_is_joined_only_where_the_network_is_trusted(open_head: Head) -> None:
    ours = {"RAY_AUTH_TOKEN": open_head.token}
    refused, trusted = joined(open_head, (ours, open_head.address, False), (ours, open_head.address, True))
    assert refused.startswith("InputError: the Ray cluster at ")
    assert "it answered without a token" in refused
    assert "--trust-network" in refused
    assert trusted == "1 node(s), 4 CPU, 2 GPU"


def test_submit_sends_nothing_to_a_cluster_that_answers_without_a_token(head: Head, tmp_path: Path) -> None:
    (tmp_path / "campaign.toml").touch()
    calls = tmp_path / "calls"
    real = Path(sys.executable).parent / "ray"
    fake = tmp_path / "bin" / "ray"
    fake.parent.mkdir()
    fake.write_text(f'#!/usr/bin/env bash\necho "$1 $2" >> {calls}\n[ $2 = submit ] || exec {real} "$@"\n')
    fake.chmod(0o755)
    command = [str(Path(__file__).parent.parent.parent / "cluster" / "submit"), "campaign.toml", "/shared/out"]
    environment = head.environment | {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert calls.read_text().splitlines() == ["job list", "job submit"], "the head refused to list its jobs"

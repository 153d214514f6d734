"""Ray heads as `ray start --head` starts them, each in processes of its own."""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray on Linux then behaves as on the others


@dataclass(frozen=True)
class Head:
    """A running head: the environment in which `ray` and `cluster/submit` find it, and its "host:port"."""

    environment: dict[str, str]
    address: str

    @property
    def token(self) -> str:
        return self.environment["RAY_AUTH_TOKEN"]

    def answer(self, token: str = "", body: str = "") -> int:
        """The status with which the job API answers; a job is submitted if there is a body. 0: no answer."""
        url = f"{self.environment['RAY_API_SERVER_ADDRESS']}/api/jobs/"
        request = urllib.request.Request(url, data=body.encode() or None)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


_UP = ExitStack()  # what runs until the tests of this folder are over
_HEADS: list[Head] = []


@pytest.fixture
def head() -> Head:
    """An authenticated head with two pretended GPUs, and its dashboard: one for all tests in a row."""
    if not _HEADS:
        _HEADS.append(_UP.enter_context(started("token")))
        wait_for(lambda: _HEADS[0].answer(_HEADS[0].token) == 200)
    return _HEADS[0]


def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End the head after the last test of this folder: its dashboard takes a fifth of a core, idle as it is."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        _UP.close()
        _HEADS.clear()


@pytest.fixture(scope="module")
def open_head() -> Iterator[Head]:
    """A head that obeys anyone, without a dashboard; it listens on the loopback alone, because it does."""
    with started("disabled", "--include-dashboard=false", **ON_LOOPBACK) as running:
        yield running


@contextmanager
def started(mode: str, *options: str, **variables: str) -> Iterator[Head]:
    """A head in an authentication mode; it is ended afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    gcs, dashboard, agent, client = free_ports(4)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": mode,
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": str(folder),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        **variables,
    }
    command = ["ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=4", "--num-gpus=2"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--ray-client-server-port={client}", "--object-store-memory=200000000", *options]
    log = folder / "head.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield Head(environment, f"127.0.0.1:{gcs}")
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=60)
        for each in left:
            each.kill()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("the head did not come up within two minutes")

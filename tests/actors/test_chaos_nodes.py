"""Machines that go: nodes of a private cluster are taken away, with all that runs and lies on them, and others come.

    scripts/test -m chaos tests/actors/test_chaos_nodes.py

The cluster and who takes its nodes are in this process; who works on it, is in another one, as on a real cluster.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ray._private import utils
from ray.cluster_utils import Cluster

from paragenesis.actors import access, cluster
from paragenesis.engine.folders import claim_folder
from paragenesis.engine.ledger import digest, verify_ledger
from paragenesis.engine.spec import CampaignSpec

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(600)]

Start = Callable[..., "subprocess.Popen[str]"]
MiB = 2**20


class Nodes:
    """A private cluster of several nodes on the loopback: a head without CPUs, and whoever is added."""

    def __init__(self, folder: Path) -> None:
        self._settings = {"temp_dir": str(folder), "include_dashboard": False, "object_store_memory": 100 * MiB}
        with cluster._on_loopback():
            self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **self._settings})

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, cpus: int, gpus: int = 0) -> Any:
        """One node more; Ray gives it 30 s to start, which a busy machine may need more than once."""
        for attempt in range(1, cluster.START_ATTEMPTS + 1):
            try:
                with cluster._on_loopback():
                    return self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, **self._settings)
            except Exception:
                if attempt == cluster.START_ATTEMPTS:
                    raise
        raise AssertionError

    def remove(self, node: Any) -> None:
        """Kill everything on a node."""
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """The cluster; who joins it needs the token in the environment."""
    monkeypatch.setattr(utils, "write_ray_address", lambda *_: None)  # no "auto" of anybody's is to find it
    monkeypatch.setenv("RAY_AUTH_TOKEN", cluster._token())
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray would take the loopback for the outer address
    access.turn_on()
    folder, remove = claim_folder(cluster._short_temp())
    on_sigterm = signal.getsignal(signal.SIGTERM)
    made = Nodes(folder / "ray")
    yield made
    made.close()
    remove()
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray put its own there


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a Python program with arguments; one that is still at it in the end is killed."""
    started = []

    def begin(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


CAMPAIGN = """
import json, sys
from pathlib import Path
sys.path.append(sys.argv[4])
import bench_faults
from paragenesis.engine.spec import CampaignSpec
from paragenesis.launch import run
bench_faults.note_acknowledged(Path(sys.argv[2]))
run(CampaignSpec.parse(json.loads(sys.argv[1])), sys.argv[2], address=sys.argv[3])
"""


def test_a_campaign_survives_the_loss_of_nodes(
    nodes: Nodes,
    start: Start,
    disturbed: CampaignSpec,
    undisturbed: str,
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    seed: int,
) -> None:
    """There are five CPUs, and workers for three: after a loss, some may find room and some must wait."""
    dice, faults = random.Random(seed), script("bench_faults")
    there, lost = [nodes.add(2), nodes.add(3)], 0
    benchmarks = Path(faults.__file__ or "").parent
    driver = start(CAMPAIGN, disturbed.model_dump_json(), tmp_path / "c", nodes.address, benchmarks)
    wait_for(tmp_path / "c" / "ledger.duckdb", driver)
    while lost < 2 and driver.poll() is None:
        time.sleep(dice.uniform(0, 15))
        replacement_first = dice.random() < 0.5
        if replacement_first:
            there.append(nodes.add(3))
        nodes.remove(there.pop(dice.randrange(2)))
        if not replacement_first:
            there.append(nodes.add(3))
        lost += driver.poll() is None
    _, said = driver.communicate()
    print(f"seed {seed}: {lost} nodes were lost while the campaign ran")
    assert driver.returncode == 0, said
    assert lost, "the campaign was over before a node was taken"
    assert (faults.missing(tmp_path / "c"), faults.doubled(tmp_path / "c")) == (0, 0)
    assert len(faults.acknowledged(tmp_path / "c")) > 10
    assert verify_ledger(tmp_path / "c") == []
    assert digest(tmp_path / "c") == undisturbed


INPUT_LOST = """
import json, os, sys, threading, time
from pathlib import Path
import numpy as np
from paragenesis.actors import RayExecutor
from paragenesis.actors.journey import Journey
from paragenesis.engine.executor import Resources, StageSpec

folder, address = Path(sys.argv[1]), sys.argv[2]
begun_again = []
begin_again = Journey._begin_again
Journey._begin_again = lambda journey: (begun_again.append(journey._item), begin_again(journey))

class Make:
    def __call__(self, item, context):
        (folder / f"made-{item}-{time.time()}").touch()
        return np.full(2**20, item)  # too large to be kept anywhere but on its node

class Use:
    def __call__(self, item, context):
        while not (folder / "go").exists():
            time.sleep(0.05)
        return float(item.mean())

with RayExecutor(address) as executor:
    def tell():
        while "use" not in executor._pools or not executor._pools["use"]._waiting:
            time.sleep(0.05)
        (folder / "ready").touch()
    threading.Thread(target=tell, daemon=True).start()
    stages = [
        StageSpec("make", Make, (), "make", Resources(gpus=1.0, attempts=2)),
        StageSpec("use", Use, (), "use", Resources(attempts=2)),
    ]
    outcomes = list(executor.stream(stages, [1, 2, 3], None))
print(json.dumps([[o.value, o.error, o.attempts] for o in outcomes]))
print(json.dumps(begun_again))
"""


def test_what_was_lost_with_its_node_is_made_again_and_nobody_is_blamed(
    nodes: Nodes, start: Start, tmp_path: Path
) -> None:
    """The worker that uses them has at most two; the third is ready, and still where it was made."""
    maker = nodes.add(1, gpus=1)
    nodes.add(1)
    driver = start(INPUT_LOST, tmp_path, nodes.address)
    wait_for(tmp_path / "ready", driver)
    nodes.remove(maker)
    (tmp_path / "go").touch()
    nodes.add(1, gpus=1)
    said, errors = driver.communicate()
    assert driver.returncode == 0, errors
    outcomes, begun_again = map(json.loads, said.splitlines()[-2:])
    assert outcomes == [[1.0, "", 1], [2.0, "", 1], [3.0, "", 1]]
    assert 3 in begun_again, "nothing was lost"
    made = sorted(int(file.name.split("-")[1]) for file in tmp_path.glob("made-*"))
    assert made == sorted([1, 2, 3, *begun_again])


NO_ROOM = """
import logging, sys, time
from pathlib import Path
from paragenesis.actors import RayExecutor, pool
from paragenesis.engine.executor import Resources, StageSpec
from paragenesis.errors import ExecutionError

logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
# Ray counts a lost node for 15 s more
pool.START_TIMEOUT_S, pool.PATIENCE_S, pool.START_ATTEMPTS = 40.0, 30.0, 3

class Wait:
    def __init__(self, folder):
        self.folder = folder

    def __call__(self, item, context):
        (self.folder / "begun").touch()
        time.sleep(600)

spec = StageSpec("wait", Wait, (Path(sys.argv[1]),), "relaxation", Resources(gpus=1.0, attempts=5))
with RayExecutor(sys.argv[2]) as executor:
    try:
        list(executor.stream([spec], [1], None))
    except ExecutionError as error:
        print(error)
"""


def test_a_worker_for_which_no_node_is_left_is_waited_for_and_then_told_of(
    nodes: Nodes, start: Start, tmp_path: Path
) -> None:
    lonely = nodes.add(1, gpus=1)
    driver = start(NO_ROOM, tmp_path, nodes.address)
    wait_for(tmp_path / "begun", driver)
    nodes.remove(lonely)
    said, errors = driver.communicate()
    assert driver.returncode == 0, errors
    lacks = "needs 1 CPU and 1 GPU, and the cluster has 1 node(s), 0 CPU, 0 GPU; if that is too little, start another"
    *_, waiting, ended = [line for line in said.splitlines() if "of host 'relaxation'" in line]
    assert waiting.startswith("a new worker of host 'relaxation' is not up after 30 s")
    assert ended.startswith("the 1 worker(s) of host 'relaxation' were not all up after 40 s")
    assert lacks in waiting
    assert lacks in ended

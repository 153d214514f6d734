"""Messages of Ray that get lost: requests, answers, and answers to what goes on being worked on.

    scripts/test -m chaos tests/actors/test_chaos_messages.py

Ray has a switch for it, RAY_testing_rpc_failure. The seed fixes how many messages of each kind fail for certain, first,
and how often the later ones; which of the later ones, Ray draws from a seed of its own, which it lets nobody choose.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from paragenesis.engine.ledger import digest, verify_ledger
from paragenesis.engine.spec import CampaignSpec

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(900)]

MESSAGES = {
    "call": "CoreWorkerService.grpc_client.PushTask",
    "lease": "NodeManagerService.grpc_client.RequestWorkerLease",
    "return": "NodeManagerService.grpc_client.ReturnWorkerLease",
    "register": "ray::rpc::ActorInfoGcsService.grpc_client.RegisterActor",
    "create": "ray::rpc::ActorInfoGcsService.grpc_client.CreateActor",
    "kill": "ray::rpc::ActorInfoGcsService.grpc_client.KillActorViaGcs",
}

# prints the failures that Ray's processes wrote down, before their folder goes
DRIVER = """
import collections, json, re, sys
from pathlib import Path
import ray
sys.path.append(sys.argv[3])
import bench_faults
from paragenesis.actors import connected
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import ExecutionError
from paragenesis.launch import run

resumed = 0
bench_faults.note_acknowledged(Path(sys.argv[2]))
with connected("local"):
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    while True:
        try:
            run(CampaignSpec.parse(json.loads(sys.argv[1])), sys.argv[2])
            break
        except ExecutionError as error:
            print(error, file=sys.stderr)
            resumed += 1
            if resumed == 10:
                raise
    found = [re.findall(r"Inject RPC (.*) for (\\S+)", file.read_text(errors="replace")) for file in logs.glob("*.*")]
print(json.dumps([resumed, [failure for file in found for failure in file]]))
"""


def plan(seed: int) -> dict[str, dict[str, int]]:
    """What Ray is to let fail, as it wants it written: per message, percentages and how many fail for certain."""
    dice = random.Random(seed)
    kinds = ("req", "resp", "in_flight")
    planned = {
        message: {"num_failures": 12}
        | {f"{kind}_failure_prob": dice.randint(1, 4) for kind in kinds}
        | {f"num_lower_bound_{kind}_failures": dice.randint(0, 1) for kind in kinds}
        for message in MESSAGES.values()
    }
    planned[MESSAGES["call"]]["num_lower_bound_in_flight_failures"] = 2  # calls that are made twice
    return planned


def test_a_campaign_survives_the_loss_of_messages(
    disturbed: CampaignSpec, undisturbed: str, script: Callable[[str], ModuleType], tmp_path: Path, seed: int
) -> None:
    faults = script("bench_faults")
    words = [disturbed.model_dump_json(), str(tmp_path / "c"), str(Path(faults.__file__ or "").parent)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *words],
        env=os.environ | {"RAY_testing_rpc_failure": json.dumps(plan(seed))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    resumed, failures = json.loads(done.stdout.splitlines()[-1])
    counts = Counter((message.rpartition(".")[2], how) for how, message in failures)
    print(f"seed {seed}: {len(failures)} messages failed, resumed {resumed} times: {dict(counts)}")
    assert counts["PushTask", "response failure while request in flight"], "no call was made twice"
    assert (faults.missing(tmp_path / "c"), faults.doubled(tmp_path / "c")) == (0, 0)
    assert len(faults.acknowledged(tmp_path / "c")) > 10
    assert verify_ledger(tmp_path / "c") == []
    assert digest(tmp_path / "c") == undisturbed

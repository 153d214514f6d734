"""The files in cluster/: what they name exists in our command line and in Ray's, and the scripts do what they say."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Command

from paragenesis.cli import build_parser

CLUSTER = Path(__file__).parent.parent.parent / "cluster"


def load(name: str) -> list[Any]:
    return list(yaml.safe_load_all((CLUSTER / name).read_text(encoding="utf-8")))


def accepted(command: list[str]) -> dict[str, Any]:
    """The options that our parser finds in a `paragenesis ...` command; it exits on an unknown one."""
    start = command.index("paragenesis") + 1
    return vars(build_parser().parse_args(command[start:]))


def ray_options(command: Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    """An environment in which ray, srun, ... write down how they were called, and `ray` sleeps if SLEEP is set."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ray", "srun", "scontrol", "paragenesis"):
        body = 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n' if name == "srun" else 'sleep "${SLEEP:-0}"\n'
        if name == "scontrol":
            body = ""
        if name == "ray":
            body = '[ "$2" != list ] || exit "${OPEN:-1}"\n' + body  # an open cluster lists its jobs to anyone
        script = folder / name
        script.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "{name} $*" >> "{tmp_path}/calls"\n{body}')
        script.chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(tmp_path),
        "HOME": str(tmp_path),
        "RAY_AUTH_TOKEN": "token",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }


def calls(folder: Path) -> list[list[str]]:
    file = folder / "calls"
    return [shlex.split(line) for line in file.read_text().splitlines()] if file.exists() else []


# --- Slurm ---------------------------------------------------------------------------------------------


def sbatch(fake: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    command = ["bash", str(CLUSTER / "slurm.sbatch"), "campaign.toml", str(folder / "out")]
    return subprocess.Popen(command, env=fake, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_slurm_script_starts_ray_everywhere_and_runs_the_campaign(fake: dict[str, str], tmp_path: Path) -> None:
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    job = sbatch(fake, tmp_path)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 0, errors
    srun, ray, verify = calls(tmp_path)
    assert "--nodes=2" in srun
    split = ray.index("--")
    ours = accepted(ray[split + 1 :])
    assert str(ours["campaign"]) == "campaign.toml"
    before = ray[2:split]
    symmetric_run.make_context("symmetric-run", [*before, "--", "x"])
    assert ours["address"] == before[before.index("--address") + 1], "the campaign must join the cluster just started"
    port = int(ours["address"].rpartition(":")[2])
    assert port not in range(10_002, 20_000), "Ray gives these ports to its workers"
    start_options = curate_and_validate_ray_start_args(before)
    assert {o for o in start_options if o.startswith("--")} <= ray_options(start)
    assert verify == ["paragenesis", "verify", str(tmp_path / "out")]
    assert not Path(f"/tmp/pg-{os.getpid()}").exists()


def test_the_slurm_script_goes_back_into_the_queue_before_its_time_is_up(fake: dict[str, str], tmp_path: Path) -> None:
    job = sbatch(fake | {"SLEEP": "2"}, tmp_path)
    while not any(call[0] == "ray" for call in calls(tmp_path)):
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=60)
    assert job.returncode == 0
    assert calls(tmp_path)[-1] == ["scontrol", "requeue", str(os.getpid())]


def test_the_slurm_script_asks_for_what_it_relies_on() -> None:
    text = (CLUSTER / "slurm.sbatch").read_text(encoding="utf-8")
    asked = [line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH")]
    for option in ("--exclusive", "--requeue", "--ntasks-per-node=1", "--signal=B:USR1@300", "--open-mode=append"):
        assert option in asked


# --- ray job submit ------------------------------------------------------------------------------------


def submit(fake: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(CLUSTER / "submit"), *arguments]
    return subprocess.run(command, env=fake, cwd=folder, text=True, capture_output=True, check=False)


def test_submit_hands_ray_a_job_that_joins_the_cluster(fake: dict[str, str], tmp_path: Path) -> None:
    from ray.dashboard.modules.job.cli import submit as ray_submit

    (tmp_path / "campaign.toml").touch()
    done = submit(fake, tmp_path, "campaign.toml", "/shared/out", "--no-wait", "--entrypoint-num-gpus", "0.1")
    assert done.returncode == 0, done.stderr
    ray = calls(tmp_path)[-1]
    split = ray.index("--")
    context = ray_submit.make_context("submit", [*ray[3:split], "--", "x"])
    assert context.params["no_wait"]
    assert context.params["entrypoint_num_gpus"] == 0.1
    assert Path(context.params["runtime_env"]).samefile(CLUSTER / "runtime_env.yaml")
    ours = accepted(ray[split + 1 :])
    assert (str(ours["directory"]), ours["address"]) == ("/shared/out", "auto")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.toml", "/shared/out"], "'missing.toml' is no file below"),
        (["campaign.toml", "out"], "'out' is relative"),
        (["campaign.toml"], "cluster/submit CAMPAIGN.toml DIRECTORY"),
    ],
)
def test_submit_refuses_what_would_be_lost(
    fake: dict[str, str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "campaign.toml").touch()
    done = submit(fake, tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert calls(tmp_path) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE=disabled turns authentication off"),
        ({"RAY_AUTH_TOKEN": ""}, "there is no token"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "token"}, "run chmod 600 'token'"),
        ({"OPEN": "0"}, "answers without a token"),
    ],
)
def test_submit_refuses_to_talk_to_a_cluster_without_authentication_unless_the_network_is_trusted(
    fake: dict[str, str], tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    (tmp_path / "campaign.toml").touch()
    (tmp_path / "token").write_text("a token")
    (tmp_path / "token").chmod(0o644)
    done = submit(fake | changed, tmp_path, "campaign.toml", "/shared/out")
    assert done.returncode == 2
    assert said in done.stderr
    assert "--trust-network" in done.stderr
    assert [call for call in calls(tmp_path) if "submit" in call] == []
    done = submit(fake | changed, tmp_path, "campaign.toml", "/shared/out", "--trust-network", "--no-wait")
    assert done.returncode == 0, done.stderr
    ray = calls(tmp_path)[-1]
    assert "--no-wait" in ray[: ray.index("--")]
    assert accepted(ray[ray.index("--") + 1 :])["trust_network"]


def test_the_upload_has_the_package_but_neither_results_nor_the_links_at_the_root(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    checkout = tmp_path / "checkout"
    results = ("campaigns/a/ledger.duckdb", ".venv/x.py", ".git/x.py", "elsewhere/b.duckdb.wal")
    for name in ("paragenesis/engine/x.py", "examples/a.toml", *results):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("x")
    (checkout / "engine").symlink_to("paragenesis/engine")
    (environment,) = load("runtime_env.yaml")
    assert environment["working_dir"] == "."
    create_package(str(checkout), tmp_path / "sent.zip", include_gitignore=True, excludes=environment["excludes"])
    with zipfile.ZipFile(tmp_path / "sent.zip") as sent:
        assert {name for name in sent.namelist() if not name.endswith("/")} == {
            "paragenesis/engine/x.py",
            "examples/a.toml",
        }


# --- the YAML files ------------------------------------------------------------------------------------


def test_the_cloud_cluster_passes_rays_own_validation() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = load("ray-cluster.yaml")
    validate_config(prepare_config(config))
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert any("RAY_AUTH_MODE=token" in option for option in config["docker"]["run_options"])
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])


def test_the_kubernetes_job_is_authenticated_and_writes_to_its_volume() -> None:
    claim, job = load("kuberay-rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "paragenesis-token"}
    ours = accepted(shlex.split(job["spec"]["entrypoint"]))
    assert ours["address"] == "auto"
    pod = cluster["headGroupSpec"]["template"]["spec"]
    volumes = {v["name"]: v for v in pod["volumes"]}
    mounts = {m["mountPath"]: volumes[m["name"]] for m in pod["containers"][0]["volumeMounts"]}
    assert mounts[str(ours["directory"].parent)]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert "configMap" in mounts[str(ours["campaign"].parent)]


def test_every_file_names_the_pinned_version_of_ray() -> None:
    pinned = (CLUSTER.parent / "constraints.txt").read_text(encoding="utf-8")
    version = next(line.partition("==")[2] for line in pinned.splitlines() if line.startswith("ray=="))
    assert f"rayproject/ray:{version}-py311" in (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert load("kuberay-rayjob.yaml")[1]["spec"]["rayClusterSpec"]["rayVersion"] == version


def test_the_image_copies_files_that_exist() -> None:
    lines = (CLUSTER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]]
    assert copied
    assert [name for name in copied if not (CLUSTER.parent / name).exists()] == []

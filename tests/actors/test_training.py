"""Several workers learn as one: the same weights in each, a loss that falls, and errors that reach the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from paragenesis.actors.training import train_with_ray
from paragenesis.crystals import Crystals
from paragenesis.engine.generators.learned.checkpoint import load_checkpoint
from paragenesis.engine.generators.learned.data import TrainingSet
from paragenesis.engine.generators.learned.job import TrainingJob
from paragenesis.engine.generators.learned.run import EpochDone
from paragenesis.errors import ExecutionError, InputError

# Ray Train starts four processes that import torch, which takes minutes where the machine is busy with other things
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(1200)]

TRAINEE = """
from pathlib import Path
import hashlib, os, signal
import torch
from torch import nn
import torch.distributed as dist
from paragenesis.errors import InputError

class Tiny:
    kind = "tiny"

    def __init__(self, data, options, seed, batch, weights=None):
        rank = dist.get_rank() if dist.is_initialized() else 0
        torch.manual_seed(seed + rank)  # the workers must agree whatever they begin with
        self.rank, self.options, self.batch = rank, options, batch
        self.model = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.1), nn.GELU(), nn.Linear(16, 1))
        self.x = torch.randn(96, 2, generator=torch.Generator().manual_seed(1))
        self.y = self.x.prod(1, keepdim=True) + len(data) - 1
        if options.get("refuse"):
            raise InputError("these data will not do; give others")

    def batches(self, epoch):
        state = b"".join(p.detach().numpy().tobytes() for p in self.model.parameters())
        note = Path(self.options["notes"]) / f"{epoch}-{self.rank}"
        note.write_text(hashlib.sha256(state).hexdigest())
        die = Path(self.options["notes"]) / "die"
        if epoch == 2 and self.rank == 1 and die.exists():
            die.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        order = torch.randperm(96, generator=torch.Generator().manual_seed(epoch))
        for part in order.split(self.batch):
            yield self.x[part], self.y[part]

    def loss(self, batch, generator):
        return ((self.model(batch[0]) - batch[1]) ** 2).mean()

    def validation(self):
        return {"loss": float(((self.model(self.x) - self.y) ** 2).mean())}

    def config(self):
        return {}
"""


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    (tmp_path / "tiny.py").write_text(TRAINEE)
    (tmp_path / "notes").mkdir()
    settings = {"epochs": 4, "batch": 8, "learning_rate": 0.02, "ema": 0.9, "threads": 1, "device": "cpu"}
    options = {"notes": str(tmp_path / "notes")}
    return TrainingJob.parse("tiny.py:Tiny", tmp_path / "out", settings, tmp_path, options=options)


def data() -> TrainingSet:
    salt = Crystals(
        ids=("0",), n_atoms=np.array([2]), numbers=np.array([11, 17]), frac=np.zeros((2, 3)), lattices=np.eye(3)
    )
    return TrainingSet(salt, {}, "digest", ("memory",), "")


@pytest.mark.slow
def test_two_workers_learn_as_one(job: TrainingJob, tmp_path: Path) -> None:
    said: list[EpochDone] = []
    path = train_with_ray(job, data(), 2, said.append)
    found = load_checkpoint(path, "tiny")
    assert [one.done for one in said] == [1, 2, 3, 4]
    assert found.card["training"]["workers"] == 2
    assert found.card["training"]["steps"] == 4 * 6
    notes = {path.name: path.read_text() for path in (tmp_path / "notes").iterdir()}
    assert all(notes[f"{epoch}-0"] == notes[f"{epoch}-1"] for epoch in (1, 2, 3))
    assert notes["1-0"] != notes["2-0"]
    first, last = (float(one.text.split("validation ")[1].split(",")[0]) for one in (said[0], said[-1]))
    assert last < first
    assert sorted(p.name for p in job.out.iterdir()) == ["state.safetensors", "tiny.safetensors", "training.jsonl"]


@pytest.mark.slow
def test_a_dead_worker_is_an_error_and_the_training_goes_on_where_it_was(job: TrainingJob, tmp_path: Path) -> None:
    (tmp_path / "notes" / "die").touch()
    with pytest.raises(ExecutionError, match=r"ended early .* to go on"):
        train_with_ray(job, data(), 2)
    said: list[EpochDone] = []
    path = train_with_ray(job, data(), 2, said.append)
    assert [one.done for one in said] == [3, 4]
    whole = TrainingJob(**{**vars(job), "out": tmp_path / "whole"})
    undisturbed = load_checkpoint(train_with_ray(whole, data(), 2), "tiny").tensors
    resumed = load_checkpoint(path, "tiny").tensors
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)


def test_more_workers_than_there_are_cpus_are_refused(job: TrainingJob) -> None:
    for workers, said in ((10_000, "10000 workers need a CPU each, but the cluster has"), (0, "at least 1 worker")):
        with pytest.raises(InputError, match=said):
            train_with_ray(job, data(), workers)


@pytest.mark.slow
def test_what_a_worker_refuses_is_said_as_such(job: TrainingJob) -> None:
    refusing = TrainingJob(**{**vars(job), "options": {**job.options, "refuse": True}})
    with pytest.raises(InputError, match="these data will not do; give others"):
        train_with_ray(refusing, data(), 2)

"""The training loop of every learned generator, from data to a checkpoint.

    out/training.jsonl       a line an epoch: losses, learning rate, seconds
    out/state.safetensors    all that an interrupted training needs to go on as if nothing had happened
    out/KIND.safetensors     the best weights by validation, with their card; written at the end

All randomness of a step comes from the seed and the step's number, and of an epoch's order from the seed and the
epoch's. So a training that was killed and started again gives, on a CPU, the very weights of an undisturbed one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.executor import threads
from paragenesis.engine.generators.learned.checkpoint import save_checkpoint
from paragenesis.engine.generators.learned.data import TrainingSet, training_set
from paragenesis.engine.generators.learned.learner import Learner, Team, moved
from paragenesis.engine.generators.learned.run import Notify, Run, ignore
from paragenesis.engine.generators.learned.settings import Trainee, TrainSettings
from paragenesis.engine.potentials.contract import pick_device
from paragenesis.errors import InputError

__all__ = ["FINE_TUNE", "TrainSettings", "Trainee", "data_card", "fine_tune", "moved", "train", "tune"]

FINE_TUNE = TrainSettings(epochs=4, learning_rate=2e-4, warmup=20, ema=0.99)


def train(
    trainee: Trainee,
    settings: TrainSettings,
    out: Path,
    notify: Notify = ignore,
    *,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Train, or go on with a training that was interrupted; the checkpoint with the best weights by validation.

    The learning rate follows the planned epochs, and a limit of minutes merely stops earlier, so that weights depend
    on the clock as little as they can. Where torch.distributed is up, all of its processes call this with the same
    arguments, and the first one writes.

    Args:
        trainee: What is trained.
        settings: How.
        out: A folder for the state, the log and the checkpoint.
        notify: Told of every epoch.
        card: What is to stand in the checkpoint's card beside what the loop knows; "data" identifies the data.

    Raises:
        InputError: `out` holds a training with other settings or data, or the trainee is at fault.
        ExecutionError: The loss is not finite in many steps in a row, or at no validation.
    """
    with _prepared(settings) as device:
        run = _start(trainee, settings, out, device, dict(card or {}))
        run.resume()
        run.go_on(notify)
        path = run.out / f"{trainee.kind}.safetensors"
        if run.learner.team.rank == 0:
            save_checkpoint(path, run.checkpoint(stamped=True))
        run.learner.team.told(None)  # nobody leaves before the file is there
    return path


def fine_tune(
    trainee: Trainee,
    out: Path,
    settings: TrainSettings = FINE_TUNE,
    notify: Notify = ignore,
    *,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Train a few epochs at a small rate from the weights that the trainee has; the checkpoint `out`.

    The weights as they were take part in the comparison by validation, so what comes back is not worse by it. The
    file depends on data, seed and settings alone: it holds no times, no hardware and no command.

    Args:
        trainee: What is trained, built with the weights to start from.
        out: The file for the new checkpoint.
        settings: How.
        notify: Told of every epoch.
        card: As for `train`.

    Raises:
        InputError: `out` cannot be written, or the trainee is at fault.
        ExecutionError: As for `train`.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out.parent, prefix=".fine-tuning-")
    except OSError as error:
        raise InputError(f"'{out}' cannot be written: {error.strerror}; give another place") from None
    with folder as aside, _prepared(settings) as device:
        run = _start(trainee, settings, Path(aside), device, dict(card or {}))
        run.validate()
        run.go_on(notify)
        save_checkpoint(out, run.checkpoint(stamped=False))
    return out


def tune(
    make: Callable[..., Trainee],
    weights: Path,
    crystals: Crystals,
    labels: Mapping[str, FloatArray],
    *,
    out: Path,
    seed: int,
) -> Path:
    """Fine-tune weights on crystals in memory; see `fine_tune`.

    Args:
        make: A generator's class of trainees.
        weights: Where to start from.
        crystals: What to learn.
        labels: Their properties, NaN where unknown.
        out: The new checkpoint.
        seed: Fixes every random choice.
    """
    source = f"{len(crystals)} crystals of a campaign"
    data = training_set(crystals, labels, source=source, licence="the campaign's own")
    settings = FINE_TUNE.model_copy(update={"seed": seed})
    trainee = make(data, {}, seed, settings.batch, weights)
    return fine_tune(trainee, out, settings, card={"data": data_card(data)})


def data_card(data: TrainingSet) -> dict[str, Any]:
    """What a card says of the data."""
    return {
        "digest": data.digest,
        "sources": list(data.sources),
        "crystals": len(data),
        "licence": data.licence,
        "left_out": dict(data.left_out),
    }


@contextmanager
def _prepared(settings: TrainSettings) -> Iterator[torch.device]:
    """The device, with torch's threads as wanted; its random state and its threads are given back afterwards."""
    try:
        device = torch.device(pick_device(settings.device))
    except RuntimeError:
        raise InputError(f"there is no device '{settings.device}'; give auto, cpu or cuda") from None
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), threads(settings.threads or torch.get_num_threads()):
        yield device


def _start(trainee: Trainee, settings: TrainSettings, out: Path, device: torch.device, card: dict[str, Any]) -> Run:
    """A run before its first step."""
    per_epoch = _steps(trainee)
    team = Team.joined()
    if per_epoch < team.size:
        raise InputError(
            f"an epoch has {per_epoch} batches, too few for {team.size} workers; give more crystals, or smaller batches"
        )
    learner = Learner(trainee, settings, device, settings.epochs * (per_epoch // team.size))
    return Run(trainee, settings, out, learner, per_epoch // team.size, card)


def _steps(trainee: Trainee) -> int:
    """Batches of an epoch, by counting where the trainee does not say it."""
    known = getattr(trainee, "steps_per_epoch", None)
    return int(known) if known is not None else sum(1 for _ in trainee.batches(0))

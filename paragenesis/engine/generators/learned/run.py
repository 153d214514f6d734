"""One training from its first epoch, or from where it was interrupted, to its last: log, state and best weights."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paragenesis.engine.generators.learned.checkpoint import Checkpoint, read_tensors, surroundings, write_tensors
from paragenesis.engine.generators.learned.learner import Learner
from paragenesis.engine.generators.learned.settings import Trainee, TrainSettings
from paragenesis.engine.ledger.disk import replace_text
from paragenesis.errors import ExecutionError, InputError

_STATE, _LOG = "state.safetensors", "training.jsonl"
_FREE = {"minutes", "device", "threads", "checkpoint_every"}  # settings that may change when a training goes on
_BEST = "best/"


@dataclass(frozen=True)
class EpochDone:
    """How far a training is; has what `terminal.progress` shows of a campaign's steps.

    Attributes:
        done: Epochs that are done.
        total: Epochs that are planned.
        text: Losses and learning rate, in words.
        round: Always 0: a training has none.
        phase: What is going on.
    """

    done: int
    total: int
    text: str
    round: int = 0
    phase: str = "training"


Notify = Callable[[EpochDone], None]


def ignore(_: EpochDone) -> None:
    """Take no notice of progress."""


@dataclass
class Run:
    """One training: where it stands, and what is best so far.

    Attributes:
        epoch: Epochs done.
        seconds: Wall time of them.
        cpu_seconds: Processor time of the first process.
        best: Metrics of the best validation, with "epoch"; empty before the first.
        best_weights: The weights at that validation.
    """

    trainee: Trainee
    settings: TrainSettings
    out: Path
    learner: Learner
    per_epoch: int
    card: dict[str, Any]
    epoch: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def go_on(self, notify: Notify) -> None:
        """The epochs that are left."""
        settings, team = self.settings, self.learner.team
        self.learner.agree()
        took, stop = 0.0, self.epoch >= settings.epochs
        while not team.told(stop or self._late(took)):
            began, cpu = time.monotonic(), time.process_time()
            rate = self.learner.rate
            loss = self.learner.learn(team.share(self.trainee.batches(self.epoch), self.per_epoch))
            self.epoch += 1
            took = time.monotonic() - began
            stop = self.epoch >= settings.epochs
            last = stop or self._late(2 * took)
            metrics = self.validate() if last or self.epoch % settings.validate_every == 0 else {}
            took = time.monotonic() - began
            self.seconds += took
            self.cpu_seconds += time.process_time() - cpu
            if team.rank == 0:
                self._log(loss, rate, metrics)
                if last or self.epoch % settings.checkpoint_every == 0:
                    self._save()
            said = f"epoch {self.epoch}/{settings.epochs}: {_words(loss, metrics, rate)}"
            notify(EpochDone(self.epoch, settings.epochs, said))

    def _late(self, more: float) -> bool:
        """Whether `more` seconds from now the time will be up; the first epoch is never late."""
        minutes = self.settings.minutes
        return minutes is not None and self.epoch > 0 and self.seconds + more > 60 * minutes

    def validate(self) -> dict[str, float]:
        """Metrics of the mean weights, which are kept if they are the best; only the first process looks."""
        if self.learner.team.rank:
            return {}
        model = self.trainee.model
        with self.learner.averaged(), torch.no_grad():
            torch.manual_seed(self.settings.seed)
            model.eval()
            metrics = {name: float(value) for name, value in self.trainee.validation().items()}
        if "loss" not in metrics:
            raise InputError(f"validation() of the trainee '{self.trainee.kind}' returned no 'loss'; add it")
        if math.isfinite(metrics["loss"]) and metrics["loss"] < self.best.get("loss", math.inf):
            self.best = {**metrics, "epoch": self.epoch}
            self.best_weights = self.learner.mean()
        return metrics

    def checkpoint(self, *, stamped: bool) -> Checkpoint:
        """The best weights with their card.

        Args:
            stamped: Whether the card says how long it took on which hardware.

        Raises:
            ExecutionError: No validation was finite.
        """
        if not self.best_weights:
            raise ExecutionError(
                f"no validation in {self.epoch} epochs gave a finite loss, so there are no weights to keep; lower the "
                "learning rate, or look for values in the data that are not plausible"
            )
        trainee, settings = self.trainee, self.settings
        self.learner.put(self.best_weights)
        trainee.model.eval()
        own: Mapping[str, Tensor] = trainee.tensors() if hasattr(trainee, "tensors") else trainee.model.state_dict()
        extras: Mapping[str, Tensor] = trainee.extras() if hasattr(trainee, "extras") else {}
        varying = {"minutes", "device", "threads"}  # what does not decide the weights, or differs from place to place
        training = {
            "settings": settings.model_dump(mode="json", exclude=varying),
            "epochs": self.epoch,
            "steps": self.learner.step,
            "skipped_steps": self.learner.skipped,
            "workers": self.learner.team.size,
            "parameters": self.learner.size,
        }
        card = {**self.card, "training": training, "metrics": _plain(self.best)}
        if stamped:
            training |= {"wall_seconds": round(self.seconds, 1), "cpu_seconds": round(self.cpu_seconds, 1)}
            card |= {**surroundings(), "device": str(self.learner.device)}
        return Checkpoint(trainee.kind, trainee.config(), {**own, **extras}, card)

    # --- files -------------------------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a training to go on."""
        return {
            **self.settings.model_dump(mode="json", exclude=_FREE),
            "generator": self.trainee.kind,
            "model": json.dumps(self.trainee.config(), sort_keys=True),
            "data": (self.card.get("data") or {}).get("digest", ""),
            "options": self.card.get("options", {}),
            "started_from": self.card.get("started_from", ""),
            "workers": self.learner.team.size,
        }

    def _save(self) -> None:
        """Write all that is needed to go on from here; whole or not at all."""
        standing = {
            "identity": self._identity(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "best": self.best,
        }
        best = {f"{_BEST}{name}": tensor for name, tensor in self.best_weights.items()}
        write_tensors(self.out / _STATE, {**self.learner.state(), **best}, standing)

    def resume(self) -> None:
        """Go on from the state in `out`, if there is one; the first process reads it for all.

        Raises:
            InputError: It belongs to another training.
        """
        team, path = self.learner.team, self.out / _STATE
        found, problem = None, ""
        if team.rank == 0 and path.exists():
            try:
                found = read_tensors(path)
                problem = self._difference(found[1])
            except InputError as error:
                problem = f"{path} cannot be read ({error}); remove it, or give another --out"
        found, problem = team.told((found, problem))
        if problem:
            raise InputError(problem)
        if found is None:
            return
        tensors, standing = found
        self.learner.restore(tensors)
        self.best_weights = {n.removeprefix(_BEST): t for n, t in tensors.items() if n.startswith(_BEST)}
        for name in ("epoch", "seconds", "cpu_seconds", "best"):
            setattr(self, name, standing[name])

    def _difference(self, standing: Mapping[str, Any]) -> str:
        """Why the state in `out` is not one of this training; "" if it is."""
        before, now = standing.get("identity", {}), json.loads(json.dumps(self._identity()))
        differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if not differing:
            return ""
        shown = [f"{name} {before.get(name)}, now {now.get(name)}" for name in differing if name != "model"]
        return (
            f"'{self.out}' holds a training with another {' and '.join(differing)}"
            f"{' (' + '; '.join(shown) + ')' if shown else ''}; give the same to go on, or another --out"
        )

    def _log(self, loss: float, rate: float, metrics: Mapping[str, float]) -> None:
        """Add an epoch to the log; lines of epochs that an interruption has undone are dropped."""
        path = self.out / _LOG
        self.out.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines()[: self.epoch - 1] if path.exists() else []
        line = {
            "epoch": self.epoch,
            "step": self.learner.step,
            "loss": loss,
            "validation": dict(metrics),
            "learning_rate": rate,
            "skipped": self.learner.skipped,
            "seconds": round(self.seconds, 3),
        }
        replace_text(path, "\n".join([*lines, json.dumps(_plain(line))]) + "\n")


def _words(loss: float, metrics: Mapping[str, float], rate: float) -> str:
    """An epoch in words."""
    validation = f", validation {metrics['loss']:.4f}" if metrics else ""
    return f"loss {loss:.4f}{validation}, learning rate {rate:.2g}"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them: a number that is not finite becomes null."""
    return {
        name: _plain(value)
        if isinstance(value, Mapping)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in values.items()
    }

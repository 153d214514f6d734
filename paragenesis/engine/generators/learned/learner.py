"""One step after the other: a model, its optimiser, and the running mean of its weights.

Where torch.distributed is up, several processes learn together: each takes its share of an epoch's batches, and the
gradients are averaged before every step. They are summed in one message after the backward pass: these models have a
few megabytes, and a trainee may use its model in whatever way it likes, which the usual wrapper would not see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from paragenesis.engine.generators.learned.settings import Trainee, TrainSettings
from paragenesis.errors import ExecutionError

_EMA_WARMUP = 10  # after k steps the mean goes back over about k / 10 of them, until `ema` says more
_CHECKED_EVERY = 16  # steps between two looks at the counter of skipped steps, for which a GPU has to be waited for


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes that learn together; one alone is a team, too."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> Team:
        """The team that this process belongs to."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def share(self, batches: Iterable[Any], steps: int) -> Iterator[Any]:
        """This process's batches of an epoch: every `size`-th one, the same number for each."""
        return islice(batches, self.rank, steps * self.size, self.size)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the team."""
        if self.size > 1 and tensors:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat)
            parts = torch.split(flat / self.size, [tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def told(self, value: Any) -> Any:
        """What the first process says, on every one."""
        if self.size == 1:
            return value
        message = [value]
        dist.broadcast_object_list(message, src=0)
        return message[0]


class Learner:
    """Trains a model step by step; all of its state can be taken out and put back.

    Attributes:
        step: How many steps were taken, skipped ones included.
        device: Where the model is.
        team: The processes that learn together.
    """

    def __init__(self, trainee: Trainee, settings: TrainSettings, device: torch.device, steps: int) -> None:
        """Put the model onto the device and make the optimiser.

        Args:
            trainee: The model, and its loss.
            settings: How to train.
            device: Where.
            steps: Planned steps in all; the learning rate falls to zero over them.
        """
        self.step, self.steps = 0, steps
        self.team = Team.joined()
        self.device = device
        self._trainee, self._settings = trainee, settings
        trainee.model.to(device)
        chosen = {id(p) for p in (trainee.parameters() if hasattr(trainee, "parameters") else all_of(trainee))}
        self._named = {n: p for n, p in trainee.model.named_parameters() if p.requires_grad and id(p) in chosen}
        self._parameters = list(self._named.values())
        self._ema = [p.detach().clone() for p in self._parameters]
        self._optimizer = _optimizer(trainee.model, self._named, settings)
        self._skipped = torch.zeros(2, device=device)  # in all; in a row
        self._autocast = _autocast(device, settings.precision)

    @property
    def rate(self) -> float:
        """The learning rate of the next step: a linear rise, then half a cosine down to zero."""
        warmup = min(self._settings.warmup, self.steps // 10)
        if self.step < warmup:
            return self._settings.learning_rate * (self.step + 1) / warmup
        done = min(1.0, (self.step - warmup) / max(1, self.steps - warmup))
        return self._settings.learning_rate * 0.5 * (1 + float(np.cos(np.pi * done)))

    @property
    def skipped(self) -> int:
        """Steps that were not taken, because the loss or a gradient was not finite."""
        return int(self._skipped[0])

    @property
    def size(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self._parameters)

    def learn(self, batches: Iterable[Any]) -> float:
        """Take a step with each batch; the mean loss.

        Raises:
            ExecutionError: Too many steps in a row had to be skipped.
        """
        self._trainee.model.train()
        total, count = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for batch in batches:
            loss = self._step(moved(batch, self.device))
            finite = torch.isfinite(loss)
            total += torch.where(finite, loss, 0.0)
            count += finite
            if self.step % _CHECKED_EVERY == 0:
                self._check_skipped()
        self._check_skipped()
        sums = torch.stack([total, count])
        self.team.average([sums])
        return float(sums[0] / sums[1])

    def _step(self, batch: Any) -> Tensor:
        """One step; the loss before it."""
        draw = self._seeded()
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self._trainee.loss(batch, draw)
        # a loss that is not finite spoils every gradient, so that all processes skip the step
        spoilt = torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)
        torch.autograd.backward(loss * spoilt)
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.team.average([p.grad for p in self._parameters if p.grad is not None])
        norm = nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)
        # the fused optimiser itself leaves out a step marked in this way, without waiting for the device
        bad = (~torch.isfinite(norm)).float()
        self._optimizer.found_inf = bad  # type: ignore[attr-defined]
        self._optimizer.step()
        self._skipped[0] += bad
        self._skipped[1] = (self._skipped[1] + bad) * bad
        self.step += 1
        decay = min(self._settings.ema, self.step / (self.step + _EMA_WARMUP))
        torch._foreach_lerp_(self._ema, [p.detach() for p in self._parameters], 1 - decay)
        return loss.detach().float()

    def _seeded(self) -> torch.Generator:
        """Seed torch for this step, so that no step depends on how the ones before it were interrupted."""
        seeds = np.random.SeedSequence([self._settings.seed, self.step, self.team.rank]).generate_state(2)
        torch.manual_seed(int(seeds[0]))
        return torch.Generator().manual_seed(int(seeds[1]))

    def _check_skipped(self) -> None:
        in_a_row = int(self._skipped[1])
        if in_a_row >= self._settings.max_skipped:
            raise ExecutionError(
                f"the loss or its gradient was not finite in {in_a_row} steps in a row, up to step {self.step}; lower "
                f"the learning rate ({self._settings.learning_rate:g}), or look for values in the data that are not "
                "plausible"
            )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the running mean of the weights into the model, and the weights back afterwards."""
        kept = [p.detach().clone() for p in self._parameters]
        self.put(dict(zip(self._named, self._ema, strict=True)))
        try:
            yield
        finally:
            self.put(dict(zip(self._named, kept, strict=True)))

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights into the model."""
        with torch.no_grad():
            for name, tensor in weights.items():
                self._named[name].copy_(tensor)

    def mean(self) -> dict[str, Tensor]:
        """A copy of the running mean of the weights, by name, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in zip(self._named, self._ema, strict=True)}

    # --- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, beside the settings."""
        tensors = {f"model/{name}": tensor for name, tensor in self._trainee.model.state_dict().items()}
        tensors |= {f"ema/{name}": tensor for name, tensor in zip(self._named, self._ema, strict=True)}
        for name, parameter in self._named.items():
            for key, tensor in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = tensor
        return {**tensors, "skipped": self._skipped, "step": torch.tensor(self.step)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        begins = "model/"
        weights = {name.removeprefix(begins): t for name, t in tensors.items() if name.startswith(begins)}
        self._trainee.model.load_state_dict(weights)
        for i, (name, parameter) in enumerate(self._named.items()):
            self._ema[i].copy_(tensors[f"ema/{name}"])
            moments = {key: tensors[f"{key}/{name}"] for key in _MOMENTS if f"{key}/{name}" in tensors}
            if moments:
                self._optimizer.state[parameter] = {k: t.to(self.device).clone() for k, t in moments.items()}
        self._skipped.copy_(tensors["skipped"])
        self.step = int(tensors["step"])

    def agree(self) -> None:
        """Take over the first process's weights, should anybody's differ."""
        if self.team.size > 1:
            for tensor in (*self._parameters, *self._ema):
                dist.broadcast(tensor.data, src=0)


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def all_of(trainee: Trainee) -> list[nn.Parameter]:
    """Every parameter of the model."""
    return list(trainee.model.parameters())


def _optimizer(model: nn.Module, named: Mapping[str, nn.Parameter], settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019); norms, biases and embeddings do not decay."""
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    decaying = [p for p in named.values() if p.ndim >= 2 and id(p) not in tables]
    others = [p for p in named.values() if p.ndim < 2 or id(p) in tables]
    groups = [{"params": decaying, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True)


def _autocast(device: torch.device, precision: str) -> Any:
    """A context in which the loss is computed: bfloat16 where asked for, or where it is quick."""
    quick = device.type == "cuda" and torch.cuda.is_bf16_supported()
    wanted = precision == "bf16" or (precision == "auto" and quick)
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)


def moved(batch: Any, device: torch.device | str) -> Any:
    """A batch with its tensors on a device: tuples, lists, mappings, dataclasses, and whatever has a method `to`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if hasattr(batch, "to") and callable(batch.to):
        return batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(part, device) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(moved(part, device) for part in batch)
    if isinstance(batch, Mapping):
        return {key: moved(part, device) for key, part in batch.items()}
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        parts = {f.name: moved(getattr(batch, f.name), device) for f in dataclasses.fields(batch) if f.init}
        return dataclasses.replace(batch, **parts)
    return batch

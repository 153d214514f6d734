"""How a learned generator is trained, and what it hands to the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from paragenesis.settings import Settings

if TYPE_CHECKING:
    import torch


class TrainSettings(Settings):
    """How long and how fast is learnt, and where.

    Attributes:
        epochs: Passes over the data; the learning rate falls to zero over them.
        minutes: Stop after the epoch that would otherwise be the last within this time; None for no limit.
        batch: Crystals a step, for each worker.
        learning_rate: The highest one.
        warmup: Steps over which it rises, at most a tenth of all.
        weight_decay: Of weights that are matrices, per step and learning rate.
        beta2: Memory of the squared gradients.
        clip: Norm to which gradients are cut.
        ema: Memory of the running mean of the weights, which is what is validated and kept.
        seed: Fixes every random choice.
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: "auto" is bf16 on GPUs that support it, else float32.
        threads: CPU threads of torch; 0 leaves them as they are.
        checkpoint_every: Epochs between two writings of the state from which an interrupted training goes on.
        validate_every: Epochs between two validations.
        max_skipped: Steps in a row without a finite gradient after which the training is given up.
    """

    epochs: int = Field(default=30, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    batch: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup: int = Field(default=200, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    beta2: float = Field(default=0.99, gt=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.998, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    precision: Literal["auto", "bf16", "float32"] = "auto"
    threads: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=1, ge=1)
    validate_every: int = Field(default=1, ge=1)
    max_skipped: int = Field(default=20, ge=1)


class Trainee(Protocol):
    """What a generator hands to the training loop.

    Further methods are used where they are there: `parameters()`, those to train if not all that require a gradient;
    `extras()`, tensors that are no weights but belong into the checkpoint; `tensors()`, what the checkpoint holds
    instead of all weights of the model.

    Attributes:
        kind: What the weights are for; the checkpoint is named after it.
        model: What is trained. The loop moves it, and every batch, to the device.
    """

    kind: str

    @property
    def model(self) -> torch.nn.Module:
        """What is trained."""
        ...

    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of an epoch, each of tensors on the CPU; the epoch alone decides which, in which order.

        Every epoch has the same number of them: `steps_per_epoch`, where the trainee has such an attribute.
        """
        ...

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        """The mean loss of a batch.

        Args:
            batch: One of `batches`, on the model's device.
            generator: The source of randomness, on the CPU: the same draws on every device. Dropout is seeded, too.
        """
        ...

    def validation(self) -> dict[str, float]:
        """How good the model is now; "loss" is what counts, the lower the better.

        The model is on the device, in evaluation mode, with the mean weights; batches are for the trainee to move.
        """
        ...

    def config(self) -> dict[str, Any]:
        """What rebuilds the model; plain JSON."""
        ...

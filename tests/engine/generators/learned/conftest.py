"""A model so small that it trains in a blink."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paragenesis.engine.generators.learned.checkpoint import load_checkpoint


class Tiny:
    """Learns the product of two numbers; has dropout and draws noise, so that every source of randomness counts."""

    kind = "tiny"

    def __init__(
        self,
        data: Any = None,
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
        batch: int = 16,
        weights: Path | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.batch = batch
        self.model = nn.Sequential(nn.Linear(2, 16), nn.LayerNorm(16), nn.Dropout(0.1), nn.GELU(), nn.Linear(16, 1))
        if weights is not None:
            self.model.load_state_dict(load_checkpoint(weights, "tiny").tensors)
        self.x = torch.randn(96, 2, generator=torch.Generator().manual_seed(1))
        self.y = self.x.prod(1, keepdim=True)
        self.stop_at = -1  # epoch whose second batch is never reached
        self.spoilt: Callable[[int], bool] = lambda step: False
        self.seen = 0

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(epoch))
        for i, part in enumerate(order.split(self.batch)):
            if epoch == self.stop_at and i == 1:
                raise KeyboardInterrupt
            yield self.x[part], self.y[part]

    def loss(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        x, y = batch
        x = x + 0.01 * torch.randn(x.shape, generator=generator)
        loss = ((self.model(x) - y) ** 2).mean()
        self.seen += 1
        return loss * torch.inf if self.spoilt(self.seen) else loss

    def validation(self) -> dict[str, float]:
        return {"loss": float(((self.model(self.x) - self.y) ** 2).mean())}

    def config(self) -> dict[str, Any]:
        return {"width": 16}


@pytest.fixture
def tiny_trainee() -> Callable[..., Tiny]:
    """Makes a tiny trainee."""
    return Tiny

"""Untrained weights: hard conditions hold whatever the network says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from paragenesis.engine.generators.learned.checkpoint import Checkpoint, save_checkpoint
from paragenesis.engine.generators.learned.context import PropertyScale
from paragenesis.engine.generators.wyckoff.model import WyckoffModel, WyckoffModelSettings

SCALES = (
    PropertyScale("band_gap", (0.01, 1.0, 2.0, 4.0)),
    PropertyScale("energy_above_hull", (0.001, 0.02, 0.05, 0.1)),
)


def checkpoint_of(model: WyckoffModel, known: tuple[int, ...] = (), templates: tuple[int, ...] = ()) -> Checkpoint:
    """A checkpoint as training writes it."""
    config = {
        "model": model.settings.model_dump(mode="json"),
        "scales": [{"name": s.name, "edges": list(s.edges)} for s in model.encoder.scales],
        "elements": list(range(1, 84)),
    }
    extras = {
        "known": torch.tensor(known, dtype=torch.int64),
        "templates": torch.tensor(templates, dtype=torch.int64),
        "contacts": torch.from_numpy(np.full((104, 104), 2.5)),
    }
    return Checkpoint("wyckoff", config, {**model.state_dict(), **extras}, {})


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[..., Checkpoint]:
    """Makes a checkpoint of a model as training writes it."""
    return checkpoint_of


@pytest.fixture(scope="session")
def untrained() -> WyckoffModel:
    """A small network with random weights."""
    torch.manual_seed(0)
    model = WyckoffModel(WyckoffModelSettings(width=32, layers=2, heads=2, context=16, dropout=0.0), SCALES).eval()
    for block in model.backbone.blocks:  # which begins at zero, so that wishes would do nothing
        torch.nn.init.normal_(block.modulation.weight, std=0.3)
    return model


@pytest.fixture(scope="session")
def untrained_weights(untrained: WyckoffModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint."""
    path = tmp_path_factory.mktemp("weights") / "wyckoff.safetensors"
    save_checkpoint(path, checkpoint_of(untrained))
    return path

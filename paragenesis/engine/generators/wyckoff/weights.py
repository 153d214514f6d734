"""From a checkpoint to a model."""

from __future__ import annotations

from paragenesis.engine.generators.learned.checkpoint import Checkpoint
from paragenesis.engine.generators.learned.weights import put_weights, scale_of
from paragenesis.engine.generators.wyckoff.model import WyckoffModel, WyckoffModelSettings

EXTRAS = ("known", "templates", "contacts")  # tensors of a checkpoint that are no weights


def load_model(checkpoint: Checkpoint) -> WyckoffModel:
    """The model of a checkpoint, ready to sample.

    Raises:
        InputError: The checkpoint does not fit the network.
    """
    config = checkpoint.config
    model = WyckoffModel(WyckoffModelSettings(**config["model"]), [scale_of(s) for s in config["scales"]])
    put_weights(model, {n: t for n, t in checkpoint.tensors.items() if n not in EXTRAS}, "Wyckoff transformer")
    return model

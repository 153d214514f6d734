"""From a checkpoint to a model."""

from __future__ import annotations

import hashlib
from typing import Any

from paragenesis.engine.generators.learned.checkpoint import Checkpoint
from paragenesis.engine.generators.learned.context import PropertyScale
from paragenesis.engine.generators.wyckoff.model import WyckoffModel, WyckoffModelSettings
from paragenesis.errors import InputError

EXTRAS = ("known", "contacts")  # tensors of a checkpoint that are no weights


def load_model(checkpoint: Checkpoint) -> WyckoffModel:
    """The model of a checkpoint, ready to sample.

    Raises:
        InputError: The checkpoint does not fit the network.
    """
    config = checkpoint.config
    model = WyckoffModel(WyckoffModelSettings(**config["model"]), [_scale(s) for s in config["scales"]])
    weights = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in EXTRAS}
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise InputError(
            f"these weights do not fit the Wyckoff transformer: {' '.join(str(error).split())[:200]}; they come from "
            "another version; train them again"
        ) from None
    return model.eval()


def with_adapter(model: WyckoffModel, checkpoint: Checkpoint) -> None:
    """Add the property of an adapter to a model.

    Raises:
        InputError: The adapter was trained for other weights, or its property is known already.
    """
    scale = _scale(checkpoint.config["scale"])
    if scale.name in {s.name for s in model.encoder.all_scales}:
        raise InputError(f"the weights know the property '{scale.name}' already; leave the adapter out")
    own = base_digest(model)
    if checkpoint.config["base"] != own:
        raise InputError(
            f"the adapter for '{scale.name}' was trained for the weights {checkpoint.config['base'][:12]}, not for "
            f"{own[:12]}; train it for these"
        )
    adapter = model.add_adapter(scale)
    adapter.load_state_dict({name: tensor.float() for name, tensor in checkpoint.tensors.items()})


def base_digest(model: WyckoffModel) -> str:
    """sha256 of a model's weights, its adapters left out."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if ".adapters." not in name:
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _scale(plain: dict[str, Any]) -> PropertyScale:
    return PropertyScale(plain["name"], tuple(plain["edges"]))

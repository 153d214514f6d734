"""Weights into a network: those of a checkpoint, and adapters for further properties."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from paragenesis.engine.generators.learned.checkpoint import Checkpoint
from paragenesis.engine.generators.learned.context import Adapter, ContextEncoder, PropertyScale
from paragenesis.errors import InputError


class Adaptable(Protocol):
    """A network that takes adapters."""

    @property
    def encoder(self) -> ContextEncoder:
        """What turns wishes into the context."""
        ...

    def add_adapter(self, scale: PropertyScale) -> Adapter:
        """Make room for a further property."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All weights by name."""
        ...


def put_weights(network: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Put weights into a network and make it ready to sample; `what` names it in words.

    Raises:
        InputError: They do not fit.
    """
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise InputError(
            f"these weights do not fit the {what}: {' '.join(str(error).split())[:200]}; they come from another "
            "version; train them again"
        ) from None
    network.eval()


def with_adapter(network: Adaptable, checkpoint: Checkpoint) -> None:
    """Add the property of an adapter to a network.

    Raises:
        InputError: The adapter was trained for other weights, or its property is known already.
    """
    scale = scale_of(checkpoint.config["scale"])
    if scale.name in {s.name for s in network.encoder.all_scales}:
        raise InputError(f"the weights know the property '{scale.name}' already; leave the adapter out")
    own = base_digest(network)
    if checkpoint.config["base"] != own:
        raise InputError(
            f"the adapter for '{scale.name}' was trained for the weights {checkpoint.config['base'][:12]}, not for "
            f"{own[:12]}; train it for these"
        )
    adapter = network.add_adapter(scale)
    adapter.load_state_dict({name: tensor.float() for name, tensor in checkpoint.tensors.items()})


def base_digest(network: Adaptable) -> str:
    """sha256 of a network's weights, its adapters left out."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if ".adapters." not in name:
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def scale_of(plain: Mapping[str, Any]) -> PropertyScale:
    """A property's scale from plain values."""
    return PropertyScale(plain["name"], tuple(plain["edges"]))

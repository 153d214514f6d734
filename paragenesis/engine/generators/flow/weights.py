"""From a checkpoint to a network, and the templates that travel with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paragenesis.engine.generators.flow.model import FlowNetwork
from paragenesis.engine.generators.flow.projection import Template
from paragenesis.engine.generators.learned.checkpoint import Checkpoint
from paragenesis.engine.generators.learned.weights import put_weights, scale_of

if TYPE_CHECKING:
    from paragenesis.engine.generators.wyckoff.form import WyckoffForm

_TEMPLATES = "templates."  # begins the names of the tensors that hold templates


def load_network(checkpoint: Checkpoint) -> FlowNetwork:
    """The network of a checkpoint, ready to sample.

    Raises:
        InputError: The checkpoint does not fit the network.
    """
    network = FlowNetwork.from_config(checkpoint.config)
    for scale in checkpoint.config.get("adapters", ()):
        network.add_adapter(scale_of(scale))
    weights = {name: t for name, t in checkpoint.tensors.items() if not name.startswith(_TEMPLATES)}
    put_weights(network, weights, "flow")
    return network


def templates_of(forms: Sequence[WyckoffForm]) -> dict[Template, int]:
    """The templates of forms and how often each occurs; the first crystal of a template gives its cell."""
    first: dict[tuple[int, tuple[int, ...]], Template] = {}
    counts: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for form in forms:
        sites = tuple(sorted(form.sites))
        counts[form.group, sites] += 1
        cell = tuple(round(float(x), 3) for x in form.cell)
        first.setdefault((form.group, sites), Template(form.group, sites, cell))
    return {template: counts[key] for key, template in sorted(first.items())}


def template_tensors(templates: Mapping[Template, int]) -> dict[str, Tensor]:
    """Templates as the tensors of a checkpoint."""
    most = max((len(t.sites) for t in templates), default=1)
    sites = [[*t.sites, *[-1] * (most - len(t.sites))] for t in templates]
    return {
        f"{_TEMPLATES}group": torch.tensor([t.group for t in templates], dtype=torch.int16),
        f"{_TEMPLATES}sites": torch.tensor(sites, dtype=torch.int8).reshape(len(templates), most),
        f"{_TEMPLATES}cell": torch.tensor([t.cell for t in templates], dtype=torch.float32).reshape(-1, 6),
        f"{_TEMPLATES}count": torch.tensor(list(templates.values()), dtype=torch.int32),
    }


def read_templates(tensors: Mapping[str, Tensor]) -> dict[Template, int]:
    """The templates of a checkpoint and how often each occurs in the training set; none if it has none."""
    if f"{_TEMPLATES}group" not in tensors:
        return {}
    parts = (tensors[f"{_TEMPLATES}{name}"].tolist() for name in ("group", "sites", "cell", "count"))
    found = {}
    for group, sites, cell, count in zip(*parts, strict=True):
        exact = tuple(round(float(x), 3) for x in cell)
        found[Template(group, tuple(s for s in sites if s >= 0), exact)] = count
    return found

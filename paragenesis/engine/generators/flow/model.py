"""The network of the flow: a dense transformer over pairs of atoms.

Nodes know their element, the context knows both clocks, the cell and what is wanted, and everything else that is known
of the geometry enters through pairs: sines and cosines of the difference of their fractional coordinates, and their
distance to the nearest image. So the network is exactly invariant under a shift of the origin, its velocities do not
depend on the order of atoms, and a shift of all atoms is taken out of them. It is not invariant under a change of the
cell's basis, which is why cells are reduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from paragenesis.engine.generators.flow.elements import element_features, log_volume, radii
from paragenesis.engine.generators.flow.paths import Clocks, mean_free, wrapped
from paragenesis.engine.generators.flow.state import CELL_NUMBERS, MASKED, TYPES, State, metric_of
from paragenesis.engine.generators.learned.backbone import Backbone
from paragenesis.engine.generators.learned.context import Adapter, Context, ContextEncoder, PropertyScale

_FARTHEST, _DISTANCES = 8.0, 12  # A, and how many Gaussians up to there
_TIGHTEST, _LOOSEST, _RATIOS = 0.5, 2.0, 8  # distances over sums of radii
_LARGEST_ATOMS = 20.0
_TIME_WAVES = 6
_LEAST_TIME = 0.02  # left of the geometry clock; a way is never divided by less


@dataclass(frozen=True)
class FlowSize:
    """How large the network is.

    Attributes:
        width: Width of the nodes.
        layers: Blocks.
        heads: Attention heads; divide the width.
        edge: Width of the pairs.
        context: Width of the context.
        waves: Sines and cosines of each coordinate difference, from one to that many periods in the cell.
        dropout: Share of activations dropped in training.
    """

    width: int = 96
    layers: int = 4
    heads: int = 4
    edge: int = 48
    context: int = 64
    waves: int = 6
    dropout: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """What the network says of a state.

    Attributes:
        velocity: Of the fractional coordinates, per unit of the geometry's clock, shape `B x N x 3`.
        cell: The six numbers at the end, shape `B x 6`.
        logits: Of the types at the end, shape `B x N x 104`; minus infinity for `MASKED`.
    """

    velocity: Tensor
    cell: Tensor
    logits: Tensor

    def to(self, device: torch.device | str) -> Prediction:
        """The same on another device."""
        return Prediction(self.velocity.to(device), self.cell.to(device), self.logits.to(device))

    def finite(self) -> Tensor:
        """True for the crystals of which nothing said is NaN or infinite, shape `B`."""
        parts = (self.velocity.flatten(1), self.cell, self.logits[..., MASKED + 1 :].flatten(1))
        return torch.stack([part.isfinite().all(1) for part in parts]).all(0)


class FlowNetwork(nn.Module):
    """Says where a state is going."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: FlowSize, scales: Sequence[PropertyScale], mean: Sequence[float], std: Sequence[float]):
        """Make the network.

        Args:
            size: How large.
            scales: The properties that may be wished for.
            mean: Mean of the six cell numbers over the training set.
            std: Their standard deviations.
        """
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.encoder = ContextEncoder(scales, size.context)
        self.clock = nn.Sequential(
            nn.Linear(4 * _TIME_WAVES + 4 + CELL_NUMBERS + 1, size.context),
            nn.SiLU(),
            nn.Linear(size.context, size.context),
        )
        self.element = nn.Embedding(TYPES, size.width)
        self.properties = nn.Linear(element_features().shape[1], size.width, bias=False)
        self.pair = nn.Sequential(
            nn.Linear(6 * size.waves + _DISTANCES + _RATIOS, size.edge), nn.SiLU(), nn.Linear(size.edge, size.edge)
        )
        self.bias = nn.Linear(size.edge, size.layers * size.heads)
        self.backbone = Backbone(size.width, size.layers, size.heads, size.dropout, context=size.context)
        self.messages = nn.ModuleList(Message(size.width, size.edge, size.edge) for _ in range(size.layers))
        self.spread = nn.ModuleList(nn.Linear(size.edge, size.width) for _ in range(size.layers))
        self.move = Message(size.width, size.edge, size.width)
        self.turn = nn.Linear(size.width, 6)
        self.keep = nn.Linear(size.context, 1)
        self.strain = nn.Sequential(
            nn.Linear(2 * size.width + size.context, size.width), nn.SiLU(), nn.Linear(size.width, CELL_NUMBERS)
        )
        self.types = nn.Sequential(nn.Linear(size.width, size.width), nn.SiLU(), nn.Linear(size.width, TYPES))
        for layer in (self.strain[-1], *self.spread):
            nn.init.normal_(layer.weight, std=1e-3)

    def add_adapter(self, scale: PropertyScale) -> Adapter:
        """Make room for a further property; everything else is to be frozen by who trains it."""
        adapter = Adapter(scale, self.size.context, self.size.layers, self.size.width)
        self.encoder.adapters[scale.name] = adapter
        return adapter

    def config(self) -> dict[str, Any]:
        """What rebuilds the network, as plain values."""
        adapters = self.encoder.all_scales[len(self.encoder.scales) :]
        return {
            "size": asdict(self.size),
            "scales": [{"name": scale.name, "edges": list(scale.edges)} for scale in self.encoder.scales],
            "adapters": [{"name": scale.name, "edges": list(scale.edges)} for scale in adapters],
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FlowNetwork:
        """The network of a configuration, untrained."""
        scales = [PropertyScale(scale["name"], tuple(scale["edges"])) for scale in config["scales"]]
        return cls(FlowSize(**config["size"]), scales, config["mean"], config["std"])

    def forward(self, state: State, clocks: Clocks, wanted: Context) -> Prediction:
        """Predict the velocity and the end of B states.

        Args:
            state: Where they are.
            clocks: Both times of each.
            wanted: What is wanted of each, from `encoder`.
        """
        difference = wrapped(state.frac[:, :, None] - state.frac[:, None, :])
        pairs = self.pair(self._geometry(difference, state))
        context = self.clock(self._times(state, clocks)) + wanted.vector
        x = self.element(state.types) + self.properties(element_features().to(pairs)[state.types])
        both = (state.atoms[:, :, None] & state.atoms[:, None, :]).unsqueeze(-1).to(pairs.dtype)
        both = both / state.n_atoms.to(pairs.dtype).clamp(min=1)[:, None, None, None]
        bias = self.bias(pairs).unflatten(-1, (self.size.layers, self.size.heads)).permute(3, 0, 4, 1, 2)
        closed = torch.zeros_like(bias[0, :, :1, :1]).masked_fill(~state.atoms[:, None, None, :], -1e9)
        for i, block in enumerate(self.backbone.blocks):
            steering = None if wanted.steering is None else wanted.steering[:, i]
            x = x + self.spread[i](self.messages[i](x, pairs, both).sum(2))
            x = block(x, context, bias[i] + closed, None, None, steering)
        x = self.backbone.norm(x)
        heard = self.move(x, pairs, both)
        moved = heard.sum(2)
        way = self._way(heard * state.n_atoms.to(both.dtype)[:, None, None, None], difference, context, both)
        return Prediction(
            mean_free(way / (1 - clocks.geometry).clamp(min=_LEAST_TIME)[:, None, None], state.atoms),
            self._cell(x, moved, context, state),
            self._logits(x),
        )

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.types(x)
        return torch.cat([torch.full_like(logits[..., :1], -torch.inf), logits[..., 1:]], dim=-1)

    def _cell(self, x: Tensor, moved: Tensor, context: Tensor, state: State) -> Tensor:
        """The cell at the end: the volume relative to that of the visible elements, the rest to the mean."""
        weight = (state.atoms / state.n_atoms.clamp(min=1)[:, None]).unsqueeze(-1).to(x.dtype)
        pooled = torch.cat([(x * weight).sum(1), (moved * weight).sum(1), context], dim=-1)
        volume = log_volume(functional.one_hot(state.types, TYPES).to(x.dtype), state.atoms)
        start = torch.cat([volume[:, None], self.mean[1:].expand(len(x), -1)], dim=1)
        end: Tensor = start + self.std * self.strain(pooled)
        return end

    def _times(self, state: State, clocks: Clocks) -> Tensor:
        """Features of the clocks, the cell and the number of atoms."""
        frequencies = torch.pi * torch.arange(1, _TIME_WAVES + 1, device=state.frac.device) / 2
        waves = [
            function(time[:, None] * frequencies)
            for time in (clocks.types, clocks.geometry)
            for function in (torch.sin, torch.cos)
        ]
        ends = [(time[:, None] == end).float() for time in (clocks.types, clocks.geometry) for end in (0.0, 1.0)]
        size = (state.n_atoms / _LARGEST_ATOMS)[:, None]
        return torch.cat([*waves, *ends, (state.cell - self.mean) / self.std, size], dim=-1).to(self.mean.dtype)

    def _way(self, heard: Tensor, difference: Tensor, context: Tensor, weight: Tensor) -> Tensor:
        """How far each atom has to go, up to a common shift, shape `B x N x 3`.

        Every pair is told at which difference it will end, as a phase for each coordinate; what lacks of it, the
        shortest way round, is shared by the two atoms. With the mean displacement taken out, the mean over the pairs
        is each atom's own way.
        """
        sine, cosine = self.turn(heard).chunk(2, dim=-1)
        phase = 2 * torch.pi * difference
        now_sine, now_cosine = torch.sin(phase), torch.cos(phase)
        kept = functional.softplus(self.keep(context))[:, None, None]
        sine, cosine = sine + kept * now_sine, cosine + kept * now_cosine
        lacking = torch.atan2(sine * now_cosine - cosine * now_sine, cosine * now_cosine + sine * now_sine)
        return (lacking / (2 * torch.pi) * weight).sum(2)

    def _geometry(self, difference: Tensor, state: State) -> Tensor:
        """Features of all pairs, shape `B x N x N x d`."""
        phase = 2 * torch.pi * difference
        sine, cosine = torch.sin(phase), torch.cos(phase)
        waves = [sine, cosine]
        for _ in range(self.size.waves - 1):  # of the next multiple by the addition theorem
            waves += [waves[-2] * cosine + waves[-1] * sine, waves[-1] * cosine - waves[-2] * sine]
        distance = nearest_distances(difference, metric_of(state.cell, state.n_atoms))
        radius = radii().to(distance.device)[state.types]
        ratio = distance / (radius[:, :, None] + radius[:, None, :])
        return torch.cat(
            [*waves, _gaussians(distance, 0.5, _FARTHEST, _DISTANCES), _gaussians(ratio, _TIGHTEST, _LOOSEST, _RATIOS)],
            dim=-1,
        )


class Message(nn.Module):
    """What each atom hears of each other one: one hidden layer over both nodes and their pair."""

    def __init__(self, width: int, edge: int, hidden: int) -> None:
        """Make it for nodes of `width` and pairs of `edge`, with `hidden` outputs."""
        super().__init__()
        self.receiver = nn.Linear(width, hidden)
        self.sender = nn.Linear(width, hidden, bias=False)
        self.pair = nn.Linear(edge, hidden, bias=False)

    def forward(self, x: Tensor, pairs: Tensor, weight: Tensor) -> Tensor:
        """Messages, shape `B x N x N x hidden`, multiplied by `weight`; their sum over the senders is the answer."""
        heard = self.receiver(x)[:, :, None] + self.sender(x)[:, None, :] + self.pair(pairs)
        return functional.silu(heard) * weight


def nearest_distances(difference: Tensor, metric: Tensor) -> Tensor:
    """Distances to the nearest periodic image, A; of an atom to itself: the shortest lattice vector.

    In a reduced cell the nearest image of a wrapped difference is one of eight.

    Args:
        difference: Wrapped fractional differences, shape `B x N x N x 3`.
        metric: Shape `B x 3 x 3`.
    """
    other = difference - torch.where(difference < 0, -1.0, 1.0)
    x, y, z = (torch.stack([difference[..., k], other[..., k]], dim=-1) for k in range(3))
    x, y, z = x[..., :, None, None], y[..., None, :, None], z[..., None, None, :]
    g = metric[:, None, None, :, :, None, None, None]
    square = g[..., 0, 0, :, :, :] * x * x + g[..., 1, 1, :, :, :] * y * y + g[..., 2, 2, :, :, :] * z * z
    square = square + 2 * (
        g[..., 0, 1, :, :, :] * x * y + g[..., 0, 2, :, :, :] * x * z + g[..., 1, 2, :, :, :] * y * z
    )
    shortest = square.flatten(-3).amin(-1)
    itself = torch.eye(difference.shape[1], dtype=torch.bool, device=difference.device)
    own = metric.diagonal(dim1=-2, dim2=-1).amin(-1)[:, None, None]
    return torch.where(itself, own, shortest).clamp(min=1e-8).sqrt()


def _gaussians(values: Tensor, low: float, high: float, n: int) -> Tensor:
    """Values as n Gaussians with centres from low to high."""
    centres = torch.linspace(low, high, n, device=values.device)
    return torch.exp(-(((values[..., None] - centres) * (n / (high - low))) ** 2))

"""Guidance by a property model: its gradient bends the flow towards the crystals that it likes.

A guide is any differentiable log-probability of the crystal that the network expects at the end of the path. Its
gradient moves the expected coordinates and cell, and enters the logits of the types by the first-order difference that
an element would make (Nisonoff et al., ICLR 2025; the endpoint in place of the noisy state: Bansal et al., CVPR 2023).
The network itself is not differentiated, so a guide costs little more than its own evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from paragenesis.engine.generators.flow.model import Prediction
from paragenesis.engine.generators.flow.paths import Clocks
from paragenesis.engine.generators.flow.state import MASKED, TYPES, State

_COORDINATE_VARIANCE = 0.02  # of a coordinate about its expected end when the flow begins
_LARGEST_SHIFT = 1.0  # of a cell number, in standard deviations, per unit of time
_LARGEST_MOVE = 0.2  # of a coordinate, in cells, per unit of time
_LARGEST_LOGIT = 10.0


@dataclass(frozen=True)
class Endpoint:
    """The crystals that a batch of B paths is expected to end in.

    Attributes:
        types: Probability of each type, shape `B x N x 104`; zero on padding.
        frac: Fractional coordinates, shape `B x N x 3`.
        cell: The six numbers of the cell (`state`), shape `B x 6`.
        atoms: True where there is an atom, shape `B x N`.
    """

    types: Tensor
    frac: Tensor
    cell: Tensor
    atoms: Tensor

    @property
    def fractions(self) -> Tensor:
        """Expected atomic fractions, shape `B x 104`."""
        return self.types.sum(1) / self.atoms.sum(1)[:, None]


Guide = Callable[[Endpoint], Tensor]
"""Log-probability of each of B endpoints, up to a constant, shape `B`; differentiable."""


def within(values: Tensor, low: float | None, high: float | None, width: float | Tensor) -> Tensor:
    """A log-probability that values lie in a range: 0 inside, falling off outside as a Gaussian of that width."""
    short = torch.zeros_like(values) if low is None else (low - values).clamp(min=0)
    over = torch.zeros_like(values) if high is None else (values - high).clamp(min=0)
    return -0.5 * ((short + over) / width) ** 2


def volume_guide(low: float | None, high: float | None, width: float = 0.5) -> Guide:
    """Wants a volume an atom between low and high, A^3; `width` is how far off one standard deviation is."""
    return lambda end: within(end.cell[:, 0].exp(), low, high, width)


def mean_guide(values: Tensor, low: float | None, high: float | None, width: float) -> Guide:
    """Wants the mean over the atoms of an elemental property, values by atomic number (shape `104`), in a range."""
    return lambda end: within(end.fractions @ values.to(end.fractions), low, high, width)


def expected_end(said: Prediction, state: State, clocks: Clocks) -> Endpoint:
    """Where a prediction leads: known types stay, the others are what the logits say."""
    known = functional.one_hot(state.types, TYPES).to(said.cell.dtype)
    types = torch.where((state.types == MASKED)[..., None], torch.softmax(said.logits, dim=-1), known)
    left = (1 - clocks.geometry)[:, None, None]
    return Endpoint(types * state.atoms[..., None], (state.frac + left * said.velocity) % 1.0, said.cell, state.atoms)


def steered(
    said: Prediction, state: State, clocks: Clocks, guides: Sequence[Guide], weight: float, std: Tensor
) -> Prediction:
    """A prediction bent by guides.

    Args:
        said: What the network says.
        state: Where the paths are.
        clocks: When.
        guides: Log-probabilities of the expected end; they add up.
        weight: How much they count; 1 is the posterior, to first order.
        std: Standard deviations of the six cell numbers.
    """
    if not guides or weight == 0:
        return said
    end = expected_end(said, state, clocks)
    with torch.enable_grad():
        types, frac, cell = parts = [x.detach().requires_grad_() for x in (end.types, end.frac, end.cell)]
        total = torch.stack([guide(Endpoint(types, frac, cell, end.atoms)) for guide in guides]).sum()
        gradients = torch.autograd.grad(total, parts, allow_unused=True)
    by_type, by_frac, by_cell = (
        torch.zeros_like(part) if g is None else torch.nan_to_num(g) for g, part in zip(gradients, parts, strict=True)
    )
    left = (1 - clocks.geometry)[:, None]
    shift = (weight * by_cell * std).clamp(-_LARGEST_SHIFT, _LARGEST_SHIFT) * std * left
    move = (weight * by_frac * _COORDINATE_VARIANCE).clamp(-_LARGEST_MOVE, _LARGEST_MOVE)
    change = by_type - (by_type * end.types).sum(-1, keepdim=True)
    # an element's first-order gain holds for one atom; MASKED stays impossible
    logits = said.logits + (weight * change).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
    return replace(said, velocity=said.velocity + move, cell=said.cell + shift, logits=logits)

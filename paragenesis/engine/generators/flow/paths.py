"""Points of the paths from noise to crystals, on which the network is trained.

Two clocks run from 0 (noise) to 1 (crystal): one for the types, one for the geometry. They are drawn independently, so
the network learns every pair of them (Campbell et al., ICML 2024), with extra weight on the edges where one clock has
ended: structure prediction (types known) and decoration (geometry known), and on the diagonal that new crystals take.

* Types: an atom is visible with probability equal to its clock, else masked.
* Coordinates: uniform noise, moved along the shortest way on the torus. The mean displacement is taken out, since a
  crystal has no origin (Miller et al., FlowMM, ICML 2024).
* Cell: a Gaussian fitted to the training set, moved on a straight line.

Noise atoms are matched to the atoms *of the same element*, and origin and hand of the crystal are chosen, so that the
ways are short (Tong et al., TMLR 2024). Within an element atoms have no names, a crystal has no origin, and its
mirror image is as likely, so the noise keeps its distribution; matching across elements would not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from paragenesis.engine.generators.flow.state import MASKED, State

_OTHER_ELEMENT = 1e3  # cost of matching two elements; far above any squared distance on the unit torus
_REFINED = 2  # rounds in which the origin follows the matching
_PREDICTION, _DECORATION, _DIAGONAL = 0.35, 0.1, 0.2  # shares of the edges and the diagonal among training points


@dataclass(frozen=True)
class Clocks:
    """The times of types and geometry, shape `B` each, 0 for noise and 1 for a crystal."""

    types: Tensor
    geometry: Tensor

    def to(self, device: torch.device | str) -> Clocks:
        """The same on another device."""
        return Clocks(self.types.to(device), self.geometry.to(device))


@dataclass(frozen=True)
class Target:
    """A point of a path and what the network should say there.

    Attributes:
        point: The state at the clocks.
        clocks: Where on the path it lies.
        velocity: Velocity of the coordinates, shape `B x N x 3`.
        cell: The six numbers at the end, shape `B x 6`.
        types: The types at the end, shape `B x N`.
        hidden: True where a type is masked and to be predicted, shape `B x N`.
    """

    point: State
    clocks: Clocks
    velocity: Tensor
    cell: Tensor
    types: Tensor
    hidden: Tensor

    def to(self, device: torch.device | str) -> Target:
        """The same on another device."""
        rest = (part.to(device) for part in (self.velocity, self.cell, self.types, self.hidden))
        return Target(self.point.to(device), self.clocks.to(device), *rest)


def draw_clocks(n: int, generator: torch.Generator) -> Clocks:
    """Times for n training crystals: the whole square, with weight on two edges and the diagonal."""
    types, geometry, kind = torch.rand(3, n, generator=generator)
    types = torch.where(kind < _DIAGONAL, geometry, types)
    types = torch.where(kind > 1 - _PREDICTION, torch.ones(n), types)
    decorated = (kind > _DIAGONAL) & (kind < _DIAGONAL + _DECORATION)
    return Clocks(types, torch.where(decorated, torch.ones(n), geometry))


def draw_target(
    crystals: State, mean: Tensor, std: Tensor, generator: torch.Generator, clocks: Clocks | None = None
) -> Target:
    """A random point on a path to each crystal.

    Args:
        crystals: Whole crystals, without masked atoms, on the CPU.
        mean: Mean of the six numbers in the noise, shape `6`.
        std: Their standard deviations.
        generator: Source of all randomness.
        clocks: The times; drawn if not given.
    """
    clocks = clocks or draw_clocks(len(crystals), generator)
    hidden = (torch.rand(crystals.types.shape, generator=generator) >= clocks.types[:, None]) & crystals.atoms
    noise, end = couple(torch.rand(crystals.frac.shape, generator=generator), crystals, generator)
    way = displacement(noise, end, crystals.atoms)
    time = clocks.geometry[:, None]
    start = mean + std * torch.randn(crystals.cell.shape, generator=generator)
    point = replace(
        crystals,
        types=crystals.types.masked_fill(hidden, MASKED),
        frac=(noise + time[..., None] * way) % 1.0,
        cell=start + time * (crystals.cell - start),
    )
    return Target(point, clocks, way, crystals.cell, crystals.types, hidden)


def wrapped(difference: Tensor) -> Tensor:
    """Differences of fractional coordinates as the shortest way on the torus, each in [-0.5, 0.5]."""
    return difference - difference.round()


def mean_free(vectors: Tensor, atoms: Tensor) -> Tensor:
    """Vectors `B x N x 3` of the atoms with each crystal's mean taken out; zero on padding."""
    kept = vectors * atoms[..., None]
    mean = kept.sum(1, keepdim=True) / atoms.sum(1).clamp(min=1)[:, None, None]
    return (kept - mean) * atoms[..., None]


def displacement(start: Tensor, end: Tensor, atoms: Tensor) -> Tensor:
    """The way of each atom from start to end, up to a common shift, shape `B x N x 3`."""
    return mean_free(wrapped(end - start), atoms)


def couple(noise: Tensor, crystals: State, generator: torch.Generator, tries: int = 3) -> tuple[Tensor, Tensor]:
    """Match noise to crystals so that the ways become short.

    Each try lays one noise atom of the rarest element onto one crystal atom of it, as it is or inverted, then solves
    the assignment problem. The best try is shifted to where the mean way is zero and assigned again.

    Args:
        noise: Fractional coordinates, shape `B x N x 3`.
        crystals: Where they go.
        generator: Draws which atoms are laid onto each other.
        tries: How many origins are tried, for either hand.

    Returns:
        The noise with atoms exchanged within elements and a shifted origin, and the coordinates of the crystals,
        inverted where that brings them closer; shape `B x N x 3` each.
    """
    chosen = _rarest(crystals)[:, None].expand(-1, 2 * tries, -1).flatten(0, 1).float()
    pick = torch.multinomial(chosen, 1, generator=generator).view(len(noise), 2, tries, 1).expand(-1, -1, -1, 3)
    start, end = torch.gather(noise, 1, pick[:, 0]), torch.gather(crystals.frac, 1, pick[:, 1])
    shift = torch.cat([end - start, -end - start], dim=1)  # B x 2 tries x 3
    hands = torch.stack([crystals.frac, -crystals.frac], dim=1).repeat_interleave(tries, 1)
    total, order = _assigned(noise[:, None] + shift[:, :, None], hands, crystals)
    rows, best = torch.arange(len(noise)), total.argmin(1)
    frac, moved = hands[rows, best] % 1.0, noise + shift[rows, best][:, None]
    for _ in range(_REFINED):
        matched = torch.gather(moved, 1, order[rows, best][..., None].expand(-1, -1, 3))
        drift = (wrapped(frac - matched) * crystals.atoms[..., None]).sum(1) / crystals.n_atoms[:, None]
        moved = moved + drift[:, None]
        total, order = _assigned(moved[:, None], frac[:, None], crystals)
        best = torch.zeros_like(best)
    return torch.gather(moved, 1, order[:, 0][..., None].expand(-1, -1, 3)) % 1.0, frac


def _assigned(noise: Tensor, ends: Tensor, crystals: State) -> tuple[Tensor, Tensor]:
    """The best matching within elements of noise and ends, shape `B x K x N x 3` each.

    Returns:
        Its cost, shape `B x K`, and for each crystal atom its noise atom, shape `B x K x N`.
    """
    from scipy.optimize import linear_sum_assignment

    other = crystals.types[:, :, None] != crystals.types[:, None, :]
    ways = wrapped(ends[:, :, None] - noise[:, :, :, None])  # noise atom x crystal atom
    cost = ((ways**2).sum(-1) + _OTHER_ELEMENT * other[:, None]).numpy()
    tries, most = cost.shape[1:3]
    order = np.tile(np.arange(most), (len(cost), tries, 1))
    total = np.zeros((len(cost), tries), dtype=np.float32)
    for i, n in enumerate(crystals.n_atoms.tolist()):
        for k in range(tries if n > 1 else 0):
            rows, columns = linear_sum_assignment(cost[i, k, :n, :n])
            total[i, k] = cost[i, k, rows, columns].sum()
            order[i, k, columns] = rows
    return torch.as_tensor(total), torch.as_tensor(order)


def _rarest(crystals: State) -> Tensor:
    """True for the atoms of the element that a crystal has fewest of, shape `B x N`."""
    same = (crystals.types[:, :, None] == crystals.types[:, None, :]) & crystals.atoms[:, None, :]
    counts = same.sum(-1).masked_fill(~crystals.atoms, crystals.types.shape[1] + 1)
    return counts == counts.min(1, keepdim=True).values

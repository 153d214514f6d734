"""The project's surrogate as a guide: its posterior mean, made differentiable.

The surrogate sees descriptors. Those that are means and deviations over the composition, the volume, and the nearest
distances follow smoothly from the probabilities of the types, the cell and the coordinates, and are computed here in
torch; how many elements there are and the least and largest of their properties do not, and count as constants of the
likeliest types. The posterior of the Gaussian processes comes from the surrogate's own `predict`, and its derivative by
each descriptor from central differences of it.

The surrogate learns residuals, oracle minus ensemble. A guide knows no ensemble mean of a crystal that is not there
yet, so it wants a surrogate that was fitted to a property itself, against an ensemble mean of zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paragenesis.crystals import ATOMIC_MASS_TO_G_PER_CM3, FloatArray
from paragenesis.engine.descriptors import DESCRIPTOR_NAMES
from paragenesis.engine.generators.flow.elements import elemental, radii
from paragenesis.engine.generators.flow.guidance import Endpoint, Guide, within
from paragenesis.engine.generators.flow.model import nearest_distances
from paragenesis.engine.generators.flow.paths import wrapped
from paragenesis.engine.generators.flow.state import metric_of
from paragenesis.engine.surrogate import ResidualSurrogate

_STEP = 1e-4  # of a central difference, in standard deviations of the descriptor
_MASS = "mass_mean"


def descriptors(end: Endpoint) -> Tensor:
    """The descriptors of expected crystals, shape `B x d`, columns as in `DESCRIPTOR_NAMES`; double precision.

    Equal to `describe` where the types are certain and the cell is reduced.
    """
    names, table = elemental()
    values = torch.as_tensor(table)
    atoms = end.atoms.sum(1, keepdim=True).double()
    types = end.types.double()
    share = types.sum(1) / atoms
    mean = share @ values
    spread = (share @ values**2 - mean**2).clamp(min=0)
    likely = types.detach().argmax(-1)
    present = values[likely].masked_fill(~end.atoms[..., None], torch.nan)
    columns = {f"{name}_mean": mean[:, k] for k, name in enumerate(names)}
    for k, name in enumerate(names):
        columns[f"{name}_std"] = torch.where(spread[:, k] > 1e-12, spread[:, k].clamp(min=1e-12).sqrt(), 0.0)
        columns[f"{name}_min"] = present[..., k].nan_to_num(nan=torch.inf).amin(1)
        columns[f"{name}_max"] = present[..., k].nan_to_num(nan=-torch.inf).amax(1)
    hard = torch.zeros_like(share).scatter_add(1, likely, end.atoms.double())
    columns["n_elements"] = (hard > 0).sum(1).double()
    columns["stoichiometry_norm"] = share.norm(dim=1)
    columns |= _structure(end, share, columns[_MASS])
    return torch.stack([columns[name] for name in DESCRIPTOR_NAMES], dim=1)


def _structure(end: Endpoint, share: Tensor, mass: Tensor) -> dict[str, Tensor]:
    """The columns that know the geometry."""
    atoms = end.atoms.sum(1).double()
    volume = end.cell[:, 0].double().exp()
    radius = end.types.double() @ radii().double()
    difference = wrapped(end.frac[:, :, None] - end.frac[:, None, :]).double()
    distance = nearest_distances(difference, metric_of(end.cell.double(), atoms))
    apart = ~(end.atoms[:, :, None] & end.atoms[:, None, :])
    nearest = distance.masked_fill(apart, torch.inf).amin(2).masked_fill(~end.atoms, 0.0)
    pair = (radius[:, :, None] + radius[:, None, :]).masked_fill(apart, 1.0)
    ratio = (distance / pair).masked_fill(apart, torch.inf).amin(2).masked_fill(~end.atoms, 0.0)
    balls = share @ (4 / 3 * torch.pi * radii().double() ** 3)
    distance_mean, distance_std = _moments(nearest, end.atoms)
    ratio_mean, ratio_std = _moments(ratio, end.atoms)
    return {
        "volume_per_atom": volume,
        "density": mass * ATOMIC_MASS_TO_G_PER_CM3 / volume,
        "packing_fraction": balls / volume,
        "nearest_distance_mean": distance_mean,
        "nearest_distance_std": distance_std,
        "nearest_distance_scaled": distance_mean / volume ** (1 / 3),
        "bond_ratio_mean": ratio_mean,
        "bond_ratio_std": ratio_std,
    }


def _moments(values: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the atoms of each crystal."""
    n = atoms.sum(1).double()
    mean = values.sum(1) / n
    variance = (((values - mean[:, None]) * atoms) ** 2).sum(1) / n
    return mean, torch.where(variance > 1e-12, variance.clamp(min=1e-12).sqrt(), 0.0)


class _Differentiable(torch.autograd.Function):
    """A function of rows that NumPy computes, with its derivative by central differences."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, function: Callable[[FloatArray], FloatArray], scale: FloatArray) -> Tensor:
        """The values of rows `B x d`, shape `B`; `scale` has the size of a step for each column."""
        x = rows.detach().numpy()
        steps = _STEP * scale
        moved = np.concatenate([x[:, None] + np.diag(steps), x[:, None] - np.diag(steps)], axis=1)
        values = function(np.concatenate([x, moved.reshape(-1, x.shape[1])]))
        up, down = np.split(values[len(x) :].reshape(len(x), -1), 2, axis=1)
        ctx.save_for_backward(torch.as_tensor((up - down) / (2 * steps)))
        return torch.as_tensor(values[: len(x)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The chain rule."""
        (slope,) = ctx.saved_tensors
        return gradients[0][:, None] * slope, None, None


def surrogate_guide(
    surrogate: ResidualSurrogate,
    pool: FloatArray,
    low: float | None,
    high: float | None,
    *,
    width: float | None = None,
    column: int = 0,
    objectives: int = 1,
) -> Guide:
    """Wants a property that a surrogate predicts in a range.

    Args:
        surrogate: Fitted to the property itself (see the module).
        pool: Descriptors of crystals like those it was fitted to, shape `N x d`; their spread sets the steps of the
            differences.
        low: Least value; None for no bound.
        high: Largest value; None for no bound.
        width: How far outside one standard deviation is; the surrogate's own doubt if not given.
        column: Which of the surrogate's objectives.
        objectives: How many it has.
    """
    deviation = pool.std(0)
    scale = np.where(deviation > 0, deviation, 1.0)

    def predicted(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        zero = np.zeros((len(rows), objectives))
        mean, std = surrogate.predict(rows, zero, zero)
        return mean[:, column], std[:, column]

    def guide(end: Endpoint) -> Tensor:
        rows = descriptors(end)
        mean: Tensor = _Differentiable.apply(rows, lambda x: predicted(x)[0], scale)  # type: ignore[no-untyped-call]
        if width is not None:
            return within(mean, low, high, width)
        doubt = torch.as_tensor(predicted(rows.detach().numpy())[1]).clamp(min=1e-6)
        return within(mean, low, high, doubt)

    return guide

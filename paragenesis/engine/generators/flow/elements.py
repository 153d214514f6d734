"""What the network is told of the elements, and the volume it starts from."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.descriptors import DESCRIPTOR_NAMES, describe
from paragenesis.engine.generators.flow.state import MASKED, TYPES
from paragenesis.engine.screening.validity import covalent_radii

_VOLUMES = Path(__file__).parents[1] / "atomic_volumes.json"
_METALLIC, _ANIONIC = 1.2, 3.2  # mean electronegativities between which volumes are mixed, as in `volume.py`
UNKNOWN_RADIUS = 1.4  # A, of an atom whose element is not known yet
UNKNOWN_VOLUME = 18.0  # A^3


@cache
def _volumes() -> tuple[FloatArray, FloatArray]:
    """Electronegativities, shape `104`, and the volumes among metals and among anions, A^3, shape `104 x 2`."""
    rows = np.array([row[1:] for row in json.loads(_VOLUMES.read_text())["elements"]], dtype=np.float64)
    return rows[:, 0], rows[:, 1:]


@cache
def elemental() -> tuple[tuple[str, ...], FloatArray]:
    """Properties that the descriptors average: their names, and their values by atomic number, shape `104 x k`."""
    ones = np.ones(TYPES - 1, dtype=np.int64)
    single = Crystals(  # of one atom each: there a mean is the element's own value
        ids=tuple(str(z) for z in range(1, TYPES)),
        n_atoms=ones,
        numbers=np.arange(1, TYPES),
        frac=np.zeros((TYPES - 1, 3)),
        lattices=np.tile(4.0 * np.eye(3), (TYPES - 1, 1, 1)),
    )
    names = DESCRIPTOR_NAMES[: DESCRIPTOR_NAMES.index("n_elements")]  # those of the structure follow
    own = [k for k, name in enumerate(names) if name.endswith("_mean")]
    values: FloatArray = np.zeros((TYPES, len(own)))
    values[1:] = describe(single)[:, own]
    return tuple(names[k].removesuffix("_mean") for k in own), values


@cache
def element_features() -> Tensor:
    """Features of the types, each with mean 0 and deviation 1 over the elements, zero for `MASKED`; shape `104 x d`."""
    electronegativity, volumes = _volumes()
    averaged = elemental()[1][1:]
    radius = radii()[1:].double().numpy()
    known = np.column_stack([averaged, np.log(radius), np.cbrt(volumes[1:]), electronegativity[1:]])
    table = np.zeros((TYPES, known.shape[1]))
    table[1:] = (known - known.mean(0)) / known.std(0)
    return torch.as_tensor(table, dtype=torch.float32)


@cache
def radii() -> Tensor:
    """Covalent radii of the types, A (Cordero et al., Dalton Trans. 2832 (2008)), shape `104`."""
    table = torch.as_tensor(covalent_radii()[:TYPES].copy(), dtype=torch.float32)
    table[MASKED] = UNKNOWN_RADIUS
    return table


def log_volume(weights: Tensor, atoms: Tensor) -> Tensor:
    """Log of the volume an atom, A^3, that a composition will have (the rule of `volume.py`), shape `B`.

    Args:
        weights: Shape `B x N x 104`: the probability of each type; that of `MASKED` counts as an atom of
            `UNKNOWN_VOLUME`. Differentiable in them.
        atoms: True where there is an atom, shape `B x N`.
    """
    electronegativity, volumes = (torch.as_tensor(x, dtype=weights.dtype, device=weights.device) for x in _volumes())
    totals = (weights * atoms[..., None]).sum(1)
    known = totals.clone()
    known[:, MASKED] = 0.0
    mean = known @ electronegativity / known.sum(1).clamp(min=1e-6)
    share = ((mean - _METALLIC) / (_ANIONIC - _METALLIC)).clamp(0.0, 1.0)[:, None]
    volume = (known @ volumes * torch.cat([1 - share, share], dim=1)).sum(1) + totals[:, MASKED] * UNKNOWN_VOLUME
    return (volume / totals.sum(1).clamp(min=1e-6)).log()

from __future__ import annotations

import numpy as np
import pytest
import torch

from paragenesis.crystals import Crystals
from paragenesis.engine.descriptors import DESCRIPTOR_NAMES, describe
from paragenesis.engine.generators.flow.guidance import Endpoint
from paragenesis.engine.generators.flow.posterior import descriptors, surrogate_guide
from paragenesis.engine.generators.flow.state import TYPES, niggli, pack
from paragenesis.engine.surrogate import ResidualSurrogate


@pytest.fixture
def crystals(classics: Crystals) -> Crystals:
    return niggli(classics)[0]


def endpoint(crystals: Crystals) -> Endpoint:
    state = pack(crystals, torch.float64)
    types = torch.nn.functional.one_hot(state.types, TYPES).double() * state.atoms[..., None]
    return Endpoint(types, state.frac, state.cell, state.atoms)


def test_descriptors_of_certain_crystals_are_those_of_the_project(crystals: Crystals) -> None:
    assert np.allclose(descriptors(endpoint(crystals)).numpy(), describe(crystals), rtol=1e-4, atol=1e-3)


def test_a_surrogate_guide_points_to_where_the_surrogate_predicts_more(crystals: Crystals) -> None:
    pool = describe(crystals)
    density = pool[:, [DESCRIPTOR_NAMES.index("density")]]
    surrogate = ResidualSurrogate().fit(pool, density, noise_std=0.05, pool=pool)
    guide = surrogate_guide(surrogate, pool, float(density.max()) + 1.0, None, width=1.0)
    end = endpoint(crystals)
    types, cell = end.types.requires_grad_(), end.cell.requires_grad_()
    value = guide(Endpoint(types, end.frac, cell, end.atoms))
    by_cell, by_type = torch.autograd.grad(value.sum(), [cell, types])
    assert by_cell.isfinite().all()
    assert (by_cell[:, 0] < 0).float().mean() > 0.7  # denser is smaller
    step = 0.01
    squeezed = cell.detach().clone()
    squeezed[:, 0] -= step
    after = guide(Endpoint(types.detach(), end.frac, squeezed, end.atoms))
    expected = -step * by_cell[:, 0]
    assert torch.allclose(after - value.detach(), expected, rtol=0.2, atol=0.1 * float(expected.abs().max()))
    assert by_type.abs().max() > 0

from __future__ import annotations

import itertools

import pytest
import torch

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.flow.elements import log_volume
from paragenesis.engine.generators.flow.model import FlowNetwork, FlowSize, nearest_distances
from paragenesis.engine.generators.flow.paths import Clocks, wrapped
from paragenesis.engine.generators.flow.state import MASKED, TYPES, State, metric_of, niggli, pack
from paragenesis.engine.generators.learned.context import Context
from paragenesis.engine.generators.volume import predict_volumes


@pytest.fixture
def network() -> FlowNetwork:
    torch.manual_seed(0)
    made = FlowNetwork(FlowSize(16, 2, 2, 8, 8, 3), [], [2.9, 0, 0, 0, 0, 0], [0.4, 0.2, 0.2, 0.3, 0.3, 0.3]).double()
    for parameter in made.parameters():  # small weights at the start would hide a broken symmetry
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def said(network: FlowNetwork, state: State, time: float = 0.4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    at = torch.full((len(state),), time, dtype=torch.float64)
    network.encoder.double()
    prediction = network(state, Clocks(at, at), Context(network.encoder.open.expand(len(state), -1)))
    return prediction.velocity, prediction.cell, prediction.logits[..., MASKED + 1 :]


@pytest.fixture
def state(classics: Crystals) -> State:
    made = pack(niggli(classics)[0], torch.float64)
    rattled = made.frac + 0.1 * torch.rand(made.frac.shape, generator=torch.Generator().manual_seed(0))
    types = made.types.clone()
    types[::2, 0] = MASKED
    return State(types, rattled % 1.0, made.cell, made.atoms)


def test_a_shift_of_the_origin_changes_nothing(network: FlowNetwork, state: State) -> None:
    shift = torch.rand(len(state), 1, 3, dtype=torch.float64)
    moved = State(state.types, (state.frac + shift) % 1.0, state.cell, state.atoms)
    for one, other in zip(said(network, state), said(network, moved), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_the_order_of_atoms_does_not_matter(network: FlowNetwork, state: State) -> None:
    state = state[state.n_atoms == 5].trimmed()
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = State(state.types[:, order], state.frac[:, order], state.cell, state.atoms[:, order])
    velocity, cell, logits = said(network, state)
    velocity2, cell2, logits2 = said(network, moved)
    assert velocity.abs().max() > 1e-2  # not equal because zero
    assert torch.allclose(velocity[:, order], velocity2, atol=1e-5)
    assert torch.allclose(logits[:, order], logits2, atol=1e-5)
    assert torch.allclose(cell, cell2, atol=1e-5)


def test_padding_does_not_matter(network: FlowNetwork, state: State) -> None:
    few = state[state.n_atoms == 2]
    for one, other in zip(said(network, few), said(network, few.trimmed()), strict=True):
        size = other.shape[1] if other.ndim == 3 else 6
        assert torch.allclose(one[:, :size], other, atol=1e-5)


def test_velocities_have_no_drift(network: FlowNetwork, state: State) -> None:
    assert said(network, state)[0].sum(1).abs().max() < 1e-6


def test_nearest_distances_are_those_of_all_images(state: State) -> None:
    difference = wrapped(state.frac[:, :, None] - state.frac[:, None])
    metric = metric_of(state.cell, state.n_atoms)
    images = torch.tensor(list(itertools.product((-1, 0, 1), repeat=3)), dtype=torch.float64)
    moved = difference[..., None, :] + images
    square = torch.einsum("bijnk,bkl,bijnl->bijn", moved, metric, moved)
    itself = torch.eye(difference.shape[1], dtype=torch.bool)[None, :, :, None] & (images == 0).all(-1)
    expected = square.masked_fill(itself, torch.inf).amin(-1).sqrt()
    both = state.atoms[:, :, None] & state.atoms[:, None]
    assert torch.allclose(nearest_distances(difference, metric)[both], expected[both], atol=1e-6)


def test_the_volume_is_the_predicted_one(classics: Crystals) -> None:
    state = pack(classics)
    weights = torch.nn.functional.one_hot(state.types, TYPES).double()
    volume = log_volume(weights, state.atoms).exp() * state.n_atoms
    assert torch.allclose(volume, torch.as_tensor(predict_volumes(classics)), rtol=1e-6)


def test_config_rebuilds_the_network(network: FlowNetwork) -> None:
    again = FlowNetwork.from_config(network.config())
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}

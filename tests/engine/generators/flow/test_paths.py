from __future__ import annotations

import torch

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.flow.paths import Clocks, couple, displacement, draw_clocks, draw_target, wrapped
from paragenesis.engine.generators.flow.state import MASKED, State, niggli, pack


def crystals(classics: Crystals) -> State:
    return pack(niggli(classics)[0])


def test_coupling_shortens_the_ways_and_only_permutes_within_elements(classics: Crystals) -> None:
    state = crystals(classics)
    raw = torch.rand(state.frac.shape, generator=torch.Generator().manual_seed(0))
    matched, frac = couple(raw, state, torch.Generator().manual_seed(1))
    before = displacement(raw, state.frac, state.atoms).square().sum((1, 2))
    after = displacement(matched, frac, state.atoms).square().sum((1, 2))
    assert after.mean() < 0.6 * before.mean()
    for i, n in enumerate(state.n_atoms.tolist()):
        # up to one shift for the whole crystal, each noise atom is one of the noise atoms of its own element
        for shift in (matched[i, 0] - raw[i, :n])[state.types[i, :n] == state.types[i, 0]]:
            gaps = wrapped(matched[i, :n, None] - raw[i, None, :n] - shift).abs().amax(-1)
            home = gaps.argmin(1)
            if gaps.amin(1).max() < 1e-5:
                assert torch.equal(state.types[i, :n], state.types[i, home])
                assert len(set(home.tolist())) == n
                break
        else:
            raise AssertionError("the noise is not a permutation within elements")


def test_coupling_chooses_either_hand_alike(classics: Crystals) -> None:
    polar = crystals(classics)[5:6]  # zincblende: inversion makes another one of it
    many = State(*(x.expand(2000, *x.shape[1:]) for x in (polar.types, polar.frac, polar.cell, polar.atoms)))
    draw = torch.Generator().manual_seed(0)
    _, frac = couple(torch.rand(many.frac.shape, generator=draw), many, draw)
    inverted = wrapped(frac[:, 1] - frac[:, 0] + polar.frac[:, 1] - polar.frac[:, 0]).abs().amax(1) < 1e-4
    assert 0.45 < inverted.float().mean() < 0.55


def test_coupled_noise_of_one_atom_against_the_others_stays_uniform(classics: Crystals) -> None:
    rocksalt = crystals(classics)[:1]
    many = State(
        *(x.expand(4000, *x.shape[1:]) for x in (rocksalt.types, rocksalt.frac, rocksalt.cell, rocksalt.atoms))
    )
    draw = torch.Generator().manual_seed(0)
    noise, _ = couple(torch.rand(many.frac.shape, generator=draw), many, draw)
    apart = (noise[:, 1] - noise[:, 0]) % 1.0
    shares = torch.histc(apart, 10, 0, 1) / apart.numel()
    assert (shares - 0.1).abs().max() < 0.012


def test_paths_begin_in_noise_and_end_in_the_crystal(classics: Crystals) -> None:
    state, n = crystals(classics), len(classics)
    zeros, ones = torch.zeros(6), torch.ones(6)
    end = draw_target(state, zeros, ones, torch.Generator().manual_seed(0), Clocks(torch.ones(n), torch.ones(n)))
    assert torch.equal(end.point.types, state.types)
    assert not end.hidden.any()
    assert torch.allclose(end.point.cell, state.cell, atol=1e-6)
    hands = [displacement(end.point.frac, hand, state.atoms).abs().amax((1, 2)) for hand in (state.frac, -state.frac)]
    assert torch.minimum(*hands).max() < 1e-5
    start = draw_target(state, zeros, ones, torch.Generator().manual_seed(0), Clocks(torch.zeros(n), torch.zeros(n)))
    assert (start.point.types == MASKED).all()
    assert torch.equal(start.hidden, state.atoms)
    arrived = (start.point.frac + start.velocity) % 1.0
    hands = [displacement(arrived, hand, state.atoms).abs().amax((1, 2)) for hand in (state.frac, -state.frac)]
    assert torch.minimum(*hands).max() < 1e-5


def test_a_velocity_has_no_drift_and_leaves_padding_alone(classics: Crystals) -> None:
    state = crystals(classics)
    velocity = draw_target(state, torch.zeros(6), torch.ones(6), torch.Generator().manual_seed(3)).velocity
    assert velocity.sum(1).abs().max() < 1e-5
    assert velocity[~state.atoms].abs().max() == 0


def test_clocks_cover_the_square_and_its_edges() -> None:
    clocks = draw_clocks(20_000, torch.Generator().manual_seed(0))
    predicting, decorating = clocks.types == 1, clocks.geometry == 1
    assert 0.33 < predicting.float().mean() < 0.37
    assert 0.08 < decorating.float().mean() < 0.12
    diagonal = clocks.types == clocks.geometry
    assert 0.18 < diagonal.float().mean() < 0.22
    inside = ~(predicting | decorating | diagonal)
    correlation = torch.corrcoef(torch.stack([clocks.types[inside], clocks.geometry[inside]]))[0, 1]
    assert correlation.abs() < 0.05

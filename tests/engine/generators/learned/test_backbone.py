"""The network of all learned generators."""

from __future__ import annotations

import pytest
import torch

from paragenesis.engine.generators.learned.backbone import Backbone


@pytest.fixture
def causal() -> Backbone:
    torch.manual_seed(0)
    network = Backbone(32, layers=3, heads=4, causal=True, context=8).eval()
    for block in network.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.2)
    return network


def test_step_by_step_with_a_cache_is_the_same_as_at_once(causal: Backbone) -> None:
    x, context = torch.randn(5, 9, 32), torch.randn(5, 8)
    whole = causal(x, context)
    cache = causal.cache(5, 9)
    parts = [causal(x[:, :4], context, cache=cache)]
    parts += [causal(x[:, i : i + 1], context, cache=cache) for i in range(4, 9)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)


def test_rows_of_a_cache_go_their_own_ways(causal: Backbone) -> None:
    x, context = torch.randn(2, 4, 32), torch.randn(2, 8)
    cache = causal.cache(2, 6)
    causal(x, context, cache=cache)
    which = torch.tensor([1, 1, 0])
    copies = [c.rows(which) for c in cache]
    ends = torch.randn(3, 1, 32)
    out = causal(ends, context[which], cache=copies)
    for i, row in enumerate(which):
        alone = causal(torch.cat([x[row], ends[i]])[None], context[row][None])[0, -1]
        torch.testing.assert_close(out[i, 0], alone, rtol=1e-4, atol=1e-5)


def test_a_causal_token_does_not_see_the_future(causal: Backbone) -> None:
    x, context = torch.randn(1, 6, 32), torch.randn(1, 8)
    changed = x.clone()
    changed[:, 4:] += 1.0
    torch.testing.assert_close(causal(x, context)[:, :4], causal(changed, context)[:, :4])


def test_masked_tokens_are_not_seen() -> None:
    torch.manual_seed(1)
    network = Backbone(32, layers=2, heads=4).eval()
    x = torch.randn(2, 5, 32)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    short = network(x[1:, :3])
    torch.testing.assert_close(network(x, mask=mask)[1, :3], short[0], rtol=1e-4, atol=1e-5)


def test_the_context_and_its_steering_change_what_comes_out(causal: Backbone) -> None:
    x = torch.randn(1, 4, 32)
    plain = causal(x, torch.zeros(1, 8))
    assert not torch.allclose(plain, causal(x, torch.ones(1, 8)))
    steering = torch.full((1, 3, 6 * 32), 0.1)
    assert not torch.allclose(plain, causal(x, torch.zeros(1, 8), steering=steering))

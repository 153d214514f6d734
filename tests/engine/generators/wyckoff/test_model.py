"""The Wyckoff transformer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from paragenesis.engine.generators import Condition
from paragenesis.engine.generators.learned.context import Context, Wishes
from paragenesis.engine.generators.wyckoff import tokens as tk
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.model import Inputs, WyckoffModel, inputs_of
from paragenesis.engine.generators.wyckoff.tokens import Slot

RUTILE = WyckoffForm(136, (0, 5), (22, 8), (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), ((), (0.305,)))
PEROVSKITE = WyckoffForm(221, (0, 1, 2), (38, 22, 8), (3.9, 3.9, 3.9, 90.0, 90.0, 90.0), ((), (), ()))


def context_of(model: WyckoffModel, n: int) -> Context:
    return model.context(Wishes.from_condition(Condition(), model.encoder.scales, n))


def test_only_the_next_slot_is_open(untrained: WyckoffModel) -> None:
    inputs, _, targets = inputs_of(tk.encode([RUTILE, PEROVSKITE]))
    logits = untrained(inputs, context_of(untrained, 2))
    for row in range(2):
        for place in range(inputs.tokens.shape[1]):
            slot = Slot(int(inputs.following[row, place]))
            open_ = torch.nonzero(logits[row, place] > -1e8).flatten()
            start, count = tk.BLOCKS[slot]
            assert open_.min() >= start
            assert open_.max() < start + count
            if slot != Slot.START:
                assert int(targets[row, place]) in open_.tolist()
    sites = (logits[0, 1, tk.SITE_AT : tk.SITE_AT + tk.SITES] > -1e8).nonzero().flatten().tolist()
    assert sites == [*range(11), tk.END]  # group 136 has eleven positions


def test_a_site_that_is_past_costs_no_probability(untrained: WyckoffModel) -> None:
    inputs, lowest, targets = inputs_of(tk.encode([RUTILE]))
    context = context_of(untrained, 1)
    free = untrained.loss(inputs, torch.zeros_like(lowest), targets, context, smooth=False)
    bound = untrained.loss(inputs, lowest, targets, context, smooth=False)
    sites = inputs.following == Slot.SITE
    assert (bound[sites][1:] < free[sites][1:]).all()
    torch.testing.assert_close(bound[~sites], free[~sites])


def test_padding_costs_nothing(untrained: WyckoffModel) -> None:
    both = inputs_of(tk.encode([RUTILE, PEROVSKITE]))
    together = untrained.loss(*both, context_of(untrained, 2), smooth=False).sum(1)
    for row, form in enumerate((RUTILE, PEROVSKITE)):
        alone = untrained.loss(*inputs_of(tk.encode([form])), context_of(untrained, 1), smooth=False).sum()
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-4)


def test_it_learns_two_crystals_by_heart() -> None:
    from paragenesis.engine.generators.wyckoff.model import WyckoffModelSettings

    torch.manual_seed(0)
    model = WyckoffModel(WyckoffModelSettings(width=32, layers=2, heads=2, context=8, dropout=0.0), [])
    batch = inputs_of(tk.encode([RUTILE, PEROVSKITE]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = model.loss(*batch, context_of(model, 2)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    exact = model.eval().loss(*batch, context_of(model, 2), smooth=False)
    template = (batch[0].following <= Slot.ELEMENT) & (batch[0].following > Slot.START)
    assert float((exact * template).detach().sum()) < 3.0  # two crystals: ln 2 each at the group, then certainty


def test_the_wish_enters(untrained: WyckoffModel) -> None:
    wish = Condition.parse({"properties": [{"property": "band_gap", "low": 1.0, "high": 2.0}]})
    model = untrained
    inputs, lowest, targets = inputs_of(tk.encode([RUTILE]))
    plain = model.context(Wishes.from_condition(Condition(), model.encoder.scales, 1))
    wanted = model.context(Wishes.from_condition(wish, model.encoder.scales, 1))
    assert not torch.allclose(plain.vector, wanted.vector)
    assert lowest.shape == targets.shape == inputs.tokens.shape


@pytest.mark.parametrize("field", ["site", "element", "axis"])
def test_a_coordinate_knows_its_orbit(untrained: WyckoffModel, field: str) -> None:
    inputs, _, _ = inputs_of(tk.encode([RUTILE]))
    context = context_of(untrained, 1)
    changed: Inputs = replace(inputs, **{field: (getattr(inputs, field) + 1) % 3})
    place = int(np.flatnonzero(inputs.following[0].numpy() == Slot.COORDINATE)[0])
    before, after = untrained(inputs, context)[0, place], untrained(changed, context)[0, place]
    assert not torch.allclose(before, after)

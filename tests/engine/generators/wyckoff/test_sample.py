"""Sampling from the Wyckoff transformer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from paragenesis.engine.generators import Condition
from paragenesis.engine.generators.learned.context import Context, Wishes
from paragenesis.engine.generators.wyckoff import tokens as tk
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.model import WyckoffModel, inputs_of
from paragenesis.engine.generators.wyckoff.rules import Rules
from paragenesis.engine.generators.wyckoff.sample import Sampler
from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites

EVERYTHING = np.ones(104, dtype=np.bool_)


def context_of(model: WyckoffModel, n: int) -> Context:
    return model.context(Wishes.from_condition(Condition(), model.encoder.scales, n))


def sampler(model: WyckoffModel, seed: int = 0) -> Sampler:
    return Sampler(model, torch.Generator().manual_seed(seed))


def test_templates_are_crystals(untrained: WyckoffModel) -> None:
    rules = Rules(Condition(max_atoms=12), EVERYTHING)
    drawn = sampler(untrained).templates(context_of(untrained, 64), None, rules, 64).templates
    assert len(drawn) == 64
    for template in drawn:
        sites = wyckoff_sites(template.group)
        assert list(template.sites) == sorted(template.sites)
        assert sum(sites[s].in_primitive for s in template.sites) <= 12
        repeated = [s for s, count in Counter(template.sites).items() if count > 1]
        assert all(sites[s].free for s in repeated)


def test_the_same_seed_draws_the_same(untrained: WyckoffModel) -> None:
    rules = Rules(Condition(), EVERYTHING)
    one, again, other = (
        sampler(untrained, seed).templates(context_of(untrained, 16), None, rules, 16).templates for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_draws_follow_the_network(untrained: WyckoffModel) -> None:
    """The share of each first element on a fixed site is the network's probability, as read in one go."""
    rules = Rules(Condition(space_group=221, max_atoms=1, allowed_elements=("Na", "K", "Rb", "Cs")), EVERYTHING)
    allowed = np.zeros(104, dtype=np.bool_)
    allowed[[11, 19, 37, 55]] = True
    rules.allowed = allowed
    drawn = sampler(untrained).templates(context_of(untrained, 4000), None, rules, 4000).templates
    assert {t.group for t in drawn} == {221}
    # site a or b, then an element: the probabilities by reading START, group, site at once
    seen = Counter((t.sites[0], t.numbers[0]) for t in drawn)
    for site in (0, 1):
        of_site = sum(count for (s, _), count in seen.items() if s == site)
        sequence = tk.encode([_form(221, site, 11)])
        inputs, _, _ = inputs_of(sequence)
        logits = untrained(inputs, context_of(untrained, 1))[0, 2, tk.ELEMENT_AT : tk.VOLUME_AT]
        p = torch.softmax(logits[[10, 18, 36, 54]], 0)
        for z, expected in zip((11, 19, 37, 55), p.tolist(), strict=True):
            assert seen[site, z] / of_site == pytest.approx(expected, abs=4 * (0.25 / of_site) ** 0.5)


def test_geometries_belong_to_their_templates(untrained: WyckoffModel) -> None:
    draw = sampler(untrained)
    drawn = draw.templates(context_of(untrained, 1), None, Rules(Condition(max_atoms=12), EVERYTHING), 200)
    which = list(range(0, len(drawn.templates), 2))
    found = dict(draw.geometries(drawn, which, 5, 1.0))
    assert sorted(found) == which
    different = []
    for place, forms in found.items():
        template = drawn.templates[place]
        sites = wyckoff_sites(template.group)
        free = [len(sites[s].free) for s in template.sites]
        assert len(forms) == (5 if sum(free) else 1)
        for form in forms:
            assert (form.group, form.sites, form.numbers) == (template.group, template.sites, template.numbers)
            assert [len(p) for p in form.parameters] == free
            assert all(0 <= v < 1 for p in form.parameters for v in p)
        if sum(free):
            different.append(len({form.parameters for form in forms}) > 1)
    assert np.mean(different) > 0.9


def test_geometries_follow_the_network_that_reads_the_whole_template(untrained: WyckoffModel) -> None:
    only = Rules(Condition(composition="NaCl", space_group=225, max_atoms=2), EVERYTHING)
    draw = sampler(untrained)
    drawn = draw.templates(context_of(untrained, 1), None, only, 4000)
    volumes: dict[tuple[int, ...], list[float]] = {}
    for place, forms in draw.geometries(drawn, range(len(drawn.templates)), 1, 1.0):
        relative = tk.cell_volumes(forms) / tk.predicted_volumes(forms)
        volumes.setdefault(drawn.templates[place].numbers, []).append(float(np.log(relative[0])))
    assert len(volumes) == 2  # sodium on a or on b
    for numbers, found in volumes.items():
        form = WyckoffForm(225, (0, 1), numbers, (5.64,) * 3 + (90.0,) * 3, ((), ()))
        inputs, _, _ = inputs_of(tk.encode([form]))
        with torch.no_grad():
            logits = untrained(inputs, context_of(untrained, 1))[0, -1, tk.VOLUME_AT : tk.VOLUME_AT + tk.VOLUMES]
        p = torch.softmax(logits, 0).numpy()
        bins = [tk.binned(tk.Slot.VOLUME, value) for value in found]
        seen = np.bincount(bins, minlength=tk.VOLUMES) / len(found)
        assert np.abs(np.cumsum(seen) - np.cumsum(p)).max() < 1.95 / len(found) ** 0.5  # Kolmogorov and Smirnov, 0.1 %


def test_guidance_sharpens_what_the_wish_raises(untrained: WyckoffModel) -> None:
    wish = Condition.parse({"properties": [{"property": "band_gap", "low": 2.0}]})
    wishes = Wishes.from_condition(wish, untrained.encoder.scales, 2000)
    rules = Rules(Condition(max_atoms=6), EVERYTHING)
    with torch.no_grad():
        wanted, open_ = untrained.context(wishes), untrained.context(wishes.without_properties())
    groups = []
    for guidance in (0.0, 30.0):
        draw = Sampler(untrained, torch.Generator().manual_seed(0), guidance)
        groups.append([t.group for t in draw.templates(wanted, open_, rules, 2000).templates])
    sequence = inputs_of(tk.encode([_form(221, 0, 11)]))[0]
    with torch.no_grad():
        start = [untrained(sequence, c.rows(torch.tensor([0])))[0, 0, 1:231].log_softmax(0) for c in (wanted, open_)]
    gain = (start[0] - start[1]).numpy()
    assert gain[np.array(groups[1]) - 1].mean() > gain[np.array(groups[0]) - 1].mean()


def _form(group: int, site: int, number: int) -> WyckoffForm:
    return WyckoffForm(group, (site,), (number,), (5.0, 5.0, 5.0, 90.0, 90.0, 90.0), ((),))

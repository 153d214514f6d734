"""What is wanted of a crystal, as the context of a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paragenesis.engine.generators import Condition
from paragenesis.engine.generators.learned.context import Adapter, ContextEncoder, PropertyScale, Wishes
from paragenesis.errors import InputError

GAPS = np.concatenate([np.zeros(600), np.linspace(0.1, 6.0, 400), [np.nan] * 50])


@pytest.fixture(scope="module")
def scale() -> PropertyScale:
    return PropertyScale.of("band_gap", GAPS)


def test_a_frequent_value_has_a_bin_of_its_own(scale: PropertyScale) -> None:
    metals = scale.mask(0.0, 0.0)
    assert metals.sum() == 1
    assert metals[scale.bin_of(np.array(0.1))] == 0
    known = GAPS[np.isfinite(GAPS)]
    assert np.bincount(scale.bin_of(known[known > 0])).max() < 150


def test_a_range_opens_every_bin_that_it_touches(scale: PropertyScale) -> None:
    mask = scale.mask(1.0, 2.0)
    assert mask[scale.bin_of(np.array([1.0, 1.5, 2.0]))].all()
    assert not mask[scale.bin_of(np.array([0.0, 6.0]))].any()
    assert scale.mask(None, None).all()
    assert scale.mask(1.0, None)[-1] == 1
    assert scale.mask(None, 1.0)[0] == 1


def test_a_property_of_one_value_is_refused() -> None:
    with pytest.raises(InputError, match="'band_gap' is known of 2 crystals"):
        PropertyScale.of("band_gap", np.array([1.0, 1.0, np.nan]))


def test_no_wish_is_silent_and_a_wish_is_not(scale: PropertyScale) -> None:
    encoder = ContextEncoder([scale], 16)
    nothing = encoder(Wishes.from_condition(Condition(), [scale], 3))
    assert torch.equal(nothing.vector, encoder.open.expand(3, -1))
    gap = Condition.parse({"properties": [{"property": "band_gap", "low": 1.0, "high": 2.0}]})
    wishes = Wishes.from_condition(gap, [scale], 3)
    assert not torch.allclose(encoder(wishes).vector, nothing.vector)
    assert torch.equal(encoder(wishes.without_properties()).vector, nothing.vector)


def test_composition_and_system_are_told_and_stay_when_properties_go(scale: PropertyScale) -> None:
    encoder = ContextEncoder([scale], 16)
    contexts = [
        encoder(Wishes.from_condition(Condition.parse(parts), [scale], 1).without_properties()).vector
        for parts in ({}, {"composition": "MgO"}, {"composition": "MgO2"}, {"chemical_system": "Mg-O"})
    ]
    for i, one in enumerate(contexts):
        for other in contexts[:i]:
            assert not torch.allclose(one, other)


def test_an_unknown_property_is_an_error(scale: PropertyScale) -> None:
    condition = Condition.parse({"properties": [{"property": "colour", "value": 1.0}]})
    with pytest.raises(InputError, match=r"know nothing of the property 'colour'.*band_gap.*adapter"):
        Wishes.from_condition(condition, [scale], 2)


def test_training_wishes_always_hold_the_true_value(scale: PropertyScale) -> None:
    rng = np.random.default_rng(0)
    values = rng.choice(GAPS, 4000)
    wishes = Wishes.for_training([scale], {"band_gap": values}, np.full((4000, 104), 1 / 104), rng)
    bins = wishes.bins["band_gap"].numpy()
    known = np.isfinite(values)
    assert bins[np.arange(4000)[known], scale.bin_of(values[known])].all()
    assert bins[~known].all()  # a missing label wishes nothing
    told = bins[known].sum(1)
    assert 0.2 < (told == 1).mean() < 0.5
    assert 0.35 < (told == scale.bins).mean() < 0.6
    assert ((told > 1) & (told < scale.bins)).mean() > 0.1
    given = (wishes.fractions.sum(1) > 0).float().mean()
    assert 0.1 < given < 0.2
    assert not ((wishes.fractions.sum(1) > 0) & (wishes.system.sum(1) > 0)).any()


def test_an_adapter_changes_nothing_until_it_is_asked(scale: PropertyScale) -> None:
    encoder = ContextEncoder([], 16)
    before = encoder(Wishes.from_condition(Condition(), [], 2)).vector
    adapter = Adapter(scale, 16, layers=2, tokens=8)
    torch.nn.init.normal_(adapter.context.weight)
    torch.nn.init.normal_(adapter.steering.weight)
    encoder.adapters["band_gap"] = adapter
    silent = encoder(Wishes.from_condition(Condition(), encoder.all_scales, 2))
    assert torch.equal(silent.vector, before)
    assert silent.steering is not None
    assert not silent.steering.any()
    asked = Condition.parse({"properties": [{"property": "band_gap", "value": 2.0}]})
    loud = encoder(Wishes.from_condition(asked, encoder.all_scales, 2))
    assert loud.steering is not None
    assert loud.steering.abs().min() > 0

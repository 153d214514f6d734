"""How the Wyckoff transformer learns, on a handful of crystals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paragenesis.crystals import Crystals
from paragenesis.engine.generators import Condition
from paragenesis.engine.generators.learned.data import TrainingSet, training_set
from paragenesis.engine.generators.learned.training import TrainSettings, train
from paragenesis.engine.generators.wyckoff import tokens as tk
from paragenesis.engine.generators.wyckoff.build import to_crystals
from paragenesis.engine.generators.wyckoff.form import WyckoffForm, wyckoff_forms
from paragenesis.engine.generators.wyckoff.generator import Wyckoff, WyckoffSettings
from paragenesis.engine.generators.wyckoff.memory import template_number
from paragenesis.engine.generators.wyckoff.tokens import Slot
from paragenesis.engine.generators.wyckoff.trainee import WyckoffTrainee, kindred
from paragenesis.errors import InputError

SMALL = {"width": 24, "layers": 2, "heads": 2, "context": 16, "dropout": 0.0, "validation": 0.1}
METALS, ANIONS = (3, 11, 19, 37, 12, 20, 38, 56), (9, 17, 35, 8, 16)


def halides() -> Crystals:
    """Rocksalt and rutile types of many elements."""
    forms = [
        WyckoffForm(225, (0, 1), (m, x), (5.0 + 0.02 * m,) * 3 + (90.0,) * 3, ((), ())) for m in METALS for x in ANIONS
    ]
    forms += [
        WyckoffForm(136, (0, 5), (m, x), (4.8 + 0.02 * m, 4.8 + 0.02 * m, 3.1, 90, 90, 90), ((), (0.3,)))
        for m in METALS
        for x in ANIONS
    ]
    return to_crystals(forms)


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    crystals = halides()
    stable = np.repeat([0.0, 0.1], len(crystals) // 2)
    gap = np.tile([6.0, 4.0, 3.0, 2.0, 1.0], len(crystals) // 5)
    return training_set(crystals, {"energy_above_hull": stable, "band_gap": gap}, licence="made up")


@pytest.fixture(scope="module")
def trained(data: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {**SMALL, "properties": ["energy_above_hull"], "substituted": 0.1}
    trainee = WyckoffTrainee(data, options, seed=0, batch=16)
    before = trainee.validation()["loss"]
    settings = TrainSettings(epochs=25, learning_rate=1e-2, warmup=10, ema=0.9, batch=16, device="cpu")
    path = train(trainee, settings, tmp_path_factory.mktemp("trained"))
    after = WyckoffTrainee(data, options, 0, 16, path).validation()["loss"]
    assert after < 0.5 * before
    return path


def test_what_was_learned_is_drawn(trained: Path) -> None:
    generator = Wyckoff(WyckoffSettings(weights=str(trained), known="allow", batch=64))
    crystals = generator.generate(20, Condition(), seed=0)
    assert len(crystals) == 20
    types = [origin.split(":")[0] for origin in crystals.origins]
    assert sum("(225)" in t or "(136)" in t for t in types) > 15


def test_the_wished_property_is_followed(trained: Path) -> None:
    generator = Wyckoff(WyckoffSettings(weights=str(trained), known="allow", batch=64))
    shares = []
    for value in (0.0, 0.1):  # the rocksalts are on the hull, the rutiles 0.1 above it
        wish = {"properties": [{"property": "energy_above_hull", "value": value}], "guidance": 1.0}
        crystals = generator.generate(24, Condition.parse(wish), seed=0)
        shares.append(np.mean(["(225)" in origin for origin in crystals.origins]))
    assert shares[0] > shares[1] + 0.4


def test_training_crystals_are_avoided(trained: Path, data: TrainingSet) -> None:
    generator = Wyckoff(WyckoffSettings(weights=str(trained), element_temperature=2.0))
    crystals = generator.generate(10, Condition(), seed=0)
    assert generator.tally.known > 0
    forms = [form for form in wyckoff_forms(crystals) if isinstance(form, WyckoffForm)]
    assert len(forms) == 10
    assert not {template_number(form) for form in forms} & set(generator.checkpoint.tensors["known"].tolist())


def test_a_campaigns_crystals_teach(trained: Path, tmp_path: Path) -> None:
    generator = Wyckoff(WyckoffSettings(weights=str(trained), batch=64))
    new = to_crystals(
        [WyckoffForm(221, (0, 1), (m, x), (4.1,) * 3 + (90.0,) * 3, ((), ())) for m in (55, 81) for x in (17, 35, 53)]
    )
    labels = {"energy_above_hull": np.zeros(len(new))}
    path = generator.learn(new, labels, out=tmp_path / "new.safetensors", seed=0)
    again = generator.learn(new, labels, out=tmp_path / "again.safetensors", seed=0)
    assert path.read_bytes() == again.read_bytes()
    learned = generator.with_weights(path)
    before, after = generator.checkpoint.tensors, learned.checkpoint.tensors
    assert len(after["known"]) == len(before["known"]) + len(new)
    assert set(before["templates"].tolist()) <= set(after["templates"].tolist())
    assert {53, 55, 81} <= set(np.flatnonzero(learned.learned_elements).tolist())
    assert len(Wyckoff(WyckoffSettings(weights=str(path), known="allow")).generate(3, Condition(), seed=0)) == 3


def test_an_adapter_adds_a_property_and_leaves_the_rest_alone(trained: Path, data: TrainingSet, tmp_path: Path) -> None:
    trainee = WyckoffTrainee(data, {"adapter": "band_gap", "substituted": 0.0}, 0, 16, trained)
    assert trainee.kind == "adapter"
    base = {k: v.clone() for k, v in trainee.model.state_dict().items() if ".adapters." not in k}
    settings = TrainSettings(epochs=60, learning_rate=3e-2, warmup=5, ema=0.8, batch=16, device="cpu")
    path = train(trainee, settings, tmp_path)
    after = trainee.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in base.items())
    assert path.name == "adapter.safetensors"
    assert path.stat().st_size < trained.stat().st_size
    plain = Wyckoff(WyckoffSettings(weights=str(trained), known="allow", batch=64))
    adapted = Wyckoff(WyckoffSettings(weights=str(trained), adapters=(str(path),), known="allow", batch=64))
    assert plain.generate(8, Condition(), 0) == adapted.generate(8, Condition(), 0)
    fluorides = []
    for value in (6.0, 1.0):  # fluorides have a gap of 6, sulphides one of 1
        wish = {"properties": [{"property": "band_gap", "value": value}], "guidance": 2.0}
        crystals = adapted.generate(20, Condition.parse(wish), seed=1)
        fluorides.append(np.mean(["F" in c.chemical_system.split("-") for c in crystals.compositions]))
    assert fluorides[0] > fluorides[1] + 0.3


def test_an_adapter_of_other_weights_is_refused(trained: Path, data: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs weights"):
        WyckoffTrainee(data, {**SMALL, "adapter": "band_gap"}, 0, 16)
    with pytest.raises(InputError, match="know the property 'energy_above_hull' already"):
        WyckoffTrainee(data, {"adapter": "energy_above_hull"}, 0, 16, trained)
    with pytest.raises(InputError, match="no column 'colour'"):
        WyckoffTrainee(data, {"adapter": "colour"}, 0, 16, trained)


def test_epochs_are_deterministic_and_hold_every_crystal_once(data: TrainingSet) -> None:
    trainee = WyckoffTrainee(data, {**SMALL, "origins": 0.5, "substituted": 0.3}, seed=3, batch=16)
    one, again = (list(trainee.batches(4)) for _ in range(2))
    assert sum(len(b.targets) for b in one) == len(trainee.train_rows)
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a.inputs.tokens, b.inputs.tokens)
        assert torch.equal(a.wishes.bins["band_gap"], b.wishes.bins["band_gap"])
    other = list(trainee.batches(5))
    assert any(not torch.equal(a.targets, b.targets) for a, b in zip(one, other, strict=True))


def test_a_composition_is_either_learned_or_validated(data: TrainingSet) -> None:
    trainee = WyckoffTrainee(data, SMALL, seed=0, batch=16)
    formulas = np.array([tuple(np.round(f, 6)) for f in trainee.fractions])
    learned = {tuple(f) for f in formulas[trainee.train_rows]}
    held = {tuple(f) for f in formulas[trainee.validation_rows]}
    assert held
    assert not learned & held


def test_exchanged_elements_are_marked_and_lose_their_labels(data: TrainingSet) -> None:
    trainee = WyckoffTrainee(data, {**SMALL, "substituted": 1.0, "origins": 0.0}, seed=0, batch=16)
    known = {tuple(sorted(form.numbers)) for form in trainee.forms}
    for batch in trainee.batches(0):
        assert batch.synthetic.all()
        assert all(bins.all() for bins in batch.wishes.bins.values())
        element = batch.inputs.following == Slot.ELEMENT
        for row, chosen in zip(batch.targets, element, strict=True):
            numbers = (row[chosen] - tk.ELEMENT_AT + 1).tolist()
            assert len(numbers) == 2
            assert any(len(set(numbers) & set(pair)) == 1 for pair in known)


@pytest.mark.parametrize(
    ("number", "some", "none"), [(11, (3, 19, 37), (12, 1, 10)), (64, (57, 71), (39, 95)), (8, (16, 34), (7, 9))]
)
def test_kindred_elements_are_of_the_same_group(number: int, some: tuple[int, ...], none: tuple[int, ...]) -> None:
    found: Any = set(kindred(number))
    assert set(some) <= found
    assert not set(none) & found
    assert number not in found

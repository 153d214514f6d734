from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.flow.trainee import FlowTrainee, split_by_formula
from paragenesis.engine.generators.flow.weights import load_network, read_templates
from paragenesis.engine.generators.learned.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from paragenesis.engine.generators.learned.data import TrainingSet, training_set
from paragenesis.engine.generators.learned.training import TrainSettings, train
from paragenesis.errors import InputError


def test_compositions_are_split_and_not_entries() -> None:
    formulas = [f"A{i % 30}" for i in range(90)]
    split = split_by_formula(formulas, 5, 3)
    assert len(split.held_out) == 5
    sides = [{formulas[i] for i in side} for side in (split.training, split.validating)]
    assert sides[0].isdisjoint(sides[1])
    assert not (sides[0] | sides[1]) & set(split.held_out)
    assert split_by_formula(formulas[::-1], 5, 3).held_out == split.held_out


def test_too_few_compositions_are_refused(tiny_flow: dict[str, int], classic_data: TrainingSet) -> None:
    with pytest.raises(InputError, match="too few to hold out 500"):
        FlowTrainee(classic_data, {**tiny_flow, "held_out": 500}, 0, 8)


def test_epochs_have_the_crystals_once_in_an_order_of_their_own(
    tiny_flow: dict[str, int], classic_data: TrainingSet
) -> None:
    trainee = FlowTrainee(classic_data, tiny_flow, 0, 4)
    batches = [list(trainee.batches(epoch)) for epoch in (0, 0, 1)]
    assert len(batches[0]) == trainee.steps_per_epoch == len(batches[2])
    frac = [torch.cat([b.state.frac.flatten() for b in some]) for some in batches]
    assert torch.equal(frac[0], frac[1])
    assert not torch.equal(frac[0], frac[2])
    assert sum(len(b.state) for b in batches[0]) == len(trainee.split.training)


def test_training_writes_a_checkpoint_that_knows_its_crystals(
    tiny_flow: dict[str, int], classic_data: TrainingSet, tmp_path: Path
) -> None:
    trainee = FlowTrainee(classic_data, {**tiny_flow, "held_out": 2}, 0, 8)
    before = trainee.validation()["loss"]
    path = train(trainee, TrainSettings(epochs=12, batch=8, warmup=2, ema=0.5, device="cpu"), tmp_path)
    checkpoint = load_checkpoint(path, "flow")
    assert trainee.validation()["loss"] < before
    assert len(checkpoint.config["held_out"]) == 2
    cells = checkpoint.config["cells"]
    assert cells["5"].keys() == {"5"}  # perovskites
    assert cells["2"].keys() <= {"2", "4"}  # wurtzite has two formula units
    templates = read_templates(checkpoint.tensors)
    assert sum(templates.values()) == len(trainee.split.training)
    assert {t.group for t in templates} <= {136, 186, 216, 221, 225}
    network = load_network(checkpoint)
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor, checkpoint.tensors[name])


def test_training_goes_on_from_weights_with_their_held_out_compositions(weights: Path, classics: Crystals) -> None:
    few = training_set(classics[:3], {"band_gap": np.array([1.0, np.nan, 2.0])})
    trainee = FlowTrainee(few, {}, 0, 8, weights)
    assert [s.name for s in trainee.network.encoder.scales] == ["band_gap"]
    assert trainee.config()["held_out"] == load_checkpoint(weights, "flow").config["held_out"]
    assert sum(read_templates(trainee.extras()).values()) > 3
    json.dumps(trainee.config(), allow_nan=False)


def test_an_adapter_leaves_the_weights_alone(weights: Path, classics: Crystals, tmp_path: Path) -> None:
    from paragenesis.engine.generators.condition import Condition, PropertyRange
    from paragenesis.engine.generators.flow.generator import Flow, FlowSettings

    hardness = training_set(classics, {"hardness": np.linspace(1.0, 9.0, len(classics))})
    trainee = FlowTrainee(hardness, {"adapter": "hardness"}, 0, 8, weights)
    before = {name: t.clone() for name, t in trainee.model.state_dict().items() if ".adapters." not in name}
    path = train(trainee, TrainSettings(epochs=2, batch=8, warmup=1, device="cpu"), tmp_path)
    assert path.name == "adapter.safetensors"
    assert all(torch.equal(trainee.model.state_dict()[name], tensor) for name, tensor in before.items())
    generator = Flow(FlowSettings(weights=str(weights), adapters=(str(path),), steps=3, closest=0.0))
    assert len(generator.generate(2, Condition(properties=(PropertyRange(property="hardness", low=5.0),)), 0)) == 2


def test_an_adapter_of_other_weights_is_refused(weights: Path, classics: Crystals, tmp_path: Path) -> None:
    from paragenesis.engine.generators.learned.weights import with_adapter

    hardness = training_set(classics, {"hardness": np.linspace(1.0, 9.0, len(classics))})
    trainee = FlowTrainee(hardness, {"adapter": "hardness"}, 0, 8, weights)
    path = tmp_path / "adapter.safetensors"
    save_checkpoint(path, Checkpoint("adapter", trainee.config(), trainee.tensors(), {}))
    network = load_network(load_checkpoint(weights, "flow"))
    with torch.no_grad():
        network.mean += 1.0
    with pytest.raises(InputError, match="train it for these"):
        with_adapter(network, load_checkpoint(path, "adapter"))

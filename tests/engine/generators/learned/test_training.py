"""A training that is killed goes on as if nothing had happened; what spoils it is skipped, counted and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paragenesis.engine.generators.learned.checkpoint import load_checkpoint
from paragenesis.engine.generators.learned.learner import Learner, moved
from paragenesis.engine.generators.learned.training import FINE_TUNE, TrainSettings, fine_tune, train
from paragenesis.errors import ExecutionError, InputError

SETTINGS = TrainSettings(epochs=6, learning_rate=2e-2, warmup=4, ema=0.9, threads=1, device="cpu")
Make = Callable[..., Any]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path, "tiny").tensors


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def test_training_lowers_the_validation_loss_and_keeps_the_best_weights(tiny_trainee: Make, tmp_path: Path) -> None:
    path = train(tiny_trainee(), SETTINGS.model_copy(update={"epochs": 20}), tmp_path)
    lines = log(tmp_path)
    losses = [line["validation"]["loss"] for line in lines]
    assert [line["epoch"] for line in lines] == list(range(1, 21))
    assert min(losses) < 0.5 * losses[0]
    again = tiny_trainee(weights=path)
    again.model.eval()
    with torch.no_grad():
        loss = again.validation()["loss"]
    assert loss == pytest.approx(min(losses), rel=1e-6)
    assert load_checkpoint(path, "tiny").card["metrics"]["loss"] == min(losses)


@pytest.mark.parametrize("every", [1, 2])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    tiny_trainee: Make, tmp_path: Path, every: int
) -> None:
    settings = SETTINGS.model_copy(update={"checkpoint_every": every})
    undisturbed = train(tiny_trainee(), settings, tmp_path / "a")
    killed = tiny_trainee()
    killed.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        train(killed, settings, tmp_path / "b")
    assert not (tmp_path / "b" / "tiny.safetensors").exists()
    torch.manual_seed(99)  # another process would start from another state
    resumed = train(tiny_trainee(), settings, tmp_path / "b")
    assert same(weights(undisturbed), weights(resumed))
    assert [line["loss"] for line in log(tmp_path / "a")] == [line["loss"] for line in log(tmp_path / "b")]


def test_a_finished_training_is_not_repeated(tiny_trainee: Make, tmp_path: Path) -> None:
    first = weights(train(tiny_trainee(), SETTINGS, tmp_path))
    said: list[Any] = []
    assert same(first, weights(train(tiny_trainee(), SETTINGS, tmp_path, said.append)))
    assert not said


def test_the_seed_decides_the_weights_and_torch_is_left_as_it_was(tiny_trainee: Make, tmp_path: Path) -> None:
    trainees = [tiny_trainee(), tiny_trainee(), tiny_trainee()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b = (weights(train(t, SETTINGS, tmp_path / n)) for t, n in zip(trainees[:2], "ab", strict=True))
    other = weights(train(trainees[2], SETTINGS.model_copy(update={"seed": 1}), tmp_path / "c"))
    assert same(a, b)
    assert not same(a, other)
    assert torch.equal(torch.rand(3), expected)


def test_another_training_in_the_folder_is_refused(tiny_trainee: Make, tmp_path: Path) -> None:
    train(tiny_trainee(), SETTINGS, tmp_path, card={"data": {"digest": "abc"}})
    slower = SETTINGS.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(InputError, match=r"another learning_rate \(learning_rate 0.02, now 0.001\)"):
        train(tiny_trainee(), slower, tmp_path, card={"data": {"digest": "abc"}})
    with pytest.raises(InputError, match="another data"):
        train(tiny_trainee(), SETTINGS, tmp_path, card={"data": {"digest": "xyz"}})
    (tmp_path / "state.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"cannot be read .* another --out"):
        train(tiny_trainee(), SETTINGS, tmp_path)


def test_a_limit_of_minutes_stops_early_and_more_minutes_go_on(tiny_trainee: Make, tmp_path: Path) -> None:
    short = SETTINGS.model_copy(update={"minutes": 1e-9})
    path = train(tiny_trainee(), short, tmp_path)
    assert load_checkpoint(path, "tiny").card["training"]["epochs"] == 1
    train(tiny_trainee(), SETTINGS, tmp_path)
    undisturbed = train(tiny_trainee(), SETTINGS, tmp_path / "whole")
    assert same(weights(path), weights(undisturbed))


def test_spoilt_steps_change_nothing_and_are_counted(tiny_trainee: Make, tmp_path: Path) -> None:
    trainee = tiny_trainee()
    learner = Learner(trainee, SETTINGS, torch.device("cpu"), 12)
    trainee.spoilt = lambda step: step == 7
    learner.learn(trainee.batches(0))
    before = {name: p.detach().clone() for name, p in trainee.model.named_parameters()}
    learner.learn(list(trainee.batches(1))[:1])
    assert same(before, dict(trainee.model.named_parameters()))
    assert (learner.step, learner.skipped) == (7, 1)
    loss = learner.learn(list(trainee.batches(1))[1:])
    assert not same(before, dict(trainee.model.named_parameters()))
    assert loss == loss
    spoilt = tiny_trainee()
    spoilt.spoilt = lambda step: step in (3, 9)
    path = train(spoilt, SETTINGS, tmp_path)
    assert load_checkpoint(path, "tiny").card["training"]["skipped_steps"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in weights(path).values())


def test_many_spoilt_steps_in_a_row_end_the_training(tiny_trainee: Make, tmp_path: Path) -> None:
    trainee = tiny_trainee()
    trainee.spoilt = lambda step: step > 3
    with pytest.raises(ExecutionError, match=r"not finite in .* steps in a row"):
        train(trainee, SETTINGS.model_copy(update={"max_skipped": 5}), tmp_path)


def test_a_validation_that_is_never_finite_is_an_error(tiny_trainee: Make, tmp_path: Path) -> None:
    trainee = tiny_trainee()
    trainee.validation = lambda: {"loss": float("nan")}
    with pytest.raises(ExecutionError, match="no validation in 6 epochs gave a finite loss"):
        train(trainee, SETTINGS, tmp_path)
    assert log(tmp_path)[0]["validation"] == {"loss": None}
    trainee.validation = lambda: {"accuracy": 1.0}
    with pytest.raises(InputError, match="returned no 'loss'"):
        train(trainee, SETTINGS, tmp_path / "b")


def test_fine_tuning_is_never_worse_by_validation_and_its_file_is_the_same_every_time(
    tiny_trainee: Make, tmp_path: Path
) -> None:
    start = train(tiny_trainee(), SETTINGS, tmp_path)
    quick = FINE_TUNE.model_copy(update={"device": "cpu", "threads": 1})
    a = fine_tune(tiny_trainee(weights=start), tmp_path / "a.safetensors", quick)
    b = fine_tune(tiny_trainee(weights=start), tmp_path / "b.safetensors", quick)
    assert a.read_bytes() == b.read_bytes()
    before, after = (load_checkpoint(p, "tiny").card["metrics"]["loss"] for p in (start, a))
    assert after <= before
    wild = quick.model_copy(update={"learning_rate": 1e3, "ema": 0.0})
    kept = fine_tune(tiny_trainee(weights=start), tmp_path / "c.safetensors", wild)
    assert same(weights(kept), weights(start))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_only_the_parameters_that_the_trainee_names_are_trained(tiny_trainee: Make, tmp_path: Path) -> None:
    trainee = tiny_trainee()
    before = {name: p.detach().clone() for name, p in trainee.model.named_parameters()}
    trainee.parameters = lambda: trainee.model[-1].parameters()
    trainee.tensors = lambda: {"4.weight": trainee.model[-1].weight}
    trainee.extras = lambda: {"table": torch.arange(3)}
    found = weights(train(trainee, SETTINGS, tmp_path))
    changed = {name for name, p in trainee.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"4.weight", "4.bias"}
    assert found.keys() == {"4.weight", "table"}


def test_matrices_decay_and_norms_and_biases_do_not(tiny_trainee: Make) -> None:
    trainee = tiny_trainee()
    trainee.loss = lambda batch, generator: 0.0 * trainee.model(batch[0]).sum()
    learner = Learner(trainee, SETTINGS.model_copy(update={"weight_decay": 0.5}), torch.device("cpu"), 100)
    before = {name: p.detach().clone() for name, p in trainee.model.named_parameters()}
    learner.learn(trainee.batches(0))
    shrunk = {n for n, p in trainee.model.named_parameters() if p.abs().sum() < before[n].abs().sum()}
    assert shrunk == {"0.weight", "4.weight"}


def test_the_learning_rate_rises_and_falls_to_nothing(tiny_trainee: Make) -> None:
    learner = Learner(tiny_trainee(), SETTINGS, torch.device("cpu"), 100)
    rates = []
    for learner.step in range(101):
        rates.append(learner.rate)
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == rates[4] == 0.02
    assert rates[100] == pytest.approx(0.0)


def test_batches_of_any_make_go_to_the_device() -> None:
    from collections import namedtuple
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Inner:
        x: torch.Tensor
        name: str

    pair = namedtuple("pair", "a b")
    batch = {"a": (Inner(torch.ones(2), "n"), [torch.ones(1)]), "b": pair(torch.ones(3), 7)}
    there = moved(batch, "meta")
    assert there["a"][0].x.device.type == there["a"][1][0].device.type == there["b"].a.device.type == "meta"
    assert (there["a"][0].name, there["b"].b) == ("n", 7)


def test_unknown_devices_are_refused(tiny_trainee: Make, tmp_path: Path) -> None:
    for device, said in (("abacus", "there is no device 'abacus'"), ("cuda", "torch sees no GPU")):
        if device == "cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(InputError, match=said):
            train(tiny_trainee(), SETTINGS.model_copy(update={"device": device}), tmp_path)

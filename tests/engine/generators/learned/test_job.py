"""What is typed becomes a training: names, settings that suit, options, and what the card will say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.learned.checkpoint import load_checkpoint
from paragenesis.engine.generators.learned.data import TrainingSet
from paragenesis.engine.generators.learned.job import TrainingJob, parse_words
from paragenesis.errors import InputError

TRAINEE = """
import torch
from torch import nn

class Mean:
    kind = "mean"
    defaults = {"epochs": 3, "learning_rate": 0.1, "device": "cpu"}

    def __init__(self, data, options, seed, batch, weights=None):
        self.model, self.batch = nn.Linear(1, 1), batch
        self.target = options["target"] / options.get("divisor", 1)

    def batches(self, epoch):
        yield torch.ones(self.batch, 1)

    def loss(self, batch, generator):
        return ((self.model(batch) - self.target) ** 2).mean()

    def validation(self):
        return {"loss": float(self.loss(torch.ones(1, 1), None))}

    def config(self):
        return {"target": self.target}

class Half:
    def __init__(self, data, options, seed, batch, weights=None):
        self.kind = "half"

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(TRAINEE)
    return tmp_path


def parse(folder: Path, name: str = "mine.py:Mean", given: dict[str, Any] | None = None, **rest: Any) -> TrainingJob:
    return TrainingJob.parse(name, folder / "out", given or {}, folder, **rest)


def data() -> TrainingSet:
    atom = Crystals(ids=("0",), n_atoms=np.array([1]), numbers=np.array([1]), frac=np.zeros(3), lattices=np.eye(3))
    return TrainingSet(atom, {}, "sha", ("t.csv",), "CC BY 4.0")


def test_a_job_trains_with_what_suits_the_generator_unless_told_otherwise(folder: Path) -> None:
    assert parse(folder).settings.epochs == 3
    job = parse(folder, given={"epochs": 2}, options={"target": 5.0}, command="paragenesis train mine.py:Mean")
    assert (job.settings.epochs, job.settings.learning_rate) == (2, 0.1)
    card = load_checkpoint(job.run(data()), "mean").card
    assert card["data"] == {
        "digest": "sha", "sources": ["t.csv"], "crystals": 1, "licence": "CC BY 4.0", "left_out": {},
    }  # fmt: skip
    assert card["command"] == "paragenesis train mine.py:Mean"
    assert card["training"]["parameters"] == 2
    assert "started_from" not in card


def test_other_options_or_other_weights_make_another_training(folder: Path) -> None:
    path = parse(folder, options={"target": 5.0}).run(data())
    with pytest.raises(InputError, match="another options"):
        parse(folder, options={"target": 5.0, "divisor": 1}).run(data())
    started = folder / "started.safetensors"
    started.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="another started_from"):
        parse(folder, options={"target": 5.0}, weights=started).run(data())


def test_what_cannot_be_trained_is_refused_with_a_reason(folder: Path) -> None:
    with pytest.raises(InputError, match="no trainable generator 'wykoff'; did you mean 'wyckoff'"):
        parse(folder, "wykoff")
    with pytest.raises(InputError, match=r"'mine\.py:number' is no trainee"):
        parse(folder, "mine.py:number")
    with pytest.raises(InputError, match=r"'mine\.py:Half' is no trainee: it has no model, batches, loss"):
        parse(folder, "mine.py:Half").run(data())
    with pytest.raises(InputError, match="cannot be made: KeyError: 'target'"):
        parse(folder).run(data())
    with pytest.raises(InputError, match="settings of the training: unknown key 'epoch'; did you mean 'epochs'"):
        parse(folder, given={"epoch": 1})
    with pytest.raises(InputError, match="there are no weights"):
        parse(folder, weights=folder / "none.safetensors")


def test_words_become_values() -> None:
    words = ["width=128", 'properties=["band_gap"]', "rate=1e-3", "name=a=b", "on=true"]
    expected = {"width": 128, "properties": ["band_gap"], "rate": 0.001, "name": "a=b", "on": True}
    assert parse_words(words, "--option") == expected
    with pytest.raises(InputError, match="--option 'width' should read like"):
        parse_words(["width"], "--option")

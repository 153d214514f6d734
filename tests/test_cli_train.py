"""`paragenesis train`: what a user types, sees and gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from paragenesis.cli import run_command
from paragenesis.engine.generators.learned.checkpoint import load_checkpoint

TRAINEE = """
import torch
from torch import nn

class Count:
    kind = "count"

    def __init__(self, data, options, seed, batch, weights=None):
        self.model, self.n = nn.Linear(1, 1), float(len(data)) * options["factor"]

    def batches(self, epoch):
        yield torch.ones(4, 1)

    def loss(self, batch, generator):
        return ((self.model(batch) - self.n) ** 2).mean()

    def validation(self):
        return {"loss": float(self.loss(torch.ones(1, 1), None))}

    def config(self):
        return {"n": self.n}
"""
CELL = 'Lattice="{a} 0 0 0 {a} 0 0 0 {a}" Properties=species:S:1:pos:R:3 pbc="T T T"'
EXTXYZ = "".join(f"2\n{CELL.format(a=a)}\nCs 0 0 0\nCl {a / 2} {a / 2} {a / 2}\n" for a in (4.1, 4.2))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(TRAINEE)
    (tmp_path / "salt.extxyz").write_text(EXTXYZ)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_writes_weights_and_goes_on_where_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "mine.py:Count", "--data", "salt.extxyz", "--out", "w", "--epochs", "3", "--device", "cpu"]
    command += ["--option", "factor=2", "--setting", "ema=0.5", "--licence", "CC0"]
    assert run_command(command) == 0
    said = capsys.readouterr().out
    assert "2 crystals to learn from" in said
    assert [line[:19] for line in said.splitlines()[1:4]] == [f"training: epoch {n}/3" for n in (1, 2, 3)]
    assert f"weights: {folder / 'w' / 'count.safetensors'}" in said
    found = load_checkpoint(folder / "w" / "count.safetensors", "count")
    assert found.config == {"n": 4.0}
    assert found.card["command"] == f"paragenesis {' '.join(command)}"
    assert found.card["data"]["licence"] == "CC0"
    assert found.card["training"]["settings"]["ema"] == 0.5
    assert run_command(command) == 0
    assert "epoch" not in capsys.readouterr().out


def test_train_refuses_what_cannot_be_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, said in (
        (["--data", "none.csv", "--out", "w"], "there is no training data 'none.csv'"),
        (["--data", "salt.extxyz", "--out", "mine.py"], "--out 'mine.py' is a file; give a folder"),
        (["--data", "salt.extxyz", "--out", "w", "--epochs", "0"], "'epochs'"),
        (["--data", "salt.extxyz", "--out", "w", "--from", "x.safetensors"], "there are no weights 'x.safetensors'"),
        (["--data", "salt.extxyz", "--out", "w", "--setting", "epochs"], "should read like"),
    ):
        assert run_command(["train", "mine.py:Count", *more]) == 2
        assert said in capsys.readouterr().err
    assert not (folder / "w").exists()

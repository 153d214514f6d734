"""The benchmark of decisions runs and says what it claims to."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

Script = Callable[[str], ModuleType]
Tables = Callable[[], dict[str, list[str]]]


def test_decisions_finds_the_front_of_a_table(script: Script, table: Tables, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    effect = rng.random((4, 5, 3))
    rows = [
        [*(f"R{j}_{k}" for j, k in enumerate(place)), *sum(effect[j, k] for j, k in enumerate(place))]
        for place in np.ndindex(5, 5, 5, 5)
    ]
    with (tmp_path / "redoxmers.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    arguments = f"--task redoxmers --data {tmp_path} --seeds 1 --strategies ehvi_dpp random"
    script("decisions").main(arguments.split())
    shares = {name: float(cells[1].split()[0]) for name, cells in table().items()}
    assert shares["random"] < shares["ehvi_dpp"] <= 1
    assert shares["ehvi_dpp"] > 0.9


def test_decisions_tells_what_triage_removes(script: Script, table: Tables) -> None:
    script("decisions").main(["--task", "honesty", "--seeds", "2"])
    removed = {name: float(cells[0].split()[0]) for name, cells in table().items()}
    assert removed["false hopes"] > 70
    assert removed["true hits"] < 5


def test_decisions_times_whole_calls(script: Script, table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = script("decisions")
    monkeypatch.setattr(decisions, "CALLS", ((200, 30, 3),))
    decisions.main(["--task", "calls", "--seeds", "2"])
    assert float(table()["200"][2].split()[0]) > 0


def crystals() -> tuple[pd.DataFrame, list[str]]:
    """A table as `mp20_pool` makes it; pooled features know the potential's error, composition and structure do not."""
    rng = np.random.default_rng(0)
    structure, pooled = rng.normal(size=(400, 4)), rng.normal(size=(400, 5))
    truth = structure[:, 0]
    table = pd.DataFrame(
        {
            "system": [f"A{i}" for i in range(400)],
            "formation_energy": truth,
            "energy_above_hull": np.maximum(structure[:, 1], 0.0),
            "band_gap": np.maximum(structure[:, 2], 0.0),
            "density": 6.0 + pooled[:, 1],
            **{f"x_{i}": column for i, column in enumerate(structure.T)},
            "p_formation_energy": truth - pooled[:, 0],
            "p_hull_distance": np.maximum(structure[:, 1], 0.0) - pooled[:, 0],
            **{f"p_{i}": column for i, column in enumerate(pooled.T)},
        }
    )
    return table, [name for name in table if name.startswith(("x_", "p_"))]


def test_features_that_know_the_error_lower_it(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decisions = script("decisions")
    monkeypatch.setattr(script("bench_features"), "mp20_pool", lambda *_: crystals())
    out = tmp_path / "out.json"
    decisions.main(f"--task features --data {tmp_path} --potential any --seeds 1 --sizes 60 --out {out}".split())
    residual = pd.DataFrame(json.loads(out.read_text())["residual"])
    ratio = residual[residual["outcome"] == "formation_energy"].groupby("set")["ratio"].mean()
    assert ratio["pooled"] < 0.5 < 0.9 < ratio["composition and structure"]
    assert "both and energies" not in ratio  # the potential's energy is the prior already
    outcome = pd.DataFrame(json.loads(out.read_text())["outcome"])
    by_set = outcome.groupby(["outcome", "set"])
    R2, precision = by_set["R2"].mean(), by_set["precision"].mean()
    assert R2["density", "pooled"] > 0.8 > 0.2 > R2["density", "composition and structure"]
    assert R2["band_gap", "composition and structure"] > 0.7 > 0.2 > R2["band_gap", "pooled"]
    assert precision["hit", "both"] > 1.5 * precision["hit", "pooled"]
    printed = capsys.readouterr().out
    assert printed.count("| --- |") == 5
    assert "| both and energies | 11 |" in printed


def test_what_is_measured_of_predictions(script: Script) -> None:
    features = script("bench_features")
    rng = np.random.default_rng(0)
    mean = rng.normal(size=100_000)
    found = features.judge(mean + 0.5 * rng.normal(size=100_000), mean, np.full(100_000, 0.5))
    assert found["coverage"] == pytest.approx(0.9, abs=0.005)
    assert found["R2"] == pytest.approx(0.8, abs=0.01)
    assert found["MAE"] == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=0.01)
    assert found["CRPS"] == pytest.approx(0.5 / np.sqrt(np.pi), rel=0.01)  # at best, of a normal
    good = np.array([False, True, False, True])
    assert features.average_precision(good, np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert features.average_precision(good, np.array([1.0, 4.0, 2.0, 3.0])) == 1.0


def test_calibration_holds_three_ways_against_each_other(
    script: Script, table: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = script("decisions")

    def skewed(*_: object) -> tuple[pd.DataFrame, list[str]]:
        pool, names = crystals()
        pool["band_gap"] = np.where(np.arange(400) % 3, 0.0, 3.0) * pool["x_2"]  # most errors are small
        return pool, names

    monkeypatch.setattr(script("bench_calibration"), "mp20_pool", skewed)
    decisions.main(f"--task calibration --data {tmp_path} --seeds 2 --sizes 80".split())
    rows = {name: [float(cell.split()[0]) for cell in cells] for name, cells in table().items()}
    normal, shaped = (rows[f"band_gap, 80, left out, {way}"] for way in ("normal", "recalibrated"))
    assert shaped[1] < 0.7 * normal[1]
    assert shaped[0] == pytest.approx(0.9, abs=0.08)
    assert rows["band_gap, 80, split, normal"][3] > normal[3]  # learnt from fewer

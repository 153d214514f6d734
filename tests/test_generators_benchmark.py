"""The benchmark of generators: it says what it claims to, goes on where it stopped, and its halves share nothing."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

SALTS = {"NaCl": 5.69, "KCl": 6.38, "NaBr": 6.0, "KBr": 6.7, "MgO": 4.25, "CaO": 4.84, "MgS": 5.2, "CaS": 5.72}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two tables of salts and a hull table."""
    from paragenesis.crystals import Crystals

    folder = tmp_path / "data"
    folder.mkdir()
    columns = ["material_id", "formation_energy_per_atom", "energy_above_hull", "band_gap", "cif"]
    atoms = {name: bulk(name, "rocksalt", a) for name, a in SALTS.items()}
    cifs = [s.to(fmt="cif") for s in Crystals.from_atoms(list(atoms.values())).to_structures()]
    rows = [[f"m-{i}", -1.0, 0.0, i / 2, cif] for i, cif in enumerate(cifs)]
    for name, part in (("mp20_train", rows[:4]), ("mpts52_train", rows[4:])):
        with gzip.open(folder / f"{name}.csv.gz", "wt", newline="") as file:
            csv.writer(file).writerows([columns, *part])
    with gzip.open(folder / "hull_reference.csv.gz", "wt", newline="") as file:
        elements = [[e, 0.0] for e in ("Na", "K", "Rb", "Cl", "Br", "Mg", "Ca", "Sr", "O", "S", "Se", "Li", "F", "I")]
        csv.writer(file).writerows([["formula", "formation_energy_per_atom"], *elements, *([n, -1.0] for n in SALTS)])
    return folder


@pytest.fixture
def words(data: Path, tmp_path: Path) -> list[str]:
    return ["--data", str(data), "--potentials", "lennard-jones", "--work", str(tmp_path / "work")]


def cells(text: str) -> dict[str, list[str]]:
    """The cells of each row of the printed table, by its first."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows[2:]}


def test_arms_against_each_other_and_again_from_the_work_file(
    script: Callable[[str], ModuleType],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arms = ["--arms", "substitution, one element", "substitution, aggressive"]
    more = ["--seeds", "0", "1", "--samples", "6", "--relax", "2", *arms, "--out", str(tmp_path / "out.json")]
    script("generators").main([*words, *more])
    said = capsys.readouterr()
    rows = cells(said.out)
    assert rows["returned of those asked for"] == ["100.0 (100.0 to 100.0)"] * 2
    assert rows["composition valid, SMACT"][0].startswith("100.0")
    assert "S.U.N., lennard-jones" in rows
    assert "symmetry free" in said.out or "fmax 0.1 eV/A" in said.out
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [(r["arm"], r["seed"]) for r in results] == [(arm, seed) for arm in arms[1:] for seed in (0, 1)]
    assert all(figure["low"] <= figure["value"] <= figure["high"] for r in results for figure in r["figures"])

    lines = (tmp_path / "work" / "work.jsonl").read_bytes()
    (tmp_path / "work" / "work.jsonl").write_bytes(lines + b'["half a line')
    monkeypatch.setattr(script("bench_arms").Arm, "generator", None)  # nothing is generated again
    script("generators").main([*words, *more])
    again = capsys.readouterr()
    assert again.out == said.out
    assert "relaxing" not in again.err
    assert (tmp_path / "work" / "work.jsonl").read_bytes() == lines


def test_one_element_is_exchanged_for_a_relative(
    script: Callable[[str], ModuleType], data: Path, tmp_path: Path
) -> None:
    arms, judge = script("bench_arms"), script("bench_judge")
    judge.Judge(judge.Setting(data, tmp_path / "work", ()), print).write_templates()
    generator = arms.ARMS[0].generator(tmp_path / "work")
    crystals = generator.generate(40, arms.Condition(), 0)
    assert crystals == generator.generate(40, arms.Condition(), 0)
    salts = {frozenset(bulk(name, "rocksalt", 5.0).numbers.tolist()) for name in SALTS}
    for crystal in crystals:
        present = frozenset(crystal.numbers.tolist())
        parents = [salt for salt in salts if len(salt & present) == 1]
        assert any(
            len(present - salt) == 1 and next(iter(present - salt)) in arms.relatives(next(iter(salt - present)))
            for salt in parents
        )
    assert {3, 19, 37, 55} <= set(arms.relatives(11).tolist()) <= {1, 3, 19, 37, 55}
    assert 57 in arms.relatives(64)
    assert 86 not in arms.relatives(54)


def test_halves_share_no_composition(script: Callable[[str], ModuleType], words: list[str], tmp_path: Path) -> None:
    from paragenesis.engine.generators.learned.data import read_training_set

    script("generators").main([*words, "--halves", str(tmp_path / "halves")])
    halves = [read_training_set([tmp_path / "halves" / f"half-{name}.csv.gz"]) for name in "ab"]
    a, b = (set(half.crystals.formulas) for half in halves)
    assert a | b == set(SALTS)
    assert not a & b
    assert all(np.isfinite(half.labels["band_gap"]).all() for half in halves)


def test_the_round_trip_of_simple_crystals_is_whole(
    script: Callable[[str], ModuleType], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    script("generators").main([*words, "--task", "round-trip", "--samples", "5", "--seeds", "0"])
    rows = cells(capsys.readouterr().out)
    assert rows["through forms"][0].startswith("100.0")
    assert rows["through tokens"][0].startswith("100.0")


def test_obedience_counts_what_was_asked_for_and_what_came(
    script: Callable[[str], ModuleType], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    more = [
        "--task",
        "obedience",
        "--arms",
        "substitution, aggressive",
        "--samples",
        "20",
        "--relax",
        "10",
        "--seeds",
        "0",
    ]
    script("generators").main([*words, *more])
    rows = cells(capsys.readouterr().out)
    asked, obeyed, *_ = rows["substitution, aggressive: composition"]
    assert asked == "20"
    assert obeyed.startswith("100.0")


class Copies:
    """Gives back crystals of the data, those with chlorine where a condition names a property."""

    def __init__(self, data: Path) -> None:
        from paragenesis.engine.generators.learned.data import read_training_set

        paths = [data / f"{name}_train.csv.gz" for name in ("mp20", "mpts52")]
        self.crystals = read_training_set(paths).crystals

    def generate(self, n: int, condition: Any, seed: int) -> Any:
        chosen = [i for i in range(8) if not condition.properties or 17 in self.crystals[i].numbers]
        if condition.composition:
            chosen = [i for i in chosen if self.crystals.formulas[i] == condition.composition]
        return self.crystals[[chosen[i % len(chosen)] for i in range(n)]]


def test_targets_are_judged_by_what_the_generator_did_not_see(
    script: Callable[[str], ModuleType],
    words: list[str],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks, seen = script("bench_tasks"), []

    class Trees:
        def __init__(self, judge: Any) -> None: ...

        def values(self, name: str, crystals: Any) -> np.ndarray:
            return np.array([1.5 if name == "band_gap" and "Cl" in f else 0.5 for f in crystals.formulas])

        def errors(self, name: str, low: float, high: float) -> dict[str, float]:
            seen.append((name, low, high))
            return {"n": 4.0}

    monkeypatch.setattr(tasks, "PropertyJudge", Trees)
    monkeypatch.setattr(script("bench_arms").Arm, "generator", lambda *_: Copies(data))
    (tmp_path / "half.safetensors").write_bytes(b"weights")
    more = ["--task", "targets", "--holdout", str(tmp_path / "half.safetensors"), "--samples", "8", "--relax", "2"]
    script("generators").main([*words, *more, "--seeds", "0"])
    rows = cells(capsys.readouterr().out)
    without, guided, ratio = rows["band gap, trees"]
    assert without.startswith("25.0")  # NaCl and KCl among eight
    assert guided.startswith("100.0")
    assert float(ratio) == 4.0
    assert rows["hull distance, trees"][:2] == ["0.0 [0.0, 32.4] of 8"] * 2
    assert rows["both, potential"][0].endswith("of 2")
    assert seen == [("band_gap", 1.0, 2.0), ("energy_above_hull", 0.0, 0.02)]


def test_trees_learn_from_the_second_half_and_tell_their_error(
    script: Callable[[str], ModuleType], data: Path, tmp_path: Path
) -> None:
    tasks, judge = script("bench_tasks"), script("bench_judge")
    made = judge.Judge(judge.Setting(data, tmp_path / "work", ()), print)
    trees = tasks.PropertyJudge(made)
    formulas = made.training.crystals.formulas
    assert len(trees.X) == sum(not tasks.first_half(f) for f in formulas) > 1
    errors = trees.errors("band_gap", 0.0, 100.0)
    assert (errors["precision"], errors["recall"], errors["share_inside"]) == (1.0, 1.0, 1.0)
    assert np.isfinite(trees.values("band_gap", made.training.crystals)).all()


def test_predictions_are_matched_before_and_after_relaxation(
    script: Callable[[str], ModuleType],
    words: list[str],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = SimpleNamespace(config={"held_out": ["NaCl", "MgO", "KBr"]})
    monkeypatch.setattr("paragenesis.engine.generators.learned.checkpoint.load_checkpoint", lambda *_: held)
    monkeypatch.setattr(script("bench_arms").Arm, "generator", lambda *_: Copies(data))
    (tmp_path / "flow.safetensors").write_bytes(b"weights")
    more = ["--task", "prediction", "--flow", str(tmp_path / "flow.safetensors"), "--compositions", "2", "--tries", "3"]
    script("generators").main([*words, *more, "--seeds", "0", "--relax", "5"])  # of one composition, that is
    table = cells(capsys.readouterr().out)
    found, samples = table["as generated, 2 compositions, seed 0"]
    assert found.startswith("100.0")
    assert found.endswith("of 2")
    assert samples.endswith("of 6")
    assert table["as generated, these, 1 compositions, seed 0"][1].endswith("of 3")
    assert table["relaxed, 1 compositions, seed 0"][1].endswith("of 3")


def test_targets_need_weights_of_the_first_half(script: Callable[[str], ModuleType], words: list[str]) -> None:
    from paragenesis.errors import InputError

    with pytest.raises(InputError, match="--holdout"):
        script("generators").main([*words, "--task", "targets"])


def test_an_unknown_arm_is_refused(script: Callable[[str], ModuleType], words: list[str]) -> None:
    with pytest.raises(SystemExit):
        script("generators").main([*words, "--arms", "alchemy"])

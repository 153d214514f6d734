"""The benchmarks run and say what they claim to; how long anything takes is not tested."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Tables = dict[str, list[str]]


def test_overhead_splits_the_wall_time_of_a_campaign(
    script: Callable[[str], ModuleType], table: Callable[[], Tables]
) -> None:
    arguments = "--n 8 --chunk 4 --rounds 1 --seeds 0 --generator random --executors inline"
    script("overhead").main(arguments.split())
    rows = {name: float(cells[0]) for name, cells in table().items() if name != "ms for each candidate"}
    model, outside = rows["in the model, all workers"], rows["**outside models**"]
    assert 0 < model < rows["wall time"]
    assert model + outside == pytest.approx(rows["wall time"], abs=0.02)
    phases = sum(value for name, value in rows.items() if name.startswith("of this"))
    assert phases == pytest.approx(outside, abs=0.05)
    stages = [value for name, value in rows.items() if name.startswith("in stage")]
    assert len(stages) == 5
    assert all(0 < value < outside for value in stages)


def test_relaxation_takes_the_same_steps_both_ways(
    script: Callable[[str], ModuleType], table: Callable[[], Tables], tmp_path: Path
) -> None:
    from pymatgen.core import Structure

    data = tmp_path / "crystals.csv.gz"
    with gzip.open(data, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif"])
        for a, species in ((5.69, ["Na", "Cl"]), (4.25, ["Mg", "O"])):
            lattice = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
            writer.writerow([species[0], Structure(lattice, species, [[0, 0, 0], [0.5, 0.5, 0.5]]).to(fmt="cif")])
    script("relaxation").main(["--data", str(data), "--n", "2", "--seeds", "0", "--fmax", "0.2"])
    rows = table()
    assert rows["converged"] == ["2 of 2"] * 3
    assert len(set(rows["steps for each crystal"])) == 1
    assert float(rows["relaxations per second"][0]) > 0


def test_selection_measures_every_strategy(script: Callable[[str], ModuleType], table: Callable[[], Tables]) -> None:
    selection = script("selection")
    selection.main(["--pools", "60", "--q", "3", "--seeds", "0", "--budget", "0"])
    rows = table()
    for strategy in selection.STRATEGIES:
        _, volume, share, seeds = rows[f"60, {strategy}"]
        assert float(volume) > 0
        assert (share, seeds) == ("-", "1")


@pytest.mark.slow
def test_selection_holds_botorch_beside_the_engine(
    script: Callable[[str], ModuleType], table: Callable[[], Tables]
) -> None:
    # most of it goes into the compilation of a kernel
    script("selection").main(["--pools", "60", "--q", "2", "--seeds", "0", "--budget", "280"])
    rows = table()
    assert float(rows["60, BoTorch qLogNEHVI"][2]) == 1.0
    assert 0 < float(rows["60, ehvi_dpp (default)"][2]) < 2


def test_dpp_without_its_peer(script: Callable[[str], ModuleType], table: Callable[[], Tables]) -> None:
    script("dpp").main(["--sizes", "200", "--k", "5", "--seeds", "0", "1", "--budget", "0"])
    assert table()["200"][3:] == ["not finished", "-"]


def test_dpp_finds_a_likelier_set_than_a_sample(
    script: Callable[[str], ModuleType], table: Callable[[], Tables]
) -> None:
    pytest.importorskip("dppy")
    script("dpp").main(["--sizes", "200", "--k", "5", "--seeds", "0", "--budget", "60"])
    _, own, _, _, theirs = table()["200"]
    assert float(own) > float(theirs)

"""Relaxations per second: the engine against a plain serial ASE loop, same potential, same tolerance, one run.

    python benchmarks/relaxation.py --data mp20_train.csv.gz [--n 32] [--seeds 0 1 2] [--threads 1]

The data is a table with columns material_id and cif. Crystals of it (with at most 12 atoms, sampled with the seed) have
their cells scaled and atoms displaced, as candidates of a generator would be off their minimum. They are relaxed twice
to the same criterion: by the engine in batches, and one by one with ASE's FIRE on a FrechetCellFilter and CHGNet's own
calculator. They take turns, a group of crystals at a time, so that a busy machine slows all alike. The middle column is
the engine without batches, which tells how much of the difference the batches make.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import io
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from bench_table import markdown, spread, versions

from paragenesis.crystals import BoolArray, Crystals, FloatArray, IntArray
from paragenesis.engine.potentials.contract import load_potential
from paragenesis.engine.potentials.judge import judge
from paragenesis.engine.potentials.relax import RelaxSettings, relax

POTENTIAL = "chgnet-0.3.0"
MOST_ATOMS = 12


@dataclass
class Times:
    """What one way of relaxing took and found."""

    seconds: float
    steps: IntArray
    converged: BoolArray
    energies: FloatArray

    @classmethod
    def joined(cls, parts: list[Times]) -> Times:
        """Several groups as one."""
        arrays = (np.concatenate([getattr(p, name) for p in parts]) for name in ("steps", "converged", "energies"))
        return cls(sum(p.seconds for p in parts), *arrays)


def sample(data: Path, n: int, seed: int) -> Crystals:
    """Displaced crystals of the data, n of them."""
    from pymatgen.core import Structure

    with gzip.open(data, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(seed)
    structures, ids = [], []
    for i in rng.permutation(len(rows)):
        with warnings.catch_warnings(action="ignore"):
            structure = Structure.from_str(rows[i]["cif"], fmt="cif")
        if len(structure) <= MOST_ATOMS:
            structures.append(structure)
            ids.append(rows[i]["material_id"])
        if len(ids) == n:
            break
    crystals = Crystals.from_structures(structures, ids=ids)
    scale = rng.uniform(0.97, 1.05, len(crystals))
    cart = rng.normal(0, 0.03, crystals.frac.shape)
    frac = crystals.frac + np.einsum("ai,aij->aj", cart, np.linalg.inv(crystals.lattices)[crystals.batch])
    return replace(crystals, frac=frac, lattices=crystals.lattices * scale[:, None, None])


class Engine:
    """The engine's batched relaxation."""

    def __init__(self, settings: RelaxSettings) -> None:
        """Load the potential."""
        self.potential, self.settings = load_potential(POTENTIAL), settings

    def __call__(self, crystals: Crystals) -> Times:
        """Relax and time."""
        start = time.perf_counter()
        result = relax(self.potential, crystals, self.settings)
        seconds = time.perf_counter() - start
        return Times(seconds, result.steps, result.converged, judge(self.potential, result.crystals).energies)


class Serial:
    """One crystal after another with ASE and CHGNet's own calculator."""

    def __init__(self, settings: RelaxSettings) -> None:
        """Load the calculator."""
        from chgnet.model import CHGNet
        from chgnet.model.dynamics import CHGNetCalculator

        with contextlib.redirect_stdout(io.StringIO()):
            network = CHGNet.load(use_device="cpu", verbose=False)
            self.calculator = CHGNetCalculator(network, use_device="cpu")
        self.settings = settings

    def __call__(self, crystals: Crystals) -> Times:
        """Relax and time."""
        from ase.filters import FrechetCellFilter
        from ase.optimize import FIRE

        steps, converged, energies = [], [], []
        start = time.perf_counter()
        for atoms in crystals.to_atoms():
            atoms.calc = self.calculator
            optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
            converged.append(bool(optimizer.run(fmax=self.settings.fmax, steps=self.settings.max_steps)))
            steps.append(optimizer.nsteps)
            energies.append(atoms.get_potential_energy() / len(atoms))
        seconds = time.perf_counter() - start
        return Times(seconds, np.array(steps), np.array(converged), np.array(energies))


def compare(crystals: Crystals, settings: RelaxSettings, group: int) -> list[Times]:
    """All ways over all crystals, taking turns group by group."""
    alone = settings.model_copy(update={"batch_atoms": 1})
    ways: list[Engine | Serial] = [Engine(settings), Engine(alone), Serial(settings)]
    parts: list[list[Times]] = [[] for _ in ways]
    for way in ways:
        way(crystals[:2])  # warm
    for first in range(0, len(crystals), group):
        for way, times in zip(ways, parts, strict=True):
            times.append(way(crystals[first : first + group]))
    return [Times.joined(times) for times in parts]


def report(runs: Sequence[Sequence[Times]]) -> str:
    """The table: a row for each measure, a column for each way."""
    columns = list(zip(*runs, strict=True))
    n = sum(len(times.steps) for times in columns[0])

    def row(name: str, value: Callable[[Times], float], digits: int) -> list[str]:
        return [name, *(spread([value(times) for times in column], digits) for column in columns)]

    ratios = [[run[-1].seconds / run[way].seconds for run in runs] for way in range(len(columns))]
    table = markdown(
        ["", "engine", "engine, one at a time", "serial ASE"],
        [
            row("relaxations per second", lambda t: len(t.steps) / t.seconds, 2),
            row("ms for each step of a crystal", lambda t: 1e3 * t.seconds / t.steps.sum(), 1),
            row("steps for each crystal", lambda t: t.steps.mean(), 1),
            ["converged", *(f"{sum(t.converged.sum() for t in column)} of {n}" for column in columns)],
            ["**speed, serial ASE = 1**", *(f"**{spread(ratio)}**" for ratio in ratios[:-1]), "1"],
        ],
    )
    gap = np.concatenate([np.abs(run[0].energies - run[-1].energies) for run in runs])
    same = sum((run[0].steps == run[-1].steps).sum() for run in runs)
    return (
        f"{table}\n\nEngine and ASE took the same number of steps for {same} of {n}; their final energies differ by "
        f"{np.median(gap):.1e} (median), {gap.max():.1e} (largest) eV/atom."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="mp20_train.csv.gz")
    parser.add_argument("--n", type=int, default=32, help="crystals for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--max-steps", type=int, default=300)
    parser.add_argument("--group", type=int, default=32, help="crystals between turns")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(options.threads)
    settings = RelaxSettings(fmax=options.fmax, max_steps=options.max_steps)
    with warnings.catch_warnings(action="ignore"):  # CHGNet's own, about its tensors
        runs = [compare(sample(options.data, options.n, seed), settings, options.group) for seed in options.seeds]
    print(report(runs))
    print(
        f"{options.n} crystals for each of {len(runs)} seeds, {POTENTIAL}, fmax {options.fmax} eV/A, "
        f"{options.threads} thread(s); {versions('torch', 'ase', 'chgnet', 'torch-sim-atomistic')}"
    )


if __name__ == "__main__":
    main()

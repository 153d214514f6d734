"""Relaxations per second: the engine against a plain serial ASE loop, same potential, same tolerance, one run.

    python benchmarks/relaxation.py --data ../shared/data/mp20_train.csv.gz -n 32 --seed 0

Crystals of the data (with at most 12 atoms, sampled with the seed) have their cells scaled and atoms displaced, as
candidates of a generator would be off their minimum. They are relaxed twice to the same criterion: by the engine in
batches, and one by one with ASE's FIRE on a FrechetCellFilter and CHGNet's own calculator. The two take turns, a
group of crystals at a time, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import io
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

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


def compare(crystals: Crystals, settings: RelaxSettings, group: int) -> tuple[Times, Times]:
    """Both ways over all crystals, taking turns group by group."""
    engine, serial = Engine(settings), Serial(settings)
    engine(crystals[:2])
    serial(crystals[:2])  # both warm
    ours, theirs = [], []
    for first in range(0, len(crystals), group):
        part = crystals[first : first + group]
        ours.append(engine(part))
        theirs.append(serial(part))
    return Times.joined(ours), Times.joined(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="mp20_train.csv.gz")
    parser.add_argument("-n", type=int, default=32, help="crystals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--max-steps", type=int, default=300)
    parser.add_argument("--group", type=int, default=16, help="crystals between turns")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    warnings.simplefilter("ignore")  # CHGNet's own, about its tensors
    torch.set_num_threads(options.threads)
    crystals = sample(options.data, options.n, options.seed)
    settings = RelaxSettings(fmax=options.fmax, max_steps=options.max_steps)
    ours, theirs = compare(crystals, settings, options.group)
    print(f"{len(crystals)} crystals, {POTENTIAL}, fmax {options.fmax}, {options.threads} thread(s)")
    for name, times in (("engine", ours), ("serial ASE", theirs)):
        print(
            f"{name:>10}: {len(crystals) / times.seconds:6.2f} relaxations/s, {times.steps.sum()} steps, "
            f"{times.seconds / times.steps.sum() * 1e3:.1f} ms a step, {times.converged.sum()} converged"
        )
    gap = np.abs(ours.energies - theirs.energies)
    print(f"{'ratio':>10}: {theirs.seconds / ours.seconds:6.2f}")
    print(
        f"same number of steps for {(ours.steps == theirs.steps).sum()} of {len(crystals)}; final energies differ by "
        f"{np.median(gap):.1e} (median), {gap.max():.1e} (largest) eV/atom"
    )


if __name__ == "__main__":
    main()

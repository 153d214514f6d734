"""Batched relaxation of positions and cells.

A crystal has converged when no atom feels a force above `fmax` and no row of the cell's generalised force is longer
than it: the same criterion as ASE's optimisers on a `FrechetCellFilter`. The cell's force is, near the end,
-V stress / n_atoms in eV, so that 0.05 and 15 A^3 an atom mean 0.0033 eV/A^3 or 0.5 GPa.

Crystals leave the batch one by one as they converge, fail, or run out of steps, and others take their places, so no
evaluation is wasted on a crystal that is done, on a CPU or a GPU. A crystal's path does not depend on its neighbours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from paragenesis.crystals import BoolArray, Crystals, IntArray
from paragenesis.settings import Settings

if TYPE_CHECKING:
    import torch

    from paragenesis.engine.potentials.contract import Potential
    from paragenesis.engine.potentials.evaluate import Batch, Evaluation
    from paragenesis.engine.potentials.fire import GeneralForces, Walkers


class RelaxSettings(Settings):
    """How far and how long to relax.

    Attributes:
        fmax: Largest force that counts as converged, on atoms and cell, eV/A.
        max_steps: After so many steps a crystal is left as it is, not converged.
        max_volume_change: A crystal whose volume grows or shrinks by more than this factor has failed.
        max_force: A crystal with a larger force on an atom has failed, eV/A.
        batch_atoms: Atoms relaxed at once; 0 means what suits the device.
    """

    fmax: float = Field(default=0.05, gt=0)
    max_steps: int = Field(default=200, ge=0)
    max_volume_change: float = Field(default=3.0, gt=1)
    max_force: float = Field(default=1e3, gt=0)
    batch_atoms: int = Field(default=0, ge=0)


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """What became of n crystals.

    Attributes:
        crystals: Relaxed geometries; a crystal that failed keeps the geometry it came with.
        converged: Whether the tolerance was reached, shape `n`.
        steps: Steps taken, shape `n`.
        errors: Why a crystal failed, by its index.
    """

    crystals: Crystals
    converged: BoolArray
    steps: IntArray
    errors: dict[int, str]


def relax(
    potential: Potential,
    crystals: Crystals,
    settings: RelaxSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> Relaxation:
    """Relax positions and cells with FIRE on a Frechet cell filter.

    Args:
        potential: Gives forces and stress.
        crystals: n crystals.
        settings: Tolerance and limits.
        progress: Called with the number of crystals done since the last call.
    """
    return _Run(potential, crystals, settings or RelaxSettings(), progress).finish()


class _Run:
    """One relaxation: the crystals that wait, those that walk, and what became of the others."""

    def __init__(
        self,
        potential: Potential,
        crystals: Crystals,
        settings: RelaxSettings,
        progress: Callable[[int], None] | None,
    ) -> None:
        from paragenesis.engine.potentials.evaluate import default_atoms

        self.potential, self.crystals, self.settings, self.progress = potential, crystals, settings, progress
        self.device = potential.model.device
        self.room = settings.batch_atoms or default_atoms(self.device)
        self.waiting = deque(range(len(crystals)))
        self.walkers: Walkers | None = None
        self.frac, self.lattices = crystals.frac.copy(), crystals.lattices.copy()
        self.converged = np.zeros(len(crystals), dtype=np.bool_)
        self.steps = np.zeros(len(crystals), dtype=np.int64)
        self.errors: dict[int, str] = {}

    def finish(self) -> Relaxation:
        """Walk until nobody is left."""
        from paragenesis.engine.potentials.evaluate import evaluate
        from paragenesis.engine.potentials.fire import fire_step, general_forces

        while self.waiting or self.walkers is not None:
            walkers = self._take_in()
            batch = walkers.batch()
            out = evaluate(self.potential, batch)
            forces = general_forces(walkers, batch, out)
            done = self._sort_out(walkers, batch, out, forces)
            if bool(done.all()):
                self.walkers = None
            else:
                rest = walkers.where(~done) if bool(done.any()) else walkers
                self.walkers = fire_step(rest, forces.where(~done, walkers.owner))
        moved = replace(self.crystals, frac=self.frac, lattices=self.lattices)
        errors = dict(sorted(self.errors.items()))
        return Relaxation(crystals=moved, converged=self.converged, steps=self.steps, errors=errors)

    def _take_in(self) -> Walkers:
        """Fill the places that are free from those who wait, in order."""
        import torch

        from paragenesis.engine.potentials.evaluate import Batch
        from paragenesis.engine.potentials.fire import Walkers

        atoms = 0 if self.walkers is None else int(self.walkers.counts.sum())
        taken: list[int] = []
        while self.waiting and ((not taken and self.walkers is None) or self._fits(atoms)):
            taken.append(self.waiting.popleft())
            atoms += int(self.crystals.n_atoms[taken[-1]])
        if taken:
            fresh = Walkers.start(
                Batch.of(self.crystals[taken], self.device), torch.as_tensor(taken, device=self.device)
            )
            self.walkers = fresh if self.walkers is None else self.walkers.joined_by(fresh)
        assert self.walkers is not None  # the loop runs only while someone waits or walks
        return self.walkers

    def _fits(self, atoms: int) -> bool:
        """Whether the next in line fits into a batch that has `atoms` atoms already."""
        return atoms + int(self.crystals.n_atoms[self.waiting[0]]) <= self.room

    def _sort_out(self, walkers: Walkers, batch: Batch, out: Evaluation, forces: GeneralForces) -> torch.Tensor:
        """Record the crystals that are done and return their mask, shape `n`."""
        import torch

        limits = self.settings
        force = torch.zeros(len(walkers), dtype=torch.float64, device=self.device)
        force = force.scatter_reduce(0, walkers.owner, out.forces.norm(dim=1), "amax")
        volume, before = torch.linalg.det(batch.cells).abs(), torch.linalg.det(walkers.frames).abs()
        change = torch.maximum(volume / before, before / volume)
        failed = self._failures(out.errors, force.tolist(), change.tolist())
        bad = torch.zeros(len(walkers), dtype=torch.bool, device=self.device)
        bad[list(failed)] = True
        converged = ~bad & (forces.largest(walkers) < limits.fmax)
        done = bad | converged | (walkers.steps >= limits.max_steps)
        for place in torch.nonzero(done).flatten().tolist():
            index = int(walkers.index[place])
            self.steps[index] = int(walkers.steps[place])
            self.converged[index] = bool(converged[place])
            if place in failed:
                self.errors[index] = failed[place]
            else:
                self._put_back(index, batch.part(place, place + 1))
        if self.progress is not None and bool(done.any()):
            self.progress(int(done.sum()))
        return done

    def _failures(self, refused: dict[int, str], force: list[float], change: list[float]) -> dict[int, str]:
        """The crystals that have failed and why, by their place in the batch."""
        limits, failed = self.settings, dict(refused)
        for place, (f, c) in enumerate(zip(force, change, strict=True)):
            if place in failed:
                continue
            if f > limits.max_force:
                failed[place] = f"a force of {f:.3g} eV/A exceeds {limits.max_force:g}"
            elif not c <= limits.max_volume_change:
                failed[place] = f"the volume changed by a factor of {c:.3g}, more than {limits.max_volume_change:g}"
        return failed

    def _put_back(self, index: int, one: Batch) -> None:
        """Store a crystal's geometry, atoms wrapped into the cell."""
        cell = one.cells[0].cpu().numpy()
        frac = one.positions.cpu().numpy() @ np.linalg.inv(cell)
        self.frac[self.crystals.atoms_of(index)] = frac - np.floor(frac)
        self.lattices[index] = cell

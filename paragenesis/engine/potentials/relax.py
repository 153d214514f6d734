"""Batched relaxation of positions and cells.

A crystal has converged when no atom feels a force above `fmax` and no row of the cell's generalised force is longer
than it: the same criterion as ASE's optimisers on a `FrechetCellFilter`. The cell's force is, near the end,
-V stress / n_atoms in eV, so that 0.05 and 15 A^3 an atom mean 0.0033 eV/A^3 or 0.5 GPa.

Crystals leave the batch one by one as they converge, fail, or run out of steps, and others take their places, so no
evaluation is wasted on a crystal that is done, on a CPU or a GPU. A crystal's path does not depend on its neighbours.

Unless told otherwise, a crystal keeps its space group: `symmetry` finds the operations it starts with and removes what
breaks them from every force. A crystal that symmetry holds on a saddle point stays there; `symmetry = "free"` does not
hold it, though it falls only where rounding or the potential's noise pushes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from paragenesis.crystals import BoolArray, Crystals, IntArray
from paragenesis.engine.symmetry import SYMPREC, symmetrised
from paragenesis.settings import Settings

if TYPE_CHECKING:
    from paragenesis.engine.potentials.contract import Potential
    from paragenesis.engine.potentials.evaluate import Batch, Evaluation
    from paragenesis.engine.potentials.fire import GeneralForces, Walkers
    from paragenesis.engine.potentials.symmetry import Projection


class RelaxSettings(Settings):
    """How far and how long to relax.

    Attributes:
        fmax: Largest force that counts as converged, on atoms and cell, eV/A.
        max_steps: After so many steps a crystal is left as it is, not converged.
        max_volume_change: A crystal whose volume grows or shrinks by more than this factor has failed.
        max_force: A crystal with a larger force on an atom has failed, eV/A.
        batch_atoms: Atoms relaxed at once; 0 means what suits the device.
        symmetry: "keep" holds every crystal to the space group it starts with, in the cell it comes in; "free" to none.
        symprec: Atoms this far from symmetric count as symmetric, angstrom: with "keep", a crystal within it is first
            made exactly symmetric.
    """

    fmax: float = Field(default=0.05, gt=0)
    max_steps: int = Field(default=200, ge=0)
    max_volume_change: float = Field(default=3.0, gt=1)
    max_force: float = Field(default=1e3, gt=0)
    batch_atoms: int = Field(default=0, ge=0)
    symmetry: Literal["keep", "free"] = "keep"
    symprec: float = Field(default=SYMPREC, gt=0, le=0.5)


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
        self.projection: Projection | None = None  # of the walkers, where they keep their symmetry
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
            if self.projection is not None:
                forces = self.projection(forces)
            done = self._sort_out(walkers, batch, out, forces)
            if len(done) == len(walkers):
                self.walkers = self.projection = None
                continue
            if done:
                walkers, forces = self._without(done, walkers, forces)
            self.walkers = fire_step(walkers, forces)
        moved = replace(self.crystals, frac=self.frac, lattices=self.lattices)
        errors = dict(sorted(self.errors.items()))
        return Relaxation(crystals=moved, converged=self.converged, steps=self.steps, errors=errors)

    def _take_in(self) -> Walkers:
        """Fill the places that are free from those who wait, in order."""
        if self.waiting:
            atoms = 0 if self.walkers is None else len(self.walkers.numbers)
            taken: list[int] = []
            while self.waiting and ((not taken and self.walkers is None) or self._fits(atoms)):
                taken.append(self.waiting.popleft())
                atoms += int(self.crystals.n_atoms[taken[-1]])
            if taken:
                self._join(taken)
        assert self.walkers is not None  # the loop runs only while someone waits or walks
        return self.walkers

    def _join(self, taken: list[int]) -> None:
        """Let crystals walk with the others, from exactly symmetric places if they are to keep their symmetry."""
        import torch

        from paragenesis.engine.potentials.evaluate import Batch
        from paragenesis.engine.potentials.fire import Walkers
        from paragenesis.engine.potentials.symmetry import Projection

        crystals = self.crystals[taken]
        if self.settings.symmetry == "keep":
            crystals, operations = symmetrised(crystals, self.settings.symprec)
            own = Projection.start(crystals, operations, self.device)
            self.projection = own if self.projection is None else self.projection.joined_by(own)
        fresh = Walkers.start(Batch.of(crystals, self.device), torch.as_tensor(taken, device=self.device))
        self.walkers = fresh if self.walkers is None else self.walkers.joined_by(fresh)

    def _without(self, done: list[int], walkers: Walkers, forces: GeneralForces) -> tuple[Walkers, GeneralForces]:
        """The walkers that go on, with their forces."""
        import torch

        keep = torch.ones(len(walkers), dtype=torch.bool, device=self.device)
        keep[done] = False
        if self.projection is not None:
            self.projection = self.projection.where(keep)
        return walkers.where(keep), forces.where(keep, walkers.owner)

    def _fits(self, atoms: int) -> bool:
        """Whether the next in line fits into a batch that has `atoms` atoms already."""
        return atoms + int(self.crystals.n_atoms[self.waiting[0]]) <= self.room

    def _sort_out(self, walkers: Walkers, batch: Batch, out: Evaluation, forces: GeneralForces) -> list[int]:
        """Record the crystals that are done and return their places in the batch."""
        import torch

        limits = self.settings
        force = torch.zeros(len(walkers), dtype=torch.float64, device=self.device)
        force = force.scatter_reduce(0, walkers.owner, out.forces.norm(dim=1), "amax")
        volume, before = torch.linalg.det(batch.cells).abs(), torch.linalg.det(walkers.frames).abs()
        change = torch.maximum(volume / before, before / volume)
        failed = (force > limits.max_force) | ~(change <= limits.max_volume_change)
        failed[list(out.errors)] = True
        converged = ~failed & (forces.largest(walkers) < limits.fmax)
        done: list[int] = (failed | converged | (walkers.steps >= limits.max_steps)).nonzero().flatten().tolist()
        for place in done:
            index = int(walkers.index[place])
            self.steps[index] = int(walkers.steps[place])
            self.converged[index] = bool(converged[place])
            if bool(failed[place]):
                self.errors[index] = out.errors.get(place) or self._failure(float(force[place]), float(change[place]))
            else:
                self._put_back(index, batch.part(place, place + 1))
        if self.progress is not None and done:
            self.progress(len(done))
        return done

    def _failure(self, force: float, change: float) -> str:
        """Why a crystal with this force and change of volume has failed, beginning with the cause."""
        if force > self.settings.max_force:
            return f"force: {force:.3g} eV/A exceeds {self.settings.max_force:g}"
        return f"volume: changed by a factor of {change:.3g}, more than {self.settings.max_volume_change:g}"

    def _put_back(self, index: int, one: Batch) -> None:
        """Store a crystal's geometry, atoms wrapped into the cell."""
        cell = one.cells[0].cpu().numpy()
        frac = one.positions.cpu().numpy() @ np.linalg.inv(cell)
        self.frac[self.crystals.atoms_of(index)] = frac - np.floor(frac)
        self.lattices[index] = cell

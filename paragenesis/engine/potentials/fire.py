"""FIRE in the variables of a Frechet cell filter, for many crystals at once.

The algorithm and its numbers are those of ASE's `FIRE` on a `FrechetCellFilter` (Bitzek et al., Phys. Rev. Lett. 97,
170201 (2006)), which torch-sim's `frechet_cell_fire` follows too; a test holds the path of a crystal against ASE's.
It is written out here because torch-sim 0.3 (a) treats the whole batch as freshly started when one crystal joins it,
so that a result would depend on its neighbours, and (b) takes nine Frechet derivatives per crystal one by one, which
costs as much time as a fast potential. Here one 6 x 6 exponential per crystal does it, by the adjoint:
sum_ij G_ij L(A, E_kl)_ij = L(A^T, G)_kl, with L the Frechet derivative of the exponential.

Variables: a crystal's atoms in the frame of its initial cell, and the scaled logarithm of its deformation gradient F:
positions x = q F^T and cell h = h0 F^T (rows), F = exp(log_F / n_atoms).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from paragenesis.engine.potentials.evaluate import Batch, Evaluation

DT_START, DT_MAX = 0.1, 1.0
MAX_STEP = 0.2  # of all coordinates of a crystal together
N_MIN, F_INC, F_DEC = 5, 1.1, 0.5
ALPHA_START, F_ALPHA = 0.1, 0.99

_PER_ATOM = ("numbers", "frame_positions", "velocities")


@dataclass(frozen=True, kw_only=True)
class Walkers:
    """n relaxing crystals with N atoms; every tensor is double precision.

    Attributes:
        index: The caller's name of each crystal, shape `n`.
        counts: Atoms per crystal, shape `n`.
        numbers: Atomic numbers, shape `N`.
        frame_positions: Atoms in the frame of the initial cell, shape `N x 3`.
        frames: Initial cells as rows, shape `n x 3 x 3`.
        log_deformation: `n_atoms` times the logarithm of the deformation gradient, shape `n x 3 x 3`.
        velocities: Shape `N x 3`.
        cell_velocities: Shape `n x 3 x 3`.
        dt: Time step, shape `n`.
        alpha: Mixing of velocity and force, shape `n`.
        uphill_free: Steps since the power was last negative, shape `n`.
        steps: Steps taken, shape `n`.
    """

    index: Tensor
    counts: Tensor
    numbers: Tensor
    frame_positions: Tensor
    frames: Tensor
    log_deformation: Tensor
    velocities: Tensor
    cell_velocities: Tensor
    dt: Tensor
    alpha: Tensor
    uphill_free: Tensor
    steps: Tensor

    @classmethod
    def start(cls, batch: Batch, index: Tensor) -> Self:
        """Crystals at rest."""
        one = torch.ones(len(batch), dtype=torch.float64, device=batch.cells.device)
        return cls(
            index=index,
            counts=batch.counts,
            numbers=batch.numbers,
            frame_positions=batch.positions,
            frames=batch.cells,
            log_deformation=torch.zeros_like(batch.cells),
            velocities=torch.zeros_like(batch.positions),
            cell_velocities=torch.zeros_like(batch.cells),
            dt=one * DT_START,
            alpha=one * ALPHA_START,
            uphill_free=torch.zeros_like(batch.counts),
            steps=torch.zeros_like(batch.counts),
        )

    def __len__(self) -> int:
        """How many crystals there are."""
        return len(self.counts)

    @cached_property
    def owner(self) -> Tensor:
        """The crystal each atom belongs to, shape `N`."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.counts.device), self.counts)

    @cached_property
    def deformations(self) -> Tensor:
        """Deformation gradients F, shape `n x 3 x 3`."""
        F: Tensor = torch.linalg.matrix_exp(self.logarithms)
        return F

    @cached_property
    def logarithms(self) -> Tensor:
        """Logarithms of the deformation gradients, shape `n x 3 x 3`."""
        return self.log_deformation / self.counts.view(-1, 1, 1)

    def batch(self) -> Batch:
        """The crystals where they are now."""
        F = self.deformations
        return Batch(
            numbers=self.numbers,
            positions=(self.frame_positions[:, None, :] * F[self.owner]).sum(2),
            cells=self.frames @ F.transpose(1, 2),
            counts=self.counts,
        )

    def where(self, keep: Tensor) -> Self:
        """The crystals at a mask of shape `n`."""
        atoms = keep[self.owner]
        return replace(
            self,
            **{f.name: getattr(self, f.name)[atoms if f.name in _PER_ATOM else keep] for f in fields(self)},
        )

    def joined_by(self, other: Self) -> Self:
        """These crystals and others."""
        return replace(
            self, **{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)}
        )


@dataclass(frozen=True, kw_only=True)
class GeneralForces:
    """Forces on the variables of `Walkers`: atoms in the frame (`N x 3`, eV/A), scaled log of F (`n x 3 x 3`, eV)."""

    atoms: Tensor
    cells: Tensor

    def largest(self, walkers: Walkers) -> Tensor:
        """Largest norm of an atom's force or of a row of the cell's, shape `n`: what convergence looks at."""
        zero = torch.zeros(len(walkers), dtype=self.atoms.dtype, device=self.atoms.device)
        atoms = zero.scatter_reduce(0, walkers.owner, self.atoms.norm(dim=1), "amax")
        return torch.maximum(atoms, self.cells.norm(dim=2).amax(dim=1))

    def where(self, keep: Tensor, owner: Tensor) -> GeneralForces:
        """The forces on the crystals at a mask."""
        return GeneralForces(atoms=self.atoms[keep[owner]], cells=self.cells[keep])


def general_forces(walkers: Walkers, batch: Batch, out: Evaluation) -> GeneralForces:
    """Forces and stress of a batch as forces on the variables (Frechet cell filter of ASE)."""
    A, F = walkers.logarithms, walkers.deformations
    stress = (out.stress + out.stress.transpose(1, 2)) / 2
    virial = -torch.linalg.det(batch.cells).abs().view(-1, 1, 1) * stress
    G = virial @ torch.linalg.inv(F).transpose(1, 2)
    block = torch.zeros((len(walkers), 6, 6), dtype=A.dtype, device=A.device)
    block[:, :3, :3] = block[:, 3:, 3:] = A.transpose(1, 2)
    block[:, :3, 3:] = G
    scale = G.flatten(1).norm(dim=1).clamp_min(1.0).view(-1, 1, 1)  # linear in G: keeps the exponential short
    block[:, :3, 3:] /= scale
    cells = torch.linalg.matrix_exp(block)[:, :3, 3:] * scale / walkers.counts.view(-1, 1, 1)
    return GeneralForces(atoms=(out.forces[:, :, None] * F[walkers.owner]).sum(1), cells=cells)


def fire_step(walkers: Walkers, forces: GeneralForces) -> Walkers:
    """One step of each crystal, with its own time step and mixing."""
    owner = walkers.owner
    v, w, f, g = walkers.velocities, walkers.cell_velocities, forces.atoms, forces.cells
    downhill = _dot(owner, v, f, w, g) > 0
    moving = walkers.steps > 0
    stopped = moving & ~downhill

    speed, slope = _dot(owner, v, v, w, w).sqrt(), _dot(owner, f, f, g, g).sqrt()
    keep = torch.where(downhill, 1 - walkers.alpha, 0.0)
    turn = torch.where(downhill, walkers.alpha * speed / slope.clamp_min(1e-30), 0.0)
    v = keep[owner, None] * v + turn[owner, None] * f
    w = keep.view(-1, 1, 1) * w + turn.view(-1, 1, 1) * g

    faster = downhill & (walkers.uphill_free > N_MIN)
    dt = torch.where(faster, (walkers.dt * F_INC).clamp_max(DT_MAX), walkers.dt)
    dt = torch.where(stopped, dt * F_DEC, dt)
    alpha = torch.where(faster, walkers.alpha * F_ALPHA, walkers.alpha)
    v = v + dt[owner, None] * f
    w = w + dt.view(-1, 1, 1) * g
    length = dt * _dot(owner, v, v, w, w).sqrt()
    move = dt * (MAX_STEP / length.clamp_min(MAX_STEP))
    return replace(
        walkers,
        frame_positions=walkers.frame_positions + move[owner, None] * v,
        log_deformation=walkers.log_deformation + move.view(-1, 1, 1) * w,
        velocities=v,
        cell_velocities=w,
        dt=dt,
        alpha=torch.where(stopped, ALPHA_START, alpha),
        uphill_free=torch.where(downhill, walkers.uphill_free + 1, 0),
        steps=walkers.steps + 1,
    )


def _dot(owner: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """a.b over the atoms and c.d over the cell of each crystal, shape `n`."""
    return (c * d).flatten(1).sum(1).index_add(0, owner, (a * b).sum(1))

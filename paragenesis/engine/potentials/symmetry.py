"""Relaxation that keeps the space group: forces are projected onto what every operation of the start leaves as it is.

An operation (W, t) in fractional coordinates takes atom j to atom g(j) and turns Cartesian vectors by R = h^T W h^-T,
with the lattice vectors as rows of h. Of all forces f on the atoms, and M on the cell, those that obey the operations
form a linear space, and the mean over the m operations is the orthogonal projection onto it:

    f'_i = 1/m sum_g R_g f_j, with g(j) = i          M' = 1/m sum_g R_g M R_g^T

The sums over g do not change while the crystal moves, so they are taken once: what is left for each step is a 3 x 3
block for each pair of atoms of an orbit (none where symmetry fixes the atom) and a 9 x 9 matrix for each cell. They
stay right because the walk is in the frame of the initial cell (see `fire`): a deformation gradient that obeys the
operations commutes with every R.

Operations are those of the primitive cell. In a larger one, an atom's force is first the mean over its copies, so that
operations that the larger cell does not show (a cubic crystal in a cell of 1 x 1 x 2) are kept all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from paragenesis.crystals import BoolArray, Crystals, FloatArray, IntArray
from paragenesis.engine.potentials.fire import GeneralForces
from paragenesis.engine.symmetry import Operations

_ROUNDING = 1e-12  # a smaller element of a projection is zero


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The projections of n relaxing crystals with E pairs of atoms in all.

    Attributes:
        counts: Atoms per crystal, shape `n`.
        pairs: Pairs of atoms per crystal, shape `n`.
        into: The atom of a pair that feels the projected force, counted within its crystal, shape `E`.
        of: The atom of a pair whose force is projected, counted within its crystal, shape `E`.
        blocks: What the one gets of the other's force, shape `E x 3 x 3`.
        cells: Projections of the cell's force, row by row, shape `n x 9 x 9`.
    """

    counts: Tensor
    pairs: Tensor
    into: Tensor
    of: Tensor
    blocks: Tensor
    cells: Tensor

    @classmethod
    def start(cls, crystals: Crystals, operations: Sequence[Operations], device: torch.device) -> Self:
        """The projections of crystals that obey their operations exactly, as `symmetrised` makes them."""
        parts = [_blocks(own) for own in operations]

        def put(arrays: Iterable[FloatArray | IntArray]) -> Tensor:
            return torch.as_tensor(np.concatenate(list(arrays)), device=device)

        return cls(
            counts=torch.as_tensor(crystals.n_atoms, device=device),
            pairs=torch.as_tensor([len(into) for into, _, _ in parts], device=device),
            into=put(into for into, _, _ in parts),
            of=put(of for _, of, _ in parts),
            blocks=put(blocks for _, _, blocks in parts),
            cells=put(_cell_projection(own.rotations) for own in operations),
        )

    def __call__(self, forces: GeneralForces) -> GeneralForces:
        """The part of the forces that keeps every symmetry."""
        into, of = self._places
        shares = (self.blocks * forces.atoms.index_select(0, of)[:, None, :]).sum(2)
        cells = (self.cells * forces.cells.flatten(1)[:, None, :]).sum(2)
        return GeneralForces(
            atoms=torch.zeros_like(forces.atoms).index_add_(0, into, shares), cells=cells.view_as(forces.cells)
        )

    @cached_property
    def _owner(self) -> Tensor:
        """The crystal each pair belongs to, shape `E`."""
        return torch.repeat_interleave(torch.arange(len(self.pairs), device=self.pairs.device), self.pairs)

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Both atoms of each pair, counted through the batch, shape `E`."""
        first = (self.counts.cumsum(0) - self.counts)[self._owner]
        return self.into + first, self.of + first

    def where(self, keep: Tensor) -> Self:
        """The projections of the crystals at a mask of shape `n`."""
        pairs = keep[self._owner]
        per_pair = ("into", "of", "blocks")
        return replace(
            self, **{f.name: getattr(self, f.name)[pairs if f.name in per_pair else keep] for f in fields(self)}
        )

    def joined_by(self, other: Self) -> Self:
        """These projections and others."""
        return replace(
            self, **{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)}
        )


def _blocks(operations: Operations) -> tuple[IntArray, IntArray, FloatArray]:
    """Pairs (i, j) of atoms and what i gets of j's force, without the pairs where that vanishes."""
    m, p = operations.images.shape
    table = np.zeros((p, p, 3, 3))
    np.add.at(table, (operations.images, np.arange(p)), operations.rotations[:, None, :, :] / m)
    sites = operations.sites
    table = _clean(table / (len(sites) // p))  # the mean over the copies of an atom
    coupled: BoolArray = np.asarray(table.any(axis=(2, 3)))
    into, of = np.nonzero(coupled[sites][:, sites])
    return into, of, table[sites[into], sites[of]]


def _cell_projection(rotations: FloatArray) -> FloatArray:
    """The mean of R (x) R, shape `1 x 9 x 9`."""
    return _clean(np.einsum("gac,gbd->abcd", rotations, rotations) / len(rotations)).reshape(1, 9, 9)


def _clean(projection: FloatArray) -> FloatArray:
    """Zeros where only rounding is left, so that what symmetry fixes does not creep."""
    return np.where(np.abs(projection) < _ROUNDING, 0.0, projection)

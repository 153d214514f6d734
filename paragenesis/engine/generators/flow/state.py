"""The state that flows: types with a mask, fractional coordinates, and six numbers of the cell.

Cells are Niggli reduced, so that a crystal has one description up to translation and the order of its atoms. The six
numbers say nothing of the cell's orientation. With the metric `G = L L^T` (rows of L are the lattice vectors) and its
decomposition `G = U D U^T`, U unit lower triangular (a log-Cholesky chart of the positive definite matrices; Lin,
SIAM J. Matrix Anal. Appl. 40, 1353 (2019)), they are

    log of the volume an atom, log sqrt(D11) / l, log sqrt(D22) / l, U21, U31, U32,    l the cube root of the volume

D33 follows from the volume. The off-diagonal ones are shears, which reduction keeps within about half a unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from paragenesis.crystals import Crystals, FloatArray, IntArray

MASKED = 0  # the type of an atom that has none yet, and of padding
TYPES = 104  # MASKED and the elements H to Lr
CELL_NUMBERS = 6
_LARGEST_LOG = 12.0  # of a cell number; beyond it the exponential is no cell


@dataclass(frozen=True)
class State:
    """A batch of B crystals of at most N atoms.

    Attributes:
        types: Atomic numbers, `MASKED` where the type is not known, shape `B x N`.
        frac: Fractional coordinates, shape `B x N x 3`.
        cell: The six numbers of each cell, not standardised, shape `B x 6`.
        atoms: True where there is an atom, False for padding, shape `B x N`.
    """

    types: Tensor
    frac: Tensor
    cell: Tensor
    atoms: Tensor

    def __len__(self) -> int:
        """How many crystals."""
        return len(self.types)

    @property
    def n_atoms(self) -> Tensor:
        """Atoms of each crystal, shape `B`."""
        return self.atoms.sum(1)

    def __getitem__(self, which: Tensor | slice) -> State:
        """Some of the crystals."""
        return State(self.types[which], self.frac[which], self.cell[which], self.atoms[which])

    def to(self, device: torch.device | str) -> State:
        """The same on another device."""
        return State(self.types.to(device), self.frac.to(device), self.cell.to(device), self.atoms.to(device))

    def trimmed(self) -> State:
        """Without the padding that no crystal needs."""
        most = int(self.n_atoms.max()) if len(self) else 0
        return State(self.types[:, :most], self.frac[:, :most], self.cell, self.atoms[:, :most])


# --- the cell -------------------------------------------------------------------------------------------------------


def cell_numbers(metric: Tensor, n_atoms: Tensor) -> Tensor:
    """The six numbers of cells from their metrics `B x 3 x 3` (A^2), shape `B x 6`; NaN where one is no metric."""
    factor, failed = torch.linalg.cholesky_ex(metric)
    factor = torch.where(failed[..., None, None] > 0, torch.nan, factor)
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    log_volume = diagonal.log().sum(-1)
    axes = diagonal[..., :2].log() - log_volume[..., None] / 3
    shears = torch.stack(
        [
            factor[..., 1, 0] / factor[..., 0, 0],
            factor[..., 2, 0] / factor[..., 0, 0],
            factor[..., 2, 1] / factor[..., 1, 1],
        ],
        dim=-1,
    )
    per_atom = log_volume - n_atoms.to(metric.dtype).log()
    return torch.cat([per_atom[..., None], axes, shears], dim=-1)


def lattice_rows(cell: Tensor, n_atoms: Tensor) -> Tensor:
    """Lower triangular lattices (rows are vectors, A) from the six numbers, shape `B x 3 x 3`."""
    log_length = (cell[..., 0] + n_atoms.to(cell.dtype).log()) / 3
    first, second = cell[..., 1] + log_length, cell[..., 2] + log_length
    third = 3 * log_length - first - second
    a, b, c = (x.clamp(-_LARGEST_LOG, _LARGEST_LOG).exp() for x in (first, second, third))
    zero = torch.zeros_like(a)
    rows = [a, zero, zero, cell[..., 3] * a, b, zero, cell[..., 4] * a, cell[..., 5] * b, c]
    return torch.stack(rows, dim=-1).reshape(*cell.shape[:-1], 3, 3)


def metric_of(cell: Tensor, n_atoms: Tensor) -> Tensor:
    """Metrics `G = L L^T` in A^2 from the six numbers, shape `B x 3 x 3`."""
    rows = lattice_rows(cell, n_atoms)
    return rows @ rows.transpose(-1, -2)


def niggli(crystals: Crystals) -> tuple[Crystals, IntArray]:
    """The crystals in right-handed Niggli-reduced cells, and how their coordinates moved.

    Returns:
        The crystals, and the unimodular matrices Q with `frac_reduced = frac @ Q`, shape `n x 3 x 3`.
    """
    from moyopy import niggli_reduce

    frac, lattices = crystals.frac.copy(), crystals.lattices.copy()
    moves = np.empty((len(crystals), 3, 3), dtype=np.int64)
    for i in range(len(crystals)):
        reduced, transformation = niggli_reduce(crystals.lattices[i].tolist())
        lattices[i] = reduced
        moves[i] = np.rint(np.linalg.inv(np.asarray(transformation, dtype=np.float64).T)).astype(np.int64)
        frac[crystals.atoms_of(i)] = crystals.frac[crystals.atoms_of(i)] @ moves[i]
    return replace(crystals, frac=frac - np.floor(frac), lattices=lattices), moves


# --- to and from crystals -------------------------------------------------------------------------------------------


def pack(crystals: Crystals, dtype: torch.dtype = torch.float32) -> State:
    """Crystals in reduced cells as a state, padded to the largest."""
    most = int(crystals.n_atoms.max())
    place = np.arange(len(crystals.numbers)) - crystals.offsets[crystals.batch]
    types = np.zeros((len(crystals), most), dtype=np.int64)
    types[crystals.batch, place] = crystals.numbers
    frac: FloatArray = np.zeros((len(crystals), most, 3))
    frac[crystals.batch, place] = crystals.frac
    metric = torch.as_tensor(crystals.lattices @ crystals.lattices.transpose(0, 2, 1))
    cell = cell_numbers(metric, torch.as_tensor(crystals.n_atoms))
    atoms = torch.arange(most)[None] < torch.as_tensor(crystals.n_atoms)[:, None]
    return State(torch.as_tensor(types), torch.as_tensor(frac, dtype=dtype), cell.to(dtype), atoms)


def unpack(state: State, origins: Sequence[str]) -> Crystals:
    """A state without masked atoms as crystals named "0", "1", ...; coordinates wrapped into the cell."""
    atoms = state.atoms.cpu().numpy()
    frac = state.frac.double().cpu().numpy()[atoms]
    return Crystals(
        ids=tuple(str(i) for i in range(len(state))),
        n_atoms=atoms.sum(1),
        numbers=state.types.cpu().numpy()[atoms],
        frac=frac - np.floor(frac),
        lattices=lattice_rows(state.cell.double(), state.n_atoms).cpu().numpy(),
        origins=tuple(origins),
    )

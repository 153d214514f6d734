"""A Lennard-Jones model with a distance and a depth for each pair of elements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface

from paragenesis.crystals import FloatArray
from paragenesis.engine.potentials.neighbours import find_bonds


class LennardJonesModel(ModelInterface):  # type: ignore[misc]
    """Pair energies depth ((r0/r)^12 - 2 (r0/r)^6), shifted so that energy and force vanish at the cutoff."""

    def __init__(
        self, distances: FloatArray, depths: FloatArray, *, cutoff: float = 6.0, device: torch.device | None = None
    ) -> None:
        """Take the pair tables.

        Args:
            distances: Distance of the minimum by atomic numbers, angstrom, shape `Z x Z`.
            depths: Depth of the minimum, eV, shape `Z x Z`.
            cutoff: Where the interaction ends, angstrom.
            device: Where to compute.
        """
        super().__init__()
        self._device = device or torch.device("cpu")
        self._dtype = torch.float64
        self._compute_stress = self._compute_forces = True
        self.cutoff = cutoff
        self.register_buffer("distances", torch.as_tensor(distances, device=self._device))
        self.register_buffer("depths", torch.as_tensor(depths, device=self._device))

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Evaluate a torch-sim state: energy [n] eV, forces [N, 3] eV/A, stress [n, 3, 3] eV/A^3."""
        counts = torch.bincount(state.system_idx).cpu().numpy()
        positions = state.positions.detach().double().cpu().numpy()
        bonds = find_bonds(positions, state.row_vector_cell.detach().double().cpu().numpy(), counts, self.cutoff)
        i, j, owner, vectors = (
            torch.from_numpy(x).to(self._device) for x in (bonds.i, bonds.j, bonds.crystal, bonds.vectors)
        )
        a, b = state.atomic_numbers[i], state.atomic_numbers[j]
        r0, depth, r = self.distances[a, b], self.depths[a, b], vectors.norm(dim=1)
        energy, slope = _pair(r, r0, depth)
        end, end_slope = _pair(torch.full_like(r, self.cutoff), r0, depth)
        energy, slope = energy - end - (r - self.cutoff) * end_slope, slope - end_slope
        pull = (slope / r)[:, None] * vectors
        forces = torch.zeros_like(state.positions, dtype=torch.float64)
        forces = forces.index_add_(0, i, pull, alpha=-1).index_add_(0, j, pull)
        total = torch.zeros(state.n_systems, dtype=torch.float64, device=self._device).index_add_(0, owner, energy)
        virial = torch.zeros((state.n_systems, 3, 3), dtype=torch.float64, device=self._device)
        virial = virial.index_add_(0, owner, vectors[:, :, None] * pull[:, None, :])
        return {"energy": total, "forces": forces, "stress": virial / torch.linalg.det(state.cell).abs().view(-1, 1, 1)}


def _pair(r: Tensor, r0: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Energy and its derivative by distance, without cutoff."""
    x = (r0 / r) ** 6
    return depth * (x * x - 2 * x), -12 * depth * (x * x - x) / r

"""Bulk modulus from an equation of state."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from paragenesis.crystals import FloatArray, Relaxed
from paragenesis.objectives.builtin import NAME_PATTERN, BuiltIn
from paragenesis.objectives.contract import Estimate, Need, member_estimate
from paragenesis.objectives.goals import AnyGoal, Maximize

EV_PER_A3_TO_GPA = 160.21766208  # 1 eV/A^3 in GPa (CODATA 2014, as in ase.units)
_FEWEST_VOLUMES = 4  # a cubic polynomial has four coefficients


class BulkModulus(BuiltIn):
    """Bulk modulus, GPa, at each member's own equilibrium volume: the ensemble's mean and spread.

    Attributes:
        max_residual: A member's fit counts only if the root mean square of what it leaves over is at most this
            share of the energies' range; a crystal that transforms under strain is no equation of state.
    """

    unit: ClassVar[str] = "GPa"
    needs: ClassVar[frozenset[Need]] = frozenset({"strain"})
    name: str = Field(default="bulk_modulus", pattern=NAME_PATTERN)
    goal: AnyGoal = Maximize()
    max_residual: float = Field(default=0.05, gt=0.0, le=1.0)

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """Over the members whose equation of state can be fitted; NaN where none can."""
        volume_per_atom = relaxed.crystals.volumes / relaxed.crystals.n_atoms
        return member_estimate(
            bulk_moduli(relaxed.strains, relaxed.strain_energies, volume_per_atom, max_residual=self.max_residual)
        )


def bulk_moduli(
    strains: FloatArray, energies: FloatArray, volume_per_atom: FloatArray, *, max_residual: float = 0.05
) -> FloatArray:
    """Bulk moduli, GPa, from a third-order Birch-Murnaghan equation of state.

    In `x = (V_r / V)^(2/3)` that equation (F. Birch, Phys. Rev. 71, 809 (1947)) is a cubic polynomial, so the fit is
    linear least squares and its minimum a quadratic's root (Lejaeghere et al., Crit. Rev. Solid State Mater. Sci.
    39, 1 (2014)): `B = V d2E/dV2 = 4/9 x^(7/2) d2E/dx2 / V_r` at that root.

    Args:
        strains: Volumes relative to the reference volume `V_r`, shape `k`.
        energies: Energies at those volumes, eV/atom, shape `m x n x k`.
        volume_per_atom: The reference volumes `V_r`, A^3/atom, shape `n`.
        max_residual: Largest root mean square residual, as a share of the energies' range.

    Returns:
        Bulk moduli, shape `m x n`; NaN where an energy is missing, the minimum lies outside the volumes that were
        sampled, or the residual is too large.
    """
    if len(strains) < _FEWEST_VOLUMES:
        return np.full(energies.shape[:2], np.nan)
    u = strains ** (-2.0 / 3.0) - 1.0  # x - 1: centred, so that the powers stay well conditioned
    powers = np.stack([u**0, u, u**2, u**3])  # 4 x k
    shifted = energies - energies.mean(-1, keepdims=True)
    # einsum, not matmul: a crystal's last digits must not depend on how many others share its batch
    coefficients = np.einsum("mnk,kp->mnp", shifted, np.linalg.pinv(powers))
    residual = shifted - np.einsum("mnp,pk->mnk", coefficients, powers)
    root, curvature = _minimum(coefficients)
    with np.errstate(invalid="ignore"):
        moduli = 4.0 / 9.0 * (1.0 + root) ** 3.5 * curvature / volume_per_atom * EV_PER_A3_TO_GPA
        trusted = (root >= u.min()) & (root <= u.max())
        trusted &= np.sqrt((residual**2).mean(-1)) <= max_residual * np.ptp(shifted, axis=-1)
    return np.where(trusted, moduli, np.nan)


def _minimum(coefficients: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where cubic polynomials have their minimum, and their second derivative there.

    Args:
        coefficients: Constant, linear, quadratic and cubic coefficient, shape `... x 4`.

    Returns:
        Root and curvature, both of shape `...`; NaN where there is no minimum.
    """
    _, b, c, d = np.moveaxis(coefficients, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        curvature = 2.0 * np.sqrt(c**2 - 3.0 * b * d)  # of the two extrema, the one that curves upwards
        root = -2.0 * b / (2.0 * c + curvature)  # this form of the root holds for d = 0 as well
    minimum = np.isfinite(root) & (curvature > 0)
    return np.where(minimum, root, np.nan), np.where(minimum, curvature, np.nan)

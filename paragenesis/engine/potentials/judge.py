"""What a potential says of crystals as they stand: energies, residual forces, pressures, moments, equation of state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import Crystals, FloatArray

if TYPE_CHECKING:
    from paragenesis.engine.potentials.contract import Potential

EV_PER_A3_IN_GPA = 160.21766208  # exact to the digits of CODATA 2014, as in ASE
STRAINS = (0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06)  # volumes of an equation of state, relative


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a potential says of n crystals; NaN where it refused, with the reason in `errors`.

    Attributes:
        energies: On the potential's own scale, eV/atom, shape `n`.
        max_forces: Largest force on an atom, eV/A, shape `n`.
        pressures: GPa, positive where the crystal wants to expand, shape `n`.
        magnetic_moments: Sum of absolute atomic moments, mu_B per cell, shape `n`; NaN if not predicted.
        errors: Why a crystal was refused, by its index.
    """

    energies: FloatArray
    max_forces: FloatArray
    pressures: FloatArray
    magnetic_moments: FloatArray
    errors: dict[int, str]


def judge(potential: Potential, crystals: Crystals, *, batch_atoms: int = 0) -> Judgement:
    """Evaluate crystals where they stand; one that the potential refuses is recorded and harms no other.

    Args:
        potential: Who judges.
        crystals: n crystals.
        batch_atoms: Atoms evaluated at once; 0 means what suits the device.
    """
    from paragenesis.engine.potentials.evaluate import Batch, batches, default_atoms, evaluate

    device = potential.model.device
    table, errors = np.full((4, len(crystals)), np.nan), dict[int, str]()
    for chosen in batches(crystals, batch_atoms or default_atoms(device)):
        part = crystals[slice(chosen.start, chosen.stop)]
        out = evaluate(potential, Batch.of(part, device))
        norms = out.forces.norm(dim=1).cpu().numpy()
        moments = out.magmoms.abs().cpu().numpy()
        where = slice(chosen.start, chosen.stop)
        table[0, where] = out.energy.cpu().numpy() / part.n_atoms
        table[1, where] = np.maximum.reduceat(norms, part.offsets[:-1])
        table[2, where] = -np.trace(out.stress.cpu().numpy(), axis1=1, axis2=2) / 3 * EV_PER_A3_IN_GPA
        table[3, where] = np.add.reduceat(moments, part.offsets[:-1])
        errors |= {chosen.start + i: error for i, error in out.errors.items()}
    return Judgement(
        energies=table[0],
        max_forces=table[1],
        pressures=table[2],
        magnetic_moments=table[3],
        errors=dict(sorted(errors.items())),
    )


def equation_of_state(
    potential: Potential, crystals: Crystals, strains: Sequence[float] = STRAINS, *, batch_atoms: int = 0
) -> FloatArray:
    """Energies of crystals at scaled volumes, atoms at fixed fractional coordinates, eV/atom, shape `n x k`.

    Args:
        potential: Who judges.
        crystals: n crystals, usually relaxed.
        strains: k volumes relative to the crystal's own.
        batch_atoms: Atoms evaluated at once; 0 means what suits the device.
    """
    scaled = [replace(crystals, lattices=crystals.lattices * strain ** (1 / 3)) for strain in strains]
    energies = judge(potential, Crystals.concatenate(scaled), batch_atoms=batch_atoms).energies
    return energies.reshape(len(strains), len(crystals)).T

"""The potential oracle: verification with a potential of a higher level than the ensemble's."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from paragenesis.crystals import Crystals, FloatArray, IntArray, Relaxed
from paragenesis.engine.hull import Hull
from paragenesis.engine.level import Level
from paragenesis.engine.oracles.contract import Verified, unjudged
from paragenesis.engine.potentials.contract import Potential, load_potential, located
from paragenesis.engine.potentials.ensemble import Ensemble
from paragenesis.engine.potentials.relax import RelaxSettings
from paragenesis.engine.references import ElementReferences, references_for
from paragenesis.objectives.contract import Need
from paragenesis.settings import Settings

_USUAL_STEPS = 60  # from the geometry of another potential
_SECONDS_PER_EVALUATION = 0.005  # of one atom, by a graph network on one CPU core


class PotentialOracleSettings(Settings):
    """Which potential verifies, and how well it relaxes.

    Attributes:
        potential: Its name; by default CHGNet for r2SCAN, another functional than that of CHGNet 0.2 and 0.3.
        sha256: Expected hash of the weights; needed for pickled weights from elsewhere.
        functional: The level the weights were trained to imitate, where they do not say so themselves.
        reference_data: Crystals with known formation energies to fit elemental references on, for weights whose
            references do not ship with the package.
        fmax: Largest force on an atom at which a crystal counts as relaxed, eV/A.
        max_steps: Steps after which a crystal that is not relaxed fails.
    """

    potential: str = "chgnet-r2scan"
    sha256: str | None = None
    functional: str | None = None
    reference_data: str | None = None
    fmax: float = Field(default=0.05, gt=0.0)
    max_steps: int = Field(default=500, ge=1)


class PotentialOracle:
    """Relaxes crystals once more, from the ensemble's geometry, and judges them with its own potential."""

    def __init__(
        self,
        settings: PotentialOracleSettings,
        *,
        hull: Hull,
        device: str = "cpu",
        directory: Path = Path(),
        needs: frozenset[Need] = frozenset(),
        potential: Potential | None = None,
        references: ElementReferences | None = None,
    ) -> None:
        """Load the potential and its elemental references, where they are not given.

        Args:
            settings: Which potential, and how well it relaxes.
            hull: The hull that distances are measured from.
            device: The torch device.
            directory: Where a relative `reference_data` begins.
            needs: What the objectives ask for beyond energies.
            potential: One that is loaded already; goes before `settings.potential`.
            references: Its elemental references; goes before `settings.reference_data`.

        Raises:
            InputError: There is no such potential, or the reference data cannot be used.
            PotentialError: The weights cannot be loaded.
        """
        self.potential = potential or load_potential(
            located(settings.potential, directory),
            device=device,
            sha256=settings.sha256,
            functional=settings.functional,
        )
        if references is None:
            data = settings.reference_data
            references = references_for(self.potential, None if data is None else directory / data)
        self.references = references
        self._relax = RelaxSettings(fmax=settings.fmax, max_steps=settings.max_steps)
        self._needs = needs
        self._ensemble = Ensemble(potentials=[self.potential], references=[references], hull=hull)
        known = self.potential.level
        self._level = known.model_copy(
            update={
                "references": references.key,
                "settings": {**known.settings, "fmax": settings.fmax, "max_steps": settings.max_steps},
            }
        )

    @property
    def level(self) -> Level:
        """The potential's level with its references and the tolerance of the relaxation."""
        return self._level

    def cost(self, crystals: Crystals) -> FloatArray:
        """CPU seconds, roughly: the evaluations of an atom that a usual relaxation takes; only ratios are reliable."""
        evaluations = crystals.n_atoms * (1.0 + min(_USUAL_STEPS, self._relax.max_steps))
        return np.asarray(_SECONDS_PER_EVALUATION * evaluations, dtype=np.float64)

    def verify(self, crystals: Crystals) -> Verified:
        """Relax and judge each crystal; one that the potential refuses, or that does not relax, is an error."""
        started = time.perf_counter()
        relaxed, errors, refusals = self._ensemble.relax_and_judge(crystals, self._relax, self._needs)
        elapsed = time.perf_counter() - started
        index_of = {name: i for i, name in enumerate(crystals.ids)}
        errors = dict(errors)
        for refusal in refusals:
            errors.setdefault(index_of[refusal.id], f"{self.potential.name} refused it: {refusal.error}")
        relaxed = _in_order(relaxed, crystals)
        for i in np.flatnonzero(~relaxed.converged).tolist():
            force, steps = relaxed.max_forces[0, i], relaxed.steps[i]
            errors.setdefault(
                i, f"not relaxed after {steps} steps: a force of {force:.3g} eV/A is left; raise max_steps"
            )
        return Verified(
            crystals=relaxed.crystals,
            relaxed=relaxed,
            errors=dict(sorted(errors.items())),
            cost_seconds=_shares(elapsed, crystals.n_atoms, relaxed.steps),
        )


def _in_order(relaxed: Relaxed, crystals: Crystals) -> Relaxed:
    """What is said of some crystals (found by their ids), spread over all; NaN and not converged for the rest."""
    row_of = {name: row for row, name in enumerate(relaxed.crystals.ids)}
    rows = np.array([row_of.get(name, -1) for name in crystals.ids], dtype=np.int64)
    found = rows >= 0
    blank = unjudged(crystals)
    spread: dict[str, Any] = {
        "crystals": Crystals.concatenate(
            [one if row < 0 else relaxed.crystals[int(row)] for one, row in zip(crystals, rows, strict=True)]
        ),
        "members": relaxed.members,
        "strains": relaxed.strains,
        "strain_energies": np.full((1, len(crystals), len(relaxed.strains)), np.nan),
    }
    spread["strain_energies"][:, found] = relaxed.strain_energies[:, rows[found]]
    for field in fields(Relaxed):
        if field.name not in spread:
            table = getattr(blank, field.name).copy()
            table[..., found] = getattr(relaxed, field.name)[..., rows[found]]
            spread[field.name] = table
    return replace(blank, **spread)


def _shares(total: float, n_atoms: IntArray, steps: IntArray) -> FloatArray:
    """A batch's time divided over its crystals in proportion to their work: atoms times force evaluations."""
    work = (n_atoms * (steps + 1)).astype(np.float64)
    return np.asarray(total * work / work.sum()) if work.size else work

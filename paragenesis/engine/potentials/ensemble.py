"""An ensemble of potentials: the first relaxes, all judge, each against its own elemental references."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, Relaxed
from paragenesis.engine.potentials.judge import STRAINS, Judgement, equation_of_state, judge
from paragenesis.engine.potentials.relax import RelaxSettings, relax
from paragenesis.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Composition

    from paragenesis.engine.potentials.contract import Potential
    from paragenesis.objectives.contract import Need


class References(Protocol):
    """Elemental references of one potential."""

    def formation_energies(self, crystals: Crystals, energies: FloatArray) -> FloatArray:
        """Formation energies of n crystals from their energies, eV/atom both, shape `n`."""
        ...


class HullDistances(Protocol):
    """A hull to measure from."""

    def distances(self, compositions: Sequence[Composition | str], formation_energies: FloatArray) -> FloatArray:
        """Energies above the hull, eV/atom, shape `n`."""
        ...


class MemberRefusal(NamedTuple):
    """A potential refused a crystal.

    Attributes:
        member: The potential's name.
        id: The crystal's id.
        error: What it said.
    """

    member: str
    id: str
    error: str


class Ensemble:
    """m potentials with their references and one hull."""

    def __init__(self, potentials: Sequence[Potential], references: Sequence[References], hull: HullDistances) -> None:
        """Put an ensemble together.

        Args:
            potentials: m of them; the first one relaxes.
            references: Elemental references of each potential, m of them.
            hull: Where distances are measured from.

        Raises:
            InputError: There is no potential, their names are not distinct, or the references do not match.
        """
        names = tuple(potential.name for potential in potentials)
        if not names or len(set(names)) < len(names):
            raise InputError(f"an ensemble needs potentials with distinct names, but got {', '.join(names) or 'none'}")
        if len(references) != len(names):
            raise InputError(f"{len(names)} potentials came with {len(references)} sets of elemental references")
        self.potentials, self.references, self.hull, self.members = tuple(potentials), tuple(references), hull, names

    def relax_and_judge(
        self, crystals: Crystals, settings: RelaxSettings, needs: AbstractSet[Need] = frozenset()
    ) -> tuple[Relaxed, dict[int, str], list[MemberRefusal]]:
        """Relax crystals with the first potential and judge them with all.

        Args:
            crystals: n crystals.
            settings: How to relax.
            needs: "strain" asks for an equation of state of each crystal.

        Returns:
            What is said of the crystals that could be relaxed, in their order; why the others could not, by their
            index in `crystals`; and which member refused to judge which relaxed crystal.
        """
        relaxation = relax(self.potentials[0], crystals, settings)
        kept = [i for i in range(len(crystals)) if i not in relaxation.errors]
        relaxed = relaxation.crystals[kept]
        judgements = [judge(potential, relaxed, batch_atoms=settings.batch_atoms) for potential in self.potentials]
        strains = np.array(STRAINS if "strain" in needs else ())
        formation = self._formation_energies(relaxed, judgements)
        answer = Relaxed(
            crystals=relaxed,
            members=self.members,
            energies=np.stack([j.energies for j in judgements]),
            formation_energies=formation,
            hull_distances=np.stack([self.hull.distances(relaxed.compositions, row) for row in formation]),
            max_forces=np.stack([j.max_forces for j in judgements]),
            pressures=np.stack([j.pressures for j in judgements]),
            magnetic_moments=np.stack([j.magnetic_moments for j in judgements]),
            strains=strains,
            strain_energies=self._strain_energies(relaxed, strains, settings.batch_atoms),
            converged=relaxation.converged[kept],
            steps=relaxation.steps[kept],
            initial_volumes=crystals.volumes[kept],
        )
        refusals = [
            MemberRefusal(name, relaxed.ids[i], error)
            for name, judgement in zip(self.members, judgements, strict=True)
            for i, error in judgement.errors.items()
        ]
        return answer, relaxation.errors, refusals

    def _formation_energies(self, crystals: Crystals, judgements: Sequence[Judgement]) -> FloatArray:
        """Each member's formation energies, eV/atom, shape `m x n`."""
        pairs = zip(self.references, judgements, strict=True)
        return np.stack([references.formation_energies(crystals, j.energies) for references, j in pairs])

    def _strain_energies(self, crystals: Crystals, strains: FloatArray, batch_atoms: int) -> FloatArray:
        """Each member's equations of state, eV/atom, shape `m x n x k`."""
        if not strains.size:
            return np.zeros((len(self.members), len(crystals), 0))
        return np.stack(
            [equation_of_state(p, crystals, strains.tolist(), batch_atoms=batch_atoms) for p in self.potentials]
        )

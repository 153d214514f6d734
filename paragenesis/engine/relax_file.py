"""The crystals of a file relaxed with one potential, each with its outcome: one bad crystal harms no other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paragenesis.crystals import Crystals, IntArray
from paragenesis.errors import RejectedInput

if TYPE_CHECKING:
    from paragenesis.engine.potentials.contract import Potential
    from paragenesis.engine.potentials.relax import RelaxSettings


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one crystal.

    Attributes:
        id: Its name.
        formula: Its reduced formula; "" where it could not be read.
        error: Why it was not relaxed, or "".
        energy: On the potential's own scale, eV/atom.
        converged: Whether the tolerance was reached.
        steps: Steps taken.
    """

    id: str
    formula: str = ""
    error: str = ""
    energy: float = float("nan")
    converged: bool = False
    steps: int = 0

    def row(self) -> tuple[str, str, str, str, int]:
        """Id, formula, energy or error, whether converged, steps: for a table."""
        said = self.error or f"{self.energy:.5f}"
        return self.id, self.formula, said, "" if self.error else "yes" if self.converged else "no", self.steps


def valid_crystals(path: Path) -> tuple[Crystals, list[Outcome]]:
    """The crystals of a file that may be relaxed, and what is wrong with the others.

    Raises:
        RejectedInput: The file is missing, too large, of unknown format, or none of its crystals is valid.
    """
    from paragenesis.engine.evaluation.read import read_sample
    from paragenesis.engine.screening.settings import ScreeningSettings
    from paragenesis.engine.screening.validity import invalid_reasons

    sample = read_sample(path)
    refused = [Outcome(id=name, error=reason) for name, reason in sample.unreadable]
    # Chemistry is a matter of plausibility, for generated crystals only: what exists may well break the rule.
    reasons = invalid_reasons(sample.crystals, ScreeningSettings(charge_neutrality=False))
    bad = [i for i, reason in enumerate(reasons) if reason]
    refused += [Outcome(id=sample.crystals.ids[i], formula=_formula(sample.crystals, i), error=reasons[i]) for i in bad]
    crystals = sample.crystals[[i for i, reason in enumerate(reasons) if not reason]]
    if not len(crystals):
        raise RejectedInput(f"{path.name} holds no crystal that can be relaxed: {refused[0].id}: {refused[0].error}")
    return crystals, refused


def _formula(crystals: Crystals, index: int) -> str:
    """A formula, "" where a crystal has no atoms or some that are of no element."""
    numbers = crystals.numbers[crystals.atoms_of(index)]
    return crystals[index].formulas[0] if len(numbers) and 1 <= numbers.min() <= numbers.max() <= 118 else ""


def relax_all(potential: Potential, crystals: Crystals, settings: RelaxSettings) -> tuple[Crystals, list[Outcome]]:
    """The n crystals, those without an error relaxed, and the outcome of each."""
    from paragenesis.engine.estimates import isolate
    from paragenesis.engine.executor import out_of_memory

    def together(rows: IntArray) -> tuple[Crystals, list[Outcome]]:
        return _relaxed(potential, crystals[rows], settings)

    # what does not fit into memory together may do so in parts
    parts, faults = isolate(together, len(crystals), but=lambda error: not out_of_memory(error))
    ends, outcomes = [crystals[i] for i in range(len(crystals))], {}
    for rows, (relaxed, said) in parts:
        for place, row in enumerate(rows.tolist()):
            ends[row], outcomes[row] = relaxed[place], said[place]
    for row, fault in faults.items():
        outcomes[row] = Outcome(id=crystals.ids[row], formula=crystals.formulas[row], error=fault)
    return Crystals.concatenate(ends), [outcomes[row] for row in range(len(crystals))]


def _relaxed(potential: Potential, crystals: Crystals, settings: RelaxSettings) -> tuple[Crystals, list[Outcome]]:
    """The same, all of them at once."""
    from paragenesis.engine.potentials import judge, relax

    result = relax(potential, crystals, settings)
    judged = judge(potential, result.crystals)
    errors = {**judged.errors, **result.errors}
    return result.crystals, [
        Outcome(
            id=crystals.ids[i],
            formula=crystals.formulas[i],
            error=errors.get(i, ""),
            energy=judged.energies[i].item(),
            converged=bool(result.converged[i]),
            steps=int(result.steps[i]),
        )
        for i in range(len(crystals))
    ]


def notes(potential: Potential, outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """What is written beside each relaxed crystal."""
    return [
        {
            "id": one.id,
            "potential": potential.name,
            "energy_per_atom": one.energy,
            "converged": one.converged,
            "steps": one.steps,
        }
        for one in outcomes
    ]

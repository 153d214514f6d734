"""Who judges the energies: potentials by name, each with its own elemental references, and one hull."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from paragenesis.engine.hull import Hull, check_pairing
from paragenesis.errors import PotentialError

if TYPE_CHECKING:
    from paragenesis.engine.potentials.ensemble import Ensemble
    from paragenesis.engine.references import ElementReferences


def load_scorers(
    names: Sequence[str], hull: Hull, device: str = "auto", notify: Callable[[str], None] = lambda _: None
) -> tuple[Ensemble, tuple[str, ...]]:
    """An ensemble of checked potentials, and what a reader must know of their energies, in sentences.

    Args:
        names: Potentials; the first one relaxes.
        hull: What their formation energies are held against, whatever its level: the sentences say so.
        device: Torch device.
        notify: Told what is being done.

    Raises:
        InputError: There is no such potential, or one is named twice.
        PotentialError: Weights cannot be loaded, or fail the known-answer check.
    """
    from paragenesis.engine.potentials.contract import load_potential
    from paragenesis.engine.potentials.ensemble import Ensemble
    from paragenesis.engine.potentials.known_answers import known_answer_check
    from paragenesis.engine.references import references_for

    potentials, references, notes = [], [], []
    for name in names:
        notify(f"loading and checking {name}")
        potential = load_potential(name, device=device)
        answer = known_answer_check(potential)
        if not answer.passed:
            raise PotentialError(answer.sentence)
        potentials.append(potential)
        references.append(references_for(potential))
        notes.append(f"{potential.name}: {_told(references[-1])} {check_pairing(potential.level, hull, mixed=True)}")
    if len(potentials) > 1:
        others = ", ".join(potential.name for potential in potentials[1:])
        notes.append(f"{potentials[0].name} relaxed the crystals; {others} judged its minima as they stand.")
    return Ensemble(potentials, references, hull), tuple(notes)


def _told(references: ElementReferences) -> str:
    """Elemental references in a sentence."""
    if references.mae != references.mae:
        return f"elemental references: {references.source}."
    error = f"error {references.mae:.3f}, bias {references.bias:+.3f} eV/atom"
    return f"elemental references: {references.source} ({error} on {references.n_held_out} held-out crystals)."

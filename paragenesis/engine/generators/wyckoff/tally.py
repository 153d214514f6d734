"""What becomes of the templates that are drawn: nothing disappears uncounted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """What became of the templates drawn since the generator was made.

    Attributes:
        templates: Drawn.
        dead_ends: No choice could finish them within the condition.
        not_finite: The network's output was not finite.
        elemental: Of one element only, which no condition asked for.
        repeated: Drawn before in the same call.
        known: Left out as training crystals.
        familiar: Of a template that the training data hold, beyond their share.
        clashing: No geometry kept the atoms apart.
        strained: Without a geometry whose contacts are like those of real crystals.
        disobedient: The finished crystal had another space group than the one demanded, or disobeyed otherwise.
        kept: Became crystals.
    """

    templates: int = 0
    dead_ends: int = 0
    not_finite: int = 0
    elemental: int = 0
    repeated: int = 0
    known: int = 0
    familiar: int = 0
    clashing: int = 0
    strained: int = 0
    disobedient: int = 0
    kept: int = 0

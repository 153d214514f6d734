"""An objective of one's own: specific stiffness, bulk modulus per mass density.

A campaign beside this file uses it with

    [[objectives]]
    use = "custom_objective.py:specific_stiffness"

Run as a script, it tells whether a campaign may use it:

    python examples/custom_objective.py
"""

from __future__ import annotations

from paragenesis.crystals import Relaxed
from paragenesis.objectives import BulkModulus, Estimate, Maximize, check_objective, objective


@objective(goal=Maximize(), unit="GPa cm3/g", needs={"strain"})
def specific_stiffness(relaxed: Relaxed) -> Estimate:
    """How stiff a crystal is for its mass: what an aerospace group wants much of.

    The density is the relaxed geometry's and certain, so the spread of the ensemble's bulk moduli scales with it.
    """
    modulus = BulkModulus().estimate(relaxed)
    density = relaxed.crystals.densities
    return Estimate(modulus.mean / density, modulus.std / density)


if __name__ == "__main__":
    problems = check_objective(specific_stiffness)
    print("\n".join(problems) or f"{specific_stiffness.name} is ready for a campaign")
    raise SystemExit(1 if problems else 0)

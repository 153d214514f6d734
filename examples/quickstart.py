"""The campaign of quickstart.toml, written in Python: python examples/quickstart.py."""

from pathlib import Path

from paragenesis import CampaignSpec, run

# fmt: off
spec = CampaignSpec(
    name="quickstart", seed=7, condition={"chemical_system": "Mg-Si-O"}, directory=Path(__file__).parent,
    generators=[{"use": "substitution", "n": 48, "chunk": 12}],
    potentials=["chgnet-0.3.0", "chgnet-0.2.0"], relax={"fmax": 0.1, "max_steps": 150}, hull={"mixed": True},
    objectives=["energy_above_hull", "custom_objective.py:specific_stiffness", "supply_risk"],
    decision={"q": 4, "reference_point": [0.25, 20.0, 4000.0]},
    oracle={"use": "potential", "options": {"potential": "chgnet-r2scan"}},
    hits=[{"objective": "energy_above_hull", "at_most": 0.1}],
)
# fmt: on
if __name__ == "__main__":
    print("report:", run(spec).report)

"""What is wanted of a crystal: goals, the objective contract, and the built-in objectives."""

from paragenesis.objectives.builtin import (
    Density,
    EnergyAboveHull,
    FormationEnergy,
    MagneticMomentDensity,
)
from paragenesis.objectives.check import check_objective
from paragenesis.objectives.contract import Estimate, Need, Objective, member_estimate, objective
from paragenesis.objectives.goals import AnyGoal, Goal, Maximize, Minimize, Range, Target, parse_goal
from paragenesis.objectives.load import BUILT_IN, build_objective
from paragenesis.objectives.mechanics import BulkModulus
from paragenesis.objectives.sample import sample_relaxed
from paragenesis.objectives.supply import RawMaterialCost, SupplyRisk

__all__ = [
    "BUILT_IN",
    "AnyGoal",
    "BulkModulus",
    "Density",
    "EnergyAboveHull",
    "Estimate",
    "FormationEnergy",
    "Goal",
    "MagneticMomentDensity",
    "Maximize",
    "Minimize",
    "Need",
    "Objective",
    "Range",
    "RawMaterialCost",
    "SupplyRisk",
    "Target",
    "build_objective",
    "check_objective",
    "member_estimate",
    "objective",
    "parse_goal",
    "sample_relaxed",
]

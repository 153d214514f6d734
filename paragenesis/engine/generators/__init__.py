"""Where candidates come from: generators behind one contract, and the conditions that they obey."""

from paragenesis.engine.generators.condition import Condition, PropertyRange
from paragenesis.engine.generators.contract import Generator, LearningGenerator, check_generator, refuse_unhonoured
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.engine.generators.substitution import Substitution, SubstitutionSettings

__all__ = [
    "Condition",
    "Generator",
    "LearningGenerator",
    "PropertyRange",
    "SeedStructure",
    "Substitution",
    "SubstitutionSettings",
    "check_generator",
    "refuse_unhonoured",
]

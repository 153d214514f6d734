"""Where candidates come from: generators behind one contract, and the conditions that they obey."""

from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.contract import Generator, check_generator, refuse_unhonoured
from paragenesis.engine.generators.substitution import Substitution, SubstitutionSettings

__all__ = ["Condition", "Generator", "Substitution", "SubstitutionSettings", "check_generator", "refuse_unhonoured"]

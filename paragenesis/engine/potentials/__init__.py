"""Machine-learned potentials behind torch-sim's model interface: load, check, judge, relax, ensemble."""

from paragenesis.engine.potentials.contract import Potential, load_potential
from paragenesis.engine.potentials.ensemble import Ensemble, MemberRefusal
from paragenesis.engine.potentials.judge import Judgement, equation_of_state, judge
from paragenesis.engine.potentials.known_answers import KnownAnswer, known_answer_check
from paragenesis.engine.potentials.relax import Relaxation, RelaxSettings, relax

__all__ = [
    "Ensemble",
    "Judgement",
    "KnownAnswer",
    "MemberRefusal",
    "Potential",
    "RelaxSettings",
    "Relaxation",
    "equation_of_state",
    "judge",
    "known_answer_check",
    "load_potential",
    "relax",
]

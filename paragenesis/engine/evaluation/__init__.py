"""Evaluation: how good a set of generated crystals is, every figure with all that it depends on."""

from paragenesis.engine.evaluation.evaluate import EvaluateSettings, Evaluation, evaluate
from paragenesis.engine.evaluation.figures import Figure
from paragenesis.engine.evaluation.files import evaluate_file, models_from
from paragenesis.engine.evaluation.known import Known, known_from_files
from paragenesis.engine.evaluation.measures import Measures, measure
from paragenesis.engine.evaluation.read import Sample, read_sample
from paragenesis.engine.evaluation.scorers import load_scorers
from paragenesis.engine.evaluation.stability import Stability, choose, relax_and_score

__all__ = [
    "EvaluateSettings",
    "Evaluation",
    "Figure",
    "Known",
    "Measures",
    "Sample",
    "Stability",
    "choose",
    "evaluate",
    "evaluate_file",
    "known_from_files",
    "load_scorers",
    "measure",
    "models_from",
    "read_sample",
    "relax_and_score",
]

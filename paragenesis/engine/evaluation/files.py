"""Evaluating what lies in a file, against what lies in other files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from paragenesis.engine.evaluation.evaluate import EvaluateSettings, Evaluation, evaluate
from paragenesis.engine.evaluation.fidelity import PropertyModel
from paragenesis.engine.evaluation.known import known_from_files
from paragenesis.engine.evaluation.read import read_sample
from paragenesis.engine.evaluation.scorers import load_scorers
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.hull import Hull
from paragenesis.engine.level import MP2020
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.errors import InputError
from paragenesis.naming import find_object


def evaluate_file(
    file: Path,
    *,
    references: Sequence[Path] = (),
    hull: Path | None = None,
    hull_level: str = MP2020,
    potentials: Sequence[str] = (),
    condition: Condition | None = None,
    models: Mapping[str, PropertyModel] | None = None,
    settings: EvaluateSettings | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Evaluate the crystals of a file.

    Args:
        file: CIF, extxyz, POSCAR, CSV or Parquet; what cannot be read in it counts as invalid.
        references: Files of known crystals; without any, the AFLOW prototypes.
        hull: A table with columns `formula` and `formation_energy_per_atom`; without one, the embedded hull.
        hull_level: Level of theory of that table.
        potentials: Names of potentials, the first one relaxes; without any, nothing is said of stability.
        condition: What the crystals were asked to be.
        models: Who says what a property is, by the property's name.
        settings: How many to relax, and how.
        notify: Told what is being done.

    Raises:
        InputError: A file cannot be used, there is no such potential, or a property model does not do its part.
        PotentialError: Weights cannot be loaded, or fail the known-answer check.
    """
    screening = ScreeningSettings()
    notify(f"reading {file.name}")
    sample = read_sample(file)
    known = known_from_files(references, hull, screening)
    table = ensemble = None
    remarks: tuple[str, ...] = ()
    if potentials:
        table = Hull.embedded() if hull is None else Hull.from_file(hull, hull_level)
        ensemble, remarks = load_scorers(potentials, table, notify=notify)
    return evaluate(
        sample,
        known,
        ensemble=ensemble,
        hull=table,
        remarks=remarks,
        condition=condition,
        models=models,
        settings=settings,
        screening=screening,
        notify=notify,
    )


def models_from(words: Sequence[str]) -> dict[str, PropertyModel]:
    """Property models from words like "band_gap=file.py:name" or "band_gap=package.module:name".

    Raises:
        InputError: A word reads otherwise, or names nothing that can be called.
    """
    models: dict[str, PropertyModel] = {}
    for word in words:
        name, _, place = word.partition("=")
        if not (name and place):
            raise InputError(f"the property model '{word}' should read like band_gap=file.py:name")
        models[name] = find_object("property model", place, Path())
        if not callable(models[name]):
            raise InputError(f"'{place}' is no property model: it must be a function of crystals")
    return models

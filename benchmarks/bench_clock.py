"""Clocks for a running campaign: time in the model, and time in every stage around it, in whatever process it runs.

Each process writes what it measured to a file of its own after each call of a stage, so no worker need be asked.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from paragenesis.engine.executor import Stage, StageSpec
from paragenesis.engine.potentials.contract import Potential
from paragenesis.testing import lennard_jones_potential

_in_model = [0.0]  # seconds of this process


def timed_lennard_jones(*, device: str = "cpu") -> Potential:
    """The Lennard-Jones potential, with a clock around the forward pass of its model and nothing else."""
    potential = lennard_jones_potential(device)
    model = copy.copy(potential.model)  # others may hold the same one
    forward = model.forward

    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return forward(*arguments, **options)
        finally:
            _in_model[0] += time.perf_counter() - started

    model.forward = timed
    return replace(potential, name="bench_clock:timed_lennard_jones", model=model)


class TimedStage:
    """A stage with a clock around its calls."""

    def __init__(self, name: str, build: Callable[..., Stage], arguments: tuple[Any, ...], folder: Path) -> None:
        """Build the stage.

        Args:
            name: The stage's name.
            build: The stage's class.
            arguments: What it is built from.
            folder: Where the times go.
        """
        self._stage = build(*arguments)
        self._file = folder / f"{name}.{os.getpid()}.json"
        self._seconds = self._model = 0.0

    def __call__(self, item: Any, context: Any) -> Any:
        """Call the stage."""
        model, started = _in_model[0], time.perf_counter()
        try:
            return self._stage(item, context)
        finally:
            self._seconds += time.perf_counter() - started
            self._model += _in_model[0] - model
            self._file.write_text(json.dumps([self._seconds, self._model]))


def timed_stage(spec: StageSpec, folder: Path) -> StageSpec:
    """The specification of a stage with a clock around it."""
    return replace(spec, build=TimedStage, arguments=(spec.name, spec.build, spec.arguments, folder))


def seconds_by_stage(folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds in each stage and, of these, in the model, summed over all processes."""
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for file in folder.glob("*.json"):
        seconds, model = json.loads(file.read_text())
        total = totals[file.name.split(".")[0]]
        total[0] += seconds
        total[1] += model
    return {name: (seconds, model) for name, (seconds, model) in totals.items()}

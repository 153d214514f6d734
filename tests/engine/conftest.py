"""Ledgers as older versions wrote them, an executor that stops early, a potential with little memory."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch

from paragenesis.engine.executor import InlineExecutor
from paragenesis.engine.potentials.contract import Potential
from paragenesis.testing import lennard_jones_potential

# what each migration added, by version
_ADDED = {
    8: tuple(
        f"ALTER TABLE {table} DROP COLUMN {column}"
        for table in ("candidates", "verifications", "probe_answers")
        for column in ("fault", "attempts")
    ),
    2: ("DROP TABLE chunks", "DROP TABLE yields", "DROP TABLE learning"),
    3: ("ALTER TABLE verifications DROP COLUMN before_decision",),
    4: ("ALTER TABLE selections DROP COLUMN most_like", "ALTER TABLE selections DROP COLUMN similarity"),
    7: ("ALTER TABLE predictions DROP COLUMN half_widths",),
    6: tuple(f"ALTER TABLE commits DROP COLUMN {name}" for name in ("seq", "chain", "epoch")),
    5: ("ALTER TABLE verifications DROP COLUMN noise", "DROP TABLE probes", "DROP TABLE probe_answers"),
}


@pytest.fixture
def aged() -> Callable[[Path, int], None]:
    """Takes from a ledger all that came after a version."""

    def age(directory: Path, version: int) -> None:
        with duckdb.connect(str(directory / "ledger.duckdb")) as connection:
            for added in range(max(_ADDED), version, -1):
                for statement in _ADDED[added]:
                    connection.execute(statement)
            connection.execute("DELETE FROM migrations WHERE version > ?", [version])
        (directory / "ledger.head").unlink()
        shutil.rmtree(directory / "exports", ignore_errors=True)  # they are made again

    return age


class Interrupted(InlineExecutor):
    """Stops after some outcomes, as a killed process would."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def stream(self, stages: Any, items: Any, context: Any) -> Any:
        for outcome in super().stream(stages, items, context):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield outcome


@pytest.fixture
def interrupted() -> Callable[[int], InlineExecutor]:
    """Makes an executor that stops after so many outcomes."""
    return Interrupted


@pytest.fixture
def small_memory() -> Callable[[int], Potential]:
    """Makes a Lennard-Jones potential whose memory holds only so many atoms at once."""

    def make(atoms: int) -> Potential:
        potential = lennard_jones_potential()
        model = copy.copy(potential.model)  # others may hold the same one

        def forward(state: Any, **options: Any) -> Any:
            if len(state.positions) > atoms:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return type(model).forward(model, state, **options)

        object.__setattr__(model, "forward", forward)
        return replace(potential, model=model)

    return make

"""Pickled weights are hashed again by every worker that starts, before they are loaded."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paragenesis.actors import RayExecutor
from paragenesis.engine.executor import StageSpec
from paragenesis.engine.potentials import RelaxSettings
from paragenesis.engine.preflight import build_ensemble
from paragenesis.engine.spec import PotentialEntry
from paragenesis.engine.stages import Relax
from paragenesis.errors import PotentialError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_worker_refuses_weights_that_are_not_those_the_campaign_names(tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "swapped.model"
    file.write_bytes(pickle.dumps(Trap(mark)))
    entry = PotentialEntry(name=f"mace:{file}", sha256="0" * 64)
    build = partial(build_ensemble, (entry,), (), None, "cpu")  # type: ignore[arg-type]  # it never gets to the hull
    spec = StageSpec("relax", Relax, (build, RelaxSettings(), frozenset()), "weights")
    with RayExecutor() as executor, pytest.raises(PotentialError, match=r"swapped\.model has sha256 .* was expected"):
        list(executor.stream([spec], [1], None))
    assert not mark.exists()
    pickle.loads(file.read_bytes())
    assert mark.exists(), "the trap works"

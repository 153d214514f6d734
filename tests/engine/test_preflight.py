from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from paragenesis.engine.level import MP2020, Level
from paragenesis.engine.potentials import Potential
from paragenesis.engine.preflight import prepare
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import InputError, PotentialError
from paragenesis.launch import run
from paragenesis.testing import lennard_jones_potential

MakeSpec = Callable[..., CampaignSpec]


@pytest.fixture
def impostor(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a potential that claims to be trained on real compounds and is not."""

    def load(device: str = "cpu") -> Potential:
        level = Level(engine="impostor", version="1", functional=MP2020)
        return replace(lennard_jones_potential(device), name="impostor", level=level)

    module = ModuleType("impostors")
    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "impostors", module)
    return "impostors:load"


def test_a_potential_that_fails_its_known_answers_cannot_start_a_campaign(
    tiny: MakeSpec, impostor: str, tmp_path: Path
) -> None:
    for change in ({"potentials": [impostor]}, {"oracle": {"options": {"potential": impostor}}}):
        with pytest.raises(PotentialError, match="known-answer check"):
            run(tiny(**change), tmp_path / "c", executor="inline")
    assert not (tmp_path / "c").exists()


def test_the_ledger_is_told_everything_a_reader_needs(tiny: MakeSpec) -> None:
    meta = prepare(tiny()).meta
    assert {"name", "seed", "spec", "objectives", "hull", "members", "oracle", "versions", "hits"} <= set(meta)
    assert "Mixed levels, as asked for" in meta["hull"]
    assert '"bias"' in meta["members"]


def test_a_reference_point_needs_one_value_an_objective(tiny: MakeSpec) -> None:
    with pytest.raises(InputError, match="reference_point has 3 values, but there are 2 objectives"):
        prepare(tiny(decision={"q": 2, "reference_point": [0.0, 1.0, 2.0]}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_worker_that_was_given_a_gpu_and_sees_none_stops_the_campaign(tiny: MakeSpec, tmp_path: Path) -> None:
    greedy = {"potentials": {"gpus": 1.0}}
    with pytest.raises(InputError, match=r"torch sees no GPU in this process.*give workers no gpus"):
        run(tiny(rounds=1, resources=greedy), tmp_path / "c", executor="inline")
    run(tiny(rounds=1, resources=greedy, device="cpu"), tmp_path / "d", executor="inline")
    oracle = {"oracle": {"gpus": 1.0}}
    with pytest.raises(InputError, match="torch sees no GPU"):
        run(tiny(rounds=1, resources=oracle), tmp_path / "e", executor="inline")

"""What the tests under chaos share: the campaign that is disturbed, and how it ends when it is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from paragenesis.engine.executor import InlineExecutor
from paragenesis.engine.ledger import digest
from paragenesis.engine.spec import CampaignSpec
from paragenesis.launch import run

# accidents are frequent here, so many must be allowed before a crystal is to blame for them
_OFTEN = {"attempts": 100, "lease": 3.0}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test that asks for a seed those of PARAGENESIS_CHAOS_SEEDS, "first:last" without the last."""
    if "seed" in metafunc.fixturenames:
        first, _, last = os.environ.get("PARAGENESIS_CHAOS_SEEDS", "0:3").rpartition(":")
        metafunc.parametrize("seed", range(int(first or 0), int(last)))


@pytest.fixture(scope="session")
def disturbed(tiny: Callable[..., CampaignSpec]) -> CampaignSpec:
    """The campaign, with workers that may be lost often."""
    resources: dict[str, Any] = {"generate": _OFTEN, "potentials": _OFTEN | {"workers": 2}}
    return tiny(resources=resources)


@pytest.fixture(scope="session")
def undisturbed(tiny: Callable[..., CampaignSpec], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of its ledger when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "c"
    run(tiny(), folder, executor=InlineExecutor())
    return digest(folder)

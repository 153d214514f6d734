"""What the tests under chaos share: the campaign that is disturbed, and how it ends when it is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paragenesis.engine.ledger import digest
from paragenesis.engine.spec import CampaignSpec

# accidents are frequent here, so many must be allowed before a crystal is to blame for them
_OFTEN = {"attempts": 100, "lease": 3.0}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test that asks for a seed those of PARAGENESIS_CHAOS_SEEDS, "first:last" without the last.

    Of a module with `ALWAYS` every run of the tests has so many.
    """
    if "seed" in metafunc.fixturenames:
        first, _, last = os.environ.get("PARAGENESIS_CHAOS_SEEDS", "0:3").rpartition(":")
        seeds = range(int(first or 0), int(last))
        always = getattr(metafunc.module, "ALWAYS", 0)
        marks = [[pytest.mark.always] if i < always else [] for i in range(len(seeds))]
        metafunc.parametrize("seed", [pytest.param(s, marks=m) for s, m in zip(seeds, marks, strict=True)])


@pytest.fixture(scope="session")
def disturbed(tiny: Callable[..., CampaignSpec]) -> CampaignSpec:
    """The campaign, with workers that may be lost often."""
    resources: dict[str, Any] = {"generate": _OFTEN, "potentials": _OFTEN | {"workers": 2}}
    return tiny(resources=resources)


@pytest.fixture(scope="session")
def undisturbed(finished: Path) -> str:
    """The digest of its ledger when nobody disturbs it."""
    return digest(finished)

"""A tiny campaign that takes a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paragenesis.engine.spec import CampaignSpec


@pytest.fixture
def tiny() -> Callable[..., CampaignSpec]:
    """Makes the specification of a campaign on a Lennard-Jones potential; keywords replace its fields."""

    def make(**changes: Any) -> CampaignSpec:
        values: dict[str, Any] = {
            "name": "tiny",
            "seed": 1,
            "rounds": 2,
            "condition": {"allowed_elements": ("Na", "Cl")},
            "generators": [{"use": "random", "n": 12, "chunk": 4}],
            "screening": {"charge_neutrality": False, "novelty": False, "overlap_factor": 0.4},
            "potentials": ["lennard-jones"],
            "relax": {"fmax": 0.2, "max_steps": 25},
            "hull": {"mixed": True},
            "objectives": ("formation_energy", "density"),
            "triage": {"min_hull_distance": -100.0, "max_std": {}, "max_force": 1000.0},
            "decision": {"q": 3},
            "oracle": {"use": "potential", "options": {"potential": "lennard-jones", "fmax": 0.6}},
            "hits": [{"objective": "formation_energy", "at_most": 0.0}],
        }
        return CampaignSpec.parse(values | changes)

    return make

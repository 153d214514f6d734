"""How honest the intervals of each round were, as the report shows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from paragenesis.engine.report.data import Campaign
from paragenesis.engine.report.wording import finite

_NUMBERS = ("level", "coverage", "miscalibration_area", "recalibrated_area", "sharpness", "rmse")


@dataclass(frozen=True)
class Honesty:
    """The intervals of one objective in one round against what verification found; None where nothing is known."""

    round: int
    objective: str
    n: int
    made: str
    level: float | None
    coverage: float | None
    miscalibration_area: float | None
    recalibrated_area: float | None
    sharpness: float | None
    rmse: float | None


def read_calibration(campaign: Campaign) -> list[Honesty]:
    """What closed rounds say of their intervals; nothing of a ledger that says it in another way."""
    found = []
    for one in campaign.rounds:
        told = _table(one.calibration)
        made = _table_in(told, "intervals")
        for name, report in sorted(_table_in(told, "objectives").items()):
            if isinstance(report, dict) and isinstance(report.get("n"), int):
                known = {key: float(report[key]) if finite(report.get(key)) else None for key in _NUMBERS}
                if known["sharpness"] == 0:  # what is certain has no intervals
                    known["miscalibration_area"] = known["recalibrated_area"] = None
                found.append(Honesty(one.round, name, report["n"], str(made.get(name, "")), **known))
    return found


def _table(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _table_in(told: dict[str, Any], key: str) -> dict[str, Any]:
    inner = told.get(key)
    return inner if isinstance(inner, dict) else {}

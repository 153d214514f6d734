"""What the report reads of the intervals of each round."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from paragenesis.engine.report.calibration import read_calibration


def read(*calibrations: str | None) -> list[Any]:
    rounds = [SimpleNamespace(round=i, calibration=text) for i, text in enumerate(calibrations, start=1)]
    return read_calibration(SimpleNamespace(rounds=rounds))  # type: ignore[arg-type]


def test_each_objective_of_each_round_has_a_row() -> None:
    gap = {"n": 4, "level": 0.9, "coverage": 0.75, "miscalibration_area": 0.1, "sharpness": 0.2, "rmse": None}
    told = {"objectives": {"gap": gap, "cost": gap | {"sharpness": 0.0}}, "intervals": {"gap": "x2.00"}}
    cost, first = read(json.dumps(told))
    assert (first.round, first.objective, first.n, first.coverage, first.made) == (1, "gap", 4, 0.75, "x2.00")
    assert (first.miscalibration_area, first.rmse) == (0.1, None)
    assert (cost.miscalibration_area, cost.made) == (None, ""), "what is certain has no intervals"


@pytest.mark.parametrize(
    "text",
    [None, "", "no JSON", "[1]", "{}", '{"objectives": 3}', '{"objectives": {"gap": {"n": "four"}}}', "[" * 9999],
)
def test_what_is_said_in_another_way_is_left_out(text: str | None) -> None:
    assert read(text) == []

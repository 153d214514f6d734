"""How intervals are best calibrated: by crystals left out in turn, by a split, as normal ones or as errors shape them.

Outcomes of crystals drawn at random are learnt as `decide` learns them and judged on all others of the table.

left out, normal        the engine's standard deviations, with which it chooses
left out, recalibrated  the engine's half-widths, which it tells
split, normal           learnt from three quarters, scaled by the conformal quantile of the errors of the rest
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from bench_pool import mp20_pool
from bench_table import markdown, mean_and_error

from paragenesis.engine.acquisition.features import FeatureSpace
from paragenesis.engine.metrics import CURVE_LEVELS, recalibrated_coverage
from paragenesis.engine.surrogate import ResidualSurrogate, SurrogateSettings
from paragenesis.engine.surrogate.calibration import NORMAL
from paragenesis.objectives.goals import Range

Floats = np.ndarray
NINETY = CURVE_LEVELS.index(0.9)


def calibration(options: argparse.Namespace, hit: Mapping[str, Range], seeds: range) -> dict[str, Any]:
    """Coverage, miscalibration area and width of intervals by outcome, size and way."""
    table, features = mp20_pool(options.data, None, options.work)
    X, Y = table[features].to_numpy(), table[list(hit)].to_numpy()
    found = pd.DataFrame(row for n in options.sizes for seed in seeds for row in judged(X, Y, list(hit), n, seed))
    rows = [
        [
            f"{outcome}, {n}, {way}",
            *(mean_and_error(part[column], 3) for column in ("coverage", "area", "width", "MAE")),
            f"{part['coverage'].std():.3f}",
        ]
        for (outcome, n, way), part in found.groupby(["outcome", "n", "way"], sort=False)
    ]
    head = [
        "outcome, learnt from, way",
        "inside 90 %",
        "miscalibration area",
        "half-width",
        "MAE",
        "spread of coverage",
    ]
    print(markdown(head, rows))
    return {"task": "calibration", "rows": found.to_dict("records")}


def judged(X: Floats, Y: Floats, outcomes: list[str], n: int, seed: int) -> Iterator[dict[str, Any]]:
    """The three ways on n crystals drawn at random, a row an outcome and way."""
    order = np.random.default_rng(seed).permutation(len(X))
    known, rest = order[:n], order[n:]
    k = round(0.75 * n)
    whole, part = _Learnt(X, Y, known), _Learnt(X, Y, known[:k])
    (mean, std), (part_mean, part_std) = whole(rest), part(rest)
    held_mean, held_std = part(known[k:])
    for j, outcome in enumerate(outcomes):
        scores = np.sort(
            np.abs(Y[known[k:], j] - held_mean[:, j]) / np.maximum(NORMAL[NINETY] * held_std[:, j], 1e-300)
        )
        split = scores[min(int(np.ceil(0.9 * (n - k + 1))), n - k) - 1] * part_std[:, j]
        shaped = whole.model.calibration[j].half_widths
        for way, middle, deviation, widths in (
            ("left out, normal", mean[:, j], std[:, j], NORMAL),
            ("left out, recalibrated", mean[:, j], std[:, j], shaped),
            ("split, normal", part_mean[:, j], split, NORMAL),
        ):
            half = deviation[:, None] * np.array(widths)
            curve, area = recalibrated_coverage(Y[rest, j], middle, half)
            yield {
                "outcome": outcome, "n": n, "seed": seed, "way": way, "coverage": curve[NINETY], "area": area,
                "width": half[:, NINETY].mean(), "MAE": np.abs(Y[rest, j] - middle).mean(),
            }  # fmt: skip


class _Learnt:
    """What some crystals teach about all others."""

    def __init__(self, X: Floats, Y: Floats, known: Floats) -> None:
        self._X, self._centre = X, Y[known].mean(0)
        self.model = ResidualSurrogate(SurrogateSettings(ensemble_weight=0.0))
        self.model.fit(X[known], Y[known] - self._centre, space=FeatureSpace(X, X.shape[1]))

    def __call__(self, rows: Floats) -> tuple[Floats, Floats]:
        told = np.tile(self._centre, (len(rows), 1))
        return self.model.predict(self._X[rows], told, np.full(told.shape, np.nan))

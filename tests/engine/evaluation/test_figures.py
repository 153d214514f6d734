"""A share never travels without what it depends on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from paragenesis.engine.evaluation.figures import Figure, per_generated, tables
from paragenesis.engine.metrics import product_interval, wilson_interval
from paragenesis.errors import InputError

RELAXED = Figure(
    name="S.U.N.", count=64, n=256, of="relaxed", scorer="chgnet-0.3.0", hull="h", reference="r", relaxed=True
)


def test_a_product_is_as_uncertain_as_its_parts() -> None:
    value, low, high = product_interval((64, 256), (1400, 2000))
    assert value == pytest.approx(0.175)
    scaled = np.array(wilson_interval(64, 256)) * 0.7
    assert low < scaled[0] < value < scaled[1] < high  # the second share adds a little
    assert (high - low) < 1.1 * (scaled[1] - scaled[0])
    # with everything relaxed it is a plain binomial share, and the product comes near that
    assert product_interval((350, 1400), (1400, 2000))[1:] == pytest.approx(wilson_interval(350, 2000), abs=2e-3)
    assert product_interval((0, 0), (5, 9)) == (0.0, 0.0, 1.0)
    assert product_interval((0, 10), (0, 10))[1] == 0.0
    with pytest.raises(InputError):
        product_interval((3, 2), (1, 2))


def test_the_intervals_of_a_product_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        new = rng.binomial(500, 0.6)
        stable = rng.binomial(100, 0.3)
        _, low, high = product_interval((stable, 100), (new, 500))
        held.append(low <= 0.18 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_per_generated_counts_where_it_can_and_multiplies_where_it_must() -> None:
    counted = per_generated(RELAXED, (256, 400))
    assert (counted.count, counted.n, counted.of, counted.times) == (64, 400, "generated", None)
    scaled = per_generated(RELAXED, (1400, 2000))
    assert scaled.value == pytest.approx(0.175)
    assert scaled.counted == "64 of 256 relaxed, times 1400 of 2000"
    assert scaled.share.startswith("17.5 % (")


def test_a_record_holds_everything_and_is_plain() -> None:
    record = json.loads(json.dumps(per_generated(RELAXED, (1400, 2000)).record()))
    assert {key: record[key] for key in ("scorer", "hull", "reference", "relaxed", "n", "count")} == {
        "scorer": "chgnet-0.3.0",
        "hull": "h",
        "reference": "r",
        "relaxed": True,
        "n": 256,
        "count": 64,
    }
    assert record["times"]["n"] == 2000
    assert record["low"] < record["value"] < record["high"]


def test_nothing_counted_is_no_share() -> None:
    empty = Figure(name="x", count=0, n=0, of="relaxed")
    assert (empty.share, empty.low, empty.high) == ("-", 0.0, 1.0)


def test_tables_are_one_a_scorer() -> None:
    plain = Figure(name="valid", count=1, n=2, of="generated")
    found = list(tables([plain, RELAXED]))
    assert [head[0] for head, _ in found] == ["share (95 % interval)", "by chgnet-0.3.0"]
    assert [len(rows) for _, rows in found] == [1, 1]

"""What picks tell about the candidates that are left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.acquisition.select import DecisionSettings, Selection, select_batch
from paragenesis.errors import InputError


def correlated(points: FloatArray, m: int = 2) -> FloatArray:
    """Correlations that fall off with the distance of points, shape `m x k x k`."""
    square = ((points[:, None] - points[None]) ** 2).sum(-1)
    return np.tile(np.exp(-0.5 * square), (m, 1, 1))


def pool(n: int = 60, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-2, 2, (n, 2))
    return {
        "descriptors": points,
        "mean": rng.normal(size=(n, 2)) * 0.1,
        "std": rng.uniform(0.5, 1.0, (n, 2)),
        "observed": np.array([[0.0, 0.2], [0.2, 0.0]]),
        "reference_point": np.full(2, -1.0),
    }


def choose(given: dict[str, Any], q: int = 6, **options: Any) -> Selection:
    settings = DecisionSettings(q=q, **{"diversity": 0.0, **options})
    points = given["descriptors"]
    return select_batch(**given, correlation=lambda rows: correlated(points[rows]), settings=settings)


def test_each_gain_is_that_of_the_posterior_given_the_picks_before() -> None:
    from paragenesis.engine.acquisition.hypervolume import decompose

    given = pool()
    batch = choose(given, q=8)
    full = correlated(given["descriptors"])
    for t, row in enumerate(batch.indices.tolist()):
        before = batch.indices[:t]
        std = np.empty((60, 2))
        for j in range(2):
            covariance = full[j] * np.outer(given["std"][:, j], given["std"][:, j])
            cross = covariance[:, before]
            told = cross @ np.linalg.solve(covariance[np.ix_(before, before)], cross.T)
            std[:, j] = np.sqrt(np.maximum(np.diag(covariance - told), 0.0))
        front = np.vstack([given["observed"], given["mean"][before]])
        gain = decompose(front, given["reference_point"], np.ones(2)).expected_gain(given["mean"], std)
        gain[before] = 0.0
        assert batch.gain[t] == pytest.approx(gain[row], rel=1e-4)
        assert gain[row] >= gain.max() * (1 - 1e-4)


def test_of_two_that_stand_or_fall_together_one_is_enough() -> None:
    given = pool(4)
    given["descriptors"] = np.array([[0.0, 0.0], [0.01, 0.0], [9.0, 0.0], [0.0, 9.0]])
    given["mean"] = np.zeros((4, 2))
    given["std"] = np.array([[1.0, 1.0], [0.99, 0.99], [0.5, 0.5], [0.1, 0.1]])
    assert choose(given, q=2).indices.tolist() == [0, 2]
    alone = select_batch(**given, settings=DecisionSettings(q=2, diversity=0.0))
    assert alone.indices.tolist() == [0, 1]


def test_what_is_pending_tells_as_a_pick_does() -> None:
    given = pool()
    whole = choose(given, q=9)
    first, rest = whole.indices[:3], np.setdiff1d(np.arange(60), whole.indices[:3])
    points = np.vstack([given["descriptors"][rest], given["descriptors"][first]])
    later = select_batch(
        **{name: table[rest] if len(table) == 60 else table for name, table in given.items()},
        pending=(given["descriptors"][first], given["mean"][first]),
        correlation=lambda rows: correlated(points[rows]),
        settings=DecisionSettings(q=6, diversity=0.0),
    )
    assert rest[later.indices].tolist() == whole.indices[3:].tolist()
    assert later.gain == pytest.approx(whole.gain[3:], rel=1e-6)


def test_the_order_of_the_pool_does_not_matter() -> None:
    given, order = pool(), np.random.default_rng(1).permutation(60)
    moved = {k: v[order] if len(v) == 60 else v for k, v in given.items()}
    plain, other = choose(given, shortlist=9, q=12), choose(moved, shortlist=9, q=12)
    assert order[other.indices].tolist() == plain.indices.tolist()
    assert other.gain == pytest.approx(plain.gain)


def test_it_is_asked_of_the_shortlist_alone() -> None:
    given, asked = pool(), []

    def correlation(rows: IntArray) -> FloatArray:
        asked.append(len(rows))
        return correlated(given["descriptors"][rows])

    settings = DecisionSettings(q=5, shortlist=20)
    assert len(select_batch(**given, correlation=correlation, settings=settings)) == 5
    assert asked == [20]


def test_five_objectives_are_told_of_too() -> None:
    points, mean = np.array([[0.0], [0.01], [9.0]]), np.array([[0.1] * 5, [0.09] * 5, [0.0] * 5])
    batch = select_batch(
        points, mean, np.full((3, 5), 0.5), observed=np.random.default_rng(0).normal(size=(3, 5)) - 2.0,
        reference_point=np.full(5, -3.0), correlation=lambda rows: correlated(points[rows], 5),
        settings=DecisionSettings(q=2, diversity=0.0),
    )  # fmt: skip
    assert batch.indices.tolist() == [0, 2]


@pytest.mark.parametrize("wrong", [np.ones((2, 3)), np.full((2, 60, 60), 1.5), np.full((2, 60, 60), np.nan)])
def test_what_is_no_correlation_is_refused(wrong: FloatArray) -> None:
    with pytest.raises(InputError, match="correlation of 60 candidates must give numbers from -1 to 1"):
        select_batch(**pool(), correlation=lambda rows: wrong, settings=DecisionSettings(q=2))

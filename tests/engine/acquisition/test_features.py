"""Descriptors as coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from paragenesis.engine.acquisition import features
from paragenesis.engine.acquisition.features import FeatureSpace, nearest_distance


def test_the_root_mean_square_distance_is_one_in_any_unit() -> None:
    X = np.random.default_rng(0).normal(size=(300, 4)) * [1.0, 1e3, 1e-3, 0.0] + 5.0
    Z = FeatureSpace(X)(X)
    square = ((Z[:, None] - Z[None]) ** 2).sum(-1)
    assert square.mean() == pytest.approx(1.0)


def test_the_nearest_is_found_whatever_the_size_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(50, 3)), rng.normal(size=(7, 3))
    exact = np.sqrt(((A[:, None] - B[None]) ** 2).sum(-1)).min(1)
    for entries in (1, 20, 10_000):
        monkeypatch.setattr(features, "_ENTRIES", entries)
        assert nearest_distance(A, B) == pytest.approx(exact)
    assert np.isinf(nearest_distance(A, B[:0])).all()
    assert nearest_distance(A[:0], B).shape == (0,)

"""Selection of a batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paragenesis.engine.acquisition.dpp import log_determinant
from paragenesis.engine.acquisition.pareto import hypervolume
from paragenesis.engine.acquisition.select import DecisionSettings, Selection, reference_utilities, select_batch
from paragenesis.engine.acquisition.strategies import STRATEGIES
from paragenesis.errors import InputError
from paragenesis.objectives.goals import Minimize, Target


def pool(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Descriptors in clusters, utilities that follow them, and six verified crystals."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    mean = np.stack([X[:, 0] + 0.1 * X[:, 2], -X[:, 0] + X[:, 1], 100.0 * X[:, 3]], axis=1)
    return X, mean, np.tile([0.3, 0.3, 20.0], (n, 1)), mean[:6] - 1.0


def choose(strategy: str = "ehvi_dpp", q: int = 8, seed: int = 0, n: int = 200, **options: object) -> Selection:
    X, mean, std, observed = pool(n)
    chosen = DecisionSettings(q=q, strategy=strategy, **options)  # type: ignore[arg-type]
    return select_batch(X, mean, std, observed=observed, settings=chosen, seed=seed)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_gives_q_distinct_candidates_with_reasons(strategy: str) -> None:
    batch = choose(strategy)
    assert len(set(batch.indices.tolist())) == len(batch) == len(batch.why) == 8
    assert (batch.uncertainty > 0).all()
    assert all("rank" in why for why in batch.why)
    again = choose(strategy)
    assert again.indices.tolist() == batch.indices.tolist()


def test_scores_of_plain_strategies_fall_and_random_depends_on_the_seed() -> None:
    for strategy in ("ehvi", "greedy", "random"):
        assert all(a >= b for a, b in pairwise(choose(strategy).score.tolist()))
    assert choose("random", seed=1).indices.tolist() != choose("random", seed=2).indices.tolist()


def test_a_joint_choice_expects_more_hypervolume_than_the_best_singles() -> None:
    _, mean, _, observed = pool()
    plain, joint = choose("ehvi"), choose("ehvi_dpp")
    point = joint.reference_point
    together = [hypervolume(np.vstack([observed, mean[batch.indices]]), point) for batch in (plain, joint)]
    assert together[1] > together[0]
    assert joint.gain[0] == joint.score[0]
    assert (joint.gain[1:] <= joint.score[1:]).all()


def test_diversity_buys_a_larger_determinant_for_a_lower_score() -> None:
    X = pool()[0]
    plain, diverse = choose("ehvi_dpp", diversity=0.0), choose("ehvi_dpp", diversity=5.0)
    assert log_determinant(X[diverse.indices]) > log_determinant(X[plain.indices]) + 0.5
    assert diverse.score.sum() < plain.score.sum()


def test_a_crystal_like_a_pending_one_is_not_chosen_again() -> None:
    X, mean, std, observed = pool()
    first = choose("ehvi_dpp", q=1).indices[0]
    options = DecisionSettings(q=1, diversity=5.0)
    batch = select_batch(X, mean, std, observed=observed, given=X[[first]], settings=options)
    assert batch.indices[0] != first
    assert "nearest verified or pending" in batch.why[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["ehvi_dpp", "ehvi", "greedy"]))
def test_the_choice_depends_neither_on_the_order_nor_on_units(seed: int, strategy: str) -> None:
    X, mean, std, observed = pool(60, seed % 1000)
    chosen = DecisionSettings(q=5, strategy=strategy)
    plain = select_batch(X, mean, std, observed=observed, settings=chosen)
    order = np.random.default_rng(seed).permutation(60)
    unit = np.array([1e3, 1.0, 1e-2])
    other = select_batch(
        X[order] * 7.0, mean[order] * unit, std[order] * unit, observed=observed * unit, settings=chosen
    )
    assert order[other.indices].tolist() == plain.indices.tolist()


def test_fewer_than_asked_for_is_all_of_them_and_said() -> None:
    batch = choose(n=7, q=10)
    assert sorted(batch.indices.tolist()) == list(range(7))
    assert "10 were asked for" in batch.note


def test_an_empty_pool_is_an_empty_batch() -> None:
    batch = select_batch(np.zeros((0, 3)), np.zeros((0, 2)), np.zeros((0, 2)), observed=np.zeros((0, 2)))
    assert len(batch) == 0
    assert batch.note == "the pool is empty"


def test_unknown_values_are_left_out_with_a_reason() -> None:
    X, mean, std, observed = pool(20)
    mean[3, 1], std[5, 0], X[9, 2] = np.nan, np.inf, np.nan
    batch = select_batch(X, mean, std, observed=observed, settings=DecisionSettings(q=20))
    assert len(batch) == 17
    assert set(batch.excluded) == {3, 5, 9}
    assert "expected utility 1 is nan" in batch.excluded[3]


def test_a_pool_without_hope_still_gives_its_best() -> None:
    X, mean, std, _ = pool(50)
    best = mean.max(0) + 1e3
    batch = select_batch(X, mean, std * 0, observed=best[None], settings=DecisionSettings(q=4, diversity=1e-3))
    assert "not expected to improve" in batch.note
    appeal = (mean / mean.std(0)).sum(1)
    assert batch.indices.tolist() == np.argsort(-appeal)[:4].tolist()


def test_nothing_verified_constant_objective_and_duplicates() -> None:
    X, mean, std, _ = pool(30)
    X[1], mean[1], mean[:, 2] = X[0], mean[0], 4.0
    batch = select_batch(X, mean, std, observed=np.zeros((0, 3)), settings=DecisionSettings(q=10))
    assert len(batch) == 10
    assert not {0, 1} <= set(batch.indices.tolist())


def test_the_reference_point_can_be_given_in_the_objectives_units() -> None:
    goals = (Minimize(), Target(value=2.0))
    point = reference_utilities(DecisionSettings(reference_point=(0.2, 3.5)), goals)
    assert point is not None
    assert point.tolist() == [-0.2, -1.5]
    assert reference_utilities(DecisionSettings(), goals) is None
    with pytest.raises(InputError, match="2 objectives"):
        reference_utilities(DecisionSettings(reference_point=(1.0,)), goals)


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="ehvi_dpp, greedy, random"):
        DecisionSettings.parse({"strategy": "magic"})
    with pytest.raises(InputError, match="N x d"):
        select_batch(np.ones((2, 1)), np.ones((3, 2)), np.ones((3, 2)), observed=np.zeros((0, 2)))

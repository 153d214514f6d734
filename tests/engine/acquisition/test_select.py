"""Selection of a batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

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
    chances = np.random.default_rng(7).random(n)
    return select_batch(X, mean, std, observed=observed, hit_probability=chances, settings=chosen, seed=seed)


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


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.sampled_from([1e-3, 1.0, 70.0]), min_size=4, max_size=4))
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_the_choice_depends_neither_on_the_order_nor_on_units(strategy: str, seed: int, columns: list[float]) -> None:
    X, mean, std, observed = pool(60, seed % 1000)
    rng = np.random.default_rng(seed)
    chances, feasible, cost, order = rng.random(60), rng.random(60), rng.uniform(1, 2, 60), rng.permutation(60)
    chosen = DecisionSettings(q=5, strategy=strategy, budget=6.0, explore=0.2)
    point, unit = mean.min(0), np.array([1e3, 1.0, 1e-2])
    known: dict[str, Any] = {"settings": chosen, "seed": 3}
    plain = select_batch(
        X,
        mean,
        std,
        observed=observed,
        given=X[:2] + 0.1,
        pending=(X[2:4] + 0.1, mean[2:4]),
        hit_probability=chances,
        feasible=feasible,
        cost=cost,
        reference_point=point,
        **known,
    )
    other = select_batch(
        X[order] * columns,
        mean[order] * unit,
        std[order] * unit,
        observed=observed[::-1] * unit,
        given=(X[:2] + 0.1) * columns,
        pending=((X[2:4] + 0.1) * columns, mean[2:4] * unit),
        hit_probability=chances[order],
        feasible=feasible[order],
        cost=cost[order] * 60.0,
        reference_point=point * unit,
        settings=chosen.model_copy(update={"budget": 360.0}),
        seed=3,
    )
    assert order[other.indices].tolist() == plain.indices.tolist()
    assert other.nearest_given.tolist() == plain.nearest_given.tolist()
    assert other.nearest_chosen.tolist() == plain.nearest_chosen.tolist()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from(["ehvi_dpp", "hits"]))
def test_pending_counts_in_diversity_as_labelled(seed: int, p: int, strategy: str) -> None:
    X, mean, std, observed = pool(50, seed)
    rng = np.random.default_rng(seed)
    given, waiting, hopeless = rng.normal(size=(2, 4)), X[:p] + 0.01, mean.min(0) - np.ones((p, 3))
    options: dict[str, Any] = {
        "observed": observed,
        "hit_probability": rng.random(50),
        "settings": DecisionSettings(q=5, strategy=strategy, diversity=3.0),
        "reference_point": mean.min(0),
    }
    labelled = select_batch(X, mean, std, given=np.vstack([given, waiting]), **options)
    pending = select_batch(X, mean, std, given=given, pending=(waiting, hopeless), **options)
    assert pending.indices.tolist() == labelled.indices.tolist()
    assert pending.similarity_given.tolist() == labelled.similarity_given.tolist()
    assert pending.nearest_given.tolist() == labelled.nearest_given.tolist()


def test_pending_is_believed_in_scores_but_not_observed() -> None:
    X, mean, std, observed = pool()
    options: dict[str, Any] = {"observed": observed, "settings": DecisionSettings(q=4, strategy="ehvi")}
    free = select_batch(X, mean, std, **options)
    first = free.indices[:1]
    waiting = select_batch(X, mean, std, pending=(X[first] + 9.0, mean[first]), **options)
    known = select_batch(
        X,
        mean,
        std,
        observed=np.vstack([observed, mean[first]]),
        settings=options["settings"],
        reference_point=free.reference_point,
    )
    assert waiting.reference_point.tolist() == free.reference_point.tolist()
    assert waiting.indices.tolist() == known.indices.tolist() != free.indices.tolist()
    assert waiting.score[0] < free.score[0]


def test_what_each_pick_is_most_alike_is_told() -> None:
    X, mean, std, observed = pool(40)
    given, waiting = X[:3] + 0.2, (X[3:5] - 0.2, mean[3:5])
    batch = select_batch(X, mean, std, observed=observed, given=given, pending=waiting)
    basis = np.vstack([X, given, waiting[0]])
    unit = basis.std(0) * np.sqrt(2 * X.shape[1])
    for t, row in enumerate(batch.indices):
        squares = (((basis[40:] - X[row]) / unit) ** 2).sum(1)
        assert batch.nearest_given[t] == np.argmin(squares)
        assert batch.similarity_given[t] == pytest.approx(np.exp(-2.0 * squares.min()))
        squares = (((X[batch.indices[:t]] - X[row]) / unit) ** 2).sum(1)
        assert batch.nearest_chosen[t] == (np.argmin(squares) if t else -1)
        assert batch.similarity_chosen[t] == pytest.approx(np.exp(-2.0 * squares.min()) if t else 0.0)
        assert f"verified or pending {batch.similarity_given[t]:.2f}" in batch.why[t]
    alone = select_batch(X, mean, std, observed=observed)
    assert alone.nearest_given.tolist() == [-1] * 8
    assert not alone.similarity_given.any()


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


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_copies_come_when_nothing_else_is_left(strategy: str) -> None:
    X, mean, std, observed = (np.repeat(table, 3, axis=0) for table in pool(6))
    X[1::3] += 1e-15  # rounding makes no difference
    chances = np.repeat(np.linspace(0.1, 0.9, 6), 3)
    for q, shortlist in ((6, 1000), (6, 1), (9, 4)):
        options = DecisionSettings(q=q, strategy=strategy, shortlist=shortlist, diversity=0.01)
        batch = select_batch(X, mean, std, observed=observed, hit_probability=chances, settings=options)
        assert set((batch.indices[:6] // 3).tolist()) == set(range(6))
        assert len(set(batch.indices.tolist())) == len(batch) == q
        assert ("3 of the chosen repeat another" in batch.note) == (q == 9)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("verified", [0, 1])
def test_little_is_known_and_an_objective_is_constant(strategy: str, verified: int) -> None:
    X, mean, std, observed = pool(30)
    mean[:, 2], std[:, 2], observed[:, 2] = 4.0, 0.0, 4.0
    chances = np.linspace(0, 1, 30)
    options = DecisionSettings(q=50, strategy=strategy, explore=0.1)
    batch = select_batch(X, mean, std, observed=observed[:verified], hit_probability=chances, settings=options)
    assert sorted(batch.indices.tolist()) == list(range(30))
    assert np.isfinite(batch.score).all()
    assert np.isfinite(batch.gain).all()


def test_the_reference_point_can_be_given_in_the_objectives_units() -> None:
    goals = (Minimize(), Target(value=2.0))
    point = reference_utilities(DecisionSettings(reference_point=(0.2, 3.5)), goals)
    assert point is not None
    assert point.tolist() == [-0.2, -1.5]
    assert reference_utilities(DecisionSettings(), goals) is None
    with pytest.raises(InputError, match="2 objectives"):
        reference_utilities(DecisionSettings(reference_point=(1.0,)), goals)


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="ehvi_dpp, greedy, hits, parego, random, thompson"):
        DecisionSettings.parse({"strategy": "magic"})


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("N x d", {"mean": np.ones((3, 3)), "std": np.ones((3, 3))}),
    ("standard deviation of candidate 1 is -1", {"std": np.array([[1.0] * 3, [-1.0] * 3, *[[1.0] * 3] * 4])}),
    ("cost of candidate 2 is nan", {"cost": np.array([1, 1, np.nan, 1, 1, 1])}),
    ("cost of candidate 0 is -1", {"cost": -np.ones(6)}),
    ("cost of candidate 5 is 0", {"cost": np.array([1.0, 1, 1, 1, 1, 0])}),
    ("feasible of candidate 0 is 1.5", {"feasible": np.full(6, 1.5)}),
    ("feasible of candidate 0 is nan", {"feasible": np.full(6, np.nan)}),
    ("hit_probability of candidate 0 is -0.1", {"hit_probability": np.full(6, -0.1)}),
    (r"hit_probability has the shape \(5,\)", {"hit_probability": np.ones(5)}),
    ("'hits' needs the probability", {"settings": DecisionSettings(strategy="hits")}),
    ("budget of 3 needs costs", {"settings": DecisionSettings(budget=3.0)}),
    ("given have 2 columns", {"given": np.ones((1, 2))}),
    ("a row of 3 expected utilities", {"pending": (np.ones((2, 4)), np.ones((1, 3)))}),
    ("pending features must be finite", {"pending": (np.full((1, 4), np.nan), np.ones((1, 3)))}),
    ("observed utilities", {"observed": np.ones((3, 2))}),
    ("give 3 finite utilities", {"reference_point": np.zeros(2)}),
]


@pytest.mark.parametrize(("message", "changes"), WRONG, ids=[message for message, _ in WRONG])
def test_bad_input_is_named(message: str, changes: dict[str, Any]) -> None:
    X, mean, std, observed = pool(6)
    with pytest.raises(InputError, match=message):
        select_batch(**{"descriptors": X, "mean": mean, "std": std, "observed": observed, **changes})


def test_numbers_of_excluded_candidates_are_not_asked_for() -> None:
    X, mean, std, observed = pool(6)
    mean[2, 0], column = np.nan, np.array([1, 1, np.nan, 1, 1, 1])
    batch = select_batch(X, mean, std, observed=observed, feasible=column, cost=column, hit_probability=column)
    assert sorted(batch.indices.tolist()) == [0, 1, 3, 4, 5]

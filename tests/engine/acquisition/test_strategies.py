"""Strategies, and what weighs on every one of them: feasibility, cost, exploration, many objectives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paragenesis.engine.acquisition.dpp import log_determinant
from paragenesis.engine.acquisition.hypervolume import decompose
from paragenesis.engine.acquisition.select import DecisionSettings, Selection, select_batch
from paragenesis.engine.acquisition.strategies import STRATEGIES
from paragenesis.errors import InputError


def pool(n: int = 120, m: int = 3) -> dict[str, Any]:
    """Candidates, five verified crystals and a reference point."""
    rng = np.random.default_rng(m)
    mean = rng.normal(size=(n, m))
    return {
        "descriptors": rng.normal(size=(n, 4)),
        "mean": mean,
        "std": rng.uniform(0.1, 0.6, (n, m)),
        "observed": mean[:5] - 0.5,
        "reference_point": np.full(m, -2.0),
        "hit_probability": rng.random(n),
    }


def choose(given: dict[str, Any] | None = None, seed: int = 0, **options: Any) -> Selection:
    q = options.pop("q", 8)
    return select_batch(**(given or pool()), settings=DecisionSettings(q=q, **options), seed=seed)


# --- strategies ------------------------------------------------------------------------------------------------------


def test_thompson_sampling_of_a_certain_posterior_is_greedy() -> None:
    certain = {**pool(), "std": np.zeros((120, 3))}
    thompson, greedy = choose(certain, strategy="thompson"), choose(certain, strategy="greedy")
    assert thompson.indices.tolist() == greedy.indices.tolist()
    assert thompson.score == pytest.approx(greedy.score)
    ranks = [int(why.split("rank ")[1].split()[0]) for why in thompson.why]
    assert ranks == list(range(1, 9))


def test_thompson_sampling_picks_as_often_as_a_candidate_is_best() -> None:
    mean, std = np.array([[1.0], [0.0], [-9.0]]), np.array([[0.5], [1.0], [0.1]])
    batches = [
        select_batch(
            np.eye(3), mean, std, observed=np.array([[-5.0]]), reference_point=np.array([-6.0]),
            settings=DecisionSettings(q=1, strategy="thompson"), seed=seed,
        ).indices[0]
        for seed in range(300)
    ]  # fmt: skip
    # P(N(1, 0.5) > N(0, 1)) = Phi(1 / sqrt(1.25))
    assert np.mean(np.array(batches) == 0) == pytest.approx(0.8144, abs=0.08)
    assert 2 not in batches


def test_thompson_draws_anew_for_each_place() -> None:
    rng = np.random.default_rng(0)
    wide = {**pool(), "mean": 0.01 * rng.normal(size=(120, 3)), "std": np.ones((120, 3))}
    batch = choose(wide, strategy="thompson", q=40)
    assert all("rank 1 of" in why for why in batch.why[:3])
    # were one draw used for all places, the scores would fall
    assert (np.diff(batch.score) > 0).any()


def test_parego_spreads_over_the_front_by_its_weights() -> None:
    angle = np.linspace(0, np.pi / 2, 50)
    mean = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    batch = select_batch(
        mean, mean, np.full((50, 2), 0.01), observed=0.5 * mean, reference_point=np.zeros(2),
        settings=DecisionSettings(q=12, strategy="parego"), seed=1,
    )  # fmt: skip
    assert np.ptp(batch.indices) > 30
    assert len(np.unique(batch.indices // 5)) >= 5


def test_hits_are_the_likeliest_unless_they_are_alike() -> None:
    given = pool()
    plain = choose(given, strategy="hits", diversity=0.0)
    assert plain.indices.tolist() == np.argsort(-given["hit_probability"])[:8].tolist()
    assert plain.score == pytest.approx(np.sort(given["hit_probability"])[::-1][:8])
    diverse = choose(given, strategy="hits", diversity=2.0)
    spread = [log_determinant(given["descriptors"][batch.indices]) for batch in (plain, diverse)]
    assert spread[1] > spread[0]
    assert "probability of a hit" in diverse.why[0]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_five_objectives_are_scalarised_and_it_is_said(strategy: str) -> None:
    given = pool(m=5)
    given["mean"][17] = given["mean"].max(0) + 1.0
    given["hit_probability"][17] = 1.0
    batch = choose(given, strategy=strategy)
    assert len(set(batch.indices.tolist())) == 8
    assert ("with 5 objectives" in batch.note) == (strategy in ("ehvi_dpp", "ehvi", "greedy", "thompson"))
    if strategy != "random":
        assert 17 in batch.indices[:1]


# --- feasibility -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_infeasible_candidates_come_last(strategy: str) -> None:
    given = pool(30)
    feasible = np.full(30, 0.5)
    best = choose(given, strategy=strategy).indices[:4]
    feasible[best] = 0.0
    batch = choose({**given, "feasible": feasible}, strategy=strategy, q=28, shortlist=1, explore=0.2)
    assert set(batch.indices[:26].tolist()) == set(range(30)) - set(best.tolist())
    assert "2 of the chosen cannot hold the constraints" in batch.note


@pytest.mark.parametrize("strategy", ["ehvi_dpp", "ehvi", "greedy", "hits", "thompson", "parego"])
def test_feasibility_multiplies_the_score(strategy: str) -> None:
    plain = choose(strategy=strategy, q=1)
    half = choose({**pool(), "feasible": np.full(120, 0.5)}, strategy=strategy, q=1)
    assert half.indices.tolist() == plain.indices.tolist()
    assert half.score == pytest.approx(0.5 * plain.score)
    assert half.gain == pytest.approx(0.5 * plain.gain)
    doubtful = np.ones(120)
    doubtful[plain.indices[0]] = 1e-6
    assert choose({**pool(), "feasible": doubtful}, strategy=strategy, q=1).indices[0] != plain.indices[0]


# --- cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_equal_costs_change_nothing(strategy: str) -> None:
    plain = choose(strategy=strategy, explore=0.25)
    costly = choose({**pool(), "cost": np.full(120, 0.3)}, strategy=strategy, explore=0.25, budget=2.4)
    assert costly.indices.tolist() == plain.indices.tolist()
    assert costly.score.tolist() == plain.score.tolist()
    assert costly.why == plain.why


def test_value_per_cost_is_what_ranks() -> None:
    given = pool()
    cost = np.random.default_rng(1).uniform(1.0, 9.0, 120)
    score = decompose(given["observed"], given["reference_point"], np.ones(3)).expected_gain(
        given["mean"], given["std"]
    )
    batch = choose({**given, "cost": cost}, strategy="ehvi")
    assert batch.indices.tolist() == np.argsort(-score / cost)[:8].tolist()
    assert batch.score == pytest.approx(score[batch.indices])


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_batch_keeps_to_the_budget_and_uses_it(strategy: str) -> None:
    cost = np.full(120, 10.0)
    cost[:100] = 1.0 + np.arange(100) / 100
    for budget in (0.5, 3.5, 12.0, 1e6):
        batch = choose({**pool(), "cost": cost}, strategy=strategy, shortlist=3, budget=budget)
        left = budget - cost[batch.indices].sum()
        rest = np.setdiff1d(np.arange(120), batch.indices)
        assert left >= 0
        # nothing that would still fit was left out
        assert len(batch) == 8 or cost[rest].min() > left
    assert len(batch) == 8


def test_what_does_not_fit_is_passed_over_and_said() -> None:
    given = pool(3)
    given["hit_probability"] = np.array([0.9, 0.8, 0.1])
    costly = {**given, "cost": np.array([5.0, 7.0, 2.0])}
    batch = choose(costly, strategy="hits", budget=8.0, q=3)
    assert batch.indices.tolist() == [0, 2]
    assert "3 were asked for, but the budget of 8 pays for 2, which cost 7" in batch.note
    none = choose(costly, strategy="hits", budget=1.5)
    assert len(none) == len(none.why) == 0
    assert "does not pay for the cheapest candidate, which costs 2" in none.note


# --- exploration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_share_goes_to_the_most_uncertain(strategy: str) -> None:
    given = pool()
    plain, batch = choose(given, strategy=strategy), choose(given, strategy=strategy, explore=0.45, diversity=0.0)
    assert [why.startswith("explored") for why in batch.why] == [False] * 4 + [True] * 4  # 0.45 of 8 rounded
    uncertainty = (given["std"] / given["mean"].std(0)).mean(1)
    rest = np.setdiff1d(np.arange(120), batch.indices[:4])
    assert batch.indices[4:].tolist() == rest[np.argsort(-uncertainty[rest])][:4].tolist()
    assert batch.score[4:] == pytest.approx(uncertainty[batch.indices[4:]])
    assert not any(why.startswith("explored") for why in plain.why)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_budget_leaves_exploration_its_share(strategy: str) -> None:
    given = {**pool(), "cost": np.random.default_rng(0).uniform(1.0, 4.0, 120)}
    batch = choose(given, strategy=strategy, explore=0.5, budget=8.0, diversity=0.0)
    explored = np.array([why.startswith("explored") for why in batch.why])
    spent = given["cost"][batch.indices]
    assert explored.any()
    assert spent[: explored.argmax()].sum() <= 4.0  # what comes before it
    assert spent.sum() <= 8.0
    dear = {**given, "cost": np.full(120, 7.0)}  # half of 8 pays for none
    assert [why.startswith("explored") for why in choose(dear, strategy=strategy, explore=0.5, budget=8.0).why] == [
        False,
    ]  # fmt: skip
    given["cost"][:] = 3.0  # half of 8 pays for one each, and what they leave for none
    assert [why.startswith("explored") for why in choose(given, strategy=strategy, explore=0.5, budget=8.0).why] == [
        False, True,
    ]  # fmt: skip


def test_what_exploration_leaves_of_the_budget_is_the_strategys_again() -> None:
    given = {**pool(), "cost": np.full(120, 3.0)}
    given["mean"][:3], given["std"][:3], given["cost"][:3] = -9.0, 9.0, 2.6
    batch = choose(given, strategy="greedy", q=6, explore=0.5, budget=17.0)
    explored = np.array([why.startswith("explored") for why in batch.why])
    assert explored.tolist() == [False, False, True, True, True, False]  # 6, then 7.8, and 3.2 are left
    assert set(batch.indices[explored]) == {0, 1, 2}
    assert batch.indices[~explored].tolist() == choose(given, strategy="greedy", q=3).indices.tolist()


def test_exploration_keeps_away_from_the_rest_of_the_batch() -> None:
    given = pool()
    first = choose(given, q=1).indices[0]
    given["std"] = np.full((120, 3), 0.2)
    given["std"][[7, 8]] = [[0.25], [0.249]]
    given["descriptors"][7] = given["descriptors"][first] + 1e-3
    assert first not in (7, 8)
    plain = choose(given, q=2, explore=0.5, diversity=0.0)
    diverse = choose(given, q=2, explore=0.5, diversity=0.01)
    assert plain.indices.tolist() == [first, 7]
    assert diverse.indices.tolist() == [first, 8]


def test_settings_are_checked() -> None:
    for wrong in ({"explore": 1.5}, {"budget": 0.0}, {"budget": -1.0}, {"explore": -0.1}):
        with pytest.raises(InputError):
            DecisionSettings.parse(wrong)


@pytest.mark.parametrize("strategy", ["ehvi_dpp", "ehvi", "thompson", "parego"])
@pytest.mark.parametrize("m", [1, 5])
def test_nothing_is_gained_beyond_a_ceiling(strategy: str, m: int) -> None:
    """A crystal exactly on target is verified: neither certain nor doubtful candidates can be better."""
    given = {**pool(n=40, m=m), "observed": np.zeros((1, m)), "ceiling": np.zeros(m)}
    given["mean"] = -np.abs(given["mean"])
    batch = choose(given, strategy=strategy)
    assert batch.score == pytest.approx(np.zeros(8), abs=1e-12)
    open_ended = choose({**given, "ceiling": np.full(m, np.inf)}, strategy=strategy)
    assert open_ended.score.max() > 1e-6
    assert open_ended.score.tolist() == choose({**given, "ceiling": None}, strategy=strategy).score.tolist()


def test_a_ceiling_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"the ceiling is \[0.0\]; give 3 utilities"):
        choose({**pool(), "ceiling": np.zeros(1)})

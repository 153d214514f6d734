"""Decisions for any table of candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from paragenesis import Maximize, Minimize, Range, Target, decide
from paragenesis.engine.acquisition.select import DecisionSettings
from paragenesis.engine.acquisition.triage import TriageSettings
from paragenesis.errors import InputError


def landscape(n: int, seed: int = 0) -> pd.DataFrame:
    """Two numeric features, a category, and two outcomes that are best in opposite corners."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"a": rng.random(n), "b": 100 * rng.random(n), "kind": rng.choice(["x", "y", "z"], n)},
        index=[f"row{i}" for i in range(n)],
    )
    bonus = table["kind"].map({"x": 0.0, "y": 0.5, "z": 1.0})
    table["y0"] = table["a"] + bonus
    table["y1"] = table["b"] / 100 + (table["a"] - 0.3) ** 2
    return table


FEATURES = ["a", "b", "kind"]
BOTH = (Maximize("y0"), Minimize("y1"))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return landscape(300)


def test_it_finds_the_good_ones_among_many(table: pd.DataFrame) -> None:
    seen = table.iloc[:40]
    batch = decide(table[FEATURES], seen, BOTH, q=5, seed=0)
    assert len(batch) == 5
    assert not set(batch) & set(seen.index)  # tried already
    chosen = table.loc[list(batch)]
    better = [
        ((table["y0"] > y0) & (table["y1"] < y1)).mean() for y0, y1 in zip(chosen["y0"], chosen["y1"], strict=True)
    ]
    assert max(better) < 0.05  # hardly anything beats a chosen one in both
    assert np.abs(batch.table["y0 mean"] - chosen["y0"]).max() < 0.2
    inside = (chosen["y0"] >= batch.table["y0 low"]) & (chosen["y0"] <= batch.table["y0 high"])
    assert inside.mean() >= 0.8
    assert list(batch.table.index) == list(batch)
    assert batch.table["why"].str.contains("hypervolume").all()
    assert set(batch.reference_point) == {"y0", "y1"}
    assert batch.reference_point["y1"] > chosen["y1"].min()


def test_categories_teach(table: pd.DataFrame) -> None:
    seen = table.iloc[:60]
    batch = decide(table[["kind"]].assign(noise=table["b"]), seen.assign(noise=seen["b"]), [Maximize("y0")], q=10)
    assert (table.loc[list(batch), "kind"] == "z").all()


def test_labels_may_be_anything_and_order_does_not_matter(table: pd.DataFrame) -> None:
    seen, pool = table.iloc[:40], table[FEATURES]
    batch = decide(pool, seen, BOTH, q=4)
    shuffled = pool.sample(frac=1, random_state=1)
    assert set(decide(shuffled, seen, BOTH, q=4)) == set(batch)
    numbered = pool.reset_index(drop=True)
    assert [pool.index[i] for i in decide(numbered, seen, BOTH, q=4)] == list(batch)


def test_units_do_not_matter(table: pd.DataFrame) -> None:
    seen = table.iloc[:40]
    batch = decide(table[FEATURES], seen, BOTH, q=4)
    big = table.assign(a=1e6 * table["a"], y1=1000 * table["y1"])
    assert list(decide(big[FEATURES], big.iloc[:40], BOTH, q=4)) == list(batch)


def test_without_observations_the_first_batch_is_diverse(table: pd.DataFrame) -> None:
    batch = decide(table[FEATURES], None, BOTH, q=6)
    chosen = table.loc[list(batch)]
    assert set(chosen["kind"]) == {"x", "y", "z"}
    assert np.ptp(chosen["a"]) > 0.6
    assert np.ptp(chosen["b"]) > 60


@pytest.mark.parametrize("k", [1, 2])
def test_one_observation_is_enough_to_go_on(table: pd.DataFrame, k: int) -> None:
    batch = decide(table[FEATURES], table.iloc[:k], BOTH, q=3)
    assert len(set(batch)) == 3
    assert np.isfinite(batch.table[["score", "y0 mean", "y0 std"]].to_numpy()).all()


def test_a_constant_objective_says_nothing(table: pd.DataFrame) -> None:
    seen = table.iloc[:40].assign(flat=7.0)
    batch = decide(table[FEATURES], seen, [Maximize("y0"), Minimize("flat")], q=3)
    assert (table.loc[list(batch), "kind"] == "z").all()
    assert (batch.table["flat mean"] == 7.0).all()


def test_missing_outcomes_and_features_cost_only_themselves(table: pd.DataFrame) -> None:
    seen = table.iloc[:40].copy()
    seen.loc[seen.index[:20], "y1"] = np.nan
    seen.loc[seen.index[20], "a"] = np.nan
    pool = table[FEATURES].copy()
    pool.loc["row50", "b"] = np.inf
    pool.loc["row51", "kind"] = None
    batch = decide(pool, seen, BOTH, q=3)
    assert len(batch) == 3
    assert "1 observations with missing features" in batch.note
    assert {"row50", "row51"} <= set(batch.excluded.index)
    assert "not finite" in batch.excluded.loc["row50", "reason"]


def test_what_is_tried_pending_or_double_is_not_chosen(table: pd.DataFrame) -> None:
    seen, pool = table.iloc[:40], table[FEATURES]
    first = decide(pool, seen, BOTH, q=3)
    again = decide(pool, seen, BOTH, q=3, pending=pool.loc[list(first)])
    assert not set(first) & set(again)
    twins = pd.concat([pool, pool.add_prefix("", axis=0).rename(index=lambda label: f"{label} again")])
    batch = decide(twins, seen, BOTH, q=5)
    assert len({tuple(row) for row in twins.loc[list(batch)].to_numpy().tolist()}) == 5
    assert "same features as row 'row60'" in batch.excluded.loc["row60 again", "reason"]


def test_what_teaches_nothing_is_said(table: pd.DataFrame) -> None:
    seen = table.iloc[:20].assign(flat=7.0, unknown=np.nan)
    batch = decide(table[FEATURES], seen, [Maximize("y0"), Minimize("flat"), Minimize("unknown")], q=2)
    assert "'flat': one outcome says nothing" in batch.note
    assert "'unknown': no outcome is known" in batch.note
    waiting = table[FEATURES].iloc[[30]].assign(a=np.nan)
    assert "1 pending rows with missing features" in decide(table[FEATURES], seen, BOTH, q=2, pending=waiting).note
    nothing = decide(table[FEATURES].iloc[:20], seen, BOTH, q=2)
    assert "none of the 20 rows can be chosen" in nothing.note


def test_more_than_there_are_gives_all(table: pd.DataFrame) -> None:
    batch = decide(table[FEATURES].iloc[:45], table.iloc[:40], BOTH, q=10)
    assert sorted(batch) == sorted(table.index[40:45])
    assert "all are chosen" in batch.note
    assert len(decide(table[FEATURES].iloc[:40], table.iloc[:40], BOTH, q=10)) == 0


def test_targets_and_ranges(table: pd.DataFrame) -> None:
    seen = table.iloc[:80]
    batch = decide(table[FEATURES], seen, [Target("y0", value=0.8)], q=5)
    assert np.abs(table.loc[list(batch), "y0"] - 0.8).max() < 0.15
    inside = decide(table[FEATURES], seen, [Range("y0", low=0.7, high=0.9), Minimize("y1")], q=5)
    chosen = table.loc[list(inside)]
    assert chosen["y0"].between(0.65, 0.95).all()  # a constraint, not one more axis
    assert set(inside.reference_point) == {"y1"}
    feasible = table[table["y0"].between(0.7, 0.9)].drop(seen.index, errors="ignore")
    assert chosen["y1"].min() <= feasible["y1"].nsmallest(3).max()


def test_ranges_alone_ask_for_hits(table: pd.DataFrame) -> None:
    goals = [Range("y0", low=0.7, high=0.9), Range("y1", high=0.4)]
    batch = decide(table[FEATURES], table.iloc[:80], goals, q=6)
    chosen = table.loc[list(batch)]
    rare = table["y0"].between(0.7, 0.9) & (table["y1"] <= 0.4)
    assert rare.mean() < 0.1
    assert (chosen["y0"].between(0.7, 0.9) & (chosen["y1"] <= 0.4)).mean() >= 0.6
    assert batch.table["score"].between(0, 1).all()


def test_a_budget_buys_by_value_per_cost(table: pd.DataFrame) -> None:
    seen, pool = table.iloc[:40], table[FEATURES]
    plain = decide(pool, seen, BOTH, q=5)
    cost = pd.Series(1.0, index=pool.index)
    assert list(decide(pool, seen, BOTH, q=5, cost=cost)) == list(plain)
    dear = cost.where(~cost.index.isin(list(plain)[:2]), 1000.0)
    cheap = decide(pool, seen, BOTH, q=5, cost=dear, settings=DecisionSettings(budget=3.0))
    assert len(cheap) == 3
    assert not set(cheap) & set(list(plain)[:2])
    with pytest.raises(InputError, match="has no cost"):
        decide(pool, seen, BOTH, q=5, cost=cost.iloc[:-1])
    with pytest.raises(InputError, match="pandas Series"):
        decide(pool, seen, BOTH, q=5, cost=[1.0] * len(pool))  # type: ignore[arg-type]
    assert list(decide(pool, seen, Maximize("y0"), q=2)) == list(decide(pool, seen, [Maximize("y0")], q=2))


def test_the_table_tells_what_each_is_like(table: pd.DataFrame) -> None:
    batch = decide(table[FEATURES], table.iloc[:40], BOTH, q=4)
    assert pd.isna(batch.table["most like"].iloc[0])
    assert set(batch.table["most like"].iloc[1:]) <= set(batch)
    assert batch.table["similarity"].iloc[1:].between(0, 1).all()


def test_settings_choose_the_strategy(table: pd.DataFrame) -> None:
    batches = {
        strategy: tuple(
            decide(table[FEATURES], table.iloc[:40], BOTH, q=8, settings=DecisionSettings(strategy=strategy))
        )
        for strategy in ("ehvi_dpp", "greedy", "random")
    }
    assert len(set(batches.values())) == 3
    again = decide(table[FEATURES], table.iloc[:40], BOTH, q=8, settings=DecisionSettings(strategy="random"), seed=1)
    assert tuple(again) != batches["random"]


def test_it_says_how_intervals_were_made(table: pd.DataFrame) -> None:
    few = decide(table[FEATURES], table.iloc[:3], BOTH, q=2).intervals
    assert "3 verified are too few to promise 90%" in few["y0"]
    assert "from 40 leave-one-out residuals" in decide(table[FEATURES], table.iloc[:40], BOTH, q=2).intervals["y1"]
    assert "nothing to learn from" in decide(table[FEATURES], None, BOTH, q=2).intervals["y0"]


@pytest.mark.parametrize(
    ("change", "goals", "words"),
    [
        ({}, [], "no objective was given"),
        ({}, [Maximize()], "names no column"),
        ({}, ["y0"], "an objective is a goal"),
        ({}, [Maximize("y0"), Minimize("y0")], "two goals read the column 'y0'"),
        ({}, [Maximize("colour")], "no column 'colour'"),
        ({}, [Maximize("kind2")], "must hold numbers"),
        ({"pool": ["a", "b", "kind", "y0"]}, [Maximize("y0")], "an objective and no feature"),
        ({"seen": ["a", "kind", "y0"]}, [Maximize("y0")], "the observations lack the column 'b'"),
        ({"words": True}, [Maximize("y0")], "numbers in one table and words in another"),
        ({"labels": True}, [Maximize("y0")], "stands twice"),
        ({"formulas": True}, [Maximize("y0")], "'formula' holds 300 different words in 300 rows.*make it the index"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(
    table: pd.DataFrame, change: dict[str, object], goals: list[Maximize], words: str
) -> None:
    seen = table.iloc[:40].assign(kind2=table["kind"])
    pool = table[FEATURES]
    if "pool" in change:
        pool = table[change["pool"]]
    if "seen" in change:
        seen = seen[change["seen"]]
    if "words" in change:
        seen = seen.assign(b=seen["b"].astype(str))
    if "formulas" in change:
        pool, seen = (t.assign(formula=[f"C{label}" for label in t.index]) for t in (pool, seen))
    if "labels" in change:
        pool = pool.set_index(np.zeros(len(pool), dtype=int))
    with pytest.raises(InputError, match=words):
        decide(pool, seen, goals, q=3)


def test_goals_name_columns_without_changing_what_a_campaign_writes() -> None:
    assert Maximize("y0").of == "y0"
    assert Maximize("y0").model_dump() == {"kind": "maximize"}
    assert Target("gap", value=1.4).model_dump() == {"kind": "target", "value": 1.4}


def test_a_reference_point_has_a_value_for_each_objective_ranges_too(table: pd.DataFrame) -> None:
    goals = [Range("y0", low=0.0), Minimize("y1")]
    settings = DecisionSettings(reference_point=(0.0, 0.7))
    assert decide(table[FEATURES], table.iloc[:40], goals, q=3, settings=settings).reference_point == {"y1": 0.7}
    with pytest.raises(InputError, match="reference_point has 1 values, but there are 2 objectives"):
        decide(table[FEATURES], table.iloc[:40], goals, q=3, settings=DecisionSettings(reference_point=(0.7,)))


def test_tables_from_csv_files_are_enough(table: pd.DataFrame, tmp_path: Path) -> None:
    table[FEATURES].to_csv(tmp_path / "pool.csv")
    table.iloc[:40].to_csv(tmp_path / "seen.csv")
    pool, seen = (pd.read_csv(tmp_path / name, index_col=0) for name in ("pool.csv", "seen.csv"))
    batch = decide(pool, seen, BOTH, q=5, seed=0)
    assert list(batch) == list(decide(table[FEATURES], table.iloc[:40], BOTH, q=5, seed=0))
    assert not set(batch) & set(seen.index)
    assert {"score", "y0 mean", "y1 std", "why"} <= set(batch.table.columns)


def test_triage_holds_back_by_column_with_numbers(table: pd.DataFrame) -> None:
    seen, pool = table.iloc[:20], table[FEATURES]
    limits = TriageSettings(on_target={"y1": 0.2}, hope=2.0)
    plain, batch = decide(pool, seen, BOTH, q=5), decide(pool, seen, BOTH, q=5, triage=limits)
    held = batch.excluded[~batch.excluded["reason"].str.contains("tried already")]["reason"]
    assert set(held.str.split(":").str[0]) == {"hopeless", "false_confidence"}
    assert held.str.contains("standard deviations better than expected").any()
    assert held.str.contains("y1 .* meets <= 0.2 only at its optimistic end").any()
    assert not set(batch) & set(held.index)
    assert len(plain.excluded) == 20  # without limits only what was tried
    front = table.drop(seen.index)  # nothing is lost that beats all that is verified
    best = front.loc[held.index[held.str.startswith("hopeless")]]
    for y0, y1 in zip(best["y0"], best["y1"], strict=True):
        assert ((seen["y0"] >= y0) & (seen["y1"] <= y1)).any()


def test_the_intervals_of_the_table_hold_nine_in_ten_whatever_the_shape_of_the_errors() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.random(1300)})
    table["y0"] = table["a"] + 0.1 * rng.standard_t(2, 1300)
    everything = DecisionSettings(q=1000, strategy="greedy")
    told = decide(table[["a"]].iloc[300:], table.iloc[:300], Maximize("y0"), settings=everything).table
    truth = table.loc[told.index, "y0"]
    assert ((truth >= told["y0 low"]) & (truth <= told["y0 high"])).mean() == pytest.approx(0.9, abs=0.04)
    assert told["y0 mean"].to_numpy() == pytest.approx((told["y0 low"] + told["y0 high"]).to_numpy() / 2)


def test_triage_waits_until_the_intervals_are_calibrated(table: pd.DataFrame) -> None:
    limits = TriageSettings(hope=0.01)
    few = decide(table[FEATURES], table.iloc[:4], BOTH, q=3, triage=limits)
    assert not few.excluded["reason"].str.contains("hopeless").any()
    half = table.iloc[:40].assign(y1=table["y1"].iloc[:4])  # of one objective only four are known
    assert not decide(table[FEATURES], half, BOTH, q=3, triage=limits).excluded["reason"].str.contains("hopeless").any()
    known = decide(table[FEATURES], table.iloc[:40], BOTH, q=3, triage=limits)
    assert known.excluded["reason"].str.contains("hopeless").any()


def test_triage_may_hold_everything_back(table: pd.DataFrame) -> None:
    batch = decide(table[FEATURES], table.iloc[:40], BOTH, q=3, triage=TriageSettings(max_std={"y0": 1e-9}))
    assert len(batch) == 0
    assert "none of the 300 rows can be chosen" in batch.note
    assert batch.excluded["reason"].str.contains("y0 has a standard deviation of .* \\(> 1e-09\\)").any()


def test_a_lucky_outcome_whose_noise_is_known_makes_nothing_hopeless() -> None:
    rng = np.random.default_rng(2)
    table = pd.DataFrame(rng.random((600, 2)), columns=["a", "b"])
    truth = np.sin(5 * table["a"]) + np.cos(4 * table["b"])
    seen = table.iloc[:150].assign(y=truth + 0.4 * rng.standard_normal(600), noise=0.4)
    pool = table.iloc[150:]
    better = pool.index[truth[pool.index] < truth[seen.index].min() + 0.05]
    assert len(better)
    believed = decide(pool, seen, Minimize("y"), q=5, noise={"y": "noise"}, triage=TriageSettings())
    assert len(believed) == 5
    assert not set(better) <= set(believed.excluded.index)
    assert truth[list(believed)].mean() < truth[pool.index].quantile(0.1)


def test_a_pending_one_is_what_a_pick_keeps_away_from_after_triage(table: pd.DataFrame) -> None:
    seen, pool = table.iloc[:40], table[FEATURES]
    first = decide(pool, seen, BOTH, q=3)
    waiting = pool.loc[list(first)]
    limits = TriageSettings(hope=2.0)
    again = decide(pool, seen, BOTH, q=3, pending=waiting, triage=limits)
    rest = pool.drop(again.excluded.index.drop(list(first)))  # what triage held back is not in the pool at all
    assert set(decide(rest, seen, BOTH, q=3, pending=waiting)) == set(again)


def test_one_column_may_have_a_goal_and_a_range(table: pd.DataFrame) -> None:
    seen, pool = table.iloc[:40], table[FEATURES]
    batch = decide(pool, seen, [Maximize("y0"), Minimize("y1"), Range("y0", high=1.2)], q=5)
    assert batch.table["y0 mean"].max() < 1.25
    assert decide(pool, seen, BOTH, q=5).table["y0 mean"].max() > 1.5
    assert list(batch.reference_point) == ["y0", "y1"]
    assert list(batch.intervals) == ["y0", "y1"]
    for twice in ([Maximize("y0"), Minimize("y0")], [Range("y0", low=1), Range("y0", high=2)]):
        with pytest.raises(InputError, match="read the column 'y0'"):
            decide(pool, seen, twice, q=5)

"""Shares follow what generators yield for what it costs, add up, and never reach zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.engine.budget import BudgetSettings, Yield, allocate, shares
from paragenesis.engine.ledger import LedgerReader
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import InputError
from paragenesis.launch import run

MakeSpec = Callable[..., CampaignSpec]
TWO = [
    {"use": "random", "n": 8, "chunk": 4},
    {"use": "paragenesis.testing:LearningRandomGenerator", "n": 4, "chunk": 4, "options": {"elements": ["Na", "Cl"]}},
]


def gave(selected: int, cost: float, hits: int = 0) -> Yield:
    return Yield(
        generator="g", asked=10, generated=10, kept=10, selected=selected, verified=selected, hits=hits, cost=cost
    )


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), st.integers(0, 500))
def test_parts_add_up_follow_the_weights_and_none_is_zero(weights: list[float], extra: int) -> None:
    total = len(weights) + extra
    parts = allocate(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 1
    exact = total * np.array(weights) / sum(weights)
    assert all(abs(part - e) < 1 for part, e in zip(parts, exact, strict=True) if exact.min() >= 1)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1e6)), min_size=3, max_size=3)),
    st.floats(0.01, 0.9),
)
def test_shares_add_up_and_respect_the_floor(rounds: list[list[tuple[int, int, float]]], floor: float) -> None:
    history = [[gave(s, cost, hits) for s, hits, cost in one] for one in rounds]
    result = shares(history, [5, 1, 1], BudgetSettings(floor=floor))
    assert result.sum() == pytest.approx(1.0)
    if history and not np.allclose(result, np.array([5, 1, 1]) / 7):
        assert result.min() >= min(floor, 1 / 3) - 1e-12


def test_the_share_follows_successes_for_their_cost() -> None:
    def after(*history: list[Yield], **settings: Any) -> list[float]:
        return [float(s) for s in shares(history, [1, 1], BudgetSettings(**settings))]

    good, poor = after([gave(6, 100.0), gave(1, 100.0)])
    assert good > 0.6 > 0.4 > poor >= 0.1
    cheap, dear = after([gave(3, 100.0), gave(3, 400.0)])
    assert cheap > dear, "as many successes for less are more"
    lucky = after([gave(1, 1.0), gave(0, 1.0)])[0]
    proven = after([gave(100, 100.0), gave(0, 100.0)])[0]
    assert 0.5 < lucky < proven, "one success moves a share less than a hundred do"
    assert after([gave(3, 100.0, hits=3), gave(4, 100.0)])[0] > 0.5, "hits are worth more than selections"
    assert after([gave(9, 1.0), gave(0, 1.0)], share="fixed") == [0.5, 0.5]
    assert after([gave(0, 50.0), gave(0, 10.0)]) == [0.5, 0.5], "nothing was selected, so nothing is known"
    exhausted = [gave(9, 100.0), gave(3, 100.0)], *[[gave(0, 100.0), gave(3, 100.0)]] * 4
    assert after(*exhausted)[0] < after(*exhausted, memory=1.0)[0], "a generator does not live on its past"


def test_the_first_round_is_as_specified(tiny: MakeSpec) -> None:
    assert tiny(generators=TWO).first_round == [8, 4]
    assert tiny(generators=TWO, budget={"candidates": 6}).first_round == [4, 2]
    without = [{"use": "random"}, {"use": "substitution"}]
    assert tiny(generators=without, budget={"candidates": 7}).first_round == [4, 3]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generators": [{"use": "random"}]}, "'generators.0.n' is missing; add it, or give budget.candidates"),
        ({"generators": [{"use": "random"}, TWO[1]], "budget": {"candidates": 9}}, "some have n, some not"),
        ({"generators": TWO, "budget": {"candidates": 1}}, "budget.candidates = 1 is not one for each.*at least 2"),
        ({"budget": {"floor": 0.0}}, "'budget.floor'"),
        ({"budget": {"share": "fair"}}, "'budget.share'"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(tiny: MakeSpec, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiny(**change)


def rows(directory: Path, sql: str) -> list[dict[str, Any]]:
    with LedgerReader.open(directory) as ledger:
        found: list[dict[str, Any]] = ledger.query(sql).to_pylist()
    return found


def test_the_ledger_tells_what_each_generator_gave_and_gets(tiny: MakeSpec, tmp_path: Path) -> None:
    run(
        tiny(generators=TWO, rounds=3, triage={"min_hull_distance": -100.0, "max_std": {}}), tmp_path, executor="inline"
    )
    gave_ = rows(tmp_path, "SELECT * FROM yields ORDER BY round, generator DESC")
    assert [(y["round"], y["generator"], y["asked"]) for y in gave_[:2]] == [
        (1, "random", 8),
        (1, "learningrandomgenerator", 4),
    ]
    for number in (1, 2, 3):
        mine = [y for y in gave_ if y["round"] == number]
        assert sum(y["asked"] for y in mine) == sum(y["generated"] for y in mine) == 12
        assert sum(y["next_share"] for y in mine) == pytest.approx(1.0)
        [said] = rows(tmp_path, f"SELECT kept, selected, verified, hits FROM rounds WHERE round = {number}")
        assert said == {name: sum(y[name] for y in mine) for name in said}
        if number < 3:
            asked = {y["generator"]: y["asked"] for y in gave_ if y["round"] == number + 1}
            assert all(abs(asked[y["generator"]] - 12 * y["next_share"]) < 1 for y in mine), "the share is acted on"
    evaluations = rows(
        tmp_path,
        "SELECT round, generator, sum(n_atoms * (1 + coalesce(steps, CASE WHEN stage = 'relax' THEN 25 ELSE 0 END))) "
        "AS cost FROM candidates GROUP BY ALL ORDER BY round, generator DESC",
    )
    assert [y["cost"] for y in gave_] == [float(e["cost"]) for e in evaluations]


class Meagre:
    """Never has more than one crystal."""

    honours = frozenset({"allowed_elements", "min_atoms", "max_atoms"})

    def generate(self, n: int, condition: Any, seed: int) -> Any:
        from paragenesis.testing import RandomGenerator

        return RandomGenerator().generate(1, condition, seed)


def test_crystals_that_never_came_are_charged_as_others_are(
    tiny: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paragenesis.testing

    monkeypatch.setattr(paragenesis.testing, "Meagre", Meagre, raising=False)
    generators = [{"use": "random", "n": 6}, {"use": "paragenesis.testing:Meagre", "n": 6}]
    run(tiny(generators=generators, rounds=1), tmp_path, executor="inline")
    full, meagre = rows(tmp_path, "SELECT * FROM yields ORDER BY generator DESC")
    assert (full["generated"], meagre["asked"], meagre["generated"]) == (6, 6, 1)
    [spent] = rows(
        tmp_path,
        "SELECT sum(n_atoms * (1 + coalesce(steps, CASE WHEN stage = 'relax' THEN 25 ELSE 0 END))) AS all, "
        "count(*) AS n FROM candidates",
    )
    own = float(spent["all"]) - full["cost"]
    assert meagre["cost"] == pytest.approx(own + 5 * float(spent["all"]) / spent["n"])

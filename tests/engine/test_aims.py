"""Aims lie just beyond the front, for every goal, and differ from chunk to chunk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.engine.aims import Front, aim, at_least
from paragenesis.engine.generators.condition import Condition, PropertyRange
from paragenesis.engine.ledger import LedgerReader, digest
from paragenesis.engine.preflight import prepare
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import InputError
from paragenesis.launch import run
from paragenesis.objectives.goals import Goal, Maximize, Minimize, Range, Target

MakeSpec = Callable[..., CampaignSpec]
FOLLOWER = {"use": "paragenesis.testing:LearningRandomGenerator", "n": 8, "chunk": 4}
FOLLOWER_NAME = "learningrandomgenerator"
GOALS = [Maximize(), Minimize(), Target(value=1.5), Range(low=1.0, high=2.0)]


@given(st.sampled_from(GOALS), st.floats(-5, 5), st.floats(-5, 5))
def test_an_interval_holds_exactly_the_values_with_at_least_a_utility(goal: Goal, utility: float, value: float) -> None:
    low, high = at_least(goal, utility)
    inside = (low is None or value >= low) and (high is None or value <= high)
    best = 0.0 if isinstance(goal, Target | Range) else np.inf
    reached = float(goal.utility(np.array([value]))[0])
    wanted = min(utility, best)
    if abs(reached - wanted) > 1e-9:
        assert inside == (reached > wanted)


def asked(goal: Goal, values: list[float], anchor: int, name: str = "p", step: float = 0.1) -> tuple[Any, Any]:
    points = goal.utility(np.array(values))[:, None]
    [wish] = aim(Front(points, np.ptp(points, axis=0)), anchor, [goal], {0: name}, step)
    assert wish.property == name
    return wish.low, wish.high


def test_each_goal_is_followed_in_its_own_way() -> None:
    assert asked(Maximize(), [1.0, 3.0], 1) == (3.2, None)
    assert asked(Minimize(), [1.0, 3.0], 0) == (None, 0.8)
    assert asked(Minimize(), [1.0, 3.0], 1) == (None, 2.8), "an anchor at the other end asks for less of this"
    assert asked(Target(value=2.0), [1.0, 2.1], 0) == (1.09, 2.91), "nearer to the target, from either side"
    assert asked(Target(value=2.0), [1.0, 2.05], 1) == (2.0, 2.0), "at best the target itself"
    assert asked(Range(low=1.0, high=2.0), [4.0, 1.5], 0) == (-0.8, 3.8)
    assert asked(Range(low=1.0, high=2.0), [4.0, 1.5], 1) == (1.0, 2.0), "inside, the range itself"


def test_nothing_is_asked_for_that_no_crystal_has() -> None:
    assert asked(Minimize(), [-0.02, 0.3], 0, "energy_above_hull") == (None, 0.0)
    assert asked(Minimize(), [-0.02, 0.3], 1, "energy_above_hull") == (None, 0.268)
    assert asked(Target(value=0.1), [0.9, 0.2], 0, "band_gap") == (0.0, 0.83)


def test_anchors_cover_the_front_early() -> None:
    points = np.array([[0.0, 10.0], [0.1, 9.8], [0.2, 9.6], [0.5, 6.0], [1.0, 0.0]])
    order = Front(points, np.ptp(points, axis=0)).anchors()
    assert sorted(order) == list(range(5)), "every point has its turn"
    assert {0, 3, 4} & set(order[:3]) >= {3, 4}, "the middle and the far end come before the neighbours"
    assert Front(np.zeros((0, 2)), np.zeros(2)).anchors() == []
    assert Front(np.zeros((1, 2)), np.zeros(2)).anchors() == [0], "a front without extent is one point"


def query(directory: Path, sql: str) -> list[dict[str, Any]]:
    with LedgerReader.open(directory) as ledger:
        rows: list[dict[str, Any]] = ledger.query(sql).to_pylist()
    return rows


def test_chunks_aim_beyond_the_verified_front_and_the_ledger_says_at_what(tiny: MakeSpec, tmp_path: Path) -> None:
    spec = tiny(
        generators=[{"use": "random", "n": 8, "chunk": 4}, FOLLOWER], aims={"properties": {"density": "density"}}
    )
    run(spec, tmp_path, executor="inline")
    chunks = query(tmp_path, "SELECT * FROM chunks ORDER BY round, generator, chunk")
    assert all(c["aim"] is None for c in chunks if c["round"] == 1 or c["generator"] == "random")
    aims = [json.loads(c["aim"]) for c in chunks if c["round"] == 2 and c["generator"] == FOLLOWER_NAME]
    assert aims
    verified = query(
        tmp_path,
        "SELECT candidate_id, max(value) FILTER (property = 'density') AS density, max(value) FILTER (property = "
        "'formation_energy') AS formation FROM verifications WHERE round = 1 AND status = 'verified' GROUP BY ALL",
    )
    best = [v for v in verified if not any(dominates(other, v) for other in verified)]
    for wishes in aims:
        assert [w["property"] for w in wishes] == ["density", "formation_energy_per_atom"]
        assert any(beyond(wishes, anchor) for anchor in best)
    if len(best) > 1 and len(aims) > 1:
        assert aims[0] != aims[1]
    told = query(
        tmp_path,
        "SELECT DISTINCT chunk, origin FROM candidates WHERE round = 2 AND generator <> 'random' ORDER BY chunk",
    )
    for row, wishes in zip(told, aims, strict=True):
        words = [f"{w['property']} from {w['low']} to {w['high']}" for w in wishes]
        assert row["origin"] == ", ".join(["random", *words]), "the generator was asked for what the ledger says"


def dominates(one: dict[str, Any], other: dict[str, Any]) -> bool:
    a, b = ((v["density"], v["formation"]) for v in (one, other))
    return bool(a != b and a[0] <= b[0] and a[1] <= b[1])


def beyond(wishes: list[dict[str, Any]], anchor: dict[str, Any]) -> bool:
    density, formation = wishes
    return bool(density["high"] < anchor["density"] and formation["high"] < anchor["formation"])


def test_a_campaign_that_follows_nothing_has_no_aims(tiny: MakeSpec, tmp_path: Path) -> None:
    run(tiny(generators=[FOLLOWER], aims={"follow": "none"}), tmp_path, executor="inline")
    assert query(tmp_path, "SELECT DISTINCT aim FROM chunks") == [{"aim": None}]
    assert query(tmp_path, "SELECT DISTINCT origin FROM candidates") == [{"origin": "random"}]


def test_a_campaign_interrupted_in_a_round_with_aims_resumes_to_the_same_ledger(tiny: MakeSpec, tmp_path: Path) -> None:
    from paragenesis.engine.executor import InlineExecutor

    class Interrupted(InlineExecutor):
        left = 6

        def stream(self, stages: Any, items: Any, context: Any) -> Any:
            for outcome in super().stream(stages, items, context):
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
                yield outcome

    spec = tiny(generators=[FOLLOWER])
    run(spec, tmp_path / "whole", executor="inline")
    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "broken", executor=Interrupted())
    assert query(tmp_path / "broken", "SELECT 1 FROM chunks WHERE round = 2"), "it was interrupted in round 2"
    run(spec, tmp_path / "broken", executor="inline")
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")


def test_what_a_user_asks_for_is_kept_and_not_followed(tiny: MakeSpec) -> None:
    condition = {
        "allowed_elements": ("Na", "Cl"),
        "properties": [{"property": "formation_energy_per_atom", "high": -1.0}],
    }
    aims = {"properties": {"density": "density"}}
    kit = prepare(tiny(generators=[FOLLOWER], condition=condition, aims=aims))
    assert kit.followed == {FOLLOWER_NAME: {1: "density"}}
    assert json.loads(kit.meta["generators"]) == [
        {"name": FOLLOWER_NAME, "learns": False, "follows": {"density": "density"}}
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"aims": {"properties": {"hardness": "bulk_modulus"}}}, "'hardness' is no objective of this campaign"),
        (
            {"aims": {"properties": {"density": "colour"}}},
            r"density = 'colour' is known to no.*: the property 'colour'",
        ),
        ({"aims": {"properties": {"density": "formation_energy_per_atom"}}}, "two objectives mean the property"),
        (
            {"generators": [{"use": "random", "n": 4}], "aims": {"properties": {"density": "density"}}},
            "known to no generator of this campaign; use one that honours properties",
        ),
        (
            {
                "generators": [{"use": "random", "n": 4}, FOLLOWER],
                "condition": {"properties": [{"property": "density", "low": 2.0}]},
            },
            r"generator 'random' cannot honour condition\.properties; .*\(aims\.follow asks only those that can\)",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_before_anything_is_written(
    tiny: MakeSpec, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(tiny(**({"generators": [FOLLOWER]} | change)), tmp_path / "c", executor="inline")
    assert not (tmp_path / "c").exists()


def test_an_aim_that_no_crystal_meets_is_given_up_and_said(
    tiny: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paragenesis.testing import LearningRandomGenerator

    class Choosy(LearningRandomGenerator):
        def generate(self, n: int, condition: Condition, seed: int) -> Any:
            if n > 1 and condition.properties:
                raise InputError("no template became a crystal")
            return super().generate(n, condition, seed)

    monkeypatch.setattr("paragenesis.testing.LearningRandomGenerator", Choosy)
    run(tiny(generators=[FOLLOWER]), tmp_path, executor="inline")
    assert query(tmp_path, "SELECT DISTINCT origin FROM candidates WHERE round = 2") == [
        {"origin": "random; aim given up: no template became a crystal"}
    ]


def test_a_chunk_keeps_the_round_s_condition_beside_its_aim(tiny: MakeSpec) -> None:
    from paragenesis.engine.stages import ChunkTask

    of_round = Condition(allowed_elements=("Na",), properties=(PropertyRange(property="m", low=1.0),), guidance=3.0)
    task = ChunkTask(round=2, generator="g", index=0, n=4, seed=1, aim=(PropertyRange(property="a", high=0.0),))
    asked_for = task.condition(of_round)
    assert asked_for == Condition.model_validate(of_round.model_dump(exclude_defaults=True) | {"properties": [
        {"property": "a", "high": 0.0}, {"property": "m", "low": 1.0}]})  # fmt: skip

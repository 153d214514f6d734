"""Whole campaigns with a Lennard-Jones potential: seconds, no weights, the same path as the real thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from paragenesis.engine import preflight
from paragenesis.engine.campaign import Progress
from paragenesis.engine.executor import InlineExecutor
from paragenesis.engine.ledger import LedgerReader, digest, verify_ledger
from paragenesis.engine.spec import CampaignSpec
from paragenesis.engine.surrogate.calibration import NORMAL
from paragenesis.errors import InputError
from paragenesis.launch import run

MakeSpec = Callable[..., CampaignSpec]
Interrupted = Callable[[int], InlineExecutor]


def query(directory: Path, sql: str) -> list[dict[str, Any]]:
    with LedgerReader.open(directory) as ledger:
        rows: list[dict[str, Any]] = ledger.query(sql).to_pylist()
    return rows


def test_every_generated_crystal_has_one_verdict_and_the_ledger_is_sound(finished: Path) -> None:
    rounds = query(finished, "SELECT * FROM rounds ORDER BY round")
    assert [r["state"] for r in rounds] == ["closed", "closed"]
    assert [r["generated"] for r in rounds] == [12, 12]
    assert all(r["generated"] == r["kept"] + r["rejected"] + r["failed"] for r in rounds)
    assert all(r["selected"] == r["verified"] == 3 for r in rounds)
    assert rounds[1]["hypervolume"] >= rounds[0]["hypervolume"]
    assert verify_ledger(finished) == []
    assert (finished / "report.html").is_file()
    chosen = query(finished, "SELECT count(DISTINCT candidate_id) AS n FROM selections")
    assert chosen[0]["n"] == 6, "no crystal is selected twice"


def test_the_second_round_learns_from_the_first(finished: Path) -> None:
    calibration = query(finished, "SELECT calibration FROM rounds ORDER BY round")
    told = [json.loads(row["calibration"]) for row in calibration]
    assert [one["learnt_from"] for one in told] == [0, 3]
    assert told[0]["intervals"]["density"] == "nothing is verified: the intervals are the ensemble's own"
    assert "too few to promise 90%" in told[1]["intervals"]["formation_energy"]
    assert [len(one["objectives"]["formation_energy"]["curve"]) for one in told] == [9, 9]
    told_of = query(finished, "SELECT std, half_widths FROM predictions WHERE model LIKE 'posterior:%'")
    assert len(told_of) == 12
    for row in told_of:
        assert row["half_widths"] == pytest.approx([row["std"] * width for width in NORMAL])  # too few to know better
    objectives = [one["objectives"]["formation_energy"] for one in told]
    assert [one["recalibrated_curve"] for one in objectives] == [one["curve"] for one in objectives]
    page = (finished / "report.html").read_text()
    assert "Intervals, round by round" in page
    assert told[1]["intervals"]["formation_energy"] in page


def test_the_ledger_tells_what_each_chosen_crystal_is_most_like(finished: Path) -> None:
    rows = query(finished, "SELECT * FROM selections ORDER BY round, rank")
    assert rows[0]["most_like"] is None, "nothing was there before the first"
    for i, row in enumerate(rows[1:], start=1):
        assert row["most_like"] in {r["candidate_id"] for r in rows[:i]}
        assert 0 <= row["similarity"] <= 1


def test_a_campaign_can_ask_for_probable_hits(tiny: MakeSpec, tmp_path: Path) -> None:
    rules = [{"objective": "density", "at_most": 3.0}]
    run(tiny(rounds=1, hits=rules, decision={"q": 3, "strategy": "hits"}), tmp_path / "c", executor="inline")
    why = query(tmp_path / "c", "SELECT why, score FROM selections")
    assert len(why) == 3
    assert all(0 <= row["score"] <= 1 for row in why)
    with pytest.raises(InputError, match="must know what a hit is"):
        run(tiny(hits=[], decision={"q": 3, "strategy": "hits"}), tmp_path / "d", executor="inline")


def test_without_rules_the_ranges_say_what_a_hit_is(tiny: MakeSpec, tmp_path: Path) -> None:
    density = {"use": "density", "goal": {"kind": "range", "low": 0.0}}
    spec = tiny(rounds=1, hits=[], objectives=(density,))  # a campaign of ranges alone asks for hits
    run(spec, tmp_path / "c", executor="inline")
    assert all("probability of a hit" in row["why"] for row in query(tmp_path / "c", "SELECT why FROM selections"))
    assert query(tmp_path / "c", "SELECT verified, hits FROM rounds") == [{"verified": 3, "hits": 3}]
    assert "no rule for hits" not in (tmp_path / "c" / "report.html").read_text()


def test_of_five_objectives_no_hypervolume_is_stored(tiny: MakeSpec, tmp_path: Path) -> None:
    several = tuple({"use": "density", "name": f"density_{i}"} for i in range(4))
    run(tiny(rounds=1, objectives=("formation_energy", *several)), tmp_path / "c", executor="inline")
    assert query(tmp_path / "c", "SELECT verified, hypervolume FROM rounds") == [{"verified": 3, "hypervolume": None}]


_PRICED = """
import numpy as np
from paragenesis.engine.level import Level
from paragenesis.engine.oracles import Verified

class Oracle:
    level = Level(engine="made", version="1", functional="made-up")

    def cost(self, crystals):
        return 12.0 / crystals.n_atoms

    def verify(self, crystals):
        n = len(crystals)
        values = {"formation_energy": crystals.n_atoms / 10, "density": np.ones(n)}
        return Verified(crystals=crystals, values=values, cost_seconds=np.ones(n))
"""


def test_crystals_are_chosen_by_value_for_the_oracles_cost_within_the_budget(tiny: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "priced.py").write_text(_PRICED)

    def chosen(folder: str, budget: float) -> list[tuple[float, float]]:
        spec = tiny(
            rounds=1,
            directory=tmp_path,
            generators=[{"use": "random", "n": 36, "chunk": 12}],
            oracle={"use": "priced.py:Oracle"},
            hits=[{"objective": "formation_energy", "at_most": -1.4}],
            decision={"q": 3, "strategy": "hits", "diversity": 0.0, "budget": budget},
        )
        run(spec, tmp_path / folder, executor="inline")
        sql = "SELECT score, n_atoms FROM selections JOIN candidates USING (candidate_id) ORDER BY rank"
        return [(row["score"], 12.0 / row["n_atoms"]) for row in query(tmp_path / folder, sql)]

    rich = chosen("rich", 1e9)
    worth = [score / cost for score, cost in rich]
    assert len({cost for _, cost in rich}) > 1
    assert worth == sorted(worth, reverse=True)
    assert [score for score, _ in rich] != sorted((score for score, _ in rich), reverse=True)
    poor = chosen("poor", 9.0)  # 4 for the first leaves nothing for those that cost 6
    assert poor[0] == rich[0]
    assert [cost for _, cost in poor] == [4.0, 3.0]


def test_another_seed_gives_another_campaign_the_same_seed_the_same(tiny: MakeSpec, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tiny(seed=seed, rounds=1), tmp_path / name, executor="inline")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


@pytest.mark.parametrize("after", [0, 4])  # every step: `test_crash_points.py`
def test_an_interrupted_campaign_resumes_to_the_same_ledger(
    tiny: MakeSpec, interrupted: Interrupted, finished: Path, tmp_path: Path, after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny(), tmp_path / "broken", executor=interrupted(after))
    run(tiny(), tmp_path / "broken", executor="inline")
    assert digest(tmp_path / "broken") == digest(finished)


def test_a_finished_campaign_is_not_run_again_but_can_be_extended(tiny: MakeSpec, tmp_path: Path) -> None:
    run(tiny(rounds=1), tmp_path / "c", executor="inline")
    phases: list[Progress] = []
    run(tiny(rounds=1), tmp_path / "c", executor="inline", notify=phases.append)
    assert phases == [], "nothing is loaded or computed again"
    run(tiny(rounds=2), tmp_path / "c", executor="inline")
    assert len(query(tmp_path / "c", "SELECT 1 FROM rounds")) == 2


def test_a_changed_campaign_is_refused_with_the_names_of_the_fields(tiny: MakeSpec, tmp_path: Path) -> None:
    run(tiny(rounds=1), tmp_path / "c", executor="inline")
    before = digest(tmp_path / "c")
    with pytest.raises(InputError, match=r"relax\.fmax, seed changed"):
        run(tiny(rounds=1, seed=5, relax={"fmax": 0.3, "max_steps": 25}), tmp_path / "c", executor="inline")
    assert digest(tmp_path / "c") == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hits": [{"objective": "hardness"}]}, "'hardness' is no objective.*formation_energy"),
        ({"hull": {"reference": "embedded", "mixed": False}}, "mixed = true"),
        ({"hull": {"reference": "no.csv", "functional": "x"}}, r"no\.csv"),
        ({"potentials": ["chgnet-0.3.1"]}, "chgnet-0.3.0"),
        ({"objectives": ["densty"]}, "did you mean 'density'"),
        ({"objectives": ["density", "density"]}, "two objectives are called 'density'"),
        ({"generators": [{"use": "substitutoin", "n": 4}]}, "substitution"),
        ({"condition": {"chemical_system": "Na-Cl", "space_group": 225}}, "space_group"),
        ({"oracle": {"use": "potential", "options": {"potental": "x"}}}, "potental"),
        ({"device": "cuda"}, "no GPU"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    tiny: MakeSpec, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(tiny(**change), tmp_path / "c", executor="inline")
    assert not (tmp_path / "c").exists()


def forget(directory: Path) -> None:
    """Take from a ledger's rows what the first version would not have written."""
    with duckdb.connect(str(directory / "ledger.duckdb")) as connection:
        connection.execute("DELETE FROM commits WHERE kind IN ('plan', 'learning', 'yield')")
        [(text,)] = connection.execute("SELECT value FROM meta WHERE key = 'spec'").fetchall()
        spec = json.loads(text)
        for name in ("budget", "aims", "learn", "verification", "probes"):
            del spec[name]
        condition = {k: v for k, v in spec["condition"].items() if k in FIRST_CONDITION}
        connection.execute(
            "UPDATE meta SET value = ? WHERE key = 'spec'", [json.dumps(spec | {"condition": condition})]
        )
        connection.execute("UPDATE rounds SET condition = ?", [json.dumps(condition)])


FIRST_CONDITION = (
    "allowed_elements",
    "required_elements",
    "chemical_system",
    "composition",
    "min_atoms",
    "max_atoms",
    "space_group",
    "prototype",
)


@pytest.mark.parametrize("after", [3, 7])
def test_a_campaign_of_the_first_version_goes_on(
    tiny: MakeSpec,
    aged: Callable[[Path, int], None],
    interrupted: Interrupted,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    with monkeypatch.context() as first:
        for later in ("_most_like", "_half_widths", "_faults"):  # which the first version did not write
            first.setattr(f"paragenesis.engine.records.{later}", lambda _: {})
        with pytest.raises(KeyboardInterrupt):
            run(tiny(), tmp_path / "old", executor=interrupted(after))
    forget(tmp_path / "old")
    aged(tmp_path / "old", 1)
    run(tiny(), tmp_path / "old", executor="inline")
    assert verify_ledger(tmp_path / "old") == []
    sql = "SELECT candidate_id, verdict, frac FROM candidates ORDER BY candidate_id"
    assert query(tmp_path / "old", sql) == query(finished, sql)
    assert query(tmp_path / "old", "SELECT round FROM yields ORDER BY round")[-1] == {"round": 2}


def test_a_matgl_member_judges_beside_the_one_that_relaxes(
    tiny: MakeSpec, tmp_path: Path, shared_weights: Path
) -> None:
    folder = shared_weights / "TensorNet-MatPES-PBE-v2025.1-PES"
    spec = tiny(rounds=1, potentials=["lennard-jones", f"matgl:{folder}"], triage={"max_disagreement": 0.01})
    run(spec, tmp_path / "c", executor="inline")
    judged = query(tmp_path / "c", "SELECT DISTINCT model FROM predictions WHERE property = 'formation_energy'")
    assert any(row["model"].startswith("matgl:") for row in judged)
    held = query(tmp_path / "c", "SELECT DISTINCT reason FROM triage")
    assert {"reason": "disagreement"} in held, "triage sees what every member says"


def test_weights_that_changed_behind_the_same_name_are_refused(
    tiny: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(rounds=1), tmp_path / "c", executor="inline")
    before = digest(tmp_path / "c")
    real = preflight.load_potential

    def retrained(name: str, **options: Any) -> Any:
        potential = real(name, **options)
        return replace(potential, level=potential.level.model_copy(update={"weights": "f" * 64}))

    monkeypatch.setattr(preflight, "load_potential", retrained)
    with pytest.raises(InputError, match=r"another level of theory: potential 'lennard-jones' \(.* then, .* now\)"):
        run(tiny(rounds=2), tmp_path / "c", executor="inline")
    assert digest(tmp_path / "c") == before
    monkeypatch.undo()
    run(tiny(rounds=2), tmp_path / "c", executor="inline")
    assert verify_ledger(tmp_path / "c") == []

"""Campaigns in which something fails: crystals, objectives, generators, oracles, whole stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paragenesis.engine.executor import InlineExecutor, Outcome
from paragenesis.engine.ledger import LedgerReader, digest, read_status, verify_ledger
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import ExecutionError, InputError
from paragenesis.launch import run
from paragenesis.objectives import Estimate, Minimize, objective

MakeSpec = Callable[..., CampaignSpec]
Interrupted = Callable[[int], InlineExecutor]


def query(directory: Path, sql: str) -> list[dict[str, Any]]:
    with LedgerReader.open(directory) as ledger:
        rows: list[dict[str, Any]] = ledger.query(sql).to_pylist()
    return rows


@objective(goal=Minimize(), unit="1")
def fussy(relaxed: Any) -> Any:
    """Cannot bear crystals with four atoms, though the check has none of those."""
    if 4 in relaxed.crystals.n_atoms.tolist():
        raise ValueError("four atoms")
    return relaxed.crystals.densities


def test_a_crystal_that_an_objective_cannot_bear_is_failed_and_its_neighbours_go_on(
    tiny: MakeSpec, tmp_path: Path
) -> None:
    run(tiny(objectives=(fussy, "formation_energy"), rounds=1), tmp_path / "c", executor="inline")
    failed = query(tmp_path / "c", "SELECT reason, n_atoms FROM candidates WHERE stage = 'assess'")
    assert failed
    assert all(row["n_atoms"] == 4 and "'fussy'" in row["reason"] and "four atoms" in row["reason"] for row in failed)
    assert query(tmp_path / "c", "SELECT 1 FROM candidates WHERE verdict = 'kept'")


@objective(goal=Minimize(), unit="1")
def broken(relaxed: Any) -> Estimate:
    """Always raises."""
    raise RuntimeError("out of order")


def test_an_objective_that_raises_is_found_before_anything_is_written(tiny: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'broken'.*out of order"):
        run(tiny(objectives=(broken,)), tmp_path / "c", executor="inline")
    assert not (tmp_path / "c").exists()


_PLUGINS = """
import json
from pathlib import Path
import numpy as np
from paragenesis.crystals import Crystals
from paragenesis.engine.level import Level
from paragenesis.engine.oracles import Verified
from paragenesis.objectives import Minimize, objective
from paragenesis.testing import RandomGenerator

def told(what):  # what breaks and is mended lies beside: another plug-in would be another campaign
    return json.loads(Path(__file__).with_name("told.json").read_text())[what]

class Moody(RandomGenerator):
    def generate(self, n, condition, seed):
        with Path(__file__).with_name("seeds").open("a") as file:
            print(seed, file=file)
        if seed in told("moods"):
            raise RuntimeError("not today")
        return super().generate(n, condition, seed)

@objective(goal=Minimize(), unit="1")
def hungry(relaxed):
    if told("hungry") in relaxed.crystals.ids:
        raise MemoryError("no room")
    return relaxed.crystals.densities

class Oracle:
    level = Level(engine="made", version="1", functional="made-up")

    def verify(self, crystals):
        if told("down"):
            raise RuntimeError("the licence server is down")
        n = len(crystals)
        values = dict(formation_energy=np.ones(n), density=np.ones(n))
        return Verified(crystals=crystals, values=values, cost_seconds=np.ones(n))
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Callable[..., Path]:
    """Writes plug-ins that fail as told."""
    (tmp_path / "mine.py").write_text(_PLUGINS)

    def write(**told: Any) -> Path:
        (tmp_path / "told.json").write_text(json.dumps({"moods": [], "hungry": "", "down": False} | told))
        return tmp_path

    return write


def test_a_generator_that_fails_on_a_chunk_fails_its_crystals_and_the_round_goes_on(
    tiny: MakeSpec, plugins: Callable[..., Path], interrupted: Interrupted, tmp_path: Path
) -> None:
    entry = {"use": "mine.py:Moody", "n": 12, "chunk": 4}
    spec = tiny(rounds=1, directory=plugins(), generators=[entry])
    run(spec, tmp_path / "clean", executor="inline")
    seeds = [int(line) for line in (tmp_path / "seeds").read_text().split()][-3:]  # one was a trial
    plugins(moods=seeds[1:2])
    run(spec, tmp_path / "c", executor="inline")
    assert verify_ledger(tmp_path / "c") == []
    failed = query(tmp_path / "c", "SELECT * FROM candidates WHERE stage = 'generate' ORDER BY candidate_id")
    assert [row["candidate_id"][-7:] for row in failed] == [f"001-{i:03d}" for i in range(4)]
    assert {(row["verdict"], row["reason"], row["numbers"]) for row in failed} == {
        ("failed", "RuntimeError: not today", None)
    }
    assert query(tmp_path / "c", "SELECT asked, generated FROM yields") == [{"asked": 12, "generated": 8}]
    [closed] = query(tmp_path / "c", "SELECT generated, selected FROM rounds")
    assert (closed["generated"], closed["selected"] > 0) == (12, True)
    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "broken", executor=interrupted(2))
    run(spec, tmp_path / "broken", executor="inline")
    assert digest(tmp_path / "broken") == digest(tmp_path / "c")
    plugins(moods=seeds)
    said = r"at stage 'generate', most often \(12\) because of \"RuntimeError: not today\""
    for _ in range(2):
        with pytest.raises(ExecutionError, match=said):
            run(spec, tmp_path / "none", executor="inline")
    plugins()  # mended: what failed before does not stop it again
    run(spec, tmp_path / "none", executor="inline")
    assert query(tmp_path / "none", "SELECT generated, failed >= 8 AS some FROM rounds") == [
        {"generated": 12, "some": True}
    ]


def test_a_crystal_that_finds_no_memory_is_a_fault_of_the_infrastructure(
    tiny: MakeSpec, plugins: Callable[..., Path], tmp_path: Path
) -> None:
    def spec(hungry: str = "") -> CampaignSpec:
        directory = plugins(hungry=hungry)
        return tiny(rounds=1, directory=directory, objectives=("mine.py:hungry", "formation_energy", "density"))

    sql = "SELECT candidate_id, verdict, stage, reason, fault, attempts FROM candidates ORDER BY candidate_id"
    run(spec(), tmp_path / "clean", executor="inline")
    clean = query(tmp_path / "clean", sql)
    kept = [row["candidate_id"] for row in clean if row["verdict"] == "kept"]
    run(spec(kept[0]), tmp_path / "c", executor="inline")
    found = {row["candidate_id"]: row for row in query(tmp_path / "c", sql)}
    guilty = found.pop(kept[0])
    assert (guilty["verdict"], guilty["stage"]) == ("failed", "assess")
    assert guilty["reason"].startswith("lost: MemoryError: no room (")
    assert (guilty["fault"], f"({guilty['attempts']} attempts)" in guilty["reason"]) == ("infrastructure", True)
    assert read_status(tmp_path / "c")["lost_to_infrastructure"] == 1
    page = (tmp_path / "c" / "report.html").read_text()
    assert "failed, 1 of them by a fault of the infrastructure" in page
    assert '"name":"infrastructure failed"' in page
    assert list(found.values()) == [row for row in clean if row["candidate_id"] != kept[0]]


@pytest.mark.parametrize("close", ["all", {"fraction": 0.5}])
def test_an_oracle_that_is_down_stops_the_campaign_until_it_is_mended(
    tiny: MakeSpec, plugins: Callable[..., Path], tmp_path: Path, close: Any
) -> None:
    parts = {"oracle": {"use": "mine.py:Oracle"}, "failures": {"answers": 2}, "verification": {"close": close}}
    spec = tiny(directory=plugins(down=True), **parts)
    said = "2 of the latest 2 verifications failed.*the licence server is down.*the latest is not written"
    with pytest.raises(ExecutionError, match=said):
        run(spec, tmp_path / "c", executor="inline")
    plugins()
    run(spec, tmp_path / "c", executor="inline")
    status = query(tmp_path / "c", "SELECT status, count(DISTINCT candidate_id) AS n FROM verifications GROUP BY ALL")
    assert {row["status"]: row["n"] for row in status} == {"failed": 1, "verified": 5}


def test_a_round_of_which_nothing_could_be_verified_stops_the_campaign_once(
    tiny: MakeSpec, plugins: Callable[..., Path], interrupted: Interrupted, tmp_path: Path
) -> None:
    spec = tiny(rounds=1, directory=plugins(down=True), oracle={"use": "mine.py:Oracle"})
    said = "3 of 3 answers of the oracle in round 1 failed.*the licence server is down.*not asked for again"
    with pytest.raises(ExecutionError, match=said):
        run(spec, tmp_path / "c", executor="inline")
    run(spec, tmp_path / "c", executor="inline")
    assert query(tmp_path / "c", "SELECT selected, verified FROM rounds") == [{"selected": 3, "verified": 0}]
    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "d", executor=interrupted(5))  # three chunks and two answers
    with pytest.raises(ExecutionError, match=said):
        run(spec, tmp_path / "d", executor="inline")
    run(spec, tmp_path / "d", executor="inline")
    assert digest(tmp_path / "d") == digest(tmp_path / "c")


def test_a_cheaper_oracle_that_is_down_stops_the_campaign_too(
    tiny: MakeSpec, plugins: Callable[..., Path], tmp_path: Path
) -> None:
    probes = [{"use": "mine.py:Oracle", "q": 2}]
    with pytest.raises(
        ExecutionError, match=r"2 of 2 answers of the cheaper oracle 1 in round 1 failed.*licence server"
    ):
        run(tiny(rounds=1, directory=plugins(down=True), probes=probes), tmp_path / "c", executor="inline")
    run(tiny(rounds=1, directory=plugins(), probes=probes), tmp_path / "c", executor="inline")
    assert verify_ledger(tmp_path / "c") == []


class Failing(InlineExecutor):
    def stream(self, stages: Any, items: Any, context: Any) -> Any:
        for _ in items:
            yield Outcome(stage="relax", error="RuntimeError: lightning")


def test_a_stage_that_fails_on_a_whole_chunk_stops_the_campaign_resumably(tiny: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"'relax' failed.*lightning.*resume"):
        run(tiny(rounds=1), tmp_path / "c", executor=Failing())
    run(tiny(rounds=1), tmp_path / "c", executor="inline")
    assert verify_ledger(tmp_path / "c") == []


def test_too_many_failures_stop_a_campaign_which_goes_on_when_that_is_mended(
    tiny: MakeSpec, finished: Path, tmp_path: Path
) -> None:
    strict = tiny(failures={"max_share": 0.2, "least": 8})
    said = r"of the round's \d+ crystals so far failed, more than failures.max_share = 0.2.*at stage 'relax'.*resume"
    for _ in range(2):
        with pytest.raises(ExecutionError, match=said):
            run(strict, tmp_path / "c", executor="inline")
    written = query(tmp_path / "c", "SELECT count(*) AS n, count(*) FILTER (verdict = 'failed') AS bad FROM candidates")
    assert written[0]["n"] < 12, "the chunk that was too much is made again"
    run(tiny(), tmp_path / "c", executor="inline")
    assert digest(tmp_path / "c") == digest(finished), "the limit has no influence on the results"


_UNTRUSTWORTHY = """
import os, signal, time
import numpy as np
from paragenesis.engine.level import Level
from paragenesis.engine.oracles import Verified
from paragenesis.objectives import Minimize, objective

@objective(goal=Minimize(), unit="1")
def deadly(relaxed):
    if {poison!r} in relaxed.crystals.ids and {deadly}:
        os.kill(os.getpid(), signal.SIGKILL)
    return relaxed.crystals.densities

class Oracle:
    level = Level(engine="made", version="1", functional="made-up")

    def verify(self, crystals):
        n, how = len(crystals), {hows!r}.get(crystals.ids[0], "")
        if how == "raise":
            raise RuntimeError("the license server is down")
        if how == "hang":
            time.sleep(600)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        values = np.full(n + (how == "shape"), dict(nan=np.nan, inf=np.inf).get(how, 1.0))
        return Verified(crystals=crystals, values=dict(deadly=values, formation_energy=values), cost_seconds=np.ones(n))
"""


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_objectives_and_oracles_that_kill_hang_and_lie_fail_only_their_crystals(tiny: MakeSpec, tmp_path: Path) -> None:
    def spec(**parts: Any) -> CampaignSpec:
        (tmp_path / "mine.py").write_text(
            _UNTRUSTWORTHY.format(**({"poison": "", "deadly": False, "hows": {}} | parts))
        )
        hasty = {"attempts": 1, "lease": 6.0}
        return tiny(
            rounds=1,
            directory=tmp_path,
            generators=[{"use": "random", "n": 36, "chunk": 3}],
            objectives=("mine.py:deadly", "formation_energy"),
            oracle={"use": "mine.py:Oracle"},
            decision={"q": 7},
            failures={"max_share": 1.0},
            resources={"generate": hasty, "potentials": hasty | {"workers": 1}, "oracle": hasty | {"workers": 1}},
        )

    sql = "SELECT candidate_id, verdict, stage, reason, frac FROM candidates ORDER BY candidate_id"
    run(spec(), tmp_path / "clean", executor="inline")
    clean = query(tmp_path / "clean", sql)
    ranked = query(tmp_path / "clean", "SELECT candidate_id FROM selections ORDER BY rank")
    chosen = [row["candidate_id"] for row in ranked]
    twins = " ".join(row["reason"] or "" for row in clean)  # a twin of the poison would take its place
    kept = [row["candidate_id"] for row in clean if row["verdict"] == "kept"]
    poison = next(c for c in kept if c not in chosen and c not in twins)
    hows = dict(zip(chosen, ("kill", "hang", "raise", "nan", "inf", "shape"), strict=False))
    run(spec(poison=poison, deadly=True, hows=hows), tmp_path / "c", executor="ray")
    assert verify_ledger(tmp_path / "c") == []
    found = query(tmp_path / "c", sql)
    assert [r for r in found if r["candidate_id"] != poison] == [r for r in clean if r["candidate_id"] != poison]
    [failed] = [r for r in found if r["candidate_id"] == poison]
    assert (failed["verdict"], failed["stage"]) == ("failed", "assess")
    assert failed["reason"].startswith("lost: its worker died (")
    asked = query(tmp_path / "c", "SELECT * FROM verifications")
    reasons = {row["candidate_id"]: row["error"] or "" for row in asked}
    said = {
        "raise": "the oracle failed: RuntimeError: the license server is down",
        "kill": "verify: lost: its worker died (1 attempt)",
        "hang": "verify: lost: its worker hung (1 attempt)",
        "nan": "the oracle gave no finite value for every objective",
        "inf": "the oracle gave no finite value for every objective",
    }
    for candidate, how in hows.items():
        if candidate in reasons:
            assert said.get(how, "has shape (2,)") in reasons[candidate]
    faults = {hows.get(row["candidate_id"]): row["fault"] for row in asked if row["error"]}
    for how, fault in faults.items():
        assert fault == ("infrastructure" if how in ("kill", "hang") else "scientific")
    assert {row["attempts"] for row in asked} == {None, 1}
    lost = [row["fault"] for row in asked].count("infrastructure")
    assert f" {lost} answers of oracles got lost likewise." in (tmp_path / "c" / "report.html").read_text()
    assert read_status(tmp_path / "c")["lost_to_infrastructure"] == 1 + lost, "and the poison"
    assert {c for c, reason in reasons.items() if not reason} == reasons.keys() - hows.keys()
    assert {hows.get(candidate) for candidate in reasons} >= {"kill", "hang"}, "the test asks about these"
    assert query(tmp_path / "c", "SELECT state FROM rounds") == [{"state": "closed"}]
    assert not query(tmp_path / "c", "SELECT 1 FROM predictions WHERE isinf(mean) OR isinf(std)")

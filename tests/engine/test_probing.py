"""Cheaper oracles: what they are asked, what they teach, and that nothing of it counts as verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paragenesis.engine.ledger import LedgerReader, digest, export_crystals, verify_ledger
from paragenesis.engine.preflight import prepare
from paragenesis.engine.spec import CampaignSpec
from paragenesis.engine.surrogate import ResidualSurrogate
from paragenesis.errors import InputError
from paragenesis.launch import run

MakeSpec = Callable[..., CampaignSpec]

# the truth about "formation_energy" is far from the ensemble, and neither constant nor smooth in the composition
_ORACLES = """
import numpy as np
from paragenesis.engine.level import Level
from paragenesis.engine.oracles import Verified
from paragenesis.settings import Settings

class Options(Settings):
    shift: float = 0.0
    noise: float | None = None
    melts: str = "no crystal"

class Made:
    def __init__(self, settings: Options):
        self.settings = settings
        self.level = Level(engine="made", version=str(settings.shift), functional="made-up")

    def verify(self, crystals):
        n, volumes = len(crystals), crystals.volumes / crystals.n_atoms
        values = {"formation_energy": 8 * np.sin(volumes) + self.settings.shift, "density": crystals.densities}
        noise = {} if self.settings.noise is None else {"formation_energy": np.full(n, self.settings.noise)}
        errors = {i: "it melted" for i, f in enumerate(crystals.formulas) if f == self.settings.melts}
        return Verified(crystals=crystals, values=values, noise=noise, errors=errors, cost_seconds=np.ones(n))
"""


@pytest.fixture
def probing(tiny: MakeSpec, tmp_path: Path) -> MakeSpec:
    """Makes the specification of a campaign with a cheaper oracle that is off by a constant."""
    (tmp_path / "oracles.py").write_text(_ORACLES)

    def make(*shifts: float, q: int = 4, dear: dict[str, Any] | None = None, **changes: Any) -> CampaignSpec:
        use = "oracles.py:Made"
        probes = [{"use": use, "q": q, "options": {"shift": shift}} for shift in shifts]
        parts: dict[str, Any] = {"oracle": {"use": use, "options": dear or {}}, "probes": probes, "directory": tmp_path}
        parts["generators"] = [{"use": "random", "n": 32, "chunk": 16}]
        return tiny(**(parts | changes))

    return make


def query(directory: Path, sql: str) -> list[dict[str, Any]]:
    with LedgerReader.open(directory) as ledger:
        rows: list[dict[str, Any]] = ledger.query(sql).to_pylist()
    return rows


def test_cheaper_oracles_are_asked_first_and_about_crystals_they_were_not_asked_about(
    probing: MakeSpec, tmp_path: Path
) -> None:
    run(probing(5.0, 50.0), tmp_path / "c", executor="inline")
    asked = query(tmp_path / "c", "SELECT round, fidelity, count(*) AS n FROM probes GROUP BY ALL ORDER BY ALL")
    assert [tuple(row.values()) for row in asked] == [(1, 1, 4), (1, 2, 4), (2, 1, 4), (2, 2, 4)]
    first = query(tmp_path / "c", "SELECT min(committed_at) AS at, commit_key[6:12] AS what FROM commits GROUP BY what")
    order = [row["what"] for row in sorted(first, key=lambda row: row["at"])]
    assert order.index("probe/2") < order.index("probe/1") < order.index("selecti")
    again = "SELECT 1 FROM probes a JOIN probes b USING (candidate_id) WHERE a.fidelity = 1 AND b.fidelity = 2"
    assert query(tmp_path / "c", f"{again} AND b.round > a.round") == [], "a better answer was there"
    late = "SELECT 1 FROM probes p JOIN selections s USING (candidate_id) WHERE p.round > s.round"
    assert query(tmp_path / "c", late) == [], "the oracle was asked already"
    keys = query(tmp_path / "c", "SELECT DISTINCT fidelity, level_key FROM probe_answers ORDER BY 1")
    assert [row["level_key"][:9] for row in keys] == ["made-5.0/", "made-50.0"]


def test_what_a_cheaper_oracle_says_is_no_verification(probing: MakeSpec, tmp_path: Path) -> None:
    run(probing(5.0), tmp_path / "c", executor="inline")
    assert [r["verified"] for r in query(tmp_path / "c", "SELECT verified FROM rounds ORDER BY round")] == [3, 3]
    assert len(query(tmp_path / "c", "SELECT DISTINCT candidate_id FROM verifications")) == 6
    written = export_crystals(tmp_path / "c", "verified", "extxyz", tmp_path / "v.extxyz")
    assert written == 6
    assert verify_ledger(tmp_path / "c") == []


def posterior_error(directory: Path, number: int) -> float:
    """How far the oracle was from what was expected of the chosen crystals of a round, root mean square."""
    rows = query(
        directory,
        "SELECT v.value - p.mean AS error FROM verifications v JOIN predictions p USING (candidate_id, property) "
        f"WHERE v.round = {number} AND property = 'formation_energy' AND p.model = 'posterior:{number}'",
    )
    return float(np.sqrt(np.mean([row["error"] ** 2 for row in rows])))


def test_a_cheaper_oracle_tells_what_the_dear_one_will_say(probing: MakeSpec, tmp_path: Path) -> None:
    for name, shifts in (("alone", ()), ("probed", (5.0,))):
        run(probing(*shifts, q=40, rounds=3, decision={"q": 8}), tmp_path / name, executor="inline")
    alone, probed = (posterior_error(tmp_path / name, 3) for name in ("alone", "probed"))
    assert probed < 0.3 * alone


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_and_inline_write_the_same_ledger_of_a_campaign_that_learns_and_probes(
    probing: MakeSpec, tmp_path: Path
) -> None:
    parts = {
        "generators": [{"use": "paragenesis.testing:LearningRandomGenerator", "n": 16, "chunk": 4}],
        "learn": {"generator": True, "max_hull_distance": 50.0, "min_crystals": 2, "trial": 24, "tolerance": 3.0},
    }
    run(probing(5.0, **parts), tmp_path / "inline", executor="inline")
    workers = {"potentials": {"workers": 2}}
    spec = probing(5.0, **parts, verification={"close": {"fraction": 1.0}}, resources=workers)  # answers in any order
    run(spec, tmp_path / "ray", executor="ray")
    for sql in ("SELECT outcome FROM learning", "SELECT DISTINCT status FROM probe_answers"):
        assert query(tmp_path / "ray", sql) in ([{"outcome": "accepted"}], [{"status": "verified"}])
    assert digest(tmp_path / "ray") == digest(tmp_path / "inline")


def test_a_failure_is_recorded_and_not_asked_again(probing: MakeSpec, tmp_path: Path) -> None:
    probe = {"use": "oracles.py:Made", "q": 12, "options": {"shift": 5.0, "melts": "NaCl"}}
    run(probing(probes=[probe]), tmp_path / "c", executor="inline")
    failed = query(tmp_path / "c", "SELECT candidate_id, error, value FROM probe_answers WHERE status = 'failed'")
    assert failed
    assert all(row["error"] == "it melted" and row["value"] is None for row in failed)
    assert len({row["candidate_id"] for row in failed}) == len(failed)
    assert verify_ledger(tmp_path / "c") == []


def test_doubt_is_a_reason_to_ask_a_cheaper_oracle_and_not_to_leave_it(probing: MakeSpec, tmp_path: Path) -> None:
    doubtful = {"min_hull_distance": -100.0, "max_std": {"formation_energy": 1e-9}, "max_force": 1000.0}
    run(probing(5.0, rounds=1, triage=doubtful), tmp_path / "c", executor="inline")
    assert query(tmp_path / "c", "SELECT DISTINCT reason FROM triage") == [{"reason": "too_uncertain"}]
    assert query(tmp_path / "c", "SELECT count(*) AS n FROM selections") == [{"n": 0}]
    assert query(tmp_path / "c", "SELECT count(*) AS n FROM probes") == [{"n": 4}]


def test_two_oracles_of_one_level_are_refused(probing: MakeSpec) -> None:
    with pytest.raises(InputError, match=r"probes\.1 answers at the level of theory made-5\.0"):
        prepare(probing(5.0, 5.0))
    with pytest.raises(InputError, match=r"probes\.0 .* like the oracle"):
        prepare(probing(0.0))


def test_the_surrogate_is_told_the_oracles_noise(
    probing: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    fit = ResidualSurrogate.fit

    def listen(self: ResidualSurrogate, *tables: Any, **others: Any) -> ResidualSurrogate:
        told.append(others["noise_std"])
        return fit(self, *tables, **others)

    monkeypatch.setattr(ResidualSurrogate, "fit", listen)
    run(probing(dear={"noise": 0.25}), tmp_path / "c", executor="inline")
    np.testing.assert_array_equal(told[-1], [[0.25, np.nan]] * 3)
    rows = query(tmp_path / "c", "SELECT DISTINCT property, noise FROM verifications ORDER BY property")
    assert rows == [{"property": "density", "noise": None}, {"property": "formation_energy", "noise": 0.25}]

"""The benchmarks of choosing, over ten rounds and by the size of the pool, say what they claim to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from paragenesis.engine.acquisition.pareto import hypervolume

Script = Callable[[str], ModuleType]
Tables = Callable[[], dict[str, list[str]]]


def test_rounds_evaluates_what_each_strategy_chooses(
    script: Script, table: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, out = script("rounds"), tmp_path / "out.json"
    few = {way: rounds.STRATEGIES[way] for way in ("ehvi_dpp (default)", "random")}  # each fits anew every round
    monkeypatch.setattr(rounds, "STRATEGIES", few)
    rounds.main(f"--pools 60 --rounds 2 --q 3 --seeds 0 --budget 0 --out {out}".split())
    campaigns = {c["way"]: c for c in json.loads(out.read_text())}
    assert list(campaigns) == list(few)
    rows, outcomes = table(), rounds.truth(rounds.candidates(0, 60))
    for way, done in campaigns.items():
        tried = done["rows"]
        assert len(set(tried)) == len(tried) == 15 + 2 * 3
        assert tried[:15] == campaigns["random"]["rows"][:15]
        reached = [hypervolume(outcomes[tried[:k]], rounds.REFERENCE) for k in (15, 18, 21)]
        assert done["volumes"] == pytest.approx(reached)
        assert done["seconds"] > 0
        share = f"{reached[-1] / campaigns['ehvi_dpp (default)']['volumes'][-1]:.3f}"  # BoTorch was left out
        cells = rows[f"60, {way}"]
        assert cells[1:4] + cells[5:] == [f"{reached[-1]:.3f}", share, share, "1"]
    assert campaigns["random"]["rows"] != campaigns["ehvi_dpp (default)"]["rows"]


def test_rounds_compares_seed_by_seed_with_botorch(script: Script) -> None:
    rounds = script("rounds")
    done = [
        rounds.Campaign(n, seed, way, seconds, [], [0.0, volume])
        for n, seed, way, seconds, volume in [
            (1000, 0, rounds.PEER, 100.0, 0.5),
            (1000, 1, rounds.PEER, 300.0, 0.25),
            (1000, 0, "own", 1.0, 0.4),
            (1000, 1, "own", 2.0, 0.25),
            (1000, 2, "own", 3.0, 9.0),  # BoTorch did not finish this seed
            (10, 0, "own", 1.0, 0.1),
        ]
    ]
    rows = {row[0]: row[1:] for row in rounds.table(done)}
    assert next(iter(rows)) == "10, own"
    assert rows["10, own"][2:] == ["-", "-", "-", "1"]
    assert rows["1,000, own"][2:] == ["0.900 (0.800 to 1.000)", "0.900 +- 0.100", "125 (100 to 150)", "3"]
    assert rows[f"1,000, {rounds.PEER}"][2:] == ["1.000 (1.000 to 1.000)", "1.000 +- 0.000", "1 (1 to 1)", "2"]


def test_rounds_takes_campaigns_of_botorch_that_were_kept(script: Script, tmp_path: Path) -> None:
    rounds, kept = script("rounds"), tmp_path / "kept.json"
    peer = rounds.Campaign(60, 0, rounds.PEER, 9.0, list(range(21)), [0.1, 0.2, 0.3])
    others = [
        replace(peer, way="ehvi"),
        replace(peer, seed=1),
        replace(peer, n=90),
        replace(peer, volumes=[0.1, 0.2]),  # of fewer rounds
        replace(peer, rows=list(range(25))),  # of larger batches
    ]
    kept.write_text(json.dumps([asdict(c) for c in [*others, peer]]))
    options = SimpleNamespace(peers=kept, rounds=2, q=3, budget=0.0)
    assert rounds.peer_campaigns(options, [(60, 0), (60, 2)]) == [peer]
    options.peers = None
    assert rounds.peer_campaigns(options, [(60, 0)]) == []


@pytest.mark.slow
def test_rounds_holds_botorch_beside_the_engine(script: Script, table: Tables) -> None:
    # most of it goes into the compilation of a kernel
    script("rounds").main(["--pools", "60", "--rounds", "1", "--q", "2", "--seeds", "0", "--budget", "280"])
    rows = table()
    assert rows["60, BoTorch qLogNEHVI"][2:] == ["1.000", "1.000", "1", "1"]
    _, _, share, _, ratio, _ = rows["60, ehvi_dpp (default)"]
    assert 0 < float(share) < 2
    assert float(ratio) > 1


def test_scale_times_a_decision_in_a_process_of_its_own(script: Script, table: Tables, tmp_path: Path) -> None:
    scale = script("scale")
    drawing, out = tmp_path / "growth.png", tmp_path / "out.json"
    arguments = f"--sizes 100 --seeds 1 --verified 20 --plot {drawing} --out {out}"
    scale.main(arguments.split())
    (measured,) = json.loads(out.read_text())
    parts = [*measured["learning"], *measured["prediction"], *measured["choice"]]
    assert min(parts) > 0
    *_, total, peak = table()["100"]
    assert float(total) == pytest.approx(sum(parts), abs=0.051)
    assert 0.05 < float(peak) < 10
    assert drawing.read_bytes().startswith(b"\x89PNG")


def test_scale_round_times_a_round_from_ledger_to_ledger(script: Script, table: Tables, tmp_path: Path) -> None:
    scale_round, out = script("scale_round"), tmp_path / "out.json"
    scale_round.main(f"--sizes 150 --out {out}".split())
    (measured,) = json.loads(out.read_text())
    (seconds,) = measured["seconds"]
    assert len(seconds) == len(scale_round.PARTS)
    assert min(seconds) > 0
    *cells, peak = table()["150"]
    assert [float(cell) for cell in cells] == pytest.approx(seconds, abs=0.051)
    assert 0.05 < float(peak) < 10


def growing(scale: ModuleType, prediction: float) -> list[object]:
    """Measurements in which learning takes 5 s whatever the size."""
    return [scale.Measured(n, [5.0], [1e-4 * n**prediction], [1e-5 * n**prediction], 1e-6 * n) for n in scale.SIZES]


def test_scale_fits_the_exponent_to_large_pools(script: Script) -> None:
    scale = script("scale")
    words = scale.growth(growing(scale, 1.0))
    assert "From 100,000 to 1,000,000 candidates" in words
    assert "prediction alone as n^1.00" in words
    totals = [5 + 1.1e-4 * n for n in (1e5, 3e5, 1e6)]
    slope = np.polyfit(np.log([1e5, 3e5, 1e6]), np.log(totals), 1)[0]
    assert f"the total grows as n^{slope:.2f}" in words
    assert "98% of the total at 1,000 candidates and 13% at 1,000,000" in words
    assert "alone as n^1.50" in scale.growth(growing(scale, 1.5))
    assert "no exponent" in scale.growth(growing(scale, 1.0)[:4])


def test_scale_draws_a_small_picture(script: Script, tmp_path: Path) -> None:
    from matplotlib.image import imread

    scale, file = script("scale"), tmp_path / "growth.png"
    scale.plot(growing(scale, 1.0), file)
    assert imread(file).shape[:2] == (450, 900)
    assert file.stat().st_size < 60_000

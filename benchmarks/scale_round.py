"""Growth of a campaign's round beside its models: what ledger, decision and close take by the number of candidates.

    python benchmarks/scale_round.py [--sizes 1000 3000 ... 100000] [--seeds 1] [--out FILE]

A ledger is filled with made-up crystals of eight atoms, all kept, as chunks of 1,000 with everything that two members
and the ensemble say of three objectives. 500 of them are verified in the first round, and 64 are chosen in the second,
by the whole way of a campaign: everything read from the ledger, descriptors, surrogate, triage, choice, commit. Seconds
are CPU time on one thread; each size has a process of its own, so that the peak memory is that size's. Making,
relaxing and judging crystals is not in it, see `overhead.py`.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench_table import markdown, spread, versions
from scale import exponent, in_own_process

from paragenesis.crystals import Crystals
from paragenesis.engine.ledger import Ledger, rows, structure_columns
from paragenesis.engine.level import Level

Q, VERIFIED, ATOMS, CHUNK = 64, 500, 8, 1_000
SIZES = [1_000, 3_000, 10_000, 30_000, 100_000]
ELEMENTS = np.array([3, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 20, 22, 26, 30, 34])
PARTS = ("committing candidates", "closing their round", "deciding", "committing the decision", "opening again")
OBJECTIVES = ("energy_above_hull", "formation_energy", "density")
MEMBERS = ("lennard-jones", "another")


def made_up(n: int, seed: int, first: int) -> Crystals:
    """Crystals of eight atoms of two or three elements at random places."""
    rng = np.random.default_rng([seed, first])
    kinds = rng.choice(ELEMENTS, size=(n, 3))
    edge = rng.uniform(5.0, 7.0, n)
    return Crystals(
        ids=tuple(f"r001-made-{first + i:08d}" for i in range(n)),
        n_atoms=np.full(n, ATOMS),
        numbers=np.take_along_axis(kinds, rng.integers(0, 3, (n, ATOMS)), axis=1).reshape(-1),
        frac=rng.random((n * ATOMS, 3)),
        lattices=edge[:, None, None] * np.eye(3),
    )


def chunk(crystals: Crystals, seed: int) -> dict[str, Any]:
    """Rows of `candidates` and `predictions` of a chunk."""
    n, ids = len(crystals), list(crystals.ids)
    rng = np.random.default_rng([seed, n, int(ids[0][-8:])])
    energy = -1.0 + 0.5 * np.sin(crystals.densities) + 0.1 * rng.standard_normal(n)
    said = {
        **{(m, "formation_energy"): energy + 0.01 * rng.standard_normal(n) for m in MEMBERS},
        **{(m, "energy_above_hull"): np.abs(energy + 1.0) for m in MEMBERS},
        **{(m, "max_force"): np.full(n, 0.04) for m in MEMBERS},
        ("ensemble", "formation_energy"): energy,
        ("ensemble", "energy_above_hull"): np.abs(energy + 1.0),
        ("ensemble", "density"): crystals.densities,
    }
    candidates = rows(
        "candidates", candidate_id=ids, round=1, generator="made", chunk=int(ids[0][-8:]) // CHUNK, verdict="kept",
        formula=list(crystals.formulas), chemical_system=list(crystals.chemical_systems), space_group=1,
        n_atoms=crystals.n_atoms, key=ids, converged=True, steps=20, **structure_columns(crystals),
        **structure_columns(crystals, prefix="initial_"),
    )  # fmt: skip
    predictions = rows(
        "predictions", candidate_id=ids * len(said), model=[m for m, _ in said for _ in ids],
        property=[p for _, p in said for _ in ids], mean=np.concatenate(list(said.values())), std=0.02,
    )  # fmt: skip
    return {"candidates": candidates, "predictions": predictions}


def answers(ledger: Ledger, level: Level, seed: int) -> None:
    """The first round's choice at random, and what the oracle says of it."""
    rng = np.random.default_rng(seed)
    found = ledger.query("SELECT candidate_id FROM candidates ORDER BY candidate_id").column(0).to_pylist()
    chosen = sorted(rng.choice(found, size=min(VERIFIED, len(found) // 2), replace=False).tolist())
    told = ledger.query(
        "SELECT candidate_id, property, mean FROM predictions WHERE model = 'ensemble' "
        "AND candidate_id IN (SELECT unnest(?))",
        (chosen,),
    )
    value = told.column("mean").to_numpy() + 0.05 * rng.standard_normal(told.num_rows)
    ledger.commit(
        "r001/selection", 1, "selection",
        {"selections": rows("selections", round=1, candidate_id=chosen, rank=list(range(1, len(chosen) + 1)))},
    )  # fmt: skip
    ledger.commit(
        "r001/verification", 1, "verification",
        {
            "verifications": rows(
                "verifications", candidate_id=told.column("candidate_id"), property=told.column("property"),
                level_key=level.key, round=1, status="verified", value=value,
            ),
            "levels": rows("levels", level_key=[level.key], level=[level.model_dump_json()]),
        },
    )  # fmt: skip


def timed(n: int, seed: int, folder: Path) -> list[float]:
    """CPU seconds of each of `PARTS`."""
    from paragenesis.engine.decision import decide_round
    from paragenesis.engine.preflight import prepare
    from paragenesis.engine.records import decision_tables
    from paragenesis.engine.spec import CampaignSpec

    spec = CampaignSpec.parse(
        {
            "name": "growth",
            "seed": seed,
            "generators": [{"use": "random", "n": 1}],
            "potentials": ["lennard-jones"],
            "hull": {"mixed": True},
            "objectives": OBJECTIVES,
            "decision": {"q": Q},
            "oracle": {"use": "potential", "options": {"potential": "lennard-jones"}},
        }
    )
    kit = replace(prepare(spec), members=MEMBERS)
    with Ledger.create(folder, dict(kit.meta)) as ledger:
        ledger.open_round(1, "{}")
        committing = 0.0
        for first in range(0, n, CHUNK):
            tables = chunk(made_up(min(CHUNK, n - first), seed, first), seed)
            started = time.process_time()
            ledger.commit(f"r001/made/{first}", 1, "chunk", tables)
            committing += time.process_time() - started
        answers(ledger, kit.level, seed)
        started = time.process_time()
        ledger.close_round(1, {"hits": 0})
        closing = time.process_time() - started
        ledger.open_round(2, "{}")
        clock = [time.process_time()]
        decision = decide_round(ledger, kit, 2)
        clock.append(time.process_time())
        ledger.commit("r002/selection", 2, "selection", decision_tables(2, decision, OBJECTIVES))
        clock.append(time.process_time())
        assert len(decision.chosen) > 0
    started = time.process_time()
    with Ledger.open(folder):
        opening = time.process_time() - started
    return [committing, closing, *np.diff(clock).tolist(), opening]


def work(n: int, seeds: int) -> None:
    """What the process of one size does."""
    import torch

    torch.set_num_threads(1)
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            found.append(timed(n, seed, Path(folder) / "campaign"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"n": n, "seconds": found, "peak": peak}))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seeds", type=int, default=1, help="how many: 0, 1, ...")
    parser.add_argument("--out", type=Path, help="write everything there as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        with warnings.catch_warnings(action="ignore"):  # third parties', about their own code
            work(*json.loads(options.worker))
        return
    done = [in_own_process(__file__, n, options.seeds) for n in sorted(options.sizes)]
    columns = [np.array(one["seconds"]).T.tolist() for one in done]
    cells = [[spread(values, 1) for values in parts] for parts in columns]
    totals = [np.median(np.sum(parts, axis=0)) for parts in columns]
    head = ["candidates", *(f"{part}, CPU s" for part in PARTS), "peak GB"]
    print(markdown(head, [[f"{o['n']:,}", *c, f"{o['peak']:.2f}"] for o, c in zip(done, cells, strict=True)]))
    if len(done) > 1:
        first, last = done[-2]["n"], done[-1]["n"]
        print(f"\nFrom {first:,} to {last:,} the total grows as n^{exponent([first, last], totals[-2:]):.2f}.")
    print(f"\nq = {Q}, {len(OBJECTIVES)} objectives, up to {VERIFIED} verified; {versions('torch', 'duckdb')}")
    if options.out is not None:
        options.out.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Decisions: which candidates a strategy verifies, what it finds, how honest its intervals are, what it costs.

    python benchmarks/decisions.py --task redoxmers --data ../shared/data [--seeds 20] [--strategies ehvi_dpp ehvi ...]
    python benchmarks/decisions.py --task discovery --data ../shared/data [--potential chgnet-0.3.0 | --composition]
    python benchmarks/decisions.py --task honesty
    python benchmarks/decisions.py --task calls --seeds 3
    python benchmarks/decisions.py --task calibration --data ../shared/data --seeds 10
    python benchmarks/decisions.py --task features --data ../shared/data --potential chgnet-0.3.0 --seeds 5

redoxmers   `redoxmers.csv`: 1,408 molecules of four substituents, three outcomes to minimise. Five at a time,
            begun with five at random; the share of the whole table's hypervolume after 50 and 100.
discovery   all crystals of `mp20_train.csv.gz`, the oracle is the table. A hit has hull distance 0, a band gap of 1.0
            to 2.5 eV and a density below 6 g/cm3. 50 at random first, then 25 at a time to 300.
honesty     a synthetic pool with planted noisy regions: what triage removes.
calls       how long one call of `decide` takes on a table of numbers and categories, three objectives.
calibration how wide intervals are and how many values they hold, by the way in which they are calibrated.
features    what a surrogate learns from descriptors of composition and structure, from the potential's, and from both.

Coverage is that of the 90 % intervals that were told before each verification.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_calibration import calibration
from bench_features import features
from bench_table import markdown, mean_and_error, versions

from paragenesis import Maximize, Minimize, Range, decide
from paragenesis.engine.acquisition.dpp import log_determinant
from paragenesis.engine.acquisition.features import FeatureSpace
from paragenesis.engine.acquisition.pareto import hypervolume
from paragenesis.engine.acquisition.select import DecisionSettings
from paragenesis.engine.acquisition.triage import Evidence, TriageSettings, triage
from paragenesis.engine.descriptors import DESCRIPTOR_NAMES
from paragenesis.objectives import Goal

Floats = np.ndarray
REDOXMERS = ("R1", "R3", "R4", "R5", "abs_lam_diff", "ered", "gsol")
CALLS = ((3_500, 100, 5), (100_000, 500, 64))  # candidates, observations, q
EQUAL = 40  # hits that every strategy but chance finds
HIT = {
    "energy_above_hull": Range("energy_above_hull", high=0.0),
    "band_gap": Range("band_gap", low=1.0, high=2.5),
    "density": Range("density", high=6.0),
}


@dataclass
class Campaign:
    """One campaign on a table: what was tried, in order, and what had been foretold.

    Attributes:
        tried: Rows of the table.
        inside: By objective, for each foretold value whether it lay in the 90 % interval that was told ("low", "high").
        seconds: CPU time of the decisions.
    """

    tried: list[int]
    inside: dict[str, list[bool]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def coverage(self) -> dict[str, float]:
        """The share inside, of all values and by objective."""
        every = [one for inside in self.inside.values() for one in inside]
        return {"": float(np.mean(every)), **{name: float(np.mean(inside)) for name, inside in self.inside.items()}}


def campaign(
    table: pd.DataFrame,
    features: Sequence[str],
    goals: Sequence[Goal],
    *,
    first: int,
    q: int,
    budget: int,
    seed: int,
    settings: Mapping[str, Any],
) -> Campaign:
    """Verify `first` rows at random, then q at a time as the strategy chooses, until the budget is spent."""
    rng = np.random.default_rng(seed)
    done = Campaign(rng.permutation(len(table))[:first].tolist())
    pool = table[list(features)].reset_index(drop=True)
    outcomes = table[[goal.of for goal in goals]].reset_index(drop=True)
    rule = DecisionSettings(**settings)
    while len(done.tried) < budget:
        seen = pool.iloc[done.tried].join(outcomes)
        started = time.process_time()
        batch = decide(pool, seen, goals, min(q, budget - len(done.tried)), seed=seed, settings=rule)
        done.seconds += time.process_time() - started
        rows = [int(label) for label in batch]  # type: ignore[call-overload]
        for goal in goals:
            truth = outcomes[goal.of].to_numpy()[rows]
            inside = (truth >= batch.table[f"{goal.of} low"]) & (truth <= batch.table[f"{goal.of} high"])
            done.inside.setdefault(goal.of, []).extend(inside.tolist())
        done.tried += rows
        if not rows:
            break
    return done


def covered_cells(coverages: Sequence[Mapping[str, float]]) -> list[str]:
    """Two cells: the coverage of all intervals with its standard error, and the mean of each objective's."""
    names = [name for name in coverages[0] if name]
    each = [f"{name} {np.mean([one[name] for one in coverages]):.3f}" for name in names]
    return [mean_and_error([one[""] for one in coverages], 3), ", ".join(each)]


COVERED = ("coverage of 90 %", "by objective")


def seeds_of(options: argparse.Namespace) -> range:
    """The seeds that were asked for."""
    return range(options.first_seed, options.first_seed + options.seeds)


# --- redoxmers -------------------------------------------------------------------------------------------------------


def redoxmers(options: argparse.Namespace) -> dict[str, Any]:
    """The share of the table's hypervolume that each strategy has after 50 and 100 evaluations."""
    table = pd.read_csv(options.data / "redoxmers.csv", header=None, names=list(REDOXMERS))
    goals = [Minimize(name) for name in REDOXMERS[4:]]
    utilities = -table[list(REDOXMERS[4:])].to_numpy()
    reference = utilities.min(0)
    whole = hypervolume(utilities, reference)
    rows, results = [], []
    for strategy in options.strategies or ["ehvi_dpp", "ehvi", "thompson", "parego", "greedy", "random"]:
        shares: dict[int, list[float]] = {50: [], 100: []}
        covered, seconds = [], []
        for seed in seeds_of(options):
            done = campaign(
                table, REDOXMERS[:4], goals, first=5, q=5, budget=100, seed=seed,
                settings={"strategy": strategy, "diversity": options.diversity, "explore": options.explore},
            )  # fmt: skip
            for n, found in shares.items():
                found.append(hypervolume(utilities[done.tried[:n]], reference) / whole)
            covered.append(done.coverage)
            seconds.append(done.seconds / 19)
            results.append({"strategy": strategy, "seed": seed, "tried": done.tried, "coverage": covered[-1][""]})
        cells = [mean_and_error(found, 3) for found in shares.values()]
        rows.append([strategy, *cells, *covered_cells(covered), f"{np.mean(seconds):.2f}"])
    print(markdown(["redoxmers", "share at 50", "share at 100", *COVERED, "CPU s a decision"], rows))
    return {"task": "redoxmers", "results": results}


# --- discovery -------------------------------------------------------------------------------------------------------


def discovery(options: argparse.Namespace) -> dict[str, Any]:
    """Hits among 300 verified crystals, begun with 50 at random."""
    from bench_pool import mp20_pool

    table, features = mp20_pool(options.data, None if options.composition else options.potential, options.work)
    if options.composition:
        features = [f"x_{name}" for name in DESCRIPTOR_NAMES[: DESCRIPTOR_NAMES.index("volume_per_atom")]]
    hit = np.logical_and.reduce([goal.utility(table[name].to_numpy()) == 0 for name, goal in HIT.items()])
    space = FeatureSpace(table[features].to_numpy(), 16)
    coordinates = space(table[features].to_numpy())
    rows, results = [], []
    for strategy in options.strategies or ["hits", "ehvi", "greedy", "random"]:
        found, systems, spread, alike, cost, covered = [], [], [], [], [], []
        for seed in seeds_of(options):
            done = campaign(
                table, features, list(HIT.values()), first=50, q=25, budget=300, seed=seed,
                settings={"strategy": strategy, "diversity": options.diversity, "explore": options.explore},
            )  # fmt: skip
            which = np.array(done.tried)
            hits = which[hit[which]]
            found.append(float(len(hits)))
            systems.append(float(table["system"].iloc[hits].nunique()))
            spread.append(log_determinant(coordinates[hits], 0.5) / max(len(hits), 1))
            if len(hits) >= EQUAL:  # sets of one size, whose determinants can be compared
                alike.append(log_determinant(coordinates[hits[:EQUAL]], 0.5) / EQUAL)
            thirds = [max(int(part.sum()), 1) for part in np.array_split(hit[which], 3)]
            cost.append(thirds[0] / thirds[2])  # cost per hit, last third against the first
            covered.append(done.coverage)
            results.append({"strategy": strategy, "seed": seed, "tried": done.tried, "hits": len(hits)})
        columns = ((found, 1), (systems, 1), (spread, 2), (alike, 2), (cost, 2))
        cells = (mean_and_error(values, digits) if values else "" for values, digits in columns)
        rows.append([strategy, *cells, *covered_cells(covered)])
    first = f"log det a hit of the first {EQUAL}"
    head = [
        "discovery",
        "hits",
        "chemical systems",
        "log det a hit",
        first,
        "cost per hit, last third",
        *COVERED,
    ]
    print(markdown(head, rows))
    chance = 300 * hit.mean()
    print(f"\n{int(hit.sum())} hits among {len(table)}; random choice expects {chance:.1f}; {len(features)} features")
    return {"task": "discovery", "results": results}


# --- honesty ---------------------------------------------------------------------------------------------------------


def noisy_pool(seed: int, n: int = 5_000) -> tuple[Evidence, Floats, Floats]:
    """A pool whose predictions are good but for some regions.

    Returns:
        What is known of it, which candidates are false hopes (off target by truth and by prediction, on target at the
        optimistic end of a wide interval), and which are true hits.
    """
    rng = np.random.default_rng(seed)
    x = rng.random((n, 4))
    truth = 0.3 + 0.25 * np.sin(5 * x[:, 0]) + 0.25 * np.cos(4 * x[:, 1])
    noisy = (np.abs(x[:, 2] - 0.5) < 0.1) | (x[:, 3] > 0.9)
    std = np.where(noisy, 0.16, 0.02)
    mean = truth + std * rng.standard_normal(n)
    evidence = Evidence(names=("energy_above_hull",), goals=(Minimize(),), mean=mean[:, None], std=std[:, None])
    hits = truth <= 0.1
    false = noisy & ~hits & (mean > 0.1) & (mean - 1.645 * std <= 0.1)
    return evidence, false, hits


def honesty(options: argparse.Namespace) -> dict[str, Any]:
    """The share of false hopes, and of true hits, that triage removes."""
    removed: dict[str, list[float]] = {"false hopes": [], "true hits": []}
    counts = []
    for seed in seeds_of(options):
        evidence, false, hits = noisy_pool(seed)
        out = np.zeros(len(false), dtype=bool)
        out[[t.index for t in triage(evidence, TriageSettings())]] = True
        removed["false hopes"].append(100 * float(out[false].mean()))
        removed["true hits"].append(100 * float(out[hits].mean()))
        counts.append((int(false.sum()), int(hits.sum())))
    rows = [[name, mean_and_error(values, 1)] for name, values in removed.items()]
    print(markdown(["of a pool with noisy regions, triage removes", "%"], rows))
    n_false, n_hits = np.mean(counts, axis=0)
    print(
        f"\n{options.seeds} pools of 5,000 candidates with {n_false:.0f} false hopes and {n_hits:.0f} hits on average"
    )
    return {"task": "honesty", "removed": removed}


def mixed_table(n: int, seed: int) -> pd.DataFrame:
    """Six numbers, two categories and three outcomes of them with some noise."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.random((n, 6)), columns=[f"x{i}" for i in range(6)])
    table["solvent"], table["salt"] = rng.choice([*"abcdefgh"], n), rng.choice([*"uvwxyz"], n)
    effect = table["solvent"].map({name: 0.1 * i for i, name in enumerate("abcdefgh")})
    for j in range(3):
        wave = np.sin(3 * table[f"x{j}"] + table[f"x{j + 3}"])
        table[f"y{j}"] = wave + (effect if j == 0 else 0.0) + 0.05 * rng.standard_normal(n)
    return table


def calls(options: argparse.Namespace) -> dict[str, Any]:
    """What one call takes from tables to batch; the peak of memory is that of the process so far, imports included."""
    goals = [Maximize("y0"), Minimize("y1"), Maximize("y2")]
    rows, results = [], []
    for n, k, q in CALLS:
        wall, cpu = [], []
        for seed in seeds_of(options):
            pool, seen = mixed_table(n, seed).drop(columns=["y0", "y1", "y2"]), mixed_table(k, seed + 10_000)
            clock, started = time.process_time(), time.perf_counter()
            batch = decide(pool, seen, goals, q, seed=seed)
            wall.append(time.perf_counter() - started)
            cpu.append(time.process_time() - clock)
            assert len(batch) == q
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
        results.append({"n": n, "k": k, "q": q, "wall": wall, "cpu": cpu, "peak": peak})
        rows.append([f"{n:,}", str(k), str(q), mean_and_error(wall, 1), mean_and_error(cpu, 1), f"{peak:.2f}"])
    print(markdown(["candidates", "observations", "q", "wall s", "CPU s", "peak GB"], rows))
    return {"task": "calls", "results": results}


TASKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "redoxmers": redoxmers,
    "discovery": discovery,
    "honesty": honesty,
    "calls": calls,
    "calibration": lambda options: calibration(options, HIT, seeds_of(options)),
    "features": lambda options: features(options, HIT),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--data", type=Path, help="folder with redoxmers.csv and mp20_train.csv.gz")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--strategies", nargs="+")
    parser.add_argument("--explore", type=float, default=0.0, help="redoxmers, discovery: share that explores")
    parser.add_argument("--composition", action="store_true", help="discovery: features of composition alone")
    parser.add_argument("--diversity", type=float, help="its weight; each strategy's own if not given")
    parser.add_argument("--potential", help="its energies and descriptors are features, too")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 300], help="crystals learnt from")
    parser.add_argument("--work", type=Path, default=Path("decisions.work"), help="folder for features, found once")
    parser.add_argument("--out", type=Path, help="write everything there as JSON")
    options = parser.parse_args(arguments)
    if options.data is None and options.task not in ("honesty", "calls"):
        parser.error("--data is needed")
    if options.potential is None and options.task == "features":
        parser.error("--potential is needed")
    import torch

    torch.set_num_threads(1)
    started = time.process_time()
    with warnings.catch_warnings(action="ignore"):  # third parties', about their own code
        result = TASKS[options.task](options)
    print(f"\n{options.seeds} seeds; {time.process_time() - started:.0f} CPU s; {versions('torch', 'botorch')}")
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()

"""Ten rounds of choosing: the engine against BoTorch's `optimize_acqf_discrete` with qLogNEHVI, each on its own data.

    python benchmarks/rounds.py [--pools 1000 10000] [--seeds 0 1 2 3 4] [--few 3] [--budget SECONDS] [--out FILE]

The problem is that of `selection.py`: DTLZ2 with three objectives and six variables. All begin with the same 15 random
evaluations of a random pool. In each round a Gaussian process for each objective is fitted to what a side has evaluated
itself so far, five of the rest of the pool are chosen with it, on one thread, and evaluated. Seconds are CPU time of
all choices of a campaign, the posterior over the pool included; fits are not counted, and of BoTorch neither the
acquisition's construction, which conditions the model on what was evaluated. Pools above 1,000 take the first `--few`
seeds. BoTorch works in a process of its own with a time budget, smallest pools first; a budget of 0 leaves it out, and
all are held against the engine's default. Its campaigns take an hour and do not depend on the engine: `--peers FILE`
takes them from what `--out FILE` wrote before.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench_table import markdown, mean_and_error, spread, versions
from selection import (
    REFERENCE,
    STRATEGIES,
    M,
    candidates,
    correlation,
    fitted,
    peer_choice,
    peer_lines,
    posterior,
    truth,
)

START = 15  # random evaluations before the first round
PEER = "BoTorch qLogNEHVI"
DEFAULT = "ehvi_dpp (default)"

# model, what was evaluated, its outcomes, what is left, how many, seed: CPU seconds and places among what is left
Choice = Callable[[Any, np.ndarray, np.ndarray, np.ndarray, int, int], tuple[float, np.ndarray]]


@dataclass
class Campaign:
    """What one way of choosing did with one pool.

    Attributes:
        n: Size of the pool.
        seed: Of the pool and its first evaluations.
        way: What chose.
        seconds: CPU time of all choices.
        rows: What was evaluated, in order.
        volumes: Hypervolume before the first round and after each.
    """

    n: int
    seed: int
    way: str
    seconds: float = 0.0
    rows: list[int] = field(default_factory=list)
    volumes: list[float] = field(default_factory=list)


def campaign(n: int, seed: int, way: str, choice: Choice, *, rounds: int, q: int) -> Campaign:
    """Evaluate the same few at random, then what is chosen, round after round."""
    from paragenesis.engine.acquisition.pareto import hypervolume

    pool = candidates(seed, n)
    outcomes = truth(pool)
    rows = np.random.default_rng([seed, n, START]).permutation(n)[:START]
    done = Campaign(n, seed, way, volumes=[hypervolume(outcomes[rows], REFERENCE)])
    for turn in range(rounds):
        left = np.setdiff1d(np.arange(n), rows)
        model = fitted(pool[rows], outcomes[rows], seed)
        seconds, places = choice(model, pool[rows], outcomes[rows], pool[left], q, 1000 * seed + turn)
        done.seconds += seconds
        rows = np.concatenate([rows, left[places]])
        done.volumes.append(hypervolume(outcomes[rows], REFERENCE))
    done.rows = rows.tolist()
    return done


def engine_choice(options: Mapping[str, Any]) -> Choice:
    """The engine's choice with some settings."""
    from paragenesis.engine.acquisition.select import DecisionSettings, select_batch

    def choose(
        model: Any, X: np.ndarray, Y: np.ndarray, left: np.ndarray, q: int, seed: int
    ) -> tuple[float, np.ndarray]:
        settings = DecisionSettings(q=q, **options)
        started = time.process_time()
        mean, std = posterior(model, left)
        batch = select_batch(
            left, mean, std, observed=Y, given=X, correlation=lambda rows: correlation(model, left[rows]),
            settings=settings, reference_point=REFERENCE, seed=seed,
        )  # fmt: skip
        return time.process_time() - started, batch.indices

    return choose


def botorch_choice(
    model: Any, X: np.ndarray, Y: np.ndarray, left: np.ndarray, q: int, seed: int
) -> tuple[float, np.ndarray]:
    """BoTorch's choice."""
    seconds, chosen = peer_choice(model, X, left, q, seed)
    places = np.array([int(np.abs(left - x).sum(1).argmin()) for x in chosen])
    return seconds, places


def work(jobs: Sequence[tuple[int, int]], rounds: int, q: int) -> None:
    """What the peer's process does."""
    for n, seed in jobs:
        done = campaign(n, seed, PEER, botorch_choice, rounds=rounds, q=q)
        print(json.dumps(list(asdict(done).values())), flush=True)
        print(f"{PEER}, {n:,}, seed {seed}: {done.seconds:.0f} CPU s, {done.volumes[-1]:.4f}", file=sys.stderr)


def peer_campaigns(options: argparse.Namespace, jobs: Sequence[tuple[int, int]]) -> list[Campaign]:
    """BoTorch's campaigns, run now or read."""
    if options.peers is None:
        lines = peer_lines(__file__, [jobs, options.rounds, options.q], options.budget)
        return [Campaign(*line) for line in lines]
    kept = [Campaign(**c) for c in json.loads(options.peers.read_text()) if c["way"] == PEER]
    length = START + options.rounds * options.q
    return [c for c in kept if (c.n, c.seed) in jobs and len(c.volumes) == options.rounds + 1 and len(c.rows) == length]


def engine_campaigns(jobs: Sequence[tuple[int, int]], rounds: int, q: int) -> Iterator[Campaign]:
    """The engine's campaigns with each strategy."""
    for n, seed in jobs:
        for way, options in STRATEGIES.items():
            yield campaign(n, seed, way, engine_choice(options), rounds=rounds, q=q)


def held_against(done: Sequence[Campaign]) -> str:
    """The way that all are compared with: BoTorch's, or the engine's default where BoTorch was left out."""
    return PEER if any(c.way == PEER for c in done) else DEFAULT


def table(done: Sequence[Campaign]) -> list[list[str]]:
    """One row for each pool size and way, compared seed by seed."""
    peers = {(c.n, c.seed): c for c in done if c.way == held_against(done)}
    rows = []
    for n, way in dict.fromkeys((c.n, c.way) for c in sorted(done, key=lambda c: c.n)):
        mine = [c for c in done if (c.n, c.way) == (n, way)]
        pairs = [(c, peers[c.n, c.seed]) for c in mine if (c.n, c.seed) in peers]
        shares = [c.volumes[-1] / peer.volumes[-1] for c, peer in pairs]
        ratios = [peer.seconds / c.seconds for c, peer in pairs]
        cells = [
            spread([c.seconds for c in mine], 1),
            spread([c.volumes[-1] for c in mine], 3),
            spread(shares, 3) if pairs else "-",
            mean_and_error(shares, 3) if pairs else "-",
            spread(ratios, 0) if pairs else "-",
            str(len(mine)),
        ]
        rows.append([f"{n:,}, {way}", *cells])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--q", type=int, default=5, help="batch size")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--few", type=int, default=3, help="how many of the seeds pools above 1,000 take")
    parser.add_argument("--budget", type=float, default=7200.0, help="seconds for BoTorch, compilation included")
    parser.add_argument("--peers", type=Path, help="take BoTorch's campaigns from what `--out` wrote before")
    parser.add_argument("--out", type=Path, help="write all campaigns there as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings(action="ignore"):  # third parties', about their own code
        if options.worker:
            work(*json.loads(options.worker))
            return
        few = options.seeds[: options.few]
        jobs = [(n, seed) for n in sorted(options.pools) for seed in (options.seeds if n <= 1000 else few)]
        done = peer_campaigns(options, jobs)
        campaign(100, 0, DEFAULT, engine_choice({}), rounds=1, q=2)  # warm
        done += engine_campaigns(jobs, options.rounds, options.q)
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(c) for c in done]) + "\n")
    share = f"share of {held_against(done)}"
    head = ["pool, way", "CPU s for all choices", "hypervolume", share, f"{share}, mean", "times faster", "seeds"]
    print(markdown(head, table(done)))
    begun = f"{options.rounds} rounds of {options.q} after {START} at random"
    print(f"\n{begun}, {M} objectives; {versions('torch', 'botorch')}")


if __name__ == "__main__":
    main()

"""Diverse choice: the engine's greedy MAP of a DPP against DPPy's exact k-DPP samples.

    python benchmarks/dpp.py [--sizes 1000 2000 5000 10000 100000] [--k 64] [--seeds 0 1 2] [--budget SECONDS]

Clustered features in 64 dimensions, a log-normal quality, a Gaussian kernel; both choose k items on one thread. DPPy
gets the same kernel as a dense matrix up to `--dense-up-to` items (its time and memory grow as N^3 and N^2), and as 256
random Fourier features beyond, which only resemble it. The table has the CPU time, the making of DPPy's kernel
included, and the log determinant of the chosen items under the exact kernel, qualities included. A sample is no
maximum: that column shows what a batch loses by sampling, not an error of DPPy's. DPPy works in a process of its own
within the time budget, smallest pools first; a budget of 0 leaves it out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from bench_table import markdown, spread, versions
from threadpoolctl import threadpool_limits

D, FOURIER = 64, 256
LENGTH_SCALE = 8.0

Result = tuple[float, float]  # CPU seconds, log determinant


def problem(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and qualities of n items."""
    rng = np.random.default_rng([seed, n])
    centres = rng.normal(size=(200, D))
    features = centres[rng.integers(200, size=n)] + 0.3 * rng.normal(size=(n, D))
    return features, np.exp(0.5 * rng.normal(size=n))


def log_det(features: np.ndarray, quality: np.ndarray, chosen: np.ndarray) -> float:
    """Log determinant of the chosen items' kernel."""
    from paragenesis.engine.acquisition.dpp import log_determinant

    return log_determinant(features[chosen], LENGTH_SCALE) + 2.0 * float(np.log(quality[chosen]).sum())


def engine(n: int, seed: int, k: int) -> Result:
    """The engine's choice."""
    from paragenesis.engine.acquisition.dpp import greedy_map_dpp

    features, quality = problem(n, seed)
    started = time.process_time()
    chosen, _ = greedy_map_dpp(features, quality, k, length_scale=LENGTH_SCALE)
    return time.process_time() - started, log_det(features, quality, chosen)


def peer(n: int, seed: int, k: int, dense_up_to: int) -> Result:
    """One DPPy sample."""
    from dppy.finite_dpps import FiniteDPP

    features, quality = problem(n, seed)
    started = time.process_time()
    scaled = features / LENGTH_SCALE
    if n <= dense_up_to:
        norms = (scaled**2).sum(1)
        kernel = np.exp(-0.5 * np.maximum(norms[:, None] + norms[None, :] - 2 * scaled @ scaled.T, 0.0))
        process = FiniteDPP("likelihood", L=quality[:, None] * kernel * quality[None, :])
    else:
        rng = np.random.default_rng(seed)
        phase = scaled @ rng.normal(size=(D, FOURIER)) + rng.uniform(0, 2 * np.pi, FOURIER)
        process = FiniteDPP("likelihood", L_gram_factor=(quality[:, None] * np.sqrt(2 / FOURIER) * np.cos(phase)).T)
    chosen = process.sample_exact_k_dpp(size=k, random_state=seed)
    return time.process_time() - started, log_det(features, quality, np.asarray(chosen))


def peer_results(jobs: Sequence[tuple[int, int]], k: int, dense_up_to: int, budget: float) -> dict[int, list[Result]]:
    """What DPPy finishes within the budget, by pool size."""
    results: dict[int, list[Result]] = {}
    if not budget or find_spec("dppy") is None:
        return results
    command = [sys.executable, __file__, "--worker", json.dumps([jobs, k, dense_up_to])]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        out, _ = worker.communicate(timeout=budget)
    except subprocess.TimeoutExpired:
        worker.kill()
        out, _ = worker.communicate()
    for line in out.splitlines():
        if line.startswith("[") and line.endswith("]"):  # a line that was cut off is no result
            n, seconds, value = json.loads(line)
            results.setdefault(n, []).append((seconds, value))
    return results


def work(jobs: Sequence[tuple[int, int]], k: int, dense_up_to: int) -> None:
    """What the peer's process does."""
    for n, seed in jobs:
        print(json.dumps([n, *peer(n, seed, k, dense_up_to)]), flush=True)


def cells(results: Sequence[Result], n_seeds: int) -> list[str]:
    """Seconds and log determinant of some runs for the table."""
    if not results:
        return ["not finished", "-"]
    short = "" if len(results) == n_seeds else f" ({len(results)} of {n_seeds} seeds)"
    return [spread([r[0] for r in results], 3) + short, spread([r[1] for r in results], 1)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 5000, 10_000, 100_000])
    parser.add_argument("--k", type=int, default=64, help="items to choose")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=300.0, help="seconds for DPPy")
    parser.add_argument("--dense-up-to", type=int, default=5000, help="items for which DPPy gets the whole kernel")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    with threadpool_limits(limits=1):
        if options.worker:
            work(*json.loads(options.worker))
            return
        jobs = [(n, seed) for n in sorted(options.sizes) for seed in options.seeds]
        peers = peer_results(jobs, options.k, options.dense_up_to, options.budget)
        engine(1000, 0, 8)  # warm
        rows = []
        for n in sorted(options.sizes):
            own = [engine(n, seed, options.k) for seed in options.seeds]
            kernel = "dense" if n <= options.dense_up_to else f"{FOURIER} features"
            rows.append([f"{n:,}", *cells(own, len(own)), kernel, *cells(peers.get(n, []), len(own))])
    print(markdown(["items", "greedy MAP, CPU s", "log det", "DPPy's kernel", "k-DPP sample, CPU s", "log det"], rows))
    print(f"\n{options.k} of N items, {len(options.seeds)} seeds; {versions('numpy', 'dppy')}")


if __name__ == "__main__":
    main()

"""Diverse choice: the engine's greedy MAP against DPPy's exact k-DPP samples.

    python benchmarks/dpp.py [--budget SECONDS] [--sizes 1000 2000 10000 100000] [--seeds 0 1]

Clustered features in 64 dimensions, a log-normal quality, a Gaussian kernel. DPPy gets the same kernel as a dense
matrix where it fits (up to 3,000 items), and as 256 random Fourier features beyond. Both choose 64 items; the table has
the CPU time and the log determinant of the chosen items under the exact kernel, qualities included. A sample is no
maximum: the column shows what a batch loses by sampling. DPPy works in a process of its own within the time budget.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np

K, D, DENSE_UP_TO, FOURIER = 64, 64, 3000, 256
LENGTH_SCALE = 8.0


def problem(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, n])
    centres = rng.normal(size=(200, D))
    features = centres[rng.integers(200, size=n)] + 0.3 * rng.normal(size=(n, D))
    return features, np.exp(0.5 * rng.normal(size=n))


def log_det(features: np.ndarray, quality: np.ndarray, chosen: np.ndarray) -> float:
    from paragenesis.engine.acquisition.dpp import log_determinant

    return log_determinant(features[chosen], LENGTH_SCALE) + 2.0 * float(np.log(quality[chosen]).sum())


def engine(n: int, seed: int) -> tuple[float, float]:
    from paragenesis.engine.acquisition.dpp import greedy_map_dpp

    features, quality = problem(n, seed)
    started = time.process_time()
    chosen, _ = greedy_map_dpp(features, quality, K, length_scale=LENGTH_SCALE)
    return time.process_time() - started, log_det(features, quality, chosen)


def peer(n: int, seed: int) -> tuple[float, float]:
    """One DPPy sample, the making of its kernel included."""
    from dppy.finite_dpps import FiniteDPP

    features, quality = problem(n, seed)
    started = time.process_time()
    scaled = features / LENGTH_SCALE
    if n <= DENSE_UP_TO:
        norms = (scaled**2).sum(1)
        kernel = np.exp(-0.5 * np.maximum(norms[:, None] + norms[None, :] - 2 * scaled @ scaled.T, 0.0))
        process = FiniteDPP("likelihood", L=quality[:, None] * kernel * quality[None, :])
    else:
        rng = np.random.default_rng(seed)
        phase = scaled @ rng.normal(size=(D, FOURIER)) + rng.uniform(0, 2 * np.pi, FOURIER)
        process = FiniteDPP("likelihood", L_gram_factor=(quality[:, None] * np.sqrt(2 / FOURIER) * np.cos(phase)).T)
    chosen = process.sample_exact_k_dpp(size=K, random_state=seed)
    return time.process_time() - started, log_det(features, quality, np.asarray(chosen))


def peer_results(jobs: list[tuple[int, int]], budget: float) -> dict[tuple[int, int], tuple[float, float]]:
    """What DPPy finishes within the budget, in a process of its own; smallest pools first."""
    command = [sys.executable, __file__, "--worker", json.dumps(jobs)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        out, _ = worker.communicate(timeout=budget)
    except subprocess.TimeoutExpired:
        worker.kill()
        out, _ = worker.communicate()
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("[") and line.endswith("]")]
    return {(n, seed): (seconds, value) for n, seed, seconds, value in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=90.0, help="seconds for DPPy")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 10_000, 100_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        for n, seed in json.loads(options.worker):
            print(json.dumps([n, seed, *peer(n, seed)]), flush=True)
        return
    jobs = [(n, seed) for n in sorted(options.sizes) for seed in options.seeds]
    peers = peer_results(jobs, options.budget)
    print(f"| items | seed | greedy MAP, CPU s | log det | DPPy k-DPP, CPU s | log det |\n|{'---|' * 6}")
    for n, seed in jobs:
        seconds, value = engine(n, seed)
        other = "{:.2f} | {:.1f}".format(*peers[n, seed]) if (n, seed) in peers else "not finished | -"
        print(f"| {n:,} | {seed} | {seconds:.2f} | {value:.1f} | {other} |")


if __name__ == "__main__":
    main()

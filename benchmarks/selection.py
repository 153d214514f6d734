"""Choosing a batch: the engine against BoTorch's `optimize_acqf_discrete` with qLogNEHVI, on the same models.

    python benchmarks/selection.py [--budget SECONDS] [--pools 250 500 1000] [--peer-q 2] [--seeds 0 1]

The problem is DTLZ2 with three objectives and six variables: 60 evaluations train one Gaussian process per objective,
and both sides choose from random pools with these processes. Per pool and seed the table has the CPU time per pick and
the hypervolume (true values, not predictions) after the batch, as a share of what the peer's batch of the same size
reaches. BoTorch works in a process of its own with a time budget, since it compiles a C++ kernel on first use; the
compilation is not counted, and its folder is a temporary one, so that a killed compilation leaves no lock behind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

D, M, N_TRAIN, Q, LARGE = 6, 3, 60, 16, 10_000
REFERENCE = np.full(M, -1.1)


def truth(X: Any) -> np.ndarray:
    import torch
    from botorch.test_functions import DTLZ2

    return DTLZ2(dim=D, num_objectives=M, negate=True)(torch.as_tensor(X)).numpy()


def problem(seed: int, n: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """A fitted model, its training data and a pool of n candidates."""
    import torch
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelListGP, SingleTaskGP
    from gpytorch.mlls import SumMarginalLogLikelihood

    torch.manual_seed(seed)
    X = np.random.default_rng(seed).random((N_TRAIN, D))
    Y = truth(X)
    noise = torch.full((N_TRAIN, 1), 1e-6, dtype=torch.float64)
    model = ModelListGP(*(SingleTaskGP(torch.as_tensor(X), torch.as_tensor(Y[:, [j]]), noise) for j in range(M)))
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    pool = np.random.default_rng([seed, n]).random((n, D))
    return model, X, Y, pool


def posterior(model: Any, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    means, stds = [], []
    with torch.no_grad():
        for chunk in np.array_split(pool, max(1, len(pool) // 500)):
            result = model.posterior(torch.as_tensor(chunk))
            means.append(result.mean.numpy())
            stds.append(result.variance.sqrt().numpy())
    return np.concatenate(means), np.concatenate(stds)


def engine(seed: int, n: int, q: int, strategy: str = "ehvi_dpp") -> dict[str, Any]:
    """The engine's batch, with the CPU seconds of posterior and choice together."""
    from paragenesis.engine.acquisition.select import DecisionSettings, select_batch

    model, X, Y, pool = problem(seed, n)
    settings = DecisionSettings(q=q, strategy=strategy)
    started = time.process_time()
    mean, std = posterior(model, pool)
    batch = select_batch(pool, mean, std, observed=Y, given=X, settings=settings, reference_point=REFERENCE)
    return {"seconds": time.process_time() - started, "hypervolume": reached(Y, pool[batch.indices])}


def peer(seed: int, n: int, q: int) -> dict[str, Any]:
    """BoTorch's batch, likewise."""
    import torch
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.optim import optimize_acqf_discrete
    from botorch.sampling import SobolQMCNormalSampler

    model, X, Y, pool = problem(seed, n)
    sampler = SobolQMCNormalSampler(sample_shape=torch.Size([64]), seed=seed)
    acquisition = qLogNoisyExpectedHypervolumeImprovement(
        model, REFERENCE.tolist(), torch.as_tensor(X), sampler=sampler, prune_baseline=True
    )
    started = time.process_time()
    chosen, _ = optimize_acqf_discrete(acquisition, q, torch.as_tensor(pool), max_batch_size=256)
    return {"seconds": time.process_time() - started, "hypervolume": reached(Y, chosen.numpy())}


def reached(Y: np.ndarray, chosen: np.ndarray) -> float:
    from paragenesis.engine.acquisition.pareto import hypervolume

    return hypervolume(np.vstack([Y, truth(chosen)]), REFERENCE)


def peer_results(pools: list[int], seeds: list[int], q: int, budget: float) -> list[dict[str, Any]]:
    """What the peer finishes within the budget, in a process of its own; smallest pools first."""
    jobs = [(n, seed) for n in pools for seed in seeds]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # ninja lies beside python
        environment = {**os.environ, "TORCH_EXTENSIONS_DIR": folder, "PATH": path}
        command = [sys.executable, __file__, "--worker", json.dumps([jobs, q])]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            out, _ = worker.communicate(timeout=budget)
        except subprocess.TimeoutExpired:
            worker.kill()
            out, _ = worker.communicate()
    # a line that was cut off by the kill is no result
    return [json.loads(line) for line in out.splitlines() if line.startswith("{") and line.endswith("}")]


def work(jobs: list[tuple[int, int]], q: int) -> None:
    for n, seed in jobs:
        print(json.dumps({"n": n, "seed": seed, **peer(seed, n, q)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=150.0, help="seconds for BoTorch, compilation included")
    parser.add_argument("--pools", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--peer-q", type=int, default=2, help="batch size at which both are compared")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*json.loads(options.worker))
        return
    q = options.peer_q
    print(f"| pool | q | seed | who | CPU s per pick | hypervolume | share of BoTorch's |\n|{'---|' * 7}")
    for row in peer_results(options.pools, options.seeds, q, options.budget):
        n, seed = row["n"], row["seed"]
        print(f"| {n} | {q} | {seed} | BoTorch | {row['seconds'] / q:.2f} | {row['hypervolume']:.4f} | 1 |")
        for strategy in ("ehvi_dpp", "ehvi", "greedy", "random"):
            own = engine(seed, n, q, strategy)
            share = own["hypervolume"] / row["hypervolume"]
            cells = f"{own['seconds'] / q:.4f} | {own['hypervolume']:.4f} | {share:.4f}"
            print(f"| {n} | {q} | {seed} | {strategy} | {cells} |", flush=True)
    for seed in options.seeds:
        own = engine(seed, LARGE, Q)
        print(f"| {LARGE} | {Q} | {seed} | ehvi_dpp | {own['seconds'] / Q:.4f} | {own['hypervolume']:.4f} | - |")


if __name__ == "__main__":
    main()

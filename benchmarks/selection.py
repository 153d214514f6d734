"""Choosing a batch: the engine against BoTorch's `optimize_acqf_discrete` with qLogNEHVI, on the same models.

    python benchmarks/selection.py [--pools 1000 10000] [--q 16] [--seeds 0 1 2] [--budget SECONDS]

The problem is DTLZ2 with three objectives and six variables: 60 evaluations train one Gaussian process per objective,
and both sides choose from random pools with these processes, on one thread. The table has the CPU time of the whole
batch, the posterior over the pool included, and the hypervolume (of true values, not predictions) of training data and
batch, also as a share of what BoTorch's batch reaches for the same pool. BoTorch works in a process of its own with a
time budget, smallest pools first; a budget of 0 leaves it out. It compiles a C++ kernel on first use; that is not
counted, and its folder is a temporary one, so that a killed compilation leaves no lock behind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_table import markdown, spread, versions

D, M, N_TRAIN = 6, 3, 60
REFERENCE = np.full(M, -1.1)
STRATEGIES: dict[str, dict[str, Any]] = {
    "ehvi_dpp (default)": {},
    "ehvi_dpp, diversity 0": {"diversity": 0.0},
    "ehvi": {"strategy": "ehvi"},
    "greedy": {"strategy": "greedy"},
    "random": {"strategy": "random"},
}

Result = tuple[float, float]  # CPU seconds, hypervolume


def truth(X: Any) -> np.ndarray:
    """The objectives, to be maximised."""
    import torch
    from botorch.test_functions import DTLZ2

    return np.asarray(DTLZ2(dim=D, num_objectives=M, negate=True)(torch.as_tensor(X)))


def problem(seed: int, n: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """A fitted model, its training data and a pool of n candidates."""
    X = np.random.default_rng(seed).random((N_TRAIN, D))
    Y = truth(X)
    return fitted(X, Y, seed), X, Y, candidates(seed, n)


def candidates(seed: int, n: int) -> np.ndarray:
    """A pool."""
    return np.random.default_rng([seed, n]).random((n, D))


def fitted(X: np.ndarray, Y: np.ndarray, seed: int) -> Any:
    """A Gaussian process for each objective."""
    import torch
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelListGP, SingleTaskGP
    from gpytorch.mlls import SumMarginalLogLikelihood

    torch.manual_seed(seed)
    noise = torch.full((len(X), 1), 1e-6, dtype=torch.float64)
    model = ModelListGP(*(SingleTaskGP(torch.as_tensor(X), torch.as_tensor(Y[:, [j]]), noise) for j in range(M)))
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    return model


def posterior(model: Any, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the pool."""
    import torch

    means, stds = [], []
    with torch.no_grad():
        for chunk in np.array_split(pool, max(1, len(pool) // 500)):
            result = model.posterior(torch.as_tensor(chunk))
            means.append(result.mean.numpy())
            stds.append(result.variance.sqrt().numpy())
    return np.concatenate(means), np.concatenate(stds)


def correlation(model: Any, points: np.ndarray) -> np.ndarray:
    """How the errors for some candidates go together by the model's joint posterior, shape `M x k x k`."""
    import torch

    together = []
    with torch.no_grad():
        for one in model.models:
            covariance = one.posterior(torch.as_tensor(points)).distribution.covariance_matrix.numpy()
            std = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
            together.append(np.clip(covariance / np.outer(std, std), -1.0, 1.0))
    return np.stack(together)


def engine(seed: int, n: int, q: int) -> dict[str, Result]:
    """The engine's batch with each strategy."""
    from paragenesis.engine.acquisition.select import DecisionSettings, select_batch

    model, X, Y, pool = problem(seed, n)
    results = {}
    for name, options in STRATEGIES.items():
        started = time.process_time()
        mean, std = posterior(model, pool)
        settings = DecisionSettings(q=q, **options)
        batch = select_batch(
            pool, mean, std, observed=Y, given=X, correlation=lambda rows: correlation(model, pool[rows]),
            settings=settings, reference_point=REFERENCE,
        )  # fmt: skip
        results[name] = (time.process_time() - started, reached(Y, pool[batch.indices]))
    return results


def peer(seed: int, n: int, q: int) -> Result:
    """BoTorch's batch."""
    model, X, Y, pool = problem(seed, n)
    seconds, chosen = peer_choice(model, X, pool, q, seed)
    return seconds, reached(Y, chosen)


def peer_choice(model: Any, X: np.ndarray, pool: np.ndarray, q: int, seed: int) -> tuple[float, np.ndarray]:
    """CPU seconds, and what BoTorch chooses from the pool after X."""
    import torch
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.optim import optimize_acqf_discrete
    from botorch.sampling import SobolQMCNormalSampler

    sampler = SobolQMCNormalSampler(sample_shape=torch.Size([64]), seed=seed)
    acquisition = qLogNoisyExpectedHypervolumeImprovement(
        model, REFERENCE.tolist(), torch.as_tensor(X), sampler=sampler, prune_baseline=True
    )
    started = time.process_time()
    # of 128, 256, 1024 and 2048 at once 256 were the quickest
    chosen, _ = optimize_acqf_discrete(acquisition, q, torch.as_tensor(pool), max_batch_size=256)
    return time.process_time() - started, chosen.numpy()


def reached(Y: np.ndarray, chosen: np.ndarray) -> float:
    """Hypervolume of the training data and a batch."""
    from paragenesis.engine.acquisition.pareto import hypervolume

    return hypervolume(np.vstack([Y, truth(chosen)]), REFERENCE)


def peer_results(jobs: Sequence[tuple[int, int]], q: int, budget: float) -> dict[tuple[int, int], Result]:
    """What BoTorch finishes within the budget, by pool size and seed."""
    lines = peer_lines(__file__, [jobs, q], budget)
    return {(n, seed): (seconds, volume) for n, seed, seconds, volume in lines}


def peer_lines(script: str, task: Any, budget: float) -> list[Any]:
    """The lines that a script's worker writes within the budget, in a process and with kernels of its own."""
    if not budget:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # ninja lies beside python
        environment = {**os.environ, "TORCH_EXTENSIONS_DIR": folder, "PATH": path}
        command = [sys.executable, script, "--worker", json.dumps(task)]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            out, _ = worker.communicate(timeout=budget)
        except subprocess.TimeoutExpired:
            worker.kill()
            out, _ = worker.communicate()
    # a line that was cut off by the kill is no result
    return [json.loads(line) for line in out.splitlines() if line.startswith("[") and line.endswith("]")]


def work(jobs: Sequence[tuple[int, int]], q: int) -> None:
    """What the peer's process does."""
    for n, seed in jobs:
        print(json.dumps([n, seed, *peer(seed, n, q)]), flush=True)


def table(n: int, seeds: Sequence[int], q: int, peers: dict[tuple[int, int], Result]) -> list[list[str]]:
    """The rows of one pool size."""
    ways: dict[str, dict[int, Result]] = {}
    if theirs := {seed: peers[n, seed] for seed in seeds if (n, seed) in peers}:
        ways["BoTorch qLogNEHVI"] = theirs
    for seed in seeds:
        for name, result in engine(seed, n, q).items():
            ways.setdefault(name, {})[seed] = result
    rows = []
    for name, results in ways.items():
        seconds, volumes = zip(*results.values(), strict=True)
        shares = [results[seed][1] / theirs[seed][1] for seed in results if seed in theirs]
        cells = [spread(seconds, 2), spread(volumes, 3), spread(shares, 3) if shares else "-", str(len(results))]
        rows.append([f"{n:,}, {name}", *cells])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--q", type=int, default=16, help="batch size")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=1500.0, help="seconds for BoTorch, compilation included")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    if options.worker:
        work(*json.loads(options.worker))
        return
    pools = sorted(options.pools)
    peers = peer_results([(n, seed) for n in pools for seed in options.seeds], options.q, options.budget)
    engine(options.seeds[0], 100, 2)  # warm
    rows = [row for n in pools for row in table(n, options.seeds, options.q, peers)]
    print(markdown(["pool, way", "CPU s for the batch", "hypervolume", "share of BoTorch's", "seeds"], rows))
    print(f"\nq = {options.q}, {M} objectives; {versions('torch', 'botorch')}")


if __name__ == "__main__":
    main()

"""Growth: what one decision takes in time and memory by the size of the pool.

    python benchmarks/scale.py [--sizes 1000 ... 1000000] [--seeds 3] [--plot growth.png] [--out FILE]

The surrogate learns three objectives from 500 verified candidates with 16 features, predicts the pool, and the default
strategy chooses 64. Seconds are CPU time on one thread; each size has a process of its own, so that the peak memory is
that size's. `--plot` draws both against the number of candidates, with a line of slope 1 to compare with; bars reach
from the smallest to the largest of the seeds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench_table import markdown, spread, versions

Q, FEATURES, VERIFIED = 64, 16, 500
SIZES = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
LARGE = 100_000  # from here on the exponent is fitted


@dataclass
class Measured:
    """What decisions on pools of one size took.

    Attributes:
        n: Size of the pool.
        learning: CPU seconds of learning, for each seed.
        prediction: Of predicting the pool.
        choice: Of choosing.
        peak: Largest memory of the process, GB.
    """

    n: int
    learning: list[float] = field(default_factory=list)
    prediction: list[float] = field(default_factory=list)
    choice: list[float] = field(default_factory=list)
    peak: float = 0.0

    @property
    def before(self) -> list[float]:
        """Learning and prediction."""
        return np.add(self.learning, self.prediction).tolist()

    @property
    def total(self) -> list[float]:
        """All of it."""
        return np.add(self.before, self.choice).tolist()


def timed(n: int, seed: int, verified: int) -> tuple[float, float, float]:
    """CPU seconds of learning, of predicting n and of choosing."""
    from paragenesis.engine.acquisition.select import DecisionSettings, select_batch
    from paragenesis.engine.surrogate import ResidualSurrogate, SurrogateSettings

    rng = np.random.default_rng(seed)
    X, seen = rng.random((n, FEATURES)), rng.random((verified, FEATURES))
    waves = np.sin(3 * seen[:, :3] + seen[:, 3:6]) + seen[:, 6:9] * seen[:, 9:12]
    Y = waves + 0.05 * rng.standard_normal(waves.shape)
    centre = Y.mean(0)
    clock = [time.process_time()]
    surrogate = ResidualSurrogate(SurrogateSettings(ensemble_weight=0.0)).fit(seen, Y - centre, pool=X)
    clock.append(time.process_time())
    mean, std = surrogate.predict(X, np.tile(centre, (n, 1)), np.full((n, 3), np.nan))
    clock.append(time.process_time())
    batch = select_batch(
        X, mean, std, observed=Y, given=seen, correlation=lambda rows: surrogate.correlation(X[rows]),
        settings=DecisionSettings(q=Q), seed=seed,
    )  # fmt: skip
    clock.append(time.process_time())
    assert len(batch) == min(Q, n)
    learning, prediction, choice = np.diff(clock).tolist()
    return learning, prediction, choice


def work(n: int, seeds: int, verified: int) -> None:
    """What the process of one size does."""
    import torch

    torch.set_num_threads(1)
    timed(100, 0, 50)  # warm: imports are no part of a decision
    done = Measured(n)
    for seed in range(seeds):
        learning, prediction, choice = timed(n, seed, verified)
        done.learning.append(learning)
        done.prediction.append(prediction)
        done.choice.append(choice)
    done.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(asdict(done)))


def in_own_process(script: str, *task: Any) -> dict[str, Any]:
    """What a script's worker prints last, so that its peak memory is that of one task."""
    command = [sys.executable, script, "--worker", json.dumps(task)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    return said


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of a line through logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def growth(done: Sequence[Measured]) -> str:
    """How the total grows, in words."""
    large = [m for m in done if m.n >= LARGE]
    if len(large) < 2:
        return f"no exponent: it is fitted to sizes from {LARGE:,}, of which there are {len(large)}"
    first, last = done[0], done[-1]
    sizes = [m.n for m in large]
    total = exponent(sizes, [np.median(m.total) for m in large])
    prediction = exponent(sizes, [np.median(m.prediction) for m in large])
    fixed = [1 - np.median(m.prediction) / np.median(m.total) for m in (first, last)]
    return (
        f"From {sizes[0]:,} to {sizes[-1]:,} candidates the total grows as n^{total:.2f}, prediction alone as "
        f"n^{prediction:.2f}. Smaller sizes are flat because the rest, which is learning from the verified and "
        f"choosing from a shortlist, hardly depends on the pool: it is {fixed[0]:.0%} of the total at {first.n:,} "
        f"candidates and {fixed[1]:.0%} at {last.n:,}."
    )


def plot(done: Sequence[Measured], file: Path) -> None:
    """CPU seconds and peak memory against the number of candidates, on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    n = np.array([m.n for m in done])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.5), dpi=100, width_ratios=(3, 2), layout="constrained")
    for name, colour, values in (
        ("total", "#1b1b1b", [m.total for m in done]),
        ("learning and prediction", "#0072b2", [m.before for m in done]),
        ("choice", "#d55e00", [m.choice for m in done]),
    ):
        middle = np.median(values, axis=1)
        ends = [middle - np.min(values, axis=1), np.max(values, axis=1) - middle]
        left.errorbar(n, middle, ends, fmt="o-", color=colour, label=name, markersize=4, elinewidth=1)
    _slope_one(left, n, float(np.median(done[-1].total)))
    left.set_title("CPU time of a decision, s", loc="left", fontsize=11)
    left.legend(frameon=False, fontsize=9)
    right.plot(n, [m.peak for m in done], "o-", color="#009e73", markersize=4)
    _slope_one(right, n, done[-1].peak)
    right.set_title("Peak memory, GB", loc="left", fontsize=11)
    for axis in (left, right):
        _logarithmic(axis)
    figure.savefig(file)
    plt.close(figure)


def _logarithmic(axis: Any) -> None:
    """Logarithmic scales, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set(xscale="log", yscale="log", xlabel="candidates")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for side in (axis.xaxis, axis.yaxis):
        side.set_minor_locator(NullLocator())
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.grid(color="#e6e6e6", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _slope_one(axis: Any, n: np.ndarray, last: float) -> None:
    """A dashed line of slope 1 beside the last decade, at half the last value so that it hides nothing."""
    some = n[n >= n[-1] / 10]
    axis.plot(some, 0.5 * last * some / n[-1], "--", color="#888888", linewidth=1, label="slope 1", zorder=0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ...")
    parser.add_argument("--verified", type=int, default=VERIFIED, help="how many are learnt from")
    parser.add_argument("--plot", type=Path, help="draw the growth there, as PNG or SVG")
    parser.add_argument("--out", type=Path, help="write everything there as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        with warnings.catch_warnings(action="ignore"):  # third parties', about their own code
            work(*json.loads(options.worker))
        return
    sizes = sorted(options.sizes)
    done = [Measured(**in_own_process(__file__, n, options.seeds, options.verified)) for n in sizes]
    rows = [
        [f"{m.n:,}", *(spread(values, 1) for values in (m.learning, m.prediction, m.choice, m.total)), f"{m.peak:.2f}"]
        for m in done
    ]
    head = ["candidates", "learning, CPU s", "prediction, CPU s", "choice, CPU s", "total, CPU s", "peak GB"]
    print(markdown(head, rows))
    print(f"\n{growth(done)}\n\nq = {Q}, three objectives, {options.verified} verified, {FEATURES} features;", end=" ")
    print(f"{options.seeds} seeds; {versions('torch', 'botorch')}")
    if options.plot is not None:
        plot(done, options.plot)
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(m) for m in done], indent=1) + "\n")


if __name__ == "__main__":
    main()

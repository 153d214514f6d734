"""Which descriptors a surrogate learns best from: those of composition and structure, or a potential's pooled ones.

Two things are learnt from crystals drawn at random, and judged on all the others of the table. **Outcomes** are learnt
as `decide` does. The **residual** of a campaign, the table's value minus the potential's, is learnt as a round does:
what counts is by how much its mean absolute error falls against the potential alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from bench_pool import ENERGIES, mp20_pool
from bench_table import markdown, mean_and_error
from scipy.stats import norm, spearmanr

from paragenesis.engine.acquisition.features import FeatureSpace
from paragenesis.engine.surrogate import ResidualSurrogate, SurrogateSettings
from paragenesis.objectives.goals import Range

Floats = np.ndarray
Measures = dict[str, float]
COMPONENTS = (16, 32, 64)
MEASURES = ("MAE", "R2", "Spearman", "CRPS", "coverage")


def feature_sets(features: Sequence[str]) -> dict[str, list[str]]:
    """The columns of each set."""
    energies = list(ENERGIES)
    structure = [name for name in features if name.startswith("x_")]
    pooled = [name for name in features if name.startswith("p_") and name not in energies]
    return {
        "composition and structure": structure,
        "pooled": pooled,
        "both": structure + pooled,
        "both and energies": structure + pooled + energies,
    }


def features(options: argparse.Namespace, hit: Mapping[str, Range]) -> dict[str, Any]:
    """Tables of the residual and of the outcomes, by feature set, components and number of crystals."""
    table, names = mp20_pool(options.data, options.potential, options.work)
    sets = feature_sets(names)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    residual = [row for seed in seeds for row in residuals(table, sets, options.sizes, seed)]
    print(residual_table(pd.DataFrame(residual)), "\n")
    outcome = [row for seed in seeds for row in outcomes(table, sets, options.sizes, seed, hit)]
    for name in hit:
        print(outcome_table(pd.DataFrame(outcome), name), "\n")
    print(hit_table(pd.DataFrame(outcome)))
    return {"task": "features", "residual": residual, "outcome": outcome}


# --- tables ----------------------------------------------------------------------------------------------------------


def residual_table(found: pd.DataFrame) -> str:
    """The error as a share of the potential's own, and the coverage, by the number of crystals learnt from."""
    head = ["residual of", "features", "components", *_by_size(found, "MAE over the potential's, {}", "coverage, {}")]
    rows = [
        [*key, *_cells(part, found, "ratio"), *_cells(part, found, "coverage")]
        for key, part in found.groupby(["outcome", "set", "components"], sort=False)
    ]
    return markdown(head, rows)


def outcome_table(found: pd.DataFrame, outcome: str) -> str:
    """How well an outcome is learnt."""
    rows = [
        [*key, *(mean_and_error(part[name], 3) for name in MEASURES)]
        for key, part in found[found["outcome"] == outcome].groupby(["n", "set", "components"], sort=False)
    ]
    return markdown([f"{outcome}, n", "features", "components", *MEASURES], rows)


def hit_table(found: pd.DataFrame) -> str:
    """How well hits are ranked, and the time that all outcomes take."""
    part = found[found["outcome"] == "hit"]
    head = ["hit", "components", *_by_size(part, "average precision, {}", "CPU s, {}")]
    rows = [
        [*key, *_cells(one, part, "precision"), *_cells(one, part, "seconds", 1)]
        for key, one in part.groupby(["set", "components"], sort=False)
    ]
    return markdown(head, rows)


def _by_size(found: pd.DataFrame, *heads: str) -> list[str]:
    return [head.format(n) for head in heads for n in found["n"].unique()]


def _cells(part: pd.DataFrame, found: pd.DataFrame, measure: str, digits: int = 3) -> list[str]:
    return [mean_and_error(part.loc[part["n"] == n, measure], digits) for n in found["n"].unique()]


# --- what is measured ------------------------------------------------------------------------------------------------


def residuals(
    table: pd.DataFrame, sets: Mapping[str, list[str]], sizes: Sequence[int], seed: int
) -> Iterator[dict[str, Any]]:
    """How well the potential's formation energy and hull distance are corrected, a row a fit.

    The potential's energy is no feature here: a campaign has it as the prior mean.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    sets = {name: columns for name, columns in sets.items() if not set(ENERGIES) & set(columns)}
    for outcome, prior in (("formation_energy", ENERGIES[0]), ("energy_above_hull", ENERGIES[1])):
        truth, told = table[outcome].to_numpy(), table[prior].to_numpy()
        for n in sizes:
            known, rest = order[:n], order[n:]
            alone = float(np.abs(truth - told)[rest].mean())
            shifted = np.abs(truth - told - np.median((truth - told)[known]))[rest].mean()
            row = {"seed": seed, "outcome": outcome, "n": n, "alone": alone}
            yield {**row, "set": "median error", "components": 0, "ratio": shifted / alone, "coverage": np.nan}
            for name, k in _settings(sets):
                X = table[sets[name]].to_numpy()
                started = time.process_time()
                model = ResidualSurrogate(SurrogateSettings(dimensions=k))
                model.fit(X[known], (truth - told)[known, None], pool=X)
                mean, std = model.predict(X[rest], told[rest, None], np.full((len(rest), 1), np.nan))
                found = judge(truth[rest], mean[:, 0], std[:, 0])
                seconds = time.process_time() - started
                yield {**row, "set": name, "components": k, "ratio": found["MAE"] / alone, "seconds": seconds, **found}


def outcomes(
    table: pd.DataFrame, sets: Mapping[str, list[str]], sizes: Sequence[int], seed: int, hit: Mapping[str, Range]
) -> Iterator[dict[str, Any]]:
    """How well outcomes are learnt as `decide` learns them, a row an outcome, and the probability of a hit."""
    order = np.random.default_rng(seed).permutation(len(table))
    Y = table[list(hit)].to_numpy()
    good = np.logical_and.reduce([goal.utility(Y[:, j]) == 0 for j, goal in enumerate(hit.values())])
    for n in sizes:
        known, rest = order[:n], order[n:]
        centre = Y[known].mean(0)
        for name, k in _settings(sets):
            X = table[sets[name]].to_numpy()
            started = time.process_time()
            model = ResidualSurrogate(SurrogateSettings(ensemble_weight=0.0))
            model.fit(X[known], Y[known] - centre, space=FeatureSpace(X, k))
            told = np.tile(centre, (len(rest), 1))
            mean, std = model.predict(X[rest], told, np.full(told.shape, np.nan))
            row = {"seed": seed, "n": n, "set": name, "components": k, "seconds": time.process_time() - started}
            likely = np.prod([g.probability(mean[:, j], std[:, j]) for j, g in enumerate(hit.values())], axis=0)
            yield {**row, "outcome": "hit", "precision": average_precision(good[rest], likely)}
            for j, outcome in enumerate(hit):
                yield {**row, "outcome": outcome, **judge(Y[rest, j], mean[:, j], std[:, j])}


def judge(truth: Floats, mean: Floats, std: Floats) -> Measures:
    """Errors of normal predictions; the continuous ranked probability score is that of Gneiting & Raftery (2007)."""
    error, z = np.abs(truth - mean), (truth - mean) / std
    crps = std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    return {
        "MAE": float(error.mean()),
        "R2": float(1 - (error**2).mean() / truth.var()),
        "Spearman": float(spearmanr(truth, mean).statistic),
        "CRPS": float(crps.mean()),
        "coverage": float((np.abs(z) <= norm.ppf(0.95)).mean()),
    }


def average_precision(good: Floats, score: Floats) -> float:
    """Mean over the good of the share of good among those that score no less."""
    ranked = good[np.argsort(-score, kind="stable")]
    return float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())


def _settings(sets: Mapping[str, list[str]]) -> list[tuple[str, int]]:
    """Every set with every number of components; with all of its columns where it has fewer."""
    return [(name, k) for name, columns in sets.items() for k in sorted({min(k, len(columns)) for k in COMPONENTS})]

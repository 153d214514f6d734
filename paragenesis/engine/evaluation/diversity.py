"""Diversity: how many kinds of crystals there are, and how far apart they lie."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.descriptors import describe
from paragenesis.engine.evaluation.measures import Measures

AT_MOST = 1_000  # crystals compared with each other
WIDTH = 0.5  # of the kernel: two unrelated AFLOW prototypes, about sqrt(2) apart, are then 0.02 similar


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """Kinds of crystals among n strictly valid ones.

    Attributes:
        n: How many crystals were looked at.
        formulas: Distinct reduced formulas.
        chemical_systems: Distinct chemical systems.
        space_groups: Distinct space groups.
        templates: Distinct Wyckoff templates.
        compared: How many of the crystals, drawn at random, the next two were measured on.
        pair_distance: Mean distance of two of them, each descriptor in units of its spread over the AFLOW prototypes,
            root mean square over descriptors; NaN for fewer than two.
        vendi: Vendi score, an effective number of different crystals, at most `compared` (Friedman and Dieng, Trans.
            Mach. Learn. Res., 2023), with a Gaussian kernel of width 0.5 on that distance.
    """

    n: int
    formulas: int
    chemical_systems: int
    space_groups: int
    templates: int
    compared: int
    pair_distance: float
    vendi: float

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def diversity(crystals: Crystals, measures: Measures, seed: int) -> Diversity:
    """The diversity of the strictly valid ones of n crystals."""
    which = np.flatnonzero(measures.strict)
    valid = crystals[which]
    some = np.sort(np.random.default_rng(seed).permutation(len(valid))[:AT_MOST])
    squared = _squared_distances(describe(valid[some]) / _spread())
    k = len(some)
    return Diversity(
        n=len(valid),
        formulas=len({measures.formulas[i] for i in which}),
        chemical_systems=len(set(valid.chemical_systems)),
        space_groups=len({int(g) for g in measures.space_groups[which]} - {0}),
        templates=len({measures.templates[i] for i in which} - {""}),
        compared=k,
        pair_distance=float(np.sqrt(squared).sum() / (k * (k - 1))) if k > 1 else float("nan"),
        vendi=vendi_score(np.exp(-squared / (2 * WIDTH**2))) if k else 0.0,
    )


def vendi_score(kernel: FloatArray) -> float:
    """Exponential of the entropy of the eigenvalues of K / n; K is `n x n` with ones on its diagonal."""
    values = np.linalg.eigvalsh(kernel / len(kernel))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _squared_distances(rows: FloatArray) -> FloatArray:
    """Mean squared difference over the columns for all pairs of k rows, shape `k x k`, exactly 0 on the diagonal."""
    norms = (rows**2).sum(axis=1)
    squared = np.maximum(norms[:, None] + norms[None, :] - 2 * rows @ rows.T, 0.0) / max(rows.shape[1], 1)
    np.fill_diagonal(squared, 0.0)
    return np.asarray(squared)


@lru_cache(maxsize=1)
def _spread() -> FloatArray:
    """Standard deviation of each descriptor over the AFLOW prototypes: the same scale for every evaluation."""
    from paragenesis.engine.generators.templates import TemplateLibrary

    templates = TemplateLibrary().templates
    prototypes = Crystals(
        ids=tuple(t.name for t in templates),
        n_atoms=np.array([len(t) for t in templates]),
        numbers=np.concatenate([t.numbers for t in templates]),
        frac=np.concatenate([t.frac for t in templates]),
        lattices=np.stack([t.lattice for t in templates]),
    )
    return np.asarray(describe(prototypes).std(axis=0))

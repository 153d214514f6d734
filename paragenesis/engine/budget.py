"""How many of a round's candidates each generator makes.

In the first round the campaign says it; afterwards the share of a generator follows what came of its crystals: how
many were selected and turned out to be hits, for what they cost.

**Cost is counted in evaluations, not in seconds.** Seconds differ between two runs of the same campaign, and so would
everything that follows from them; the ledger's promise (same seed, same ledger, with every executor, interrupted or
not) would be gone. What a crystal really costs is its relaxation, and the steps of that are in the ledger: a crystal of
N atoms that took s steps cost `N (s + 1)` evaluations of an atom, one of them for making and screening it.

**The rate** of generator g, successes per evaluation, is learnt as that of a Poisson process with a Gamma prior
(Gelman et al., Bayesian Data Analysis, 3rd ed., section 2.6): with S_g weighted successes for the cost C_g, and a prior
of `prior` successes at the rate of all generators together, S / C,

    E[rate_g] = (prior + S_g) / (prior C / S + C_g).

One lucky crystal therefore moves a share a little, many move it far. Older rounds count less (`memory`), for a
generator that has given what it can should not live on its past. Each generator keeps the share `floor`, so none that
was unlucky is ever silenced; the rest is divided in proportion to the rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.ledger import LedgerReader
from paragenesis.engine.stages import GENERATE
from paragenesis.settings import Settings

_MADE = f"""
    SELECT generator, count(*) FILTER (stage IS DISTINCT FROM '{GENERATE}') AS generated,
           count(*) FILTER (verdict = 'kept') AS kept,
           coalesce(sum(n_atoms * (1 + coalesce(steps, CASE WHEN stage = 'relax' THEN ? ELSE 0 END))), 0) AS cost
    FROM candidates WHERE round = ? GROUP BY generator"""
_ASKED = "SELECT generator, sum(n) AS asked FROM chunks WHERE round = ? GROUP BY generator"
_SELECTED = """
    SELECT c.generator, s.candidate_id FROM selections s JOIN candidates c USING (candidate_id) WHERE s.round = ?"""
_VERIFIED = """
    SELECT DISTINCT c.generator, v.candidate_id FROM verifications v JOIN candidates c USING (candidate_id)
    WHERE v.round = ? AND v.status = 'verified'"""


class BudgetSettings(Settings):
    """How a round's candidates are shared among the generators.

    Attributes:
        candidates: How many a round has; by default what the generators' `n` add up to. Where it is given, each `n` is
            a share of the first round, and without any the shares are equal.
        share: "adaptive": from the second round on the shares follow what each generator yielded; "fixed": every round
            is like the first.
        floor: The share that each generator keeps at least; with many generators at most an equal share.
        hit_weight: How many selected crystals a verified hit is worth, beside having been selected.
        memory: What a success and its cost count a round later, and so on; 1 never forgets.
        prior: Successes that the common rate of all generators is worth.
    """

    candidates: int | None = Field(default=None, ge=1)
    share: Literal["adaptive", "fixed"] = "adaptive"
    floor: float = Field(default=0.1, gt=0, lt=1)
    hit_weight: float = Field(default=3.0, ge=0)
    memory: float = Field(default=0.8, gt=0, le=1)
    prior: float = Field(default=2.0, gt=0)


@dataclass(frozen=True, kw_only=True)
class Yield:
    """What one generator gave in one round.

    Attributes:
        generator: Its name.
        asked: Crystals it was asked for.
        generated: Crystals it made; fewer only where fewer exist.
        kept: Those that passed all screens.
        selected: Its crystals, of whatever round, that this round selected.
        verified: Its crystals that this round verified.
        hits: Those of them that are hits.
        cost: Evaluations of an atom that its crystals of this round took.
    """

    generator: str
    asked: int
    generated: int
    kept: int
    selected: int
    verified: int
    hits: int
    cost: float


def allocate(total: int, weights: Sequence[float] | FloatArray) -> list[int]:
    """Whole numbers that add up to `total` and follow the weights, by largest remainders; none is zero.

    Args:
        total: What is shared out; at least the number of weights.
        weights: Positive numbers, any scale.
    """
    share = np.asarray(weights, dtype=np.float64)
    exact = total * share / share.sum()
    parts: IntArray = np.floor(exact).astype(np.int64)
    for index in np.argsort(-(exact - parts), kind="stable")[: total - int(parts.sum())]:
        parts[index] += 1
    while (parts == 0).any():
        parts[int(np.argmax(parts))] -= 1
        parts[int(np.argmin(parts))] += 1
    return [int(part) for part in parts]


def shares(history: Sequence[Sequence[Yield]], first: Sequence[float], settings: BudgetSettings) -> FloatArray:
    """The share of each of G generators in the next round, shape `G`; they add up to 1.

    Args:
        history: What each generator gave in each round so far, rounds in order, generators in the order of `first`.
        first: Their shares in the first round, which stay as long as nothing was selected.
        settings: How successes count.
    """
    start: FloatArray = np.asarray(first, dtype=np.float64) / sum(first)
    if settings.share == "fixed" or not history:
        return start
    age = settings.memory ** np.arange(len(history))[::-1]
    successes = np.array([[y.selected + settings.hit_weight * y.hits for y in one] for one in history])
    gained, spent = age @ successes, age @ np.array([[y.cost for y in one] for one in history])
    if gained.sum() == 0 or spent.sum() == 0:
        return start
    rate = (settings.prior + gained) / (settings.prior / gained.sum() + spent / spent.sum())  # of all the cost
    floor = min(settings.floor, 1.0 / len(start))
    result: FloatArray = floor + (1.0 - floor * len(start)) * rate / rate.sum()
    return result


def round_yields(
    ledger: LedgerReader, number: int, generators: Sequence[str], hits: Mapping[str, bool], max_steps: int
) -> list[Yield]:
    """What each generator gave in a round, in their order.

    A crystal that was asked for and never came used up a place all the same: it costs what the round's crystals cost on
    average. One that failed in relaxation has no steps in the ledger and is charged the most there can be.

    Args:
        ledger: The campaign's ledger.
        number: The round.
        generators: The names of the generators.
        hits: Whether each crystal that the round verified is a hit.
        max_steps: The longest relaxation.
    """
    made = _by_generator(ledger, _MADE, (max_steps, number))
    asked = _by_generator(ledger, _ASKED, (number,))
    selected = ledger.query(_SELECTED, (number,)).column("generator").to_pylist()
    verified = ledger.query(_VERIFIED, (number,)).to_pylist()
    generated = sum(int(row["generated"]) for row in made.values())
    typical = sum(float(row["cost"]) for row in made.values()) / generated if generated else 0.0
    out = []
    for name in generators:
        row = made.get(name, {"generated": 0, "kept": 0, "cost": 0.0})
        wanted = int(asked.get(name, {"asked": row["generated"]})["asked"])
        mine = [v["candidate_id"] for v in verified if v["generator"] == name]
        out.append(
            Yield(
                generator=name,
                asked=wanted,
                generated=int(row["generated"]),
                kept=int(row["kept"]),
                selected=selected.count(name),
                verified=len(mine),
                hits=sum(hits[candidate] for candidate in mine),
                cost=float(row["cost"]) + typical * max(wanted - int(row["generated"]), 0),
            )
        )
    return out


def _by_generator(ledger: LedgerReader, sql: str, params: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """The rows of a query by their column `generator`."""
    return {str(row["generator"]): row for row in ledger.query(sql, params).to_pylist()}

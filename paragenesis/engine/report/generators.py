"""What each generator gave, was asked for and learnt, round by round, as the report shows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from paragenesis.engine.learning import Trial
from paragenesis.engine.report.source import Readable

_YIELDS = "SELECT * FROM yields ORDER BY round, generator"
_AIMS = "SELECT round, generator, aim FROM chunks WHERE aim IS NOT NULL ORDER BY round, generator, chunk"
_LESSONS = "SELECT * FROM learning ORDER BY round, generator"


@dataclass(frozen=True)
class Gave:
    """What a generator gave in a round; `next_share` is its part of the round after it, `aims` are in words."""

    round: int
    generator: str
    asked: int
    generated: int
    kept: int
    selected: int
    verified: int
    hits: int
    cost: float
    next_share: float
    aims: tuple[str, ...]

    @property
    def per_million(self) -> float | None:
        """Selected crystals for a million evaluations of an atom; None where there was no cost."""
        return 1e6 * self.selected / self.cost if self.cost else None


@dataclass(frozen=True)
class Taught:
    """What became of a lesson; `rates` are (name, before, after) in words, empty where there was no trial."""

    round: int
    generator: str
    outcome: str
    crystals: int
    asked: int | None
    rates: tuple[tuple[str, str, str], ...]
    why: str


def read_gave(source: Readable) -> list[Gave]:
    """What the generators gave, rounds in order; a round that is open has no entry yet."""
    aims: dict[tuple[int, str], list[str]] = {}
    for row in source.query(_AIMS).to_pylist():
        words = "; ".join(_wish(wish) for wish in json.loads(row["aim"]))
        aims.setdefault((row["round"], row["generator"]), []).append(words)
    return [
        Gave(**row, aims=tuple(dict.fromkeys(aims.get((row["round"], row["generator"]), ()))))
        for row in source.query(_YIELDS).to_pylist()
    ]


def read_taught(source: Readable) -> list[Taught]:
    """What became of all lessons, rounds in order."""
    return [_taught(row) for row in source.query(_LESSONS).to_pylist()]


def _taught(row: dict[str, Any]) -> Taught:
    rates: tuple[tuple[str, str, str], ...] = ()
    if row["asked"] is not None:
        old, new = (Trial(row["asked"], *(row[f"{n}_{when}"] for n in Trial.COUNTS)) for when in ("before", "after"))
        rates = tuple((name, _share(*old.rates[name]), _share(*new.rates[name])) for name in old.rates)
    why = row["reason"] or row["error"] or ""
    return Taught(row["round"], row["generator"], row["outcome"], row["crystals"], row["asked"], rates, why)


def _share(count: int, n: int) -> str:
    return f"{count}/{n} = {count / n:.0%}" if n else "–"


def _wish(wish: dict[str, Any]) -> str:
    """A property range in words: "band gap from 1 to 2"."""
    name, low, high = wish["property"].replace("_", " "), wish["low"], wish["high"]
    if low is None:
        return f"{name} at most {high:g}"
    if high is None:
        return f"{name} at least {low:g}"
    return f"{name} {low:g}" if low == high else f"{name} from {low:g} to {high:g}"

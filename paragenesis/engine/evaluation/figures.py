"""Figures: shares with their interval and everything that they depend on.

The same generator has 0.1 to 20 % "S.U.N." in five published tables, because scorer, hull, novelty reference, cut-off
and N differ. So a share never travels without them here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from paragenesis.engine.metrics import product_interval, wilson_interval

GENERATED, VALID, NEW, RELAXED = "generated", "strictly valid", "valid, unique and novel", "relaxed"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A share: `count` of `n`, or that times a second share.

    Attributes:
        name: What is counted.
        count: How many there are.
        n: Among how many.
        of: What these n are.
        times: Where only a random part of the valid, unique and novel crystals was relaxed: how many of these there
            are, and among how many generated; the figure is then per generated crystal.
        scorer: Who judged the energies; "" where none was needed.
        hull: What these were held against; "" likewise.
        reference: What novelty was judged against; "" where it does not matter.
        relaxed: Whether the crystals were relaxed first.
    """

    name: str
    count: int
    n: int
    of: str
    times: tuple[int, int] | None = None
    scorer: str = ""
    hull: str = ""
    reference: str = ""
    relaxed: bool = False

    @cached_property
    def _interval(self) -> tuple[float, float, float]:
        if self.times is None:
            return (self.count / self.n if self.n else 0.0, *wilson_interval(self.count, self.n))
        return product_interval((self.count, self.n), self.times)

    @property
    def value(self) -> float:
        """The share; 0 where nothing was counted, with an interval from 0 to 1."""
        return self._interval[0]

    @property
    def low(self) -> float:
        """Lower limit of the 95 % interval."""
        return self._interval[1]

    @property
    def high(self) -> float:
        """Upper limit of the 95 % interval."""
        return self._interval[2]

    def record(self) -> dict[str, Any]:
        """The figure as plain JSON."""
        return {
            "name": self.name,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "count": self.count,
            "n": self.n,
            "of": self.of,
            "times": self.times and {"count": self.times[0], "n": self.times[1], "what": f"{NEW}, of {GENERATED}"},
            "scorer": self.scorer,
            "hull": self.hull,
            "reference": self.reference,
            "relaxed": self.relaxed,
        }

    @property
    def counted(self) -> str:
        """What was counted, in words: "12 of 256 relaxed, times 1252 of 2000"."""
        times = "" if self.times is None else f", times {self.times[0]} of {self.times[1]}"
        return f"{self.count} of {self.n} {self.of}{times}"

    @property
    def share(self) -> str:
        """The share with its interval: "44.1 % (41.2 to 47.0)"."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})" if self.n else "-"


Texts = tuple[str, str, str]


def tables(figures: Sequence[Figure]) -> Iterator[tuple[Texts, list[Texts]]]:
    """Figures as tables to be read, each its head and its rows: what needs no hull, then the rest by each scorer."""
    plain = [f for f in figures if not (f.scorer and f.hull)]
    yield ("share (95 % interval)", "", "counted"), [(f.name, f.share, f.counted) for f in plain]
    for scorer in dict.fromkeys(f.scorer for f in figures if f.scorer and f.hull):
        rows = [(f.name, f.share, f.counted) for f in figures if f.scorer == scorer and f.hull]
        yield (f"by {scorer}", "", "counted"), rows


def per_generated(figure: Figure, new: tuple[int, int]) -> Figure:
    """A share of relaxed crystals as a share of all that were generated.

    Where every valid, unique and novel crystal was relaxed it is simply counted; else it is multiplied by their share.

    Args:
        figure: A share of the relaxed crystals, which were drawn at random from the valid, unique and novel ones.
        new: How many valid, unique and novel crystals there are, and among how many generated.
    """
    if figure.n == new[0]:
        return replace(figure, n=new[1], of=GENERATED)
    return replace(figure, times=new)

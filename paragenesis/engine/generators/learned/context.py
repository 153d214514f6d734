"""What is wanted of a crystal, as the context that modulates a learned generator.

A property is cut into bins, and a wish is the set of bins that would do: one for a value, several for a range, all of
them for "whatever", which is also what a missing label means. Every bin allowed gives a context of exactly zero, so
a generator without wishes is the unconditional one, and any number of properties may be wished for at once. The
composition or the chemical system, where asked for, enters in the same way: as numbers that are zero when it is open.

A property that the weights do not know is added by an adapter: a small network from the bins to the context and to
the modulation of each block, trained with everything else frozen. It, too, is silent when nothing is wished of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from paragenesis.crystals import FloatArray
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.learned.backbone import PARTS
from paragenesis.errors import InputError

ELEMENTS = 104  # atomic numbers 0 (unused) to 103

_BINS = 16
_SILENT, _EXACT = 0.45, 0.3  # shares of training crystals whose label is hidden, and given as its bin; else as a range
_COMPOSITION, _SYSTEM = 0.15, 0.15  # shares whose composition, or chemical system, is told


@dataclass(frozen=True)
class PropertyScale:
    """The bins of a property.

    Attributes:
        name: The property.
        edges: Between the bins, ascending, in the property's unit; the outer bins have no end.
    """

    name: str
    edges: tuple[float, ...]

    @classmethod
    def of(cls, name: str, values: FloatArray) -> PropertyScale:
        """Bins that hold about as many of the values each; a value that is very frequent has a bin of its own.

        Raises:
            InputError: Fewer than two different values are known.
        """
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        quantiles = np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS)) if len(known) else known
        levels = np.unique(known)
        # an edge lies between two values that occur, so that a frequent one (no gap, on the hull) stands by itself
        after = np.searchsorted(levels, quantiles, side="right")
        after = np.unique(after[after < len(levels)])
        edges = (levels[after - 1] + levels[after]) / 2
        if not len(edges):
            raise InputError(
                f"'{name}' is known of {len(known)} crystals with {len(levels)} different values; a property needs two"
            )
        return cls(name, tuple(float(f"{edge:.6g}") for edge in edges))

    @property
    def bins(self) -> int:
        """How many bins there are."""
        return len(self.edges) + 1

    def bin_of(self, values: FloatArray) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The bin of each value."""
        return np.searchsorted(np.array(self.edges), values, side="right")

    def mask(self, low: float | None, high: float | None) -> FloatArray:
        """1 for each bin that holds part of the range, else 0; shape `bins`."""
        first = 0 if low is None else int(self.bin_of(np.array(low)))
        last = self.bins - 1 if high is None else int(self.bin_of(np.array(high)))
        place = np.arange(self.bins)
        return ((place >= first) & (place <= last)).astype(np.float64)


@dataclass(frozen=True)
class Wishes:
    """What is wanted of each of B crystals.

    Attributes:
        bins: For each property, 1 for each bin that would do; shape `B x bins`.
        fractions: Atomic fractions by atomic number, shape `B x 104`; all 0 where the composition is open.
        system: 1 for each element of the chemical system, shape `B x 104`; all 0 where it is open.
    """

    bins: Mapping[str, Tensor]
    fractions: Tensor
    system: Tensor

    def __len__(self) -> int:
        """How many crystals they are for."""
        return len(self.fractions)

    def to(self, device: torch.device | str) -> Wishes:
        """The same wishes on a device."""
        return Wishes(
            {k: v.to(device) for k, v in self.bins.items()}, self.fractions.to(device), self.system.to(device)
        )

    def without_properties(self) -> Wishes:
        """The same chemistry, every property open: the unconditional side of classifier-free guidance."""
        return Wishes({name: torch.ones_like(bins) for name, bins in self.bins.items()}, self.fractions, self.system)

    @classmethod
    def joined(cls, first: Wishes, second: Wishes) -> Wishes:
        """The crystals of both, one after the other."""
        return cls(
            {name: torch.cat([bins, second.bins[name]]) for name, bins in first.bins.items()},
            torch.cat([first.fractions, second.fractions]),
            torch.cat([first.system, second.system]),
        )

    @classmethod
    def from_condition(cls, condition: Condition, scales: Sequence[PropertyScale], n: int) -> Wishes:
        """The wishes of a condition, n times.

        Raises:
            InputError: It names a property that the weights do not know.
        """
        from ase.data import atomic_numbers

        wanted = {wish.property: wish for wish in condition.properties}
        unknown = sorted(wanted.keys() - {s.name for s in scales})
        if unknown:
            raise InputError(
                f"the weights know nothing of the property '{unknown[0]}' (they know "
                f"{', '.join(sorted(s.name for s in scales)) or 'none'}); train an adapter for it, or drop it"
            )
        bins = {}
        for scale in scales:
            wish = wanted.get(scale.name)
            mask = np.ones(scale.bins) if wish is None else scale.mask(wish.low, wish.high)
            bins[scale.name] = torch.tensor(mask, dtype=torch.float32).expand(n, -1)
        fractions, system = torch.zeros(ELEMENTS), torch.zeros(ELEMENTS)
        unit = condition.formula_unit
        for symbol, count in unit.items():
            fractions[atomic_numbers[symbol]] = count / sum(unit.values())
        for symbol in () if unit else (condition.exact_elements or ()):
            system[atomic_numbers[symbol]] = 1.0
        return cls(bins, fractions.expand(n, -1), system.expand(n, -1))

    @classmethod
    def for_training(
        cls,
        scales: Sequence[PropertyScale],
        labels: Mapping[str, FloatArray],
        fractions: FloatArray,
        rng: np.random.Generator,
    ) -> Wishes:
        """Wishes that B training crystals fulfil, drawn anew each time: a bin, a range around it, or nothing.

        Args:
            scales: The properties.
            labels: Their values, shape `B` each; NaN where unknown.
            fractions: Atomic fractions, shape `B x 104`.
            rng: What to draw from.
        """
        n = len(fractions)
        bins = {}
        for scale in scales:
            values = labels.get(scale.name, np.full(n, np.nan))
            bins[scale.name] = torch.from_numpy(_drawn_mask(scale, values, rng)).float()
        what = rng.random(n)
        told = torch.from_numpy(fractions).float()
        whole = torch.from_numpy(what < _COMPOSITION)[:, None]
        system = torch.from_numpy((what >= _COMPOSITION) & (what < _COMPOSITION + _SYSTEM))[:, None]
        return cls(bins, told * whole, (told > 0).float() * system)


def _drawn_mask(scale: PropertyScale, values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Bins that hold each value and some around them; all of them where the value is unknown or kept silent."""
    n, top = len(values), scale.bins - 1
    known = np.isfinite(values)
    own = scale.bin_of(np.where(known, values, 0.0))
    low = np.floor(rng.random(n) * (own + 1)).astype(np.int64)
    high = own + np.floor(rng.random(n) * (top - own + 1)).astype(np.int64)
    what = rng.random(n)
    exact = what < _SILENT + _EXACT
    low, high = np.where(exact, own, low), np.where(exact, own, high)
    silent = ~known | (what < _SILENT)
    low, high = np.where(silent, 0, low), np.where(silent, top, high)
    place = np.arange(scale.bins)
    return ((place >= low[:, None]) & (place <= high[:, None])).astype(np.float64)


class _Silent(nn.Module):
    """A network without biases, so that zeros give zeros."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.into = nn.Linear(inputs, hidden, bias=False)
        self.out = nn.Linear(hidden, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(functional.gelu(self.into(x)))
        return y


class Adapter(nn.Module):
    """Adds a property to weights that do not know it."""

    def __init__(self, scale: PropertyScale, width: int, layers: int, tokens: int, rank: int = 16) -> None:
        """Make an adapter.

        Args:
            scale: The new property.
            width: Width of the context.
            layers: Blocks of the backbone.
            tokens: Width of the tokens.
            rank: Numbers in which the wish is said to the blocks.
        """
        super().__init__()
        self.scale, self.layers = scale, layers
        self.encode = _Silent(scale.bins, 4 * rank, rank)
        self.context = nn.Linear(rank, width, bias=False)
        self.steering = nn.Linear(rank, layers * PARTS * tokens, bias=False)
        nn.init.zeros_(self.context.weight)
        nn.init.zeros_(self.steering.weight)

    def forward(self, bins: Tensor) -> tuple[Tensor, Tensor]:
        """What a wish adds to the context, `B x width`, and to the modulation, `B x layers x 6 tokens`."""
        said = self.encode(bins - 1.0)
        return self.context(said), self.steering(said).view(len(bins), self.layers, -1)


@dataclass(frozen=True)
class Context:
    """What modulates the backbone for B crystals; a context of one row is shared by however many there are.

    Attributes:
        vector: Shape `B x width`.
        steering: What adapters add to each block, shape `B x layers x 6 tokens`, or None.
    """

    vector: Tensor
    steering: Tensor | None = field(default=None)

    def rows(self, index: Tensor) -> Context:
        """The context of some crystals, which may repeat."""
        if len(self.vector) == 1:
            return self
        return Context(self.vector[index], None if self.steering is None else self.steering[index])

    @classmethod
    def joined(cls, parts: Sequence[Context]) -> Context:
        """Several contexts of one sort in a row; one for all stays one for all."""
        if len(parts[0].vector) == 1 or len(parts) == 1:
            return parts[0]
        steering = [part.steering for part in parts if part.steering is not None]
        return cls(torch.cat([part.vector for part in parts]), torch.cat(steering) if steering else None)


class ContextEncoder(nn.Module):
    """Turns wishes into the context."""

    def __init__(self, scales: Sequence[PropertyScale], width: int) -> None:
        """Make an encoder for the properties, to a context of `width`."""
        super().__init__()
        self.scales, self.width = tuple(scales), width
        self.properties = nn.ModuleDict({scale.name: _Silent(scale.bins, width, width) for scale in self.scales})
        self.fractions = _Silent(ELEMENTS, width, width)
        self.system = _Silent(ELEMENTS, width, width)
        self.open = nn.Parameter(torch.zeros(width))
        self.adapters = nn.ModuleDict()

    @property
    def all_scales(self) -> tuple[PropertyScale, ...]:
        """The properties of the weights and of their adapters."""
        return (*self.scales, *(adapter.scale for adapter in self.adapters.values() if isinstance(adapter, Adapter)))

    def forward(self, wishes: Wishes) -> Context:
        """The context of B wishes."""
        vector = self.open + self.fractions(wishes.fractions * 8.0) + self.system(wishes.system)
        for name, network in self.properties.items():
            vector = vector + network(wishes.bins[name] - 1.0)
        steering: Tensor | None = None
        for name, adapter in self.adapters.items():
            added, steered = adapter(wishes.bins[name])
            vector = vector + added
            steering = steered if steering is None else steering + steered
        return Context(vector, steering)

"""The decorations of a set of patterns: which element goes on which group, and how likely each choice is.

The weight of a decoration is the product of p(new ion | old ion)^(1 / temperature) over its swaps, at the likeliest
oxidation states that make it charge-neutral. A decoration that none makes neutral keeps the weight of its likeliest
states times `charged_weight`, unless all its elements are metals, which need no charges. Where the condition asks for
charge neutrality, decorations that are not neutral by the rule of screening are left out, metals or not. Full and
partial patterns share the total as `partial_share` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from math import perm

import numpy as np
from ase.data import chemical_symbols

from paragenesis.crystals import FloatArray
from paragenesis.engine.generators.ions import IonTable
from paragenesis.engine.generators.neutrality import is_neutral
from paragenesis.engine.generators.patterns import Pattern

_ENUMERATED = 20_000  # spaces up to this size are listed and weighted whole; larger ones are sampled
_MISSES = 1_000  # fruitless draws in a row after which sampling flattens its weights twofold
_FLATTEST = 64.0  # flattening beyond which a space counts as exhausted

Decoration = tuple[Pattern, tuple[int, ...]]  # a pattern and the atomic number on each of its groups


@dataclass(frozen=True)
class Chemistry:
    """Which elements a decoration may and must hold, as atomic numbers.

    Attributes:
        allowed: The only elements it may hold, ascending.
        required: Elements it must hold, each on one group.
        unit: Atoms of each element in the formula unit, where a composition is asked for.
    """

    allowed: tuple[int, ...]
    required: tuple[int, ...] = ()
    unit: dict[int, int] = field(default_factory=dict)

    def count(self, pattern: Pattern) -> int:
        """How many decorations a pattern has."""
        free, required, others = self.open(pattern)
        k, r = len(free), len(required)
        if k < r:
            return 0
        if self.unit:
            return sum(1 for _ in self.choices(pattern))
        return perm(k, r) * perm(len(others), k - r)

    def choices(self, pattern: Pattern) -> Iterator[tuple[int, ...]]:
        """Every decoration of a pattern: one element a group, none on two groups that do not keep theirs."""
        free, required, others = self.open(pattern)
        for places in permutations(free, len(required)):
            left = [g for g in free if g not in places]
            for chosen in permutations(others, len(left)):
                elements = dict(pattern.kept) | dict(zip((*places, *left), (*required, *chosen), strict=True))
                decoration = tuple(elements[g] for g in range(len(elements)))
                if self._right_composition(pattern, decoration):
                    yield decoration

    def open(self, pattern: Pattern) -> tuple[list[int], list[int], list[int]]:
        """The groups of a pattern that take any element, the required elements for them, and the other allowed ones."""
        kept = dict(pattern.kept)
        free = [g for g in range(len(pattern.counts)) if g not in kept]
        required = [z for z in self.required if z not in kept.values()]
        return free, required, [z for z in self.allowed if z not in required]

    def _right_composition(self, pattern: Pattern, elements: tuple[int, ...]) -> bool:
        if not self.unit:
            return True
        total = sum(self.unit.values())
        atoms = _atoms(pattern, elements)
        return all(atoms[z] * total == count * len(pattern.groups) for z, count in self.unit.items())


class Weights:
    """Log weights of decorations."""

    def __init__(
        self, table: IonTable, charged_weight: float, temperature: float, charge_neutral: bool = False
    ) -> None:
        """Remember the ions' probabilities, and what a charged decoration is worth beside a neutral one.

        Args:
            table: The ions.
            charged_weight: Weight of a decoration without charge-neutral states in the table, beside a neutral one.
            temperature: Flattens the probabilities.
            charge_neutral: Make no decoration that is not charge-neutral by the rule of screening.
        """
        self._table = table
        self._charge_neutral = charge_neutral
        self._temperature = temperature
        self._log_charged = float(np.log(charged_weight)) if charged_weight > 0 else -np.inf
        self._rows: dict[int, tuple[FloatArray, FloatArray]] = {}

    def rows(self, pattern: Pattern) -> tuple[FloatArray, FloatArray]:
        """Log weight of each ion, shape `k x I`, and of each element, shape `k x 104`, on each group of a pattern."""
        kept = self._rows.get(id(pattern))
        if kept is None:
            ions = np.zeros((len(pattern.counts), len(self._table.numbers)))
            for group, old, ion in pattern.swaps:
                if (pattern.groups == group).any():
                    ions[group] += self._table.log_given(old, ion) / self._temperature
            kept = self._rows[id(pattern)] = (ions, self._table.per_element(ions))
        return kept

    def log_weight(self, pattern: Pattern, elements: tuple[int, ...]) -> float:
        """Log weight of a decoration; minus infinity if it must not be made."""
        if self._charge_neutral and not _is_neutral(pattern, elements):
            return -np.inf
        ions, per_element = self.rows(pattern)
        any_charge = float(per_element[range(len(elements)), elements].sum())
        if self._table.metal[list(elements)].all():
            return any_charge
        return max(self._table.neutral(elements, pattern.counts, list(ions)), any_charge + self._log_charged)


class DecorationSpace:
    """All decorations of some patterns, to be drawn from without replacement."""

    def __init__(
        self,
        patterns: Sequence[Pattern],
        chemistry: Chemistry,
        weights: Weights,
        partial_share: float,
    ) -> None:
        """List the decorations with their weights, or prepare to sample where there are too many."""
        self._chemistry = chemistry
        self._weights = weights
        self._share = partial_share
        self._classes = [[p for p in patterns if (p.moved is not None) is partial] for partial in (False, True)]
        self.size = sum(chemistry.count(p) for p in patterns)
        self._listed = self._enumerate(patterns) if self.size <= _ENUMERATED else None

    @property
    def distinct(self) -> int | None:
        """How many different crystals there are to draw; None where they are too many to list."""
        return None if self._listed is None else len(self._listed[0])

    @property
    def listed(self) -> tuple[list[Decoration], FloatArray] | None:
        """The distinct decorations and their probabilities of being drawn first; None where too many to list."""
        if self._listed is None:
            return None
        decorations, logs = self._listed
        weights = np.exp(logs - logs.max(initial=-np.inf)) if len(logs) else logs
        return decorations, weights / weights.sum()

    def draw(self, rng: np.random.Generator) -> Iterator[Decoration]:
        """Different decorations in a random order, the likely ones earlier, until none is left."""
        if self._listed is None:
            yield from self._sample(rng)
            return
        decorations, logs = self._listed
        # Gumbel noise on log weights orders them like drawing one after the other without replacement.
        for i in np.argsort(-(logs + rng.gumbel(size=len(logs))), kind="stable"):
            yield decorations[i]

    def _enumerate(self, patterns: Sequence[Pattern]) -> tuple[list[Decoration], FloatArray]:
        """The distinct decorations with weight and their log weights."""
        found: dict[tuple[str, bytes], int] = {}
        decorations: list[Decoration] = []
        logs: list[float] = []
        for pattern in patterns:
            for elements in self._chemistry.choices(pattern):
                weight = self._weights.log_weight(pattern, elements)
                if weight == -np.inf:
                    continue
                place = found.setdefault(pattern.key(elements), len(logs))
                if place == len(logs):
                    decorations.append((pattern, elements))
                    logs.append(weight)
                else:  # another way to make the same crystal
                    logs[place] = float(np.logaddexp(logs[place], weight))
        return decorations, self._shared(decorations, np.array(logs))

    def _shared(self, decorations: Sequence[Decoration], logs: FloatArray) -> FloatArray:
        """Log weights with full and partial patterns scaled to their shares of the whole."""
        partial = np.array([p.moved is not None for p, _ in decorations], dtype=bool)
        if not len(logs) or partial.all() or not partial.any():
            return logs
        out = logs.copy()
        for mask, share in ((partial, self._share), (~partial, 1.0 - self._share)):
            out[mask] += np.log(share) - np.logaddexp.reduce(logs[mask])
        return out

    def _sample(self, rng: np.random.Generator) -> Iterator[Decoration]:
        """Draw a pattern, then its elements one by one; accept by how likely the whole is."""
        seen: set[tuple[str, bytes]] = set()
        misses, flat = 0, 1.0
        shares = np.array([1.0 - self._share, self._share]) * [bool(patterns) for patterns in self._classes]
        shares /= shares.sum()
        while flat <= _FLATTEST:
            patterns = self._classes[int(rng.random() < shares[1])]
            pattern = patterns[int(rng.integers(len(patterns)))]
            elements = self._propose(pattern, flat, rng)
            if elements is not None and (key := pattern.key(elements)) not in seen:
                seen.add(key)
                misses = 0
                yield pattern, elements
                continue
            misses += 1
            if misses == _MISSES:
                misses, flat = 0, flat * 2

    def _propose(self, pattern: Pattern, flat: float, rng: np.random.Generator) -> tuple[int, ...] | None:
        """Elements for the groups of a pattern, drawn by their weights^(1 / flat); None if the draw is refused."""
        _, per_element = self._weights.rows(pattern)
        elements = np.zeros(len(per_element), dtype=np.int64)
        for group, z in pattern.kept:
            elements[group] = z
        free, required, others = self._chemistry.open(pattern)
        for z in required:
            group = free.pop(_choice(per_element[free, z] / flat, rng))
            elements[group] = z
        for group in free:
            elements[group] = others[_choice(per_element[group, others] / flat, rng)]
        chosen = tuple(elements.tolist())
        kept = dict(pattern.kept)
        if len({z for g, z in enumerate(chosen) if g not in kept}) < len(chosen) - len(kept):
            return None
        proposed = float(per_element[range(len(chosen)), chosen].sum())
        worth = (self._weights.log_weight(pattern, chosen) - proposed) / flat
        return chosen if np.log1p(-rng.random()) < worth else None


def _is_neutral(pattern: Pattern, elements: tuple[int, ...]) -> bool:
    """Whether a decoration is charge-neutral by the rule of screening."""
    return is_neutral({chemical_symbols[z]: count for z, count in _atoms(pattern, elements).items()})


def _atoms(pattern: Pattern, elements: tuple[int, ...]) -> Counter[int]:
    """How many atoms of each element a decoration has."""
    atoms: Counter[int] = Counter()
    for z, count in zip(elements, pattern.counts, strict=True):
        atoms[z] += count
    return atoms


def _choice(logs: FloatArray, rng: np.random.Generator) -> int:
    """An index drawn with probability proportional to exp(logs)."""
    cumulative = np.cumsum(np.exp(logs - logs.max()))
    return int(min(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"), len(logs) - 1))

"""What may be put on a site while types are drawn, so that the finished crystal obeys.

A rule that only counts is a mask on the logits. Rules that look ahead (an exact composition, charge neutrality) are
asked about one choice at a time, after it is drawn and before it is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from paragenesis.crystals import BoolArray
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.flow.state import MASKED, TYPES
from paragenesis.engine.generators.neutrality import ion_charges, is_neutral, neutral_compositions, set_bits
from paragenesis.engine.screening.chemistry import electronegativity, oxidation_states
from paragenesis.errors import InputError

_FEW = 4  # elements of a chemical system up to which its neutral compositions are listed
_ZERO = 256  # the bit that stands for no charge; above any charge of the atoms of a cell

Target = tuple[tuple[int, int], ...]
"""A composition of the primitive cell: atomic numbers, ascending, and atoms of each."""


@dataclass(frozen=True)
class TypeRules:
    """The rules of a condition.

    Attributes:
        allowed: Types that may be used at all, shape `104`.
        required: Atomic numbers that the crystal must hold.
        targets: The compositions that it may have; None for any.
        neutral: Whether it must be charge-neutral.
    """

    allowed: BoolArray
    required: frozenset[int]
    targets: tuple[Target, ...] | None
    neutral: bool

    @classmethod
    def of(cls, condition: Condition, learned: BoolArray, radioactive: bool) -> TypeRules:
        """The rules of a condition.

        Args:
            condition: What every crystal must be.
            learned: Types that the weights have seen, shape `104`.
            radioactive: Whether elements without a stable isotope are used where the condition does not name them.
        """
        exact = condition.exact_elements
        required = frozenset(atomic_numbers[s] for s in exact or condition.required_elements)
        allowed = usable_types(condition, learned, radioactive)
        return cls(allowed, required, _targets(condition), condition.charge_neutral)

    def mask(self, known: Sequence[int], open_sites: int) -> BoolArray:
        """Types that counting leaves for one of the open sites, shape `104`.

        Args:
            known: Types of the atoms that have one.
            open_sites: How many sites are open, this one included.
        """
        missing = self.required - set(known)
        if len(missing) < open_sites:
            return self.allowed
        mask: BoolArray = np.zeros(TYPES, dtype=np.bool_)
        mask[list(missing)] = True
        return mask

    def finishes(self, types: Sequence[int], sizes: Sequence[int]) -> bool:
        """Whether a crystal with these types so far can still become one that obeys.

        Args:
            types: Types of the atoms that have one.
            sizes: Atoms of each open site.
        """
        counts = Counter(types)
        if len(self.required - counts.keys()) > len(sizes):
            return False
        if self.targets is not None:
            return any(_reaches(target, counts, sizes) for target in self.targets)
        if not self.neutral:
            return True
        usable = tuple(np.flatnonzero(self.allowed).tolist())
        return _becomes_neutral(tuple(sorted(counts.items())), tuple(sorted(sizes)), usable)


def usable_types(condition: Condition, learned: BoolArray, radioactive: bool) -> BoolArray:
    """Types that a condition allows, shape `104`; all that were learned where it names none."""
    named = condition.exact_elements or condition.allowed_elements
    mask = learned.copy() if named is None else np.zeros(TYPES, dtype=np.bool_)
    if named is None and not radioactive:
        mask[sorted(_unstable())] = False
    mask[[atomic_numbers[s] for s in (*(named or ()), *condition.required_elements)]] = True
    mask[MASKED] = False
    return mask


@cache
def _unstable() -> frozenset[int]:
    """Atomic numbers of the elements without a stable isotope."""
    from pymatgen.core import Element

    return frozenset(z for z in range(1, TYPES) if Element.from_Z(z).is_radioactive)


def _targets(condition: Condition) -> tuple[Target, ...] | None:
    """The compositions that a condition leaves, where they can be listed."""
    low, high, unit = condition.min_atoms, condition.max_atoms, condition.formula_unit
    if unit:
        cells = range(-(-low // sum(unit.values())), high // sum(unit.values()) + 1)
        return tuple(tuple(sorted((atomic_numbers[s], k * n) for s, n in unit.items())) for k in cells if k)
    exact = condition.exact_elements
    if condition.charge_neutral and exact is not None and len(exact) <= _FEW:
        numbers = [atomic_numbers[s] for s in exact]
        found = neutral_compositions(exact, low, high)
        return tuple(tuple(sorted(zip(numbers, row, strict=True))) for row in found)
    return None


def _reaches(target: Target, counts: Counter[int], sizes: Sequence[int]) -> bool:
    """Whether filling the open sites can complete a composition."""
    rest = dict(target)
    for number, count in counts.items():
        rest[number] = rest.get(number, 0) - count
    if min(rest.values()) < 0 or sum(rest.values()) != sum(sizes):
        return False
    return partitions(tuple(sorted(n for n in rest.values() if n)), tuple(sorted(sizes)))


@lru_cache(maxsize=200_000)
def partitions(amounts: tuple[int, ...], sizes: tuple[int, ...]) -> bool:
    """Whether sites of these sizes can be shared out so that each amount is met exactly; both sorted."""
    if not sizes:
        return not amounts
    largest, rest = sizes[-1], sizes[:-1]
    for amount in sorted(set(amounts)):
        if amount >= largest:
            left = list(amounts)
            left.remove(amount)
            left += [amount - largest] if amount > largest else []
            if partitions(tuple(sorted(left)), rest):
                return True
    return False


@lru_cache(maxsize=100_000)
def _becomes_neutral(counts: tuple[tuple[int, int], ...], sizes: tuple[int, ...], usable: tuple[int, ...]) -> bool:
    """Whether elements on the open sites can balance the charges of those known.

    Exact for a finished crystal. Before, an element that comes again is counted as if it were another one, so the
    answer may be wrong; a crystal that so ends without neutrality is refused at its last site.
    """
    known = [(chemical_symbols[z], count) for z, count in counts]
    if not sizes:
        return is_neutral(dict(known))
    scale = [electronegativity(symbol) for symbol, _ in known]
    if any(value is None for value in scale):
        return False
    borders = sorted({e for z in usable if (e := electronegativity(chemical_symbols[z])) is not None})
    for border in borders[1:]:
        totals = 1 << _ZERO
        for (symbol, count), value in zip(known, scale, strict=True):
            assert value is not None
            totals = _moved(totals, ion_charges(symbol, count, 1 if value < border else -1), value < border)
        for size in sizes:
            gain, loss = _ions(size, border, usable)
            totals = _moved(totals, gain, True) | _moved(totals, loss, False)
        if totals >> _ZERO & 1:
            return True
    return False


@lru_cache(maxsize=20_000)
def _ions(size: int, border: float, usable: tuple[int, ...]) -> tuple[int, int]:
    """Charges that a site can have with a cation, and with an anion, as bits."""
    gain = loss = 0
    for z in usable:
        symbol = chemical_symbols[z]
        value = electronegativity(symbol)
        if value is None or not oxidation_states().get(symbol):
            continue
        if value < border:
            gain |= ion_charges(symbol, size, 1)
        else:
            loss |= ion_charges(symbol, size, -1)
    return gain, loss


def _moved(totals: int, charges: int, up: bool) -> int:
    """The totals with one of the charges added or taken away."""
    out = 0
    for charge in set_bits(charges):
        out |= totals << charge if up else totals >> charge
    return out


def shared_out(target: Target, sizes: Sequence[int], rng: np.random.Generator) -> list[int] | None:
    """A random way to give each site an element so that a composition is met exactly; None if there is none.

    Args:
        target: The composition.
        sizes: Atoms of each site.
        rng: What to draw from.
    """
    rest = dict(target)
    if sum(rest.values()) != sum(sizes):
        return None
    chosen = [0] * len(sizes)
    order = rng.permutation(len(sizes)).tolist()
    for place, site in enumerate(order):
        after = tuple(sorted(sizes[other] for other in order[place + 1 :]))
        options = []
        for number, amount in rest.items():
            left = sorted(n - sizes[site] * (z == number) for z, n in rest.items())
            if amount >= sizes[site] and partitions(tuple(n for n in left if n), after):
                options.append(number)
        if not options:
            return None
        chosen[site] = int(rng.choice(options))
        rest[chosen[site]] -= sizes[site]
    return chosen


def check_elements(condition: Condition, learned: BoolArray) -> None:
    """Refuse elements that the weights have never seen.

    Raises:
        InputError: The condition asks for one.
    """
    unknown = [s for s in condition.exact_elements or condition.required_elements if not learned[atomic_numbers[s]]]
    if unknown:
        raise InputError(
            f"the flow has never seen {', '.join(unknown)}; drop it from the condition, or train on crystals with it"
        )

"""Which ion replaces which: pymatgen's substitution statistics as one table of log probabilities.

Source: Hautier et al., Data mined ionic substitutions for the discovery of new compounds, Inorg. Chem. 50, 656 (2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from paragenesis.crystals import BoolArray, FloatArray, IntArray

_Z_MAX = 103


@dataclass(frozen=True, eq=False)
class IonTable:
    """I ions with the probability that one takes the place of another.

    Attributes:
        numbers: Atomic number of each ion, ascending, shape `I`.
        charges: Its oxidation state, shape `I`.
        log_probability: ln p(new | old), shape `I x I`, rows new, columns old; each column's p sums to one.
        log_frequency: ln of how often an ion takes part in substitutions, shape `I`.
        metal: Whether the element of atomic number z is a metal, shape `104`.
        common: Atomic numbers that are sampled unless a condition says otherwise: in the statistics, not radioactive.
    """

    numbers: IntArray
    charges: IntArray
    log_probability: FloatArray
    log_frequency: FloatArray
    metal: BoolArray
    common: IntArray

    def ions(self, number: int) -> slice:
        """Where the ions of an element stand."""
        low, high = np.searchsorted(self.numbers, [number, number + 1])
        return slice(int(low), int(high))

    def log_given(self, number: int, ion: int | None) -> FloatArray:
        """Log p(new | old) for every new ion, shape `I`; of the likeliest old state where the ion is not known."""
        if ion is not None:
            return self.log_probability[:, ion]
        return np.asarray(self.log_probability[:, self.ions(number)].max(axis=1))

    def per_element(self, log_weights: FloatArray) -> FloatArray:
        """Largest of an element's log weights, `... x I` to `... x 104`; minus infinity for unknown elements."""
        present, starts = np.unique(self.numbers, return_index=True)
        best = np.full((*log_weights.shape[:-1], _Z_MAX + 1), -np.inf)
        best[..., present] = np.maximum.reduceat(log_weights, starts, axis=-1)
        return best

    def neutral(self, numbers: Sequence[int], counts: Sequence[int], log_weights: Sequence[FloatArray]) -> float:
        """Largest sum of log weights over the charge-neutral choices of one ion an element; minus infinity if none.

        Args:
            numbers: Atomic numbers of k elements.
            counts: Atoms of each.
            log_weights: A log weight for each ion of each element; k arrays of shape `I`.
        """
        chosen = [self.ions(z) for z in numbers]
        charge = reduce(np.add.outer, [m * self.charges[s] for m, s in zip(counts, chosen, strict=True)])
        weight = reduce(np.add.outer, [w[s] for w, s in zip(log_weights, chosen, strict=True)])
        return float(np.max(weight, where=charge == 0, initial=-np.inf))

    def guess_ions(self, numbers: Sequence[int], counts: Sequence[int]) -> list[int | None]:
        """The most frequent charge-neutral ions of a compound, one index an element; None each if there are none."""
        chosen = [self.ions(z) for z in numbers]
        charge = reduce(np.add.outer, [m * self.charges[s] for m, s in zip(counts, chosen, strict=True)])
        weight = reduce(np.add.outer, [self.log_frequency[s] for s in chosen])
        if not (charge == 0).any():
            return [None] * len(numbers)
        best = np.unravel_index(int(np.argmax(np.where(charge == 0, weight, -np.inf))), np.shape(charge))
        return [s.start + int(i) for s, i in zip(chosen, best, strict=True)]


@cache
def ion_table() -> IonTable:
    """The ions of pymatgen's statistics and the common ones that it lacks (Te2-, P3-, H-, ...); takes 2 s, once.

    For an ion without statistics, a partner of equal charge counts like the average pair of equal charge and any other
    like a pair that was never observed. An element without any oxidation state (He, Ne, Ar) is its own neutral ion.
    """
    from pymatgen.core import Element
    from pymatgen.core.structure_prediction.substitution_probability import SubstitutionProbability

    statistics = SubstitutionProbability().as_dict()["init_args"]
    observed = {(s.Z, int(s.oxi_state)) for pair in statistics["lambda_table"] for s in pair}
    elements = [Element.from_Z(z) for z in range(1, _Z_MAX + 1)]
    ions = observed | {(e.Z, int(q)) for e in elements for q in e.common_oxidation_states or (0,)}
    order = sorted(ions)
    place = {ion: i for i, ion in enumerate(order)}
    weights = np.full((len(order), len(order)), float(statistics["alpha"]))
    for pair, value in statistics["lambda_table"].items():
        i, *rest = [place[s.Z, int(s.oxi_state)] for s in pair]
        j = rest[0] if rest else i
        weights[i, j] = weights[j, i] = value
    numbers, charges = np.array(order, dtype=np.int64).T
    _fill_unobserved(weights, charges, np.array([ion in observed for ion in order]))
    total = np.exp(weights).sum(0)
    return IonTable(
        numbers=numbers,
        charges=charges,
        log_probability=weights - np.log(total),
        log_frequency=np.log(total / total.sum()),
        metal=np.array([False] + [bool(e.is_metal) for e in elements]),
        common=np.array(sorted({z for z, _ in observed if not elements[z - 1].is_radioactive and z not in (36, 54)})),
    )


def _fill_unobserved(weights: FloatArray, charges: IntArray, observed: BoolArray) -> None:
    """Give the ions that the statistics lack average weights, in place."""
    equal = charges[:, None] == charges[None, :]
    known = observed[:, None] & observed[None, :]
    itself = np.eye(len(charges), dtype=bool)
    weights[equal & ~known] = weights[equal & known & ~itself].mean()
    weights[itself & ~known] = weights[itself & known].mean()

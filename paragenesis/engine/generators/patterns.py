"""Patterns: how the sites of a template are grouped, each group to hold one element.

The full pattern of a template groups its sites by element. A partial pattern moves one symmetry orbit out of its
group, into a new group or into another one (symmetry-aware partial substitution: Merchant et al., Scaling deep
learning for materials discovery, Nature 624, 80 (2023)).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from ase.data import chemical_symbols

from paragenesis.crystals import IntArray
from paragenesis.engine.generators.ions import IonTable
from paragenesis.engine.generators.templates import Template


@dataclass(frozen=True, eq=False)
class Pattern:
    """A template whose n sites fall into k groups.

    Attributes:
        template: The template.
        groups: The group of each site, 0 to k - 1, shape `n`.
        swaps: What takes part in each swap: (group, old atomic number, old ion in the table or None), one for each
            old element, and one more for the moved orbit.
        moved: The orbit that left its element's group; None in a full pattern.
        kept: Groups that keep their element, with its atomic number.
    """

    template: Template
    groups: IntArray
    swaps: tuple[tuple[int, int, int | None], ...]
    moved: int | None = None
    kept: tuple[tuple[int, int], ...] = ()

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Sites in each group, `k` of them."""
        return tuple(np.bincount(self.groups).tolist())

    @cached_property
    def primitive(self) -> bool:
        """Whether no translation shorter than the cell's repeats the groups, as moving an orbit can bring about."""
        shifted = self.groups[self.template.translations]
        return not bool((shifted == self.groups).all(axis=1).any())

    @cached_property
    def space_group(self) -> int:
        """International number of the space group with a different element in each group, at 0.1 A; 0 if none."""
        from moyopy import Cell, MoyoDataset

        t = self.template
        cell = Cell(t.lattice.tolist(), t.frac.tolist(), (self.groups + 1).tolist())
        try:
            return int(MoyoDataset(cell, symprec=0.1).number)
        except ValueError:
            return 0

    def key(self, elements: tuple[int, ...]) -> tuple[str, bytes]:
        """Equal for the same decoration of the same template, up to the symmetry of its bare sites."""
        decorated = np.asarray(elements, dtype=np.uint8)[self.groups][self.template.permutations]
        return self.template.name, min(row.tobytes() for row in np.unique(decorated, axis=0))

    def describe(self, elements: tuple[int, ...]) -> str:
        """The template and the swaps in words."""
        t = self.template
        swaps = self.swaps if self.moved is None else self.swaps[:-1]
        words = [f"{chemical_symbols[z]} -> {chemical_symbols[elements[g]]}" for g, z, _ in swaps if z != elements[g]]
        if self.moved is not None:
            group, old, _ = self.swaps[-1]
            sites = int((t.orbits == self.moved).sum())
            words.append(
                f"orbit {self.moved} of {chemical_symbols[old]} ({sites}) -> {chemical_symbols[elements[group]]}"
            )
        return f"substitution in {t.title}: {', '.join(words) or 'nothing swapped'}"


def patterns_of(template: Template, table: IonTable) -> Iterator[Pattern]:
    """The full pattern of a template, then its partial ones, no grouping twice.

    Fixed sites form groups of their own, which keep their elements; an orbit of the others may join them.
    """
    elements, atoms = np.unique(template.numbers, return_counts=True)
    ions = dict(zip(elements.tolist(), table.guess_ions(elements.tolist(), atoms.tolist()), strict=True))
    fixed = np.isin(np.arange(len(template)), template.fixed)
    labels, groups, counts = np.unique(template.numbers * 2 + fixed, return_inverse=True, return_counts=True)
    numbers = (labels // 2).tolist()
    kept = tuple((g, numbers[g]) for g in range(len(labels)) if labels[g] % 2)
    full = Pattern(template, groups.astype(np.int64), tuple((g, z, ions[z]) for g, z in enumerate(numbers)), kept=kept)
    swaps, seen = full.swaps, {_partition(full.groups)}
    yield full
    for orbit in range(int(template.orbits.max()) + 1):
        sites = template.orbits == orbit
        old = int(groups[sites][0])
        if sites.sum() == counts[old] or old in dict(kept):
            continue  # the group's only orbit, of which nothing would be left, or a fixed one
        for target in range(len(numbers) + 1):
            moved = np.where(sites, target, full.groups)
            partition = _partition(moved)
            if partition not in seen:
                seen.add(partition)
                yield replace(full, groups=moved, swaps=(*swaps, (target, *swaps[old][1:])), moved=orbit)


def _partition(groups: IntArray) -> tuple[int, ...]:
    """Group labels renamed in the order of their first site."""
    names: dict[int, int] = {}
    return tuple(names.setdefault(g, len(names)) for g in groups.tolist())

"""New elements on a given geometry: the seed structure's orbits are walked in order, only their elements are drawn."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from paragenesis.crystals import Crystals, IntArray
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.engine.generators.volume import at_predicted_volume
from paragenesis.engine.generators.wyckoff import tokens as tk
from paragenesis.engine.generators.wyckoff.rules import BoolArray, Partial, Template
from paragenesis.errors import InputError

_LETTERS = string.ascii_lowercase + "A"
_FREE = 200  # added to the atomic numbers of free sites, so that symmetry tells them from fixed ones


@dataclass(frozen=True, eq=False)
class Geometry:
    """The orbits of a seed structure, in the order of their sites.

    Attributes:
        seed: The seed structure.
        group: Its space group, fixed and free sites told apart.
        sites: Wyckoff site of each orbit.
        fixed: Atomic number of each orbit, 0 where it is free.
        orbit: The orbit of each site of the seed.
    """

    seed: SeedStructure
    group: int
    sites: tuple[int, ...]
    fixed: tuple[int, ...]
    orbit: IntArray

    @classmethod
    def of(cls, seed: SeedStructure, symprec: float = 0.1) -> Geometry:
        """Find the orbits.

        Raises:
            InputError: The symmetry search fails, or there are more orbits than the network reads.
        """
        import moyopy

        free = np.ones(len(seed), dtype=np.bool_)
        free[list(seed.fixed)] = False
        marked = np.array(seed.numbers) + _FREE * free
        cell = moyopy.Cell([list(v) for v in seed.lattice], [list(f) for f in seed.frac], marked.tolist())
        try:
            found = moyopy.MoyoDataset(cell, symprec=symprec, setting=moyopy.Setting.standard())
        except ValueError as error:
            raise InputError(f"the seed structure has no symmetry that can be found ({error}); mend it") from None
        members = np.array(found.orbits, dtype=np.int64)
        first = sorted(set(members.tolist()), key=lambda i: (_LETTERS.index(found.wyckoffs[i]), i))
        if len(first) > tk.MAX_ORBITS:
            raise InputError(
                f"the seed structure has {len(first)} orbits; the Wyckoff transformer reads {tk.MAX_ORBITS}"
            )
        place = {start: k for k, start in enumerate(first)}
        return cls(
            seed,
            int(found.number),
            tuple(_LETTERS.index(found.wyckoffs[i]) for i in first),
            tuple(0 if free[i] else int(seed.numbers[i]) for i in first),
            np.array([place[m] for m in members.tolist()], dtype=np.int64),
        )

    def decorated(self, templates: Sequence[Template]) -> Crystals:
        """The seed's geometry with each template's elements, at the volume predicted for them."""
        seed = self.seed.crystal
        numbers = np.array([t.numbers for t in templates], dtype=np.int64)[:, self.orbit]
        n = len(templates)
        same = Crystals(
            ids=tuple(map(str, range(n))),
            n_atoms=np.full(n, len(self.seed)),
            numbers=numbers.reshape(-1),
            frac=np.tile(seed.frac, (n, 1)),
            lattices=np.repeat(seed.lattices, n, axis=0),
            origins=("Wyckoff transformer: seed structure decorated anew",) * n,
        )
        return replace(at_predicted_volume(same))


class SeedRules:
    """The sites are those of the geometry; only its free orbits take new elements."""

    def __init__(self, geometry: Geometry, allowed: BoolArray) -> None:
        """Take the geometry and the atomic numbers that may be used, shape `104`."""
        self.geometry, self.allowed = geometry, allowed

    def groups(self, n: int) -> BoolArray:
        """The seed's space group, shape `n x 230`."""
        mask = np.zeros((n, tk.GROUPS), dtype=np.bool_)
        mask[:, self.geometry.group - 1] = True
        return mask

    def sites(self, partial: Partial) -> BoolArray:
        """The next orbit's site, or END after the last, shape `B x 28`."""
        mask = np.zeros((len(partial), tk.SITES), dtype=np.bool_)
        path = np.array([*self.geometry.sites, tk.END])
        mask[np.arange(len(partial)), path[np.minimum(partial.orbits, len(path) - 1)]] = True
        return mask

    def elements(self, partial: Partial) -> BoolArray:
        """The orbit's fixed element, or every allowed one, shape `B x 103`."""
        mask = np.broadcast_to(self.allowed, (len(partial), tk.ELEMENTS + 1)).copy()
        fixed = np.array([*self.geometry.fixed, 0])[np.minimum(partial.orbits, len(self.geometry.fixed))]
        held = np.flatnonzero(fixed)
        mask[held] = False
        mask[held, fixed[held]] = True
        return mask[:, 1:]

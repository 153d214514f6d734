"""Has it been seen: a growing registry of crystals, compared by key first and by StructureMatcher inside a key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from paragenesis.crystals import Crystals
from paragenesis.engine.screening.fingerprint import comparison_cell, parts_of
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from pymatgen.core.structure_matcher import StructureMatcher

_CACHED_CELLS = 5_000  # comparison cells kept ready, about 10 kB each


class Seen:
    """Crystals seen so far.

    Two crystals are the same if formula and size of the primitive cell agree and pymatgen's StructureMatcher maps
    one onto the other at equal volume. Only arrays are stored and pickled; structures are built when first compared.

    Example:
        >>> seen = Seen()
        >>> seen.add(crystals, fingerprints(crystals, symprec=0.1).keys)
        >>> seen.match(crystals[0], key)
        "0"
    """

    def __init__(self, settings: ScreeningSettings | None = None) -> None:
        """An empty registry that compares with the tolerances of `settings`."""
        self._settings = settings or ScreeningSettings()
        self._batches: list[Crystals] = []
        self._places: list[tuple[int, int]] = []  # batch, and index in it, of each crystal
        self._keys: list[str] = []
        self._buckets: dict[tuple[str, int], list[int]] = defaultdict(list)
        self._cells: dict[int, Structure] = {}
        self._matcher: StructureMatcher | None = None

    def __len__(self) -> int:
        """How many crystals have been seen."""
        return len(self._places)

    def add(self, crystals: Crystals, keys: Sequence[str]) -> None:
        """Remember crystals under their keys (see `fingerprints`).

        Raises:
            InputError: There are not as many keys as crystals.
        """
        if len(keys) != len(crystals):
            raise InputError(f"each crystal needs one key, but {len(crystals)} crystals came with {len(keys)} keys")
        for index, key in enumerate(keys):
            formula, n_primitive, _ = parts_of(key)
            self._buckets[formula, n_primitive].append(len(self._places))
            self._places.append((len(self._batches), index))
            self._keys.append(key)
        self._batches.append(crystals)

    def match(self, crystal: Crystals, key: str) -> str | None:
        """The id of a crystal seen before that is the same as this one, or None.

        Args:
            crystal: A batch of one.
            key: Its key.
        """
        formula, n_primitive, group = parts_of(key)
        bucket = self._buckets.get((formula, n_primitive))
        if not bucket:
            return None
        cell = comparison_cell(crystal, 0, self._settings.symprec)
        # Equal space groups first: a duplicate is usually among them, and the search ends there.
        for place in sorted(bucket, key=lambda place: parts_of(self._keys[place])[2] != group):
            if self._fits(cell, self._cell(place)):
                batch, index = self._places[place]
                return self._batches[batch].ids[index]
        return None

    def _cell(self, place: int) -> Structure:
        """The comparison cell of a crystal seen before."""
        if place not in self._cells:
            if len(self._cells) >= _CACHED_CELLS:
                self._cells.clear()
            batch, index = self._places[place]
            self._cells[place] = comparison_cell(self._batches[batch], index, self._settings.symprec)
        return self._cells[place]

    def _fits(self, one: Structure, other: Structure) -> bool:
        """True if two primitive, reduced cells hold the same crystal."""
        if self._matcher is None:
            from pymatgen.core.structure_matcher import StructureMatcher

            self._matcher = StructureMatcher(
                ltol=self._settings.length_tolerance,
                stol=self._settings.site_tolerance,
                angle_tol=self._settings.angle_tolerance,
            )
        return bool(self._matcher.fit(one, other, skip_structure_reduction=True))

    def __getstate__(self) -> dict[str, Any]:
        order = Crystals.concatenate(self._batches)
        return {"settings": self._settings, "crystals": order, "keys": self._keys}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])  # type: ignore[misc]
        if state["keys"]:
            self.add(state["crystals"], state["keys"])

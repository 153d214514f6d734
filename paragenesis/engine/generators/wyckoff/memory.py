"""What the weights have seen: a number for each decorated template, so that a generator need not repeat it.

A decorated template is a space group with elements on its sites, whichever of the equivalent origins and axes they
are told in. Two crystals with the same one differ in free coordinates at most, and mostly relax into each other. A
bare template says of the elements only which sites share one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import IntArray
from paragenesis.engine.generators.wyckoff.normaliser import site_permutations

if TYPE_CHECKING:
    from paragenesis.engine.generators.wyckoff.form import WyckoffForm
    from paragenesis.engine.generators.wyckoff.rules import Template

_ROOM = 128  # more than there are elements


def template_number(template: Template | WyckoffForm) -> int:
    """The number of a decorated template: 64 bits of a hash, signed."""
    sites, numbers = np.array(template.sites), np.array(template.numbers)
    told = np.sort(site_permutations(template.group)[:, sites] * _ROOM + numbers, axis=1)
    least = told[np.lexsort(told.T[::-1])[0]]
    return _hashed(f"{template.group}:{least.tolist()}")


def bare_number(template: Template | WyckoffForm) -> int:
    """The number of a bare template: the same for all that differ in their elements alone."""
    numbers = np.array(template.numbers)
    told = site_permutations(template.group)[:, np.array(template.sites)]
    kinds = [numbers == z for z in np.unique(numbers)]
    least = min(sorted(sorted(row[kind].tolist()) for kind in kinds) for row in told)
    return _hashed(f"{template.group}:{least}")


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def known_keys(templates: Iterable[Template | WyckoffForm]) -> IntArray:
    """The numbers of templates, sorted and without repeats."""
    return np.unique(np.array([template_number(one) for one in templates], dtype=np.int64))


def bare_keys(templates: Iterable[Template | WyckoffForm]) -> IntArray:
    """The numbers of bare templates, sorted and without repeats."""
    return np.unique(np.array([bare_number(one) for one in templates], dtype=np.int64))

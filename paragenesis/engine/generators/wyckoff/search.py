"""One call of the generator: batches of templates, geometries for each, and what is kept of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import BoolArray, Crystals, FloatArray
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.wyckoff.build import closest_contacts, to_crystals
from paragenesis.engine.generators.wyckoff.contacts import contact_penalty
from paragenesis.engine.generators.wyckoff.decorate import Geometry, SeedRules
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.memory import bare_number, template_number
from paragenesis.engine.generators.wyckoff.rules import Rules, Template
from paragenesis.engine.generators.wyckoff.sample import Drawn, Sampler
from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites

if TYPE_CHECKING:
    from paragenesis.engine.generators.learned.context import Context
    from paragenesis.engine.generators.wyckoff.generator import WyckoffSettings

_CHECKED = frozenset({"space_group", "seed_structure", "charge_neutral"})  # seen on the finished crystal once more
_PATIENCE = 6  # batches in a row without a new crystal after which there are taken to be no more
_EFFORT = 8  # templates for each crystal asked for, after which strained ones are good enough
_FIRST_TRIES = 2  # geometries of a template before the first look at them


@dataclass
class Search:
    """Crystals under one condition.

    Attributes:
        settings: How crystals are drawn.
        sampler: Draws from the network.
        wanted: What is wanted, as the network reads it.
        open_: The same without wished properties, for guidance; None for none.
        rules: What is allowed.
        condition: What the crystals must obey.
        geometry: That of the seed structure, if the condition has one.
        known: Numbers of decorated templates to leave out.
        templates: Numbers of the bare templates that are not new; needed where a share of new ones is asked for.
        contacts: Typical distances between elements, angstrom, shape `104 x 104`.
    """

    settings: WyckoffSettings
    sampler: Sampler
    wanted: Context
    open_: Context | None
    rules: Rules | SeedRules
    condition: Condition
    geometry: Geometry | None
    known: frozenset[int]
    templates: frozenset[int]
    contacts: FloatArray
    _seen: set[int] = field(default_factory=set)
    _strained: list[tuple[float, Crystals]] = field(default_factory=list)
    _room: int = 0  # for crystals of familiar templates

    def crystals(self, n: int) -> Crystals:
        """Up to n crystals; the least strained of those that were put aside fill up what a long search did not find."""
        self._room = math.floor((1 - self.settings.new_templates) * n)
        kept: list[Crystals] = []
        found = idle = drawn = 0
        while found < n and idle < _PATIENCE:
            if drawn >= _EFFORT * n and found + len(self._strained) >= n:
                break
            batch, aside = self._batch(n - found, found, drawn), len(self._strained)
            crystals = self._draw(batch)
            drawn += batch
            idle = 0 if len(crystals) or len(self._strained) > aside else idle + 1
            found += len(crystals)
            kept.append(crystals)
        spare = sorted(self._strained, key=lambda one: one[0])[: max(n - found, 0)]
        tally = self.sampler.tally
        tally.strained += len(self._strained) - len(spare)
        tally.kept += found + len(spare)
        return Crystals.concatenate([*kept, *(crystal for _, crystal in spare)])[:n] if kept else Crystals.empty()

    def _batch(self, missing: int, found: int, drawn: int) -> int:
        """How many templates to draw for the crystals still missing, by what came of those before."""
        needed = missing * drawn / found if found else 1.25 * missing
        return min(self.settings.batch, 32 + math.ceil(needed))

    def _draw(self, batch: int) -> Crystals:
        """The new crystals that come of so many templates."""
        settings = self.settings
        drawn = self.sampler.templates(
            self.wanted,
            self.open_,
            self.rules,
            batch,
            site_temperature=settings.site_temperature,
            element_temperature=settings.element_temperature,
        )
        fresh = self._fresh(drawn.templates)
        if self.geometry is not None:
            crystals = self._apart(self.geometry.decorated([drawn.templates[i] for i in fresh]))
            return crystals[self._obedient(crystals)]
        crystals, strain, places = self._placed(drawn, fresh)
        familiar = np.array([self._familiar(drawn.templates[i]) for i in places], dtype=np.bool_)
        obedient, sound = self._obedient(crystals), self._sound(strain)
        aside = np.flatnonzero(obedient & ~sound & ~familiar)
        self._strained += [(float(strain[i]), crystals[i]) for i in aside.tolist()]
        good = obedient & sound
        too_many = familiar & (np.cumsum(good & familiar) > self._room)
        self._room -= int((good & familiar & ~too_many).sum())
        self.sampler.tally.familiar += int((good & too_many).sum())
        return crystals[good & ~too_many]

    def _familiar(self, template: Template) -> bool:
        """Whether the training data hold the template with some elements, where that matters."""
        return bool(self.templates) and bare_number(template) in self.templates

    def _sound(self, strain: FloatArray) -> BoolArray:
        """Which crystals are no more strained than they may be."""
        return np.asarray(strain <= self.settings.strain)

    def _fresh(self, templates: list[Template]) -> list[int]:
        """Places of compounds that neither this search has met nor the training data; elements only if asked for."""
        wanted, tally = self.condition.exact_elements, self.sampler.tally
        pure = wanted is not None and len(wanted) == 1
        out = []
        for place, template in enumerate(templates):
            number = template_number(template)
            if len(set(template.numbers)) == 1 and not pure:
                tally.elemental += 1
            elif number in self._seen:
                tally.repeated += 1
            elif number in self.known:
                tally.known += 1
            elif not self._room and self._familiar(template):
                tally.familiar += 1
            else:
                out.append(place)
            self._seen.add(number)
        return out

    def _placed(self, drawn: Drawn, fresh: list[int]) -> tuple[Crystals, FloatArray, list[int]]:
        """The best geometry of each fresh template that has one without a clash, its contact penalty and its place."""
        best: dict[int, WyckoffForm] = {}
        strain = dict.fromkeys(fresh, np.inf)
        for tries in _rounds(self.settings.tries):
            open_ = [place for place, penalty in strain.items() if penalty > self.settings.strain]
            if not open_:
                break
            for place, penalty, form in self._tried(drawn, open_, tries):
                if penalty < strain[place]:
                    strain[place], best[place] = penalty, form
        places = sorted(best)
        self.sampler.tally.clashing += len(fresh) - len(places)
        chosen = [best[place] for place in places]
        crystals = to_crystals(chosen, [_origin(form) for form in chosen])
        return crystals, np.array([strain[place] for place in places]), places

    def _tried(self, drawn: Drawn, places: list[int], tries: int) -> Iterator[tuple[int, float, WyckoffForm]]:
        """So many geometries of some templates, each with its template's place and its penalty."""
        made = self.sampler.geometries(drawn, places, tries, self.settings.geometry_temperature)
        found = [(place, form) for place, forms in made for form in forms]
        if found:
            crystals = to_crystals([form for _, form in found])
            penalty = contact_penalty(crystals, self.contacts, self.settings.closest)
            yield from ((place, p, form) for (place, form), p in zip(found, penalty.tolist(), strict=True))

    def _apart(self, crystals: Crystals) -> Crystals:
        """The crystals whose atoms keep their distance."""
        good = closest_contacts(crystals) >= self.settings.closest if len(crystals) else np.zeros(0, dtype=np.bool_)
        self.sampler.tally.clashing += int((~good).sum())
        return crystals[good]

    def _obedient(self, crystals: Crystals) -> BoolArray:
        """Which crystals obey; the rules leave little to find, but for accidental symmetry."""
        if not len(crystals) or not self.condition.parts() & _CHECKED:
            return np.ones(len(crystals), dtype=np.bool_)
        good = np.array([not violation for violation in self.condition.violations(crystals)], dtype=np.bool_)
        self.sampler.tally.disobedient += int((~good).sum())
        return good


def _rounds(tries: int) -> Iterator[int]:
    """How many geometries to draw between two looks at them: few, and as many again as there were."""
    drawn = 0
    while drawn < tries:
        more = min(max(drawn, _FIRST_TRIES), tries - drawn)
        yield more
        drawn += more


def _origin(form: WyckoffForm) -> str:
    """How a crystal was made: "Wyckoff transformer, Fm-3m (225): Na on a, Cl on b"."""
    from ase.data import chemical_symbols

    sites = wyckoff_sites(form.group)
    orbits = ", ".join(
        f"{chemical_symbols[z]} on {sites[s].multiplicity}{sites[s].letter}"
        for s, z in zip(form.sites, form.numbers, strict=True)
    )
    return f"Wyckoff transformer, {_symbol(form.group)} ({form.group}): {orbits}"


@cache
def _symbol(group: int) -> str:
    """The short Hermann-Mauguin symbol of a space group."""
    from moyopy import SpaceGroupType

    return str(SpaceGroupType(group).hm_short).replace(" ", "")

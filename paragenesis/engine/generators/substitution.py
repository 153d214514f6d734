"""Ionic substitution: new elements on the sites of known prototypes, the volume predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from pydantic import Field

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.condition import PARTS, Condition
from paragenesis.engine.generators.contract import refuse_unhonoured
from paragenesis.engine.generators.decorations import Chemistry, Decoration, DecorationSpace, Weights
from paragenesis.engine.generators.ions import IonTable, ion_table
from paragenesis.engine.generators.patterns import Pattern, patterns_of
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.engine.generators.templates import AFLOW, Template, TemplateLibrary
from paragenesis.engine.generators.volume import at_predicted_volume
from paragenesis.errors import InputError
from paragenesis.settings import Settings

_SEEN_ON_CRYSTALS = frozenset({"space_group", "seed_structure"})  # what rattling or a new volume may spoil


class SubstitutionSettings(Settings):
    """How substitution works.

    Attributes:
        templates: Where prototypes come from: "aflow", and/or paths of structure files or folders of them.
        partial_share: Share of draws in which one symmetry orbit leaves its element's group; 0 for whole elements only.
        temperature: Flattens the probabilities: 1 follows the statistics, more explores, less repeats the likeliest.
        charged_weight: Weight of a decoration without charge-neutral oxidation states, beside a neutral one; 0 forbids.
        rattle: Standard deviation of a random displacement of each coordinate, angstrom.
        symprec: Tolerance of the symmetry search in the templates, angstrom.
    """

    templates: tuple[str, ...] = Field(default=(AFLOW,), min_length=1)
    partial_share: float = Field(default=0.5, ge=0.0, le=1.0)
    temperature: float = Field(default=3.0, gt=0.0)
    charged_weight: float = Field(default=0.03, ge=0.0, le=1.0)
    rattle: float = Field(default=0.0, ge=0.0, le=0.5)
    symprec: float = Field(default=0.01, gt=0.0, le=0.5)


@dataclass(frozen=True)
class _Filter:
    """One reason to leave patterns out: what must hold, and what to do if it never does."""

    wanted: str
    keeps: Callable[[Pattern], bool]
    cure: str


class Substitution:
    """The generator that puts new elements on the sites of known prototypes; honours every part but properties.

    A condition's seed structure takes the place of the prototypes: its free sites are decorated. Pure elements are made
    only where the condition names a single element. Radioactive elements, noble gases and elements without substitution
    statistics take part only where the condition names them. Templates and the possibilities of each condition are
    kept, so that further calls cost only the crystals they return.
    """

    honours: frozenset[str] = PARTS - {"properties"}

    def __init__(self, settings: SubstitutionSettings | None = None, directory: Path = Path()) -> None:
        """Take the settings; templates are read when first needed.

        Args:
            settings: How substitution works.
            directory: The folder that relative paths of templates start from.
        """
        self.settings = settings or SubstitutionSettings()
        sources = [source if source == AFLOW else str(directory / source) for source in self.settings.templates]
        self.library = TemplateLibrary(sources, self.settings.symprec)
        self._spaces: dict[Condition, DecorationSpace] = {}

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        """Up to n distinct crystals that obey the condition, the likely ones first; fewer only if fewer exist.

        Raises:
            InputError: No template can be decorated as the condition asks.
        """
        refuse_unhonoured("substitution", self.honours, condition)
        if n < 0:
            raise InputError(f"{n} crystals were asked for; ask for 0 or more")
        rng = np.random.default_rng(seed)
        space = self.space(condition)
        checked = condition.parts() & _SEEN_ON_CRYSTALS
        kept: list[Crystals] = []
        for decoration in space.draw(rng) if n else ():
            crystal = self._build(decoration, len(kept), rng)
            if not checked or not condition.violations(crystal)[0]:
                kept.append(crystal)
            if len(kept) == n:
                break
        if n and not kept:
            raise InputError(_nothing(condition))
        return Crystals.concatenate(kept)

    def space(self, condition: Condition) -> DecorationSpace:
        """All decorations that obey a condition, kept from call to call.

        Raises:
            InputError: There are none.
        """
        if condition not in self._spaces:
            chemistry = _chemistry(condition, self._table)
            patterns = self._fitting(condition, chemistry)
            weights = Weights(
                self._table, self.settings.charged_weight, self.settings.temperature, condition.charge_neutral
            )
            space = DecorationSpace(patterns, chemistry, weights, self.settings.partial_share)
            if space.distinct == 0:
                cure = "" if condition.charge_neutral else "raise charged_weight above 0 or "
                raise InputError(
                    f"no decoration of {self._source(condition)} is charge-neutral under this condition; {cure}allow "
                    "other elements"
                )
            self._spaces[condition] = space
        return self._spaces[condition]

    @property
    def _table(self) -> IonTable:
        return ion_table()

    @cached_property
    def _patterns(self) -> tuple[Pattern, ...]:
        """Every pattern of every template."""
        return tuple(p for template in self.library.templates for p in patterns_of(template, self._table))

    def _seeded(self, seed: SeedStructure) -> list[Pattern]:
        """The patterns of a seed structure."""
        return list(patterns_of(Template.of_seed(seed, self.settings.symprec), self._table))

    def _fitting(self, condition: Condition, chemistry: Chemistry) -> list[Pattern]:
        """The patterns that can be decorated as a condition asks."""
        patterns = list(self._patterns if condition.seed_structure is None else self._seeded(condition.seed_structure))
        for test in self._filters(condition, chemistry):
            left = [p for p in patterns if test.keeps(p)]
            if not left:
                raise InputError(
                    f"no candidate: of the {len(patterns)} patterns of {self._source(condition)} still in question, "
                    f"none {test.wanted}; {test.cure}"
                )
            patterns = left
        return patterns

    def _source(self, condition: Condition) -> str:
        """Where patterns come from, in words."""
        seeded = condition.seed_structure is not None
        return "the seed structure" if seeded else f"{len(self.library.templates)} templates"

    def _filters(self, condition: Condition, chemistry: Chemistry) -> Iterator[_Filter]:
        """What a pattern must pass, the cheap tests first."""
        share = self.settings.partial_share
        more = "fix other sites" if condition.seed_structure is not None else "add templates of your own"
        if condition.prototype is not None:
            named = {t.name for t in self.library.named(condition.prototype)}
            yield _Filter(
                f"is the undivided prototype '{condition.prototype}'",
                lambda p: p.template.name in named and p.moved is None,
                "name another prototype",
            )
        if share in (0.0, 1.0) and condition.prototype is None and condition.seed_structure is None:
            kind = "partial" if share else "full"
            yield _Filter(
                f"is a {kind} substitution", lambda p: (p.moved is not None) == bool(share), "change partial_share"
            )
        low, high = condition.min_atoms, condition.max_atoms
        yield _Filter(
            f"has {low} to {high} atoms", lambda p: low <= len(p.groups) <= high, "widen min_atoms and max_atoms"
        )
        elements = len(chemistry.allowed)
        yield _Filter(
            f"takes {_elements_wanted(chemistry)}",
            lambda p: len(p.counts) > 1 or elements == 1,
            "add templates of your own or ask for another number of elements",
        )
        what = f"the composition {condition.composition}" if condition.composition else _elements_wanted(chemistry)
        yield _Filter(
            f"can hold {what}",
            lambda p: chemistry.count(p) > 0,
            f"{more} or ask for another composition",
        )
        if condition.seed_structure is None:  # its cell is kept, whatever translations the decoration leaves
            yield _Filter("has a primitive cell of that size", lambda p: p.primitive, "lower min_atoms")
        if condition.space_group is not None:
            yield _Filter(
                f"has space group {condition.space_group}",
                lambda p: p.space_group == condition.space_group,
                f"ask for another space group or {more}",
            )

    def _build(self, decoration: Decoration, index: int, rng: np.random.Generator) -> Crystals:
        """The crystal of a decoration, at its predicted volume."""
        pattern, elements = decoration
        template: Template = pattern.template
        crystal = at_predicted_volume(
            Crystals(
                ids=(str(index),),
                n_atoms=np.array([len(template)]),
                numbers=np.asarray(elements)[pattern.groups],
                frac=template.frac,
                lattices=template.lattice[None],
                origins=(pattern.describe(elements),),
            )
        )
        return _rattled(crystal, self.settings.rattle, rng) if self.settings.rattle else crystal


def _nothing(condition: Condition) -> str:
    """Why no crystal came of the decorations, in words."""
    if condition.space_group is not None:
        return (
            f"every decoration misses space group {condition.space_group} at its predicted volume; ask for another "
            "space group or more atoms"
        )
    if condition.seed_structure is not None:
        return "every decoration strays from the seed structure; lower rattle or free more sites"
    return "no decoration of the templates was found to be charge-neutral under this condition; allow other elements"


def _rattled(crystal: Crystals, sigma: float, rng: np.random.Generator) -> Crystals:
    """The crystal with every coordinate displaced at random by `sigma` angstrom."""
    from dataclasses import replace

    shift = rng.normal(scale=sigma, size=crystal.frac.shape) @ np.linalg.inv(crystal.lattices[0])
    return replace(crystal, frac=(crystal.frac + shift) % 1.0)


def _chemistry(condition: Condition, table: IonTable) -> Chemistry:
    """The elements of a condition as atomic numbers."""
    exact = condition.exact_elements
    required = _numbers(exact if exact is not None else condition.required_elements)
    if exact is not None:
        allowed = required
    elif condition.allowed_elements is not None:
        allowed = _numbers(condition.allowed_elements)
    else:
        allowed = tuple(sorted({*table.common.tolist(), *required}))
    return Chemistry(allowed, required, {atomic_numbers[e]: m for e, m in condition.formula_unit.items()})


def _numbers(symbols: Sequence[str]) -> tuple[int, ...]:
    return tuple(sorted(atomic_numbers[symbol] for symbol in symbols))


def _elements_wanted(chemistry: Chemistry) -> str:
    """How many elements a crystal may have, in words."""
    low, high = max(len(chemistry.required), min(2, len(chemistry.allowed))), len(chemistry.allowed)
    return f"{low} elements" if low == high else f"{low} to {high} elements"

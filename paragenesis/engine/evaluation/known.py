"""What is known already: crystals, Wyckoff templates and formulas that generated crystals are held against."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from paragenesis.crystals import BoolArray, Crystals
from paragenesis.engine.screening.chemistry import formula_text, reduced_composition
from paragenesis.engine.screening.files import cif_table
from paragenesis.engine.screening.fingerprint import fingerprints
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.reference import load_reference
from paragenesis.engine.screening.sanitise import sanitise, sanitise_text
from paragenesis.engine.screening.settings import AFLOW, ScreeningSettings
from paragenesis.engine.screening.validity import LAST_ELEMENT
from paragenesis.engine.tables import read_table
from paragenesis.errors import InputError, RejectedInput
from paragenesis.settings import shown

_FORMULA = re.compile(r"^_chemical_formula_sum\s+['\"]?([^'\"\n]+)", re.MULTILINE)
_AMOUNT = re.compile(r"([A-Z][a-z]?)(\d*)")
_PLAIN = re.compile(r"(?:[A-Z][a-z]?\d*\s*)+")

Anonymous = tuple[int, ...]  # atoms of each element in the reduced formula, sorted: (1, 1, 3) for CaTiO3


class KnownCrystals(Protocol):
    """Crystals that novelty is judged against; `screening.reference.Reference` is one."""

    name: str

    def match(self, crystal: Crystals, key: str) -> str | None:
        """The id of a known crystal that is the same as this one, or None."""
        ...


class KnownTemplates(Protocol):
    """Wyckoff templates of known crystals."""

    def holds(self, templates: Sequence[str], crystals: Crystals) -> BoolArray:
        """Whether each of n templates is known, shape `n`; `crystals` are what they were found in."""
        ...


@dataclass(frozen=True, kw_only=True)
class Known:
    """What generated crystals are held against.

    Attributes:
        crystals: Sets of known crystals.
        templates: Their Wyckoff templates; None where these are not asked for.
        formulas: Formulas of the hull's table, as `formula_text` writes them.
        table: What that table is called.
        notes: What a reader must know about them, in sentences.
    """

    crystals: tuple[KnownCrystals, ...]
    templates: KnownTemplates | None
    formulas: frozenset[str]
    table: str
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What novelty is judged against, in words."""
        return " and ".join(one.name for one in self.crystals)


def known_from_files(references: Sequence[Path], hull: Path | None, settings: ScreeningSettings) -> Known:
    """What some files hold.

    Args:
        references: Files with known crystals; without any, the AFLOW prototypes.
        hull: The hull's table; None for the embedded one.
        settings: Tolerances of the comparison.

    Raises:
        InputError: A file is missing or cannot be read.
    """
    paths = [str(path) for path in references] or [AFLOW]
    sets = tuple(load_reference(settings.model_copy(update={"reference": path})) for path in paths)
    table, formulas = listed_formulas(hull)
    notes = []
    if not references:
        notes.append(
            f"No reference was given: novelty is judged against {len(sets[0])} AFLOW prototypes in their own chemistry "
            "alone, so nearly everything looks novel."
        )
    if hull is None:
        notes.append(
            "No hull was given: the embedded one is sparse, so much looks more stable and less known than it is."
        )
    return Known(
        crystals=sets,
        templates=TemplateBook.from_files(references, settings.symprec) if references else None,
        formulas=formulas,
        table=table,
        notes=tuple(notes),
    )


# --- formulas --------------------------------------------------------------------------------------------------------


def listed_formulas(hull: Path | None) -> tuple[str, frozenset[str]]:
    """Name and formulas of a hull's table, or of the embedded hull; formulas as `formula_text` writes them.

    Raises:
        InputError: The file cannot be read.
    """
    if hull is None:
        from paragenesis.engine.embedded import embedded_phases

        phases = embedded_phases()
        return phases.name, frozenset(map(_formula, phases.formulas))
    return hull.name, frozenset(_formula(str(f)) for f in read_table(hull, ["formula"])["formula"].to_pylist())


def _formula(text: str) -> str:
    """A formula as `formula_text` writes it."""
    return formula_text(reduced_composition(_amounts(text)))


def _amounts(text: str) -> dict[int, int]:
    """Atoms of each element by atomic number, in the smallest formula with whole numbers.

    Raises:
        InputError: The text is no formula.
    """
    from ase.data import atomic_numbers

    amounts: Counter[int] = Counter()
    try:
        if _PLAIN.fullmatch(text) and all(symbol in atomic_numbers for symbol, _ in _AMOUNT.findall(text)):
            for symbol, amount in _AMOUNT.findall(text):  # ten times faster than pymatgen, for 95,000 formulas
                amounts[atomic_numbers[symbol]] += int(amount or 1)
        else:
            amounts.update(_thorough_amounts(text))
    except (ValueError, ArithmeticError, LookupError, RecursionError):
        amounts.clear()
    if not amounts or min(amounts.values()) < 1 or not 1 <= min(amounts) <= max(amounts) <= LAST_ELEMENT:  # "Na0", "Xx"
        raise InputError(f"{shown(text)} is no chemical formula; write it like CaTiO3")
    return amounts


def _thorough_amounts(text: str) -> dict[int, int]:
    """The same by pymatgen, which knows brackets and fractions."""
    from pymatgen.core import Composition

    whole, _ = Composition(text).element_composition.get_integer_formula_and_factor()
    return {element.Z: round(amount) for element, amount in Composition(whole).items()}


def anonymous(amounts: Iterable[int]) -> Anonymous:
    """Numbers of atoms of the elements as an anonymous reduced formula."""
    counts = sorted(amounts)
    divisor = math.gcd(*counts)
    return tuple(count // divisor for count in counts)


def anonymous_formula(crystals: Crystals, index: int) -> Anonymous:
    """The anonymous reduced formula of one crystal of a batch."""
    return anonymous(np.unique(crystals.numbers[crystals.atoms_of(index)], return_counts=True)[1].tolist())


# --- templates -------------------------------------------------------------------------------------------------------


def wyckoff_templates(crystals: Crystals, symprec: float) -> list[str]:
    """The Wyckoff template of each of n valid crystals: space group and occupied sites, elements anonymous.

    "" where none was found.
    """
    from paragenesis.engine.generators.wyckoff.form import WyckoffForm, template_key, wyckoff_forms

    keys: dict[tuple[int, tuple[tuple[int, ...], ...]], str] = {}  # many crystals, few templates

    def key_of(form: WyckoffForm) -> str:
        kinds: dict[int, list[int]] = {}
        for site, number in zip(form.sites, form.numbers, strict=True):
            kinds.setdefault(number, []).append(site)
        described = form.group, tuple(sorted(tuple(sorted(sites)) for sites in kinds.values()))
        if described not in keys:
            keys[described] = template_key(form)
        return keys[described]

    return ["" if isinstance(form, str) else key_of(form) for form in wyckoff_forms(crystals, symprec)]


class TemplateBook:
    """Wyckoff templates of the crystals of some files, found only as far as they are asked for.

    A crystal is parsed once a template of its anonymous formula is asked for, and its Wyckoff form is sought only where
    its space group is that of such a template, too.
    """

    def __init__(self, rows: Iterable[tuple[Anonymous, str | Crystals]], symprec: float) -> None:
        """Rows of an anonymous formula with a CIF text or a batch of one."""
        self._symprec = symprec
        self._rows: dict[Anonymous, list[str | Crystals]] = defaultdict(list)
        for formula, row in rows:
            self._rows[formula].append(row)
        self._parsed: dict[Anonymous, dict[int, Crystals]] = {}
        self._found: dict[tuple[Anonymous, int], frozenset[str]] = {}

    @classmethod
    def from_files(cls, paths: Sequence[Path], symprec: float) -> TemplateBook:
        """The crystals of files that `sanitise` reads.

        Raises:
            InputError: A file is missing or cannot be read.
        """
        return cls((row for path in paths for row in _rows_of(path)), symprec)

    def holds(self, templates: Sequence[str], crystals: Crystals) -> BoolArray:
        """Whether each of n templates occurs in the files, shape `n`; "" does not."""
        known = np.zeros(len(templates), dtype=np.bool_)
        for i, template in enumerate(templates):
            if template:
                group = int(template.split("|")[0])
                known[i] = template in self._templates(anonymous_formula(crystals, i), group)
        return known

    def _templates(self, formula: Anonymous, group: int) -> frozenset[str]:
        """Templates of all crystals with an anonymous formula and a space group."""
        if (formula, group) not in self._found:
            crystals = self._by_group(formula).get(group, Crystals.empty())
            self._found[formula, group] = frozenset(wyckoff_templates(crystals, self._symprec)) - {""}
        return self._found[formula, group]

    def _by_group(self, formula: Anonymous) -> dict[int, Crystals]:
        """The crystals with an anonymous formula, by space group; those that cannot be read are left out."""
        if formula not in self._parsed:
            crystals = Crystals.concatenate([_read(row) for row in self._rows.pop(formula, [])])
            groups = fingerprints(crystals, self._symprec).space_groups
            self._parsed[formula] = {int(group): crystals[groups == group] for group in np.unique(groups)}
        return self._parsed[formula]


def _rows_of(path: Path) -> Iterable[tuple[Anonymous, str | Crystals]]:
    """The crystals of a file with their anonymous formulas; CIF texts of a table are not parsed yet."""
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        for _, formula, cif in cif_table(path, InputLimits()):
            found = _FORMULA.search(cif)
            text = found.group(1).strip() if found else formula
            if text:  # a row without any formula cannot be found; `load_reference` has refused it before
                yield anonymous(_amounts(text).values()), cif
        return
    crystals = sanitise(path)
    yield from ((anonymous_formula(crystals, i), crystals[i]) for i in range(len(crystals)))


def _read(row: str | Crystals) -> Crystals:
    """A row as a batch of one; empty where its CIF holds no valid crystal."""
    if isinstance(row, Crystals):
        return row
    try:
        return sanitise_text(row, "cif")[:1]
    except RejectedInput:
        return Crystals.empty()

"""The reference energies that pymatgen ships: a sparse hull that needs no download.

Two tables lie inside pymatgen (MIT), both made for fitting the Materials Project's 2020 correction scheme (Wang et
al., Sci. Rep. 11, 15496, 2021): computed Materials Project entries, and experimental formation enthalpies at 298 K.
Because the corrections were fitted to the experiments, the two can share a hull, but they are not one level of
theory, and the hull's name says so.
"""

from __future__ import annotations

import gzip
import json
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from paragenesis.errors import InputError

_PACKAGE = "pymatgen.analysis.compatibility"


@dataclass(frozen=True)
class EmbeddedPhases:
    """Formulas and formation energies (eV/atom), with what they are called and what to beware of."""

    name: str
    formulas: tuple[str, ...]
    formation_energies: tuple[float, ...]
    note: str


@cache
def embedded_phases() -> EmbeddedPhases:
    """Corrected Materials Project energies, and experimental ones for the formulas that these do not hold.

    Raises:
        InputError: The installed pymatgen does not hold the two tables.
    """
    computed, n_in, n_out = _computed()
    measured = {formula: energy for formula, energy in _measured().items() if formula not in computed}
    compounds = sum(1 for energy in computed.values() if energy != 0.0)
    table = {**computed, **measured}
    return EmbeddedPhases(
        name=f"pymatgen embedded ({n_out} MP2020 + {len(measured):,} experimental at 298 K)",
        formulas=tuple(table),
        formation_energies=tuple(table.values()),
        note=(
            f"Sparse: {n_out} of the {n_in} Materials Project entries that pymatgen ships pass the MP2020 corrections "
            f"({len(computed) - compounds} elements, {compounds} compounds); experiment at 298 K fills in "
            f"{len(measured):,} more compounds. Phases it does not know make candidates look too stable."
        ),
    )


def _computed() -> tuple[dict[str, float], int, int]:
    """Lowest MP2020-corrected formation energy by reduced formula, eV/atom; entries before and after correction.

    The correction scheme silently drops entries it cannot judge, hence the two counts.
    """
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedEntry

    with warnings.catch_warnings():
        # Expected: noble gases have no electronegativity, peroxides and the like no usual oxidation states.
        warnings.simplefilter("ignore", UserWarning)
        raw = [ComputedEntry.from_dict(entry) for entry in _load("calc_compounds.json.gz").values()]
        entries = MaterialsProject2020Compatibility(check_potcar=False).process_entries(raw, clean=True)
    elements: dict[str, float] = {}
    for entry in entries:
        if entry.composition.is_element:
            symbol = entry.composition.elements[0].symbol
            elements[symbol] = min(entry.energy_per_atom, elements.get(symbol, float("inf")))
    lowest: dict[str, float] = {}
    for entry in entries:
        fractions = {e.symbol: x for e, x in entry.composition.fractional_composition.items()}
        if fractions.keys() <= elements.keys():
            energy = entry.energy_per_atom - sum(elements[symbol] * x for symbol, x in fractions.items())
            energy = 0.0 if len(fractions) == 1 else energy
            formula = entry.composition.reduced_formula
            lowest[formula] = min(energy, lowest.get(formula, float("inf")))
    return lowest, len(raw), len(entries)


def _measured() -> dict[str, float]:
    """Lowest experimental formation enthalpy at 298 K by reduced formula, eV/atom."""
    from pymatgen.core import Composition

    lowest: dict[str, float] = {}
    for row in _load("exp_compounds.json.gz"):
        composition = Composition(row["formula"])
        formula = composition.reduced_formula
        lowest[formula] = min(row["exp energy"] / composition.num_atoms, lowest.get(formula, float("inf")))
    return lowest


def _load(file: str) -> Any:
    """One of pymatgen's tables; they are internal files, so a move must not end in a riddle."""
    try:
        return json.loads(gzip.decompress(resources.files(_PACKAGE).joinpath(file).read_bytes()))
    except (ModuleNotFoundError, FileNotFoundError):
        raise InputError(
            f"the installed pymatgen has no {file} in {_PACKAGE}, which the embedded hull is made of; "
            "install the pinned version, or give a hull file instead"
        ) from None

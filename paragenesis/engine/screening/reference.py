"""The reference set that novelty is judged against; structures are parsed only once a formula asks for them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from paragenesis.crystals import Crystals
from paragenesis.engine.screening.chemistry import composition_of, formula_text, reduced_composition
from paragenesis.engine.screening.files import cif_table
from paragenesis.engine.screening.fingerprint import fingerprints, parts_of
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.screening.sanitise import sanitise, sanitise_text
from paragenesis.engine.screening.settings import AFLOW, ScreeningSettings
from paragenesis.errors import RejectedInput
from paragenesis.settings import shown

Row = tuple[str, str | Crystals]  # an id, and a CIF text or a batch of one

_FORMULA = re.compile(r"^_chemical_formula_(?:sum|structural)\s+['\"]?([^'\"\n]+)", re.MULTILINE)


class Reference:
    """Known crystals by formula.

    Attributes:
        name: What the set is called in reports.
        unreadable: Why a crystal of the set could not be used, by id; grows as formulas are asked for.
    """

    def __init__(self, name: str, rows: Iterable[tuple[str, Row]], settings: ScreeningSettings) -> None:
        """A set of rows, each with the formula as `formula_text` writes it."""
        self.name = name
        self.unreadable: dict[str, str] = {}
        self._settings = settings
        self._seen = Seen(settings)
        self._waiting: dict[str, list[Row]] = defaultdict(list)
        for formula, row in rows:
            self._waiting[formula].append(row)
        self._size = sum(map(len, self._waiting.values()))

    def __len__(self) -> int:
        """How many crystals the set holds."""
        return self._size

    def match(self, crystal: Crystals, key: str) -> str | None:
        """The id of a known crystal that is the same as this one, or None."""
        for row in self._waiting.pop(parts_of(key)[0], ()):
            self._load(row)
        return self._seen.match(crystal, key)

    def _load(self, row: Row) -> None:
        """Move one row into the registry, or write down why not."""
        name, content = row
        try:
            crystals = content if isinstance(content, Crystals) else sanitise_text(content, "cif", name)[0]
        except RejectedInput as error:
            self.unreadable[name] = str(error)
            return
        self._seen.add(crystals.with_ids([name]), fingerprints(crystals, self._settings.symprec).keys)


def load_reference(settings: ScreeningSettings) -> Reference:
    """The reference set that the settings name.

    Raises:
        InputError: The file does not exist or holds no crystals.
    """
    if settings.reference == AFLOW:
        return Reference("AFLOW prototypes", _of_batch(_aflow()), settings)
    path = Path(settings.reference)
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        rows = (
            (_row_formula(name, formula, cif), (name, cif)) for name, formula, cif in cif_table(path, InputLimits())
        )
        return Reference(path.name, rows, settings)
    return Reference(path.name, _of_batch(sanitise(path)), settings)


def _of_batch(crystals: Crystals) -> Iterable[tuple[str, Row]]:
    """Rows of crystals that are parsed already."""
    return ((formula_text(composition_of(crystals, i)), (crystals.ids[i], crystals[i])) for i in range(len(crystals)))


@lru_cache(maxsize=1)
def _aflow() -> Crystals:
    """The AFLOW prototypes that pymatgen ships, in their own chemistry, named by their AFLOW labels."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    structures = [entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY]
    tags = [entry["tags"] for entry in AFLOW_PROTOTYPE_LIBRARY]
    labels = [f"{tag['aflow']} ({tag['mineral']})" if tag["mineral"] else str(tag["aflow"]) for tag in tags]
    ordered = [i for i, structure in enumerate(structures) if structure.is_ordered]
    return Crystals.from_structures([structures[i] for i in ordered], ids=[labels[i] for i in ordered])


def _row_formula(name: str, formula: str, cif: str) -> str:
    """The formula of a table's row, from its column or else from its CIF; "" if neither tells."""
    from pymatgen.core import Composition

    found = _FORMULA.search(cif)
    text = formula or (found.group(1) if found else "")
    try:
        composition = Composition(text).element_composition
        amounts = {element.Z: int(amount) for element, amount in composition.items()}
        read = formula_text(reduced_composition(amounts)) if amounts else ""
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:  # "Na0", "Xx", "Na1e999"
        raise RejectedInput(f"the formula {shown(text)} of reference crystal {name} cannot be read: {error}") from None
    if not read:
        raise RejectedInput(f"reference crystal {name} has no formula; add a column 'formula' to the file")
    return read

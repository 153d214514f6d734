"""A few small crystals and what they are held against."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from paragenesis.crystals import Crystals
from paragenesis.engine.evaluation.known import Known, TemplateBook, anonymous_formula
from paragenesis.engine.screening.chemistry import composition_of, formula_text
from paragenesis.engine.screening.reference import Reference
from paragenesis.engine.screening.settings import ScreeningSettings


def rocksalt(formula: str, a: float) -> Atoms:
    return bulk(formula, "rocksalt", a)


def known_of(crystals: Crystals, formulas: frozenset[str] = frozenset(), *, templates: bool = True) -> Known:
    """A reference set of some crystals; the hull's table lists some formulas, as `formula_text` writes them."""
    settings = ScreeningSettings()
    n = range(len(crystals))
    rows = [(formula_text(composition_of(crystals, i)), (crystals.ids[i], crystals[i])) for i in n]
    book = TemplateBook([(anonymous_formula(crystals, i), crystals[i]) for i in n], settings.symprec)
    return Known(
        crystals=(Reference("the known", rows, settings),),
        templates=book if templates else None,
        formulas=formulas,
        table="the table",
    )


@pytest.fixture
def mixed() -> Crystals:
    """NaCl, its rattled supercell, KCl, CsCl in its own structure, NaCl with a clash, and one with a NaN."""
    supercell = rocksalt("NaCl", 5.69) * (2, 1, 1)
    supercell.rattle(0.01, seed=1)
    clash = rocksalt("NaCl", 5.69)
    clash.positions[1] = [0.9, 0, 0]  # 0.34 of the sum of covalent radii, yet farther than 0.5 A
    atoms = [rocksalt("NaCl", 5.69), supercell, rocksalt("KCl", 6.38), bulk("CsCl", "cesiumchloride", a=4.2), clash]
    good = Crystals.from_atoms(atoms, ids=["nacl", "again", "kcl", "cscl", "clash"])
    broken = Crystals(
        ids=("nan",), n_atoms=[1], numbers=[11], frac=[[np.nan, 0, 0]], lattices=4 * np.eye(3)[None]
    )  # fmt: skip
    return Crystals.concatenate([good, broken])


@pytest.fixture
def known() -> Known:
    """KCl and MgO are known crystals; the table lists KCl and NaCl."""
    crystals = Crystals.from_atoms([rocksalt("KCl", 6.4), rocksalt("MgO", 4.25)], ids=["k", "m"])
    return known_of(crystals, frozenset({"ClK", "NaCl"}))

"""A condition refuses contradictions in words and finds every crystal that disobeys it."""

from __future__ import annotations

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.condition import Condition
from paragenesis.errors import InputError


def rocksalt(cation: int = 12, anion: int = 8, length: float = 4.21) -> Crystals:
    """One rocksalt crystal in its primitive cell."""
    return Crystals(
        ids=("0",),
        n_atoms=np.array([2]),
        numbers=np.array([cation, anion]),
        frac=np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]),
        lattices=length / 2 * np.array([[[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]]),
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"allowed_elements": ["Ca", "Xx"]}, "'Xx' is no chemical element"),
        ({"allowed_elements": []}, "no element is named"),
        ({"chemical_system": "Ca-Tj-O"}, "'Tj' is no chemical element"),
        ({"composition": "CaTiO"}, ""),
        ({"composition": "Hello"}, "no chemical formula"),
        ({"composition": "Ca0.5O"}, "whole numbers"),
        ({"min_atoms": 9, "max_atoms": 8}, "min_atoms = 9 is more than max_atoms = 8"),
        ({"max_atoms": 0}, "greater than or equal to 1"),
        ({"space_group": 231}, "less than or equal to 230"),
        ({"required_elements": ["Fe"], "chemical_system": "Ca-Ti-O"}, "Fe is outside the chemical system Ca-O-Ti"),
        ({"required_elements": ["Fe"], "composition": "CaTiO3"}, "Fe is not in the composition"),
        ({"required_elements": ["Fe"], "allowed_elements": ["Ca", "O"]}, "required_elements has Fe"),
        ({"chemical_system": "Ca-Ti-O", "allowed_elements": ["Ca", "O"]}, "chemical_system has Ti"),
        ({"composition": "CaTiO3", "allowed_elements": ["Ca", "O"]}, "composition has Ti"),
        ({"composition": "CaTiO3", "chemical_system": "Ca-O"}, "not of the chemical system"),
        ({"composition": "CaTiO3", "min_atoms": 6, "max_atoms": 9}, "a multiple of 5 atoms"),
        ({"composition": "CaTiO3", "max_atoms": 4}, "a multiple of 5 atoms"),
        ({"chemical_system": "Ca-Ti-O", "max_atoms": 2}, "3 elements"),
        ({"spacegroup": 225}, "did you mean 'space_group'"),
    ],
)
def test_a_contradiction_is_named(values: dict[str, object], words: str) -> None:
    if not words:
        assert Condition.parse(values).composition == "CaTiO"
        return
    with pytest.raises(InputError, match=r"condition\.toml") as caught:
        Condition.parse(values, "condition.toml")
    assert words in str(caught.value)


def test_equal_wishes_are_equal_conditions() -> None:
    one = Condition(allowed_elements=("O", "Ca", "Ti", "O"), composition="Ca2Ti2O6", chemical_system="Ca-Ti-O")
    two = Condition(allowed_elements=("Ti", "Ca", "O"), composition="CaTiO3", chemical_system="O-Ti-Ca")
    assert one == two
    assert hash(one) == hash(two)
    assert one.parts() == {"allowed_elements", "composition", "chemical_system"}
    assert Condition().parts() == frozenset()


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (Condition(), ""),
        (Condition(chemical_system="Mg-O", composition="MgO", space_group=225, max_atoms=2), ""),
        (Condition(min_atoms=3), "2 atoms, not 3 to 20"),
        (Condition(allowed_elements=("Mg", "S")), "O not allowed"),
        (Condition(required_elements=("Ti",)), "Ti required but absent"),
        (Condition(chemical_system="Al-Mg-O"), "elements Mg, O, not Al, Mg, O"),
        (Condition(composition="MgO2"), "composition MgO, not MgO2"),
        (Condition(space_group=221), "space group 225, not 221"),
    ],
)
def test_violations_say_what_is_wrong(condition: Condition, words: str) -> None:
    assert condition.violations(rocksalt()) == [words]


def test_a_broken_crystal_has_no_space_group() -> None:
    collapsed = Crystals(ids=("0",), n_atoms=[2], numbers=[12, 8], frac=np.zeros((2, 3)), lattices=np.eye(3)[None] * 4)
    assert "not found" in Condition(space_group=225).violations(collapsed)[0]


def test_a_composition_of_one_element_counts_atoms_not_molecules() -> None:
    oxygen = rocksalt(8, 8)
    condition = Condition(composition="O2", max_atoms=3, min_atoms=3)  # three atoms are as much O as two
    assert condition.formula_unit == {"O": 1}
    assert Condition(composition="O2").violations(oxygen) == [""]

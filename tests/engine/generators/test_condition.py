"""A condition refuses contradictions in words and finds every crystal that disobeys it."""

from __future__ import annotations

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.condition import Condition, PropertyRange
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
        ({"properties": [{"property": "band_gap"}]}, "the property 'band_gap' has no bounds"),
        ({"properties": [{"property": "band_gap", "low": 2, "high": 1}]}, "low = 2 of 'band_gap' is more than high"),
        ({"properties": [{"property": "band_gap", "value": 2, "high": 1}]}, "a value and a bound"),
        ({"properties": [{"property": "a", "low": 2}, {"property": "a", "high": 3}]}, "'a' is wished for twice"),
        ({"properties": [{"property": "a", "low": float("nan")}]}, "finite number"),
        ({"guidance": -1.0}, "greater than or equal to 0"),
        ({"charge_neutral": True, "composition": "NaCl2"}, "makes NaCl2 neutral (the closest leaves -1)"),
        ({"charge_neutral": True, "composition": "CuZn"}, "makes ZnCu neutral"),
        ({"charge_neutral": True, "chemical_system": "K-Na"}, "no crystal of K, Na with 1 to 20 atoms"),
        ({"charge_neutral": True, "required_elements": ["He", "O"]}, "no oxidation states are known of He"),
        ({"space_group": 230, "max_atoms": 7}, "space group 230 has no room for any crystal in 1 to 7 atoms"),
        ({"space_group": 225, "composition": "CaTiO3", "max_atoms": 5}, "no room for CaTiO3"),
        ({"space_group": 221, "required_elements": ["Ca", "Ti", "O"], "max_atoms": 4}, "a crystal of Ca, O, Ti"),
        (
            {"space_group": 205, "chemical_system": "Na-Cl", "charge_neutral": True, "max_atoms": 7},
            "space group 205 has no room",
        ),
    ],
)
def test_a_contradiction_is_named(values: dict[str, object], words: str) -> None:
    if not words:
        assert Condition.parse(values).composition == "CaTiO"
        return
    with pytest.raises(InputError, match=r"condition\.toml") as caught:
        Condition.parse(values, "condition.toml")
    assert words in str(caught.value)


PEROVSKITE = {
    "numbers": [20, 22, 8, 8, 8],
    "frac": [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
    "lattice": [[3.9, 0, 0], [0, 3.9, 0], [0, 0, 3.9]],
}


@pytest.mark.parametrize(
    ("fixed", "values", "words"),
    [
        ([], {"prototype": "spinel"}, "are two geometries; drop one"),
        ([], {"max_atoms": 4}, "has 5 sites, but min_atoms = 1 and max_atoms = 4"),
        ([], {"min_atoms": 6}, "has 5 sites"),
        ([0], {"allowed_elements": ["Ti", "O"]}, "fixes Ca, which the allowed_elements leaves out"),
        ([0], {"composition": "BaTiO3"}, "fixes Ca, which the composition BaTiO3 leaves out"),
        ([0], {"chemical_system": "Ba-O"}, "fixes Ca, which the chemical system Ba-O leaves out"),
        ([], {"composition": "MgO"}, "cannot hold MgO; that takes a multiple of 2"),
        ([2, 3, 4], {"composition": "BaTiO2N"}, "fixes 3 O, but BaTiNO2 on 5 sites has only 2"),
        ([0, 1, 2, 3], {"required_elements": ["F", "N"]}, "leaves 1 sites free, too few for F, N"),
        ([0, 1, 2, 3, 4], {"space_group": 99}, "all fixed, has space group 221, not 99"),
        ([], {"space_group": 191}, "its bare sites have only 221"),
    ],
)
def test_a_seed_structure_that_contradicts_the_rest_is_refused(
    fixed: list[int], values: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        Condition.parse({"seed_structure": {**PEROVSKITE, "fixed": fixed}, **values})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("fixed", "values"),
    [
        ([0, 1, 2, 3, 4], {"space_group": 221, "composition": "CaTiO3"}),
        ([2, 3], {"space_group": 123, "composition": "BaTiO2N"}),
        ([2, 3, 4], {"charge_neutral": True, "required_elements": ["Ba", "Ti"]}),
    ],
)
def test_a_seed_structure_that_fits_is_taken(fixed: list[int], values: dict[str, object]) -> None:
    condition = Condition.parse({"seed_structure": {**PEROVSKITE, "fixed": fixed}, **values})
    assert condition.parts() == {"seed_structure", *values}
    assert {condition: 1}[Condition.model_validate_json(condition.model_dump_json())] == 1


def test_properties_are_soft_and_may_be_written_in_short() -> None:
    condition = Condition.parse(
        {"properties": [{"property": "gap", "low": 1, "high": 2}, {"property": "e", "value": 0}], "guidance": 3}
    )
    assert [(p.property, p.low, p.high) for p in condition.properties] == [("e", 0.0, 0.0), ("gap", 1.0, 2.0)]
    assert condition.properties[1].holds(1.5)
    assert not condition.properties[1].holds(2.5)
    assert not condition.properties[0].holds(float("nan"))
    assert condition.parts() == {"properties"}
    assert Condition(guidance=0.0).parts() == frozenset()
    assert condition.violations(rocksalt()) == [""]
    assert Condition.model_validate_json(condition.model_dump_json()) == condition


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("gap=1:2.5", {"low": 1.0, "high": 2.5}),
        ("gap=1:", {"low": 1.0}),
        ("gap=:-0.5", {"high": -0.5}),
        ("gap=0.05", {"low": 0.05, "high": 0.05}),
    ],
)
def test_a_property_range_is_read_from_text(text: str, ends: dict[str, float]) -> None:
    assert PropertyRange.from_text(text) == {"property": "gap", **ends}


@pytest.mark.parametrize("text", ["gap", "gap=", "gap=:", "=1", "gap=a:b", "gap=1:2:3"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no property with its range; write NAME=LOW:HIGH"):
        PropertyRange.from_text(text)


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
        (Condition(charge_neutral=True), ""),
    ],
)
def test_violations_say_what_is_wrong(condition: Condition, words: str) -> None:
    assert condition.violations(rocksalt()) == [words]


def test_charges_that_do_not_balance_are_violations() -> None:
    neutral = Condition(charge_neutral=True)
    assert neutral.violations(rocksalt(20, 19))[0].startswith("charge: no combination of oxidation states")  # CaK
    assert neutral.violations(rocksalt(12, 12)) == [""]  # one element


def test_a_broken_crystal_has_no_space_group() -> None:
    collapsed = Crystals(ids=("0",), n_atoms=[2], numbers=[12, 8], frac=np.zeros((2, 3)), lattices=np.eye(3)[None] * 4)
    assert "not found" in Condition(space_group=225).violations(collapsed)[0]


def test_a_composition_of_one_element_counts_atoms_not_molecules() -> None:
    oxygen = rocksalt(8, 8)
    condition = Condition(composition="O2", max_atoms=3, min_atoms=3)  # three atoms are as much O as two
    assert condition.formula_unit == {"O": 1}
    assert Condition(composition="O2").violations(oxygen) == [""]

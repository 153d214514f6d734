"""A seed structure is read once, checks itself, and knows crystals that keep its geometry and fixed elements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from paragenesis.crystals import Crystals
from paragenesis.engine.extxyz import write_extxyz
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.errors import InputError

PEROVSKITE: dict[str, Any] = {
    "numbers": [20, 22, 8, 8, 8],
    "frac": [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
    "lattice": [[3.9, 0, 0], [0, 3.9, 0], [0, 0, 3.9]],
}


def seed(**changes: Any) -> SeedStructure:
    return SeedStructure.parse({**PEROVSKITE, **changes})


def changed(crystal: Crystals, **changes: Any) -> Crystals:
    return replace(crystal, **changes)


def test_a_file_is_read_in_its_order(tmp_path: Path) -> None:
    write_extxyz(seed().crystal, tmp_path / "mine.extxyz")
    read = SeedStructure.read(tmp_path / "mine.extxyz", fixed=[4, 2, 2])
    assert read.numbers == (20, 22, 8, 8, 8)
    assert read.fixed == (2, 4)
    assert read.fixed_elements == {"O": 2}
    assert read.free_sites == 3
    assert np.allclose(read.crystal.lattices[0], PEROVSKITE["lattice"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fixed": [5]}, "no site 5 to fix; the seed structure has 0 Ca, 1 Ti, 2 O, 3 O, 4 O"),
        ({"fixed": [-1]}, "no site -1"),
        ({"frac": [[0, 0, 0]]}, "5 numbers came with 1 coordinates"),
        ({"lattice": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}, "has no volume"),
        ({"numbers": [20, 22, 8, 8, 104]}, "less than or equal to 103"),
        ({"file": "mine.cif"}, "a file or its numbers"),
    ],
)
def test_what_is_no_structure_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        seed(**values)
    assert words in str(caught.value)


def test_files_that_do_not_do_are_refused(tmp_path: Path) -> None:
    two = Crystals.concatenate([seed().crystal, seed().crystal]).with_ids(["a", "b"])
    write_extxyz(two, tmp_path / "two.extxyz")
    with pytest.raises(InputError, match="extxyz holds 2 crystals"):
        SeedStructure.read(tmp_path / "two.extxyz")
    with pytest.raises(InputError, match="cif cannot be read"):
        SeedStructure.read(tmp_path / "nowhere.cif")
    with pytest.raises(InputError, match="file is the path"):
        SeedStructure.parse({"file": 3})


def test_a_crystal_may_be_scaled_turned_shuffled_and_redecorated() -> None:
    condition = Condition(seed_structure=seed(fixed=[2, 3, 4]))
    crystal = seed().crystal
    turn = Rotation.from_euler("xyz", [0.3, 0.7, 1.1]).as_matrix()
    order = np.array([3, 1, 4, 0, 2])
    new = changed(
        crystal,
        numbers=np.array([56, 72, 8, 8, 8])[order],
        frac=(crystal.frac + 1.0)[order] % 1.0 - 1e-12,
        lattices=crystal.lattices @ turn * 1.2,
    )
    assert condition.violations(new) == [""]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"numbers": [20, 22, 8, 8, 7]}, "N on site 4 of the seed structure, where O is fixed"),
        ({"frac": [[0, 0, 0.1], *PEROVSKITE["frac"][1:]]}, "sites elsewhere"),
        ({"frac": [[0.5, 0.5, 0.5], *PEROVSKITE["frac"][1:]]}, "sites elsewhere"),
        ({"lattices": [np.diag([3.9, 3.9, 4.5])]}, "a cell of another shape"),
        ({"lattices": [[[3.9, 0, 0], [0.5, 3.9, 0], [0, 0, 3.9]]]}, "a cell of another shape"),
    ],
)
def test_what_strays_is_told(changes: dict[str, Any], words: str) -> None:
    condition = Condition(seed_structure=seed(fixed=[2, 3, 4]))
    crystal = changed(seed().crystal, **changes)
    assert words in condition.violations(crystal)[0]


def test_another_number_of_sites_strays() -> None:
    smaller = Crystals(ids=("0",), n_atoms=[1], numbers=[20], frac=[[0, 0, 0]], lattices=[np.eye(3) * 3])
    condition = Condition(seed_structure=seed(fixed=[0]))
    for relaxed in (False, True):
        assert "1 sites, not the 5" in condition.violations(smaller, relaxed=relaxed)[0]


def test_a_relaxed_crystal_need_only_hold_the_fixed_elements() -> None:
    condition = Condition(seed_structure=seed(fixed=[1, 2]))
    moved = changed(seed().crystal, frac=seed().crystal.frac + 0.05 * np.arange(5)[:, None])
    assert "sites elsewhere" in condition.violations(moved)[0]
    assert condition.violations(moved, relaxed=True) == [""]
    lost = changed(moved, numbers=[20, 40, 7, 7, 7])
    assert condition.violations(lost, relaxed=True) == ["fixed O, Ti of the seed structure is missing"]


@given(
    frac=st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=2, max_size=2),
    edge=st.floats(1.0, 20.0),
)
def test_json_brings_back_the_very_numbers(frac: list[tuple[float, float, float]], edge: float) -> None:
    one = SeedStructure.parse(
        {"numbers": [11, 17], "frac": frac, "lattice": [[edge, 0, 0], [0.1, edge, 0], [0, 0, edge]], "fixed": [1]}
    )
    condition = Condition(seed_structure=one)
    again = Condition.model_validate_json(condition.model_dump_json())
    assert again == condition
    assert hash(again) == hash(condition)
    assert ((np.array(one.frac) >= 0) & (np.array(one.frac) < 1)).all()

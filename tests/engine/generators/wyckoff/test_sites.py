import importlib.util
from pathlib import Path

import numpy as np
import pytest

from paragenesis.engine.generators.wyckoff.build import orbit_maps
from paragenesis.engine.generators.wyckoff.sites import (
    GROUPS,
    TABLE,
    family_of,
    parsed_expression,
    space_group,
    wyckoff_sites,
)
from paragenesis.errors import InputError

SCRIPT = Path(__file__).parents[4] / "scripts" / "wyckoff_table.py"


def points(group, site, parameters):
    symmetry = space_group(group)
    point = site.linear @ parameters + site.offset
    images = symmetry.rotations @ point + symmetry.translations
    return np.unique(np.rint(images * 1e6).astype(int) % 1_000_000, axis=0)


def test_there_are_1731_positions_and_each_has_as_many_points_as_it_says():
    rng = np.random.default_rng(0)
    total = 0
    for group in GROUPS:
        sites = wyckoff_sites(group)
        total += len(sites)
        letters = "".join(site.letter for site in sites)
        assert letters == "abcdefghijklmnopqrstuvwxyzA"[: len(letters)]
        for index, site in enumerate(sites):
            assert len(points(group, site, rng.random(3))) == site.multiplicity
            assert len(orbit_maps(group, index)[1]) == site.in_primitive
            assert site.in_primitive * space_group(group).centring == site.multiplicity
        assert sites[-1].free == (0, 1, 2)
        assert sites[-1].multiplicity == len(space_group(group).rotations)
    assert total == 1731  # International Tables A


@pytest.mark.parametrize(
    ("group", "letter", "multiplicity", "symmetry", "expression"),
    [
        (225, "c", 8, "-43m", "1/4,1/4,1/4"),
        (194, "f", 4, "3m.", "1/3,2/3,z"),
        (227, "a", 8, "-43m", "1/8,1/8,1/8"),  # origin choice 2
        (166, "h", 18, ".m", "x,-x,z"),  # hexagonal axes
        (14, "e", 4, "1", "x,y,z"),
        (47, "A", 8, "1", "x,y,z"),  # the 27th position
        (62, "c", 4, ".m.", "x,1/4,z"),
    ],
)
def test_positions_are_those_of_the_international_tables(group, letter, multiplicity, symmetry, expression):
    site = next(site for site in wyckoff_sites(group) if site.letter == letter)
    linear, offset = parsed_expression(expression)
    assert (site.multiplicity, site.site_symmetry) == (multiplicity, symmetry)
    assert np.array_equal(site.linear, linear)
    assert np.allclose(site.offset, offset)


def test_a_position_uses_only_its_free_parameters():
    site = next(site for site in wyckoff_sites(166) if site.letter == "h")
    assert site.free == (0, 2)
    assert not site.linear[:, 1].any()


@pytest.mark.parametrize("group", [0, 231, -5])
def test_a_group_that_does_not_exist_is_refused(group):
    with pytest.raises(InputError, match="from 1 to 230"):
        wyckoff_sites(group)
    with pytest.raises(InputError, match="from 1 to 230"):
        space_group(group)


@pytest.mark.parametrize("expression", ["x,y", "x,y,w", "x,y,", "x,y,+"])
def test_what_is_no_position_is_refused(expression):
    if expression == "x,y,":
        assert np.array_equal(parsed_expression(expression)[0], np.diag([1, 1, 0]))
        return
    with pytest.raises(InputError, match="such as"):
        parsed_expression(expression)


def test_polar_axes_are_those_along_which_the_origin_is_free():
    found = {group: space_group(group).polar for group in (1, 2, 4, 6, 15, 33, 75, 146, 160, 216)}
    assert found == {1: (0, 1, 2), 2: (), 4: (1,), 6: (0, 2), 15: (), 33: (2,), 75: (2,), 146: (2,), 160: (2,), 216: ()}


def test_trigonal_groups_have_the_hexagonal_family():
    bounds = [(1, "triclinic"), (15, "monoclinic"), (16, "orthorhombic"), (142, "tetragonal"), (143, "hexagonal")]
    assert [family_of(group) for group, _ in [*bounds, (195, "")]] == [family for _, family in bounds] + ["cubic"]


@pytest.mark.parametrize("group", [1, 15, 38, 47, 112, 160, 194, 214])
def test_the_script_computes_the_shipped_table(group):
    spec = importlib.util.spec_from_file_location("wyckoff_table", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    import json

    assert script.positions(space_group(group)) == json.loads(TABLE.read_text())[str(group)]

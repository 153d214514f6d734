from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.wyckoff.build import closest_contacts, to_crystals
from paragenesis.engine.generators.wyckoff.cell import cells_of, lattice_of, metric_of, snapped
from paragenesis.engine.generators.wyckoff.form import (
    WyckoffForm,
    canonical,
    crystal_key,
    equivalents,
    template_key,
    wyckoff_forms,
)
from paragenesis.engine.generators.wyckoff.sites import space_group, wyckoff_sites
from paragenesis.engine.screening.neighbours import pair_distances
from paragenesis.engine.tables import read_table
from paragenesis.errors import InputError

SALT = WyckoffForm(225, (0, 1), (11, 17), (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), ((), ()))
RUTILE = WyckoffForm(136, (0, 5), (22, 8), (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), ((), (0.305,)))
WURTZITE = WyckoffForm(186, (1, 1), (30, 8), (3.25, 3.25, 5.2, 90.0, 90.0, 120.0), ((0.0,), (0.382,)))


GROUPS = [
    1,
    2,
    4,
    6,
    8,
    12,
    14,
    15,
    19,
    33,
    38,
    47,
    62,
    70,
    82,
    99,
    136,
    139,
    146,
    155,
    161,
    167,
    186,
    194,
    206,
    216,
    227,
]


def distances(form):
    """All pair distances by elements: equal for two descriptions of one crystal."""
    crystal = to_crystals([form])
    pairs = next(iter(pair_distances(crystal)))
    both = np.sort(crystal.numbers[np.stack([pairs.i, pairs.j])], axis=0)
    rows = np.column_stack([both[0], both[1], pairs.distances[0]])
    return rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]


@st.composite
def forms(draw, groups=GROUPS, elements=(3, 8, 26)):
    group = draw(st.sampled_from(list(groups)))
    sites = wyckoff_sites(group)
    small = [i for i, site in enumerate(sites) if site.in_primitive <= 12] or [0]
    chosen = draw(st.lists(st.sampled_from(small), min_size=1, max_size=4))
    chosen = [s for k, s in enumerate(chosen) if sites[s].free or s not in chosen[:k]]
    number = st.sampled_from(elements)
    lengths, angles = st.floats(4.0, 9.0), st.floats(75.0, 105.0)
    cell = snapped(
        np.array(draw(st.tuples(lengths, lengths, lengths, angles, angles, angles))), space_group(group).family
    )
    parameters = [tuple(draw(st.floats(0, 0.9999)) for _ in sites[s].free) for s in chosen]
    return WyckoffForm(group, tuple(chosen), tuple(draw(number) for _ in chosen), cell, tuple(parameters))


# --- crystal to form and back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [SALT, RUTILE, WURTZITE])
def test_a_form_comes_back_from_its_crystal(form):
    found = canonical(wyckoff_forms(to_crystals([form]))[0])
    wanted = canonical(form)
    assert (found.group, found.sites, found.numbers) == (wanted.group, wanted.sites, wanted.numbers)
    assert np.allclose(found.cell, wanted.cell)
    assert np.allclose(np.concatenate(found.parameters), np.concatenate(wanted.parameters), atol=1e-5)


def test_the_form_does_not_depend_on_cell_origin_and_order_of_atoms():
    crystal = to_crystals([RUTILE])
    change = np.array([[1, 1, 0], [0, 1, -1], [0, 0, 1]])
    order = [3, 5, 0, 1, 4, 2]
    other = Crystals(
        ids=("other",),
        n_atoms=crystal.n_atoms,
        numbers=crystal.numbers[order],
        frac=(crystal.frac @ np.linalg.inv(change) + [0.1, 0.7, 0.3])[order],
        lattices=change @ crystal.lattices,
    )
    assert np.allclose(distances(canonical(wyckoff_forms(other)[0])), distances(RUTILE), atol=1e-4)
    assert canonical(wyckoff_forms(other)[0]).sites == canonical(RUTILE).sites


def test_a_supercell_has_the_form_of_its_primitive_cell():
    crystal = to_crystals([SALT])
    double = Crystals(
        ids=("double",),
        n_atoms=crystal.n_atoms * 2,
        numbers=np.tile(crystal.numbers, 2),
        frac=np.concatenate([crystal.frac, crystal.frac + np.array([1, 0, 0])]) / [2, 1, 1],
        lattices=crystal.lattices * np.array([2, 1, 1])[:, None],
    )
    found = wyckoff_forms(double)[0]
    assert template_key(found) == template_key(SALT)
    assert np.allclose(found.cell, SALT.cell)


def test_what_has_no_symmetry_says_why():
    nothing = Crystals(ids=("a",), n_atoms=[0], numbers=[], frac=[], lattices=[np.eye(3)])
    flat = Crystals(ids=("b",), n_atoms=[1], numbers=[1], frac=[[0, 0, 0]], lattices=[np.zeros((3, 3))])
    found = wyckoff_forms(Crystals.concatenate([nothing, to_crystals([SALT]), flat]))
    assert found[0] == "it has no atoms"
    assert isinstance(found[1], WyckoffForm)
    assert "no space group at 0.1 A" in found[2]


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")
def test_real_crystals_come_back(shared_data):
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    column = read_table(shared_data / "mp20_train.csv.gz", ["cif"])["cif"].to_pylist()
    structures = [Structure.from_str(cif, fmt="cif") for cif in column[:: len(column) // 40]]
    found = wyckoff_forms(Crystals.from_structures(structures))
    assert all(isinstance(form, WyckoffForm) for form in found)
    again = to_crystals([canonical(form) for form in found])
    matcher = StructureMatcher()
    assert all(matcher.fit(one, two) for one, two in zip(structures, again.to_structures(), strict=True))
    assert [form.group for form in wyckoff_forms(again)] == [form.group for form in found]


# --- other descriptions -----------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=60)
@given(forms())
def test_equivalents_are_the_same_crystal(form):
    crystal = to_crystals([form])
    assume(closest_contacts(crystal)[0] > 1e-3)
    assume(abs(np.linalg.det(crystal.lattices[0])) > 20)
    wanted = distances(form)
    others = equivalents(form)
    assert others[0] == form
    for other in others[1 :: max(1, len(others) // 5)]:
        assert np.allclose(distances(other), wanted, atol=1e-3)
    assert np.allclose(distances(canonical(form)), wanted, atol=1e-3)


@hypothesis_settings(max_examples=60)
@given(forms())
def test_canonical_is_one_form_for_all_equivalents(form):
    assume(abs(np.linalg.det(lattice_of(np.array([form.cell]))[0])) > 20)
    one = canonical(form)
    assert canonical(one) == one
    others = equivalents(form)
    for other in others[1 :: max(1, len(others) // 4)]:
        again = canonical(other)
        assert (again.sites, again.numbers, again.parameters) == (one.sites, one.numbers, one.parameters)
        assert np.allclose(again.cell, one.cell)
        assert template_key(other) == template_key(form)
        assert crystal_key(other) == crystal_key(form)


def test_axes_of_an_orthorhombic_cell_may_be_exchanged():
    a, b, c = 4.0, 5.0, 6.0
    sites = {site.letter: i for i, site in enumerate(wyckoff_sites(47))}
    along_a = WyckoffForm(47, (sites["a"], sites["i"]), (22, 8), (a, b, c, 90.0, 90.0, 90.0), ((), (0.3,)))
    along_c = WyckoffForm(47, (sites["a"], sites["q"]), (22, 8), (b, c, a, 90.0, 90.0, 90.0), ((), (0.3,)))
    assert canonical(along_a) == canonical(along_c)


def test_the_origin_of_a_polar_axis_does_not_matter():
    moved = replace(WURTZITE, parameters=((0.25,), (0.632,)))
    assert canonical(moved) == canonical(WURTZITE)


def test_a_long_monoclinic_cell_is_shortened():
    short = WyckoffForm(10, (0, 1), (3, 8), (4.0, 5.0, 6.0, 90.0, 97.0, 90.0), ((), ()))
    lattice = lattice_of(np.array([short.cell]))[0]
    lattice[2] += 3 * lattice[0]
    long = replace(short, cell=snapped(cells_of((lattice @ lattice.T)[None])[0], "monoclinic"))
    assert long.cell[2] > 12
    assert np.allclose(sorted(canonical(long).cell[:3]), [4.0, 5.0, 6.0])


def test_templates_are_anonymous_and_crystals_are_not():
    swapped = replace(SALT, numbers=(17, 11))
    other = replace(SALT, numbers=(12, 8))
    assert template_key(SALT) == template_key(swapped) == template_key(other) == "225|a,b"
    assert crystal_key(SALT) == crystal_key(swapped) == "225|11:a,17:b|"
    assert crystal_key(SALT) != crystal_key(other)


def test_a_template_tells_which_sites_share_an_element():
    both = WyckoffForm(225, (0, 1, 2), (11, 11, 9), SALT.cell, ((), (), ()))
    assert template_key(both) == "225|ab,c"
    assert template_key(replace(both, numbers=(11, 9, 11))) == template_key(replace(both, numbers=(9, 11, 11)))
    assert template_key(both) != template_key(replace(both, numbers=(11, 9, 11)))


def test_angles_that_no_cell_has_are_refused():
    impossible = WyckoffForm(1, (0,), (3,), (4.0, 5.0, 6.0, 60.0, 60.0, 130.0), ((0.0, 0.0, 0.0),))
    with pytest.raises(InputError, match="no cell has the angles 60, 60, 130"):
        canonical(impossible)


# --- cells ------------------------------------------------------------------------------------------------------------


@given(st.tuples(*[st.floats(2, 20)] * 3, *[st.floats(70, 110)] * 3))
def test_lattice_metric_and_cell_say_the_same(cell):
    cells = np.array([cell])
    lattice = lattice_of(cells)[0]
    assume(abs(np.linalg.det(lattice)) > 1)
    assert np.allclose(lattice @ lattice.T, metric_of(cells)[0])
    assert np.allclose(cells_of(metric_of(cells)), cells)
    assert np.linalg.det(lattice) > 0


@pytest.mark.parametrize("group", [2, 15, 62, 139, 166, 225])
def test_a_snapped_cell_has_the_symmetry_of_its_group(group):
    cell = snapped(np.array([5.01, 5.02, 5.03, 89.9, 90.1, 119.0 if group == 166 else 90.2]), space_group(group).family)
    metric = metric_of(np.array([cell]))[0]
    for rotation in space_group(group).rotations:
        assert np.allclose(rotation.T @ metric @ rotation, metric)

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.wyckoff.build import to_crystals
from paragenesis.engine.generators.wyckoff.contacts import closest_contacts, contact_penalty, learn_contacts
from paragenesis.engine.generators.wyckoff.form import WyckoffForm, wyckoff_forms
from paragenesis.engine.screening.validity import covalent_radii
from paragenesis.engine.tables import read_table
from paragenesis.errors import InputError

SALT = WyckoffForm(225, (0, 1), (11, 17), (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), ((), ()))
RUTILE = WyckoffForm(136, (0, 5), (22, 8), (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), ((), (0.305,)))
IMAGES = np.array(list(itertools.product(range(-2, 3), repeat=3)))


def brute_force(crystal, images=IMAGES):
    radii = covalent_radii()[crystal.numbers]
    delta = crystal.frac[None, :] - crystal.frac[:, None]
    vectors = ((delta - np.rint(delta))[:, :, None] + images) @ crystal.lattices[0]
    lengths = np.linalg.norm(vectors, axis=3)
    lengths[lengths < 1e-9] = np.inf  # the atom itself
    return (lengths.min(axis=2) / (radii[:, None] + radii[None, :])).min()


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_closest_contacts_agree_with_all_near_images(seed, size):
    rng = np.random.default_rng(seed)
    lattice = np.eye(3) * rng.uniform(2, 8, 3) + rng.uniform(-2, 2, (3, 3))
    assume(np.linalg.det(lattice) > 10)
    numbers, frac = rng.integers(1, 90, size), rng.random((size, 3))
    skew = np.array([[1, rng.integers(-3, 4), rng.integers(-3, 4)], [0, 1, rng.integers(-3, 4)], [0, 0, 1]])
    plain = Crystals(ids=("a",), n_atoms=[size], numbers=numbers, frac=frac, lattices=[lattice])
    skewed = replace(plain, frac=frac @ np.linalg.inv(skew), lattices=(skew @ lattice)[None])
    found = closest_contacts(Crystals.concatenate([plain, skewed]))
    assert found == pytest.approx(brute_force(plain), rel=1e-9)


def test_cells_that_are_none_have_no_contacts():
    salt = to_crystals([SALT])
    flat = replace(salt, lattices=salt.lattices * np.array([1.0, 1.0, 0.0]))
    endless = replace(salt, lattices=np.full((1, 3, 3), np.inf))
    lost = replace(salt, frac=np.array([[np.nan, 0.0, 0.0], [0.5, 0.5, 0.5]]))
    batch = Crystals.concatenate([flat, salt, endless, lost])
    assert closest_contacts(batch) == pytest.approx([0.0, 2.82 / (1.66 + 1.02), 0.0, 0.0])
    penalty = contact_penalty(batch, learn_contacts(salt))
    assert np.isfinite(penalty).tolist() == [False, True, False, False]


def test_typical_distances_come_from_the_crystals_and_else_from_radii():
    some = to_crystals([replace(SALT, cell=(a, a, a, 90.0, 90.0, 90.0)) for a in np.linspace(5.4, 5.8, 101)])
    table = learn_contacts(some)
    assert table.shape == (104, 104)
    assert np.array_equal(table, table.T)
    assert table[11, 17] == pytest.approx(2.8, abs=0.02)
    radii = covalent_radii()
    assert table[26, 45] == pytest.approx(radii[26] + radii[45])


def test_too_close_and_too_far_are_both_worse():
    table = learn_contacts(to_crystals([SALT] * 50))
    sizes = [4.2, 5.0, 5.64, 6.4, 7.5]
    penalty = contact_penalty(to_crystals([replace(SALT, cell=(a, a, a, 90.0, 90.0, 90.0)) for a in sizes]), table)
    assert np.argsort(penalty)[0] == 2
    assert penalty[0] > penalty[1] > penalty[2] < penalty[3] < penalty[4]


def test_coinciding_atoms_have_a_finite_penalty_worse_than_any_other():
    table = learn_contacts(to_crystals([RUTILE] * 50))
    penalty = contact_penalty(to_crystals([RUTILE, replace(RUTILE, parameters=((), (0.0,)))]), table)
    assert np.isfinite(penalty).all()
    assert penalty[1] > penalty[0] + 1


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"shape \(104, 104\)"):
        contact_penalty(to_crystals([SALT]), np.ones(104))


def test_elements_beyond_the_table_are_refused():
    heavy = replace(to_crystals([SALT]), numbers=np.array([11, 110]))
    with pytest.raises(InputError, match="Z = 110"):
        learn_contacts(heavy)
    with pytest.raises(InputError, match="Z = 110"):
        contact_penalty(heavy, np.ones((104, 104)))


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")
def test_a_real_crystal_is_found_among_copies_with_other_parameters(shared_data):
    from pymatgen.core import Structure

    column = read_table(shared_data / "mp20_train.csv.gz", ["cif"])["cif"].to_pylist()
    rows = np.random.default_rng(0).permutation(len(column))[:360]
    crystals = Crystals.from_structures([Structure.from_str(column[row], fmt="cif") for row in rows])
    table = learn_contacts(crystals[80:])
    rng = np.random.default_rng(1)
    real = [form for form in wyckoff_forms(crystals[:80]) if isinstance(form, WyckoffForm) and any(form.parameters)]
    tried = []
    for form in real:
        copies = [
            replace(form, parameters=tuple(tuple(rng.random(len(p)).tolist()) for p in form.parameters))
            for _ in range(8)
        ]
        tried += [form, *copies]
    penalty = contact_penalty(to_crystals(tried), table).reshape(-1, 9)
    assert len(penalty) > 50
    assert (penalty.argmin(axis=1) == 0).mean() > 0.75  # by chance: 0.11

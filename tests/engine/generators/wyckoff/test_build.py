import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.engine.generators.wyckoff.build import closest_contacts, orbit_maps, to_crystals
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.sites import GROUPS, space_group, wyckoff_sites
from paragenesis.errors import InputError

SALT = WyckoffForm(225, (0, 1), (11, 17), (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), ((), ()))
QUARTZ = WyckoffForm(154, (0, 2), (14, 8), (4.91, 4.91, 5.4, 90.0, 90.0, 120.0), ((0.47,), (0.41, 0.27, 0.12)))


def test_a_batch_of_forms_becomes_a_batch_of_primitive_cells():
    crystals = to_crystals([SALT, QUARTZ], origins=["table salt", "quartz"])
    assert crystals.ids == ("0", "1")
    assert crystals.origins == ("table salt", "quartz")
    assert crystals.formulas == ("NaCl", "SiO2")
    assert crystals.n_atoms.tolist() == [2, 9]
    assert crystals.numbers.tolist() == [11, 17] + [14] * 3 + [8] * 6
    assert crystals.volumes == pytest.approx([5.64**3 / 4, 4.91**2 * 5.4 * np.sqrt(3) / 2])
    assert crystals.frac.min() >= 0
    assert crystals.frac.max() < 1


def test_one_form_is_built_as_it_is_in_a_batch():
    batch = to_crystals([SALT, QUARTZ, SALT])
    alone = to_crystals([QUARTZ])
    assert np.array_equal(batch[1].frac, alone.frac)
    assert np.array_equal(batch[1].lattices, alone.lattices)


def test_no_forms_are_no_crystals():
    assert len(to_crystals([])) == 0


def test_a_wrong_number_of_parameters_is_refused():
    wrong = WyckoffForm(225, (0, 4), (11, 17), SALT.cell, ((), (0.1, 0.2)))
    with pytest.raises(InputError, match="site e of group 225 has 1 free parameters, but 2 came"):
        to_crystals([wrong])


@given(st.sampled_from(list(GROUPS)), st.data())
def test_primitive_points_times_centring_are_the_orbit(group, data):
    index = data.draw(st.integers(0, len(wyckoff_sites(group)) - 1))
    site, symmetry = wyckoff_sites(group)[index], space_group(group)
    matrices, shifts, free = orbit_maps(group, index)
    values = np.array([*data.draw(st.lists(st.floats(0.01, 0.99), min_size=free, max_size=free)), 0.0, 0.0, 0.0])[:3]
    primitive = (matrices @ values + shifts) @ symmetry.primitive
    pure = symmetry.translations[np.all(symmetry.rotations == np.eye(3), axis=(1, 2))]
    every = (primitive[:, None] + pure[None]).reshape(-1, 3)
    full = np.zeros(3)
    full[list(site.free)] = values[:free]
    images = symmetry.rotations @ (site.linear @ full + site.offset) + symmetry.translations
    apart = every[:, None] - images[None]
    distance = np.abs(apart - np.rint(apart)).max(axis=2)
    assert distance.min(axis=1).max() < 1e-9
    assert distance.min(axis=0).max() < 1e-9


def test_atoms_that_coincide_have_a_closest_contact_of_zero():
    special = WyckoffForm(225, (4,), (11,), SALT.cell, ((0.0,),))  # x, 0, 0 at the origin: six atoms in one place
    assert closest_contacts(to_crystals([special])) == pytest.approx([0.0])

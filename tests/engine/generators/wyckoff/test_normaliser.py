import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.engine.generators.wyckoff.normaliser import (
    GRID,
    image_of,
    moves,
    rotations,
    site_permutations,
    site_symmetries,
)
from paragenesis.engine.generators.wyckoff.sites import GROUPS, space_group, wyckoff_sites


def all_moves(group):
    return [move for index in range(len(rotations(group))) for move in moves(group, index)]


def orbit(group, site, steps):
    """The points of a site in the conventional cell, steps."""
    own, symmetry = wyckoff_sites(group)[site], space_group(group)
    point = own.linear[:, list(own.free)] @ steps + own.offset * GRID
    images = symmetry.rotations @ point + symmetry.translations * GRID
    return np.unique(np.rint(images).astype(int) % GRID, axis=0)


@pytest.mark.parametrize(
    ("group", "cosets"),
    # the order of the affine normaliser over the group, polar shifts left out (International Tables A, chapter 3.5)
    [(16, 96), (47, 48), (62, 8), (33, 8), (166, 2), (194, 2), (221, 2), (225, 2), (227, 2), (230, 1), (216, 8)],
)
def test_there_are_as_many_moves_as_the_normaliser_has_cosets(group, cosets):
    assert len(all_moves(group)) == cosets


@given(st.sampled_from([g for g in GROUPS if g % 5 == 0]), st.data())
def test_moves_take_orbits_to_orbits(group, data):
    move = data.draw(st.sampled_from(all_moves(group)))
    site = data.draw(st.integers(0, len(wyckoff_sites(group)) - 1))
    free = len(wyckoff_sites(group)[site].free)
    steps = np.array(data.draw(st.lists(st.integers(0, GRID - 1), min_size=free, max_size=free)), dtype=np.int64)
    target, matrix, shift = image_of(move, site)
    moved = (orbit(group, site, steps) @ move.rotation.T + move.translation * (GRID // 24)) % GRID
    assert np.array_equal(np.unique(moved, axis=0), orbit(group, target, matrix @ steps + shift))


@given(st.sampled_from([g for g in GROUPS if g % 3 == 0]), st.data())
def test_symmetries_of_a_site_leave_its_orbit_unchanged(group, data):
    site = data.draw(st.integers(0, len(wyckoff_sites(group)) - 1))
    free = len(wyckoff_sites(group)[site].free)
    steps = np.array(data.draw(st.lists(st.integers(0, GRID - 1), min_size=free, max_size=free)), dtype=np.int64)
    matrices, shifts = site_symmetries(group, site)
    which = data.draw(st.integers(0, len(matrices) - 1))
    assert np.array_equal(orbit(group, site, matrices[which] @ steps + shifts[which]), orbit(group, site, steps))


@pytest.mark.parametrize("group", [2, 10, 16, 47, 123, 139, 225])
def test_site_permutations_are_a_group(group):
    permutations = {tuple(row) for row in site_permutations(group).tolist()}
    assert tuple(range(len(wyckoff_sites(group)))) in permutations
    some = sorted(permutations)[:20]
    assert all(tuple(one[s] for s in other) in permutations for one in some for other in some)
    assert len(next(iter(permutations))) == len(wyckoff_sites(group))


def test_the_eight_inversion_centres_of_a_triclinic_cell_can_all_be_exchanged():
    assert len(site_permutations(2)) == 1344  # affine maps of a three-dimensional space over two elements
    assert {row[0] for row in site_permutations(2).tolist()} == set(range(8))


def test_perovskite_sites_exchange_their_origin():
    sites = [site.letter for site in wyckoff_sites(221)]
    a, b, c, d = (sites.index(letter) for letter in "abcd")
    assert {tuple(row[[a, b, c, d]]) for row in site_permutations(221)} == {(a, b, c, d), (b, a, d, c)}

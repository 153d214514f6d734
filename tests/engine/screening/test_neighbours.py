from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.screening.neighbours import nearest_distances, pair_distances


def _brute_force(lattice: FloatArray, frac: FloatArray) -> FloatArray:
    """Nearest distances by looking at very many images."""
    images = np.array(list(itertools.product(range(-6, 7), repeat=3))) @ lattice
    delta = frac[None, :] - frac[:, None]
    vectors = (delta - np.rint(delta)) @ lattice
    distances = np.linalg.norm(vectors[:, :, None] + images, axis=-1)
    distances[distances < 1e-9] = np.inf
    return np.asarray(distances.min(axis=2))


@given(seed=st.integers(0, 10_000), n=st.integers(1, 5), shear=st.integers(-3, 3))
@settings(max_examples=60, deadline=None)
def test_distances_agree_with_brute_force_in_skewed_cells(seed: int, n: int, shear: int) -> None:
    rng = np.random.default_rng(seed)
    lattice = np.diag(rng.uniform(2, 6, 3)) + rng.uniform(-1, 1, (3, 3))
    frac = rng.uniform(-1, 2, (n, 3))
    lattice_sheared = lattice.copy()
    lattice_sheared[1] += shear * lattice[0]
    sheared = frac @ lattice @ np.linalg.inv(lattice_sheared)
    crystals = Crystals(
        ids=("a", "b"),
        n_atoms=np.array([n, n]),
        numbers=np.full(2 * n, 11),
        frac=np.concatenate([frac, sheared]),
        lattices=np.stack([lattice, lattice_sheared]),
    )
    (pairs,) = pair_distances(crystals)
    expected = _brute_force(lattice, frac)[pairs.i, pairs.j]
    np.testing.assert_allclose(pairs.distances, np.stack([expected, expected]), atol=1e-8)


def test_the_nearest_neighbour_of_a_lone_atom_is_its_image() -> None:
    one = Crystals(ids=("a",), n_atoms=np.array([1]), numbers=np.array([11]), frac=np.zeros(3), lattices=3 * np.eye(3))
    (pairs,) = pair_distances(one)
    np.testing.assert_allclose(nearest_distances(pairs), [[3.0]])


def test_an_extremely_skewed_cell_takes_no_longer_and_gives_the_same() -> None:
    plain = 4 * np.eye(3)
    skewed = np.array([[1, 0, 0], [5_000, 1, 0], [-70_000, 3_000, 1]]) @ plain
    middle = np.full((1, 3), 0.5) @ plain @ np.linalg.inv(skewed)
    crystals = Crystals(
        ids=("a",), n_atoms=np.array([2]), numbers=np.array([55, 17]), frac=np.vstack([[[0, 0, 0]], middle]),
        lattices=skewed,
    )  # fmt: skip
    (pairs,) = pair_distances(crystals)
    np.testing.assert_allclose(pairs.distances, [[4, 2 * np.sqrt(3), 4]], rtol=1e-6)

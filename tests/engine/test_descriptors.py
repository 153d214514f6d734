from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paragenesis.crystals import Crystals
from paragenesis.engine.descriptors import DESCRIPTOR_NAMES, describe


def _random(seed: int, n: int) -> Crystals:
    rng = np.random.default_rng(seed)
    return Crystals(
        ids=("x",), n_atoms=np.array([n]), numbers=rng.integers(1, 119, n), frac=rng.random((n, 3)),
        lattices=np.diag(rng.uniform(3, 8, 3)) + rng.uniform(-1, 1, (3, 3)),
    )  # fmt: skip


def _supercell(one: Crystals, factors: tuple[int, int, int]) -> Crystals:
    steps = np.stack(np.meshgrid(*map(np.arange, factors), indexing="ij"), axis=-1).reshape(-1, 3)
    frac = ((one.frac[None] + steps[:, None]) / np.array(factors)).reshape(-1, 3)
    return Crystals(
        ids=("x",), n_atoms=np.array([len(frac)]), numbers=np.tile(one.numbers, len(steps)), frac=frac,
        lattices=one.lattices[0] * np.array(factors)[:, None],
    )  # fmt: skip


@given(seed=st.integers(0, 100_000), n=st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_descriptors_ignore_order_origin_and_choice_of_cell(seed: int, n: int) -> None:
    one = _random(seed, n)
    rng = np.random.default_rng(seed)
    expected = describe(one)
    assert np.isfinite(expected).all()
    order = rng.permutation(n)
    shear = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]])
    frac = (one.frac[order] + rng.normal(size=3)) @ np.linalg.inv(shear)
    other = Crystals(
        ids=("x",), n_atoms=one.n_atoms, numbers=one.numbers[order], frac=frac, lattices=shear @ one.lattices[0]
    )
    np.testing.assert_allclose(describe(other), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(describe(_supercell(one, (2, 1, 3))), expected, rtol=1e-6, atol=1e-6)


def test_rows_do_not_depend_on_the_batch() -> None:
    alone = [_random(seed, n) for seed, n in ((1, 3), (2, 5), (3, 3), (4, 1))]
    together = describe(Crystals.concatenate(alone))
    np.testing.assert_allclose(together, np.concatenate([describe(one) for one in alone]), rtol=1e-12)


def test_rock_salt_has_the_known_values() -> None:
    a = 5.64
    cell = a / 2 * (1 - np.eye(3))
    salt = Crystals(
        ids=("x",), n_atoms=np.array([2]), numbers=np.array([11, 17]), frac=[[0] * 3, [0.5] * 3], lattices=cell  # type: ignore[arg-type]
    )  # fmt: skip
    row = dict(zip(DESCRIPTOR_NAMES, describe(salt)[0], strict=True))
    assert row["electronegativity_mean"] == pytest.approx((0.93 + 3.16) / 2)
    assert row["electronegativity_std"] == pytest.approx((3.16 - 0.93) / 2)
    assert row["group_max"] == 17
    assert row["valence_p_mean"] == pytest.approx(2.5)
    assert row["volume_per_atom"] == pytest.approx(a**3 / 8)
    assert row["density"] == pytest.approx(2.16, abs=0.01)
    assert row["nearest_distance_mean"] == pytest.approx(a / 2)
    assert row["nearest_distance_std"] == pytest.approx(0, abs=1e-9)


def test_names_and_columns_agree_and_are_few() -> None:
    assert describe(Crystals.empty()).shape == (0, len(DESCRIPTOR_NAMES))
    assert len(set(DESCRIPTOR_NAMES)) == len(DESCRIPTOR_NAMES) == describe(_random(0, 2)).shape[1]
    assert 20 <= len(DESCRIPTOR_NAMES) <= 48

"""The bulk modulus: the fit finds what was planted, and says NaN where there is nothing to find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paragenesis.crystals import FloatArray
from paragenesis.objectives import BulkModulus, sample_relaxed
from paragenesis.objectives.mechanics import EV_PER_A3_TO_GPA, bulk_moduli

STRAINS = np.linspace(0.94, 1.06, 7)


def birch_murnaghan(v: FloatArray, v0: float, b0: float, b1: float, e0: float = -3.0) -> FloatArray:
    """Energies (eV) in the usual form, with b0 in GPa."""
    x = (v0 / v) ** (2 / 3)
    return e0 + 9 * v0 * b0 / EV_PER_A3_TO_GPA / 16 * ((x - 1) ** 3 * b1 + (x - 1) ** 2 * (6 - 4 * x))


@settings(deadline=None)
@given(
    b0=st.floats(0.5, 500.0),
    b1=st.floats(2.0, 8.0),
    volume=st.floats(5.0, 60.0),
    shift=st.floats(0.97, 1.03),
    e0=st.floats(-12.0, 0.0),
)
def test_a_planted_modulus_is_found(b0: float, b1: float, volume: float, shift: float, e0: float) -> None:
    # the member's own equilibrium lies beside the volume that the crystal was relaxed to
    energies = birch_murnaghan(STRAINS * volume, shift * volume, b0, b1, e0)
    found = bulk_moduli(STRAINS, energies[None, None], np.array([volume]))
    np.testing.assert_allclose(found, [[b0]], rtol=1e-6)


def test_the_fit_agrees_with_pymatgens() -> None:
    from pymatgen.analysis.eos import EOS

    volumes = STRAINS * 16.0
    energies = birch_murnaghan(volumes, 16.1, 140.0, 4.7) + 1e-5 * np.random.default_rng(0).standard_normal(7)
    theirs = EOS("birch_murnaghan").fit(volumes, energies).b0_GPa
    ours = bulk_moduli(STRAINS, energies[None, None], np.array([16.0]))[0, 0]
    assert ours == pytest.approx(float(theirs), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "energies"),
    [
        ("an energy is missing", np.where(STRAINS > 1.05, np.nan, birch_murnaghan(STRAINS * 20, 20.0, 100.0, 4.0))),
        ("no minimum, falling", -STRAINS),
        ("a maximum", -birch_murnaghan(STRAINS * 20, 20.0, 100.0, 4.0)),
        ("the minimum lies outside the volumes", birch_murnaghan(STRAINS * 20, 23.0, 100.0, 4.0)),
        ("a jump", birch_murnaghan(STRAINS * 20, 20.0, 100.0, 4.0) - 0.5 * (STRAINS > 1.03)),
        ("noise", np.array([0.0, 0.3, -0.2, 0.1, -0.3, 0.2, 0.1])),
        ("constant", np.full(7, -2.0)),
    ],
)
def test_nonsense_has_no_modulus(name: str, energies: FloatArray) -> None:
    assert np.isnan(bulk_moduli(STRAINS, energies[None, None], np.array([20.0]))).all(), name


def test_three_volumes_are_too_few() -> None:
    strains = np.array([0.95, 1.0, 1.05])
    energies = birch_murnaghan(strains * 20, 20.0, 100.0, 4.0)
    assert np.isnan(bulk_moduli(strains, energies[None, None], np.array([20.0]))).all()


def test_a_member_without_a_fit_does_not_spoil_the_others() -> None:
    relaxed = sample_relaxed()
    energies = relaxed.strain_energies.copy()
    energies[1, 0] = 0.0
    both, one = BulkModulus().estimate(relaxed), BulkModulus().estimate(replace(relaxed, strain_energies=energies))
    assert np.isfinite(both.std[0])
    assert np.isfinite(one.mean[0])
    assert np.isnan(one.std[0])  # a single answer has no spread
    np.testing.assert_array_equal(one.mean[1:], both.mean[1:])

"""The surrogate with more verified crystals than an exact process can take."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from paragenesis.engine.surrogate import ResidualSurrogate, SurrogateSettings
from paragenesis.engine.surrogate.botorch_fit import fit_exact
from paragenesis.engine.surrogate.kernels import Kernel
from paragenesis.engine.surrogate.levels_fit import fit_levels
from paragenesis.engine.surrogate.process import _Exact, _Variational, learn
from paragenesis.errors import InputError

EXACT = SurrogateSettings(ensemble_weight=0.0)
VARIATIONAL = SurrogateSettings(ensemble_weight=0.0, exact_up_to=200, inducing=200)
NOISE = 0.1


def smooth(n: int, d: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Descriptors, a smooth truth, and noisy answers."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    truth = np.sin(X[:, 0]) + 0.3 * X[:, 1] + 0.5
    return X, truth, truth + NOISE * rng.normal(size=n)


def predictions(surrogate: ResidualSurrogate, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = surrogate.predict(X, np.zeros((len(X), 1)), np.full((len(X), 1), np.nan))
    return mean[:, 0], std[:, 0]


def test_it_agrees_with_the_exact_process_given_the_same_hyper_parameters() -> None:
    X, _, told = smooth(1700)
    process = learn(X[:1500] / 2, told[:1500], None, np.zeros(1500, dtype=int), VARIATIONAL)
    assert isinstance(process, _Variational)
    exact = _Exact(process._data)
    for mine, right in zip(process.predict(X[1500:] / 2), exact.predict(X[1500:] / 2), strict=True):
        assert mine == pytest.approx(right, rel=1e-3, abs=1e-3)
    errors, variances = process.left_out()
    right_errors, right_variances = exact.left_out()
    assert np.sqrt(((errors - right_errors) ** 2).mean()) < 0.1 * NOISE
    assert variances == pytest.approx(right_variances, rel=0.1)


def test_its_hyper_parameters_are_those_of_the_exact_fit() -> None:
    X, _, told = smooth(80)
    kernel, noise = fit_exact(X / 2, told, None, separate=True)
    mine = fit_levels(X / 2, np.zeros(80, dtype=int), told, None, separate=True)
    assert mine.noise[0] == pytest.approx(noise, rel=1e-2)
    assert mine.kernel.common.amplitude == pytest.approx(kernel.amplitude, rel=1e-2)
    assert mine.kernel.common.length_scales == pytest.approx(kernel.length_scales, rel=1e-2)


def test_an_exact_process_of_many_crystals_has_the_hyper_parameters_of_botorchs_fit() -> None:
    X, _, told = smooth(450)
    process = learn(X / 2, told, None, np.zeros(450, dtype=int), EXACT)
    assert isinstance(process, _Exact)
    kernel, noise = fit_exact(X / 2, told / process.size, None, separate=True)
    mine = process._data.kernel
    assert isinstance(mine, Kernel)
    assert process._data.new_noise == pytest.approx(noise, rel=1e-2)
    assert mine.amplitude == pytest.approx(kernel.amplitude, rel=5e-2)
    assert mine.length_scales == pytest.approx(kernel.length_scales, rel=5e-2)


@pytest.mark.parametrize("settings", [EXACT, VARIATIONAL], ids=["exact", "variational"])
@pytest.mark.parametrize("known", [None, NOISE])
def test_intervals_cover_what_they_promise(settings: SurrogateSettings, known: float | None) -> None:
    X, truth, told = smooth(3000, d=4)
    k = 250
    surrogate = ResidualSurrogate(settings).fit(X[:k], told[:k, None], noise_std=known, pool=X)
    mean, std = predictions(surrogate, X[k:])
    # with the noise learnt an interval is about the next answer; with it known, about the truth behind the answer
    value = told[k:] if known is None else truth[k:]
    assert 0.82 < (np.abs(mean - value) < 1.645 * std).mean() < 0.98
    assert surrogate.calibration[0].n == k
    assert surrogate.calibration[0].coverage > 0.7
    assert std.mean() < 0.15
    assert ("leave-one-out" in surrogate.calibration[0].sentence) == (settings is EXACT)


def test_crystals_with_noisier_answers_count_less_in_both_regimes() -> None:
    X, truth, _ = smooth(800)
    noise = np.where(np.arange(400) % 2, 2.0, 0.02)[:, None]
    told = truth[:400, None] + noise * np.random.default_rng(3).normal(size=(400, 1))
    for settings in (EXACT, VARIATIONAL):
        aware = ResidualSurrogate(settings).fit(X[:400], told, noise_std=noise, pool=X)
        blind = ResidualSurrogate(settings).fit(X[:400], told, noise_std=1.0, pool=X)
        wrong = [np.sqrt(((predictions(s, X[400:])[0] - truth[400:]) ** 2).mean()) for s in (aware, blind)]
        assert wrong[0] < 0.3 * wrong[1]


def test_the_same_data_give_the_same_numbers() -> None:
    X, _, told = smooth(900)
    runs = [predictions(ResidualSurrogate(VARIATIONAL).fit(X[:600], told[:600, None]), X) for _ in range(2)]
    assert (runs[0][0] == runs[1][0]).all()
    assert (runs[0][1] == runs[1][1]).all()


def test_copies_of_one_crystal_need_one_inducing_point() -> None:
    told = 0.2 + 0.1 * np.random.default_rng(0).normal(size=300)
    surrogate = ResidualSurrogate(VARIATIONAL).fit(np.ones((300, 2)), told[:, None])
    mean, std = predictions(surrogate, np.ones((2, 2)))
    assert mean == pytest.approx([told.mean()] * 2, abs=0.01)
    assert std == pytest.approx([0.1] * 2, rel=0.2)


def test_twenty_thousand_crystals_fit_in_memory() -> None:
    X, _, told = smooth(25_000, d=8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    surrogate = ResidualSurrogate(SurrogateSettings(ensemble_weight=0.0, inducing=128))
    surrogate.fit(X[:20_000], told[:20_000, None], pool=X)
    mean, std = predictions(surrogate, X[20_000:])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 600_000  # kilobytes; one matrix of all pairs would be 3,200,000
    assert np.sqrt(((mean - told[20_000:]) ** 2).mean()) < 1.2 * NOISE
    assert 0.85 < (np.abs(mean - told[20_000:]) < 1.645 * std).mean() < 0.95


def test_an_impossible_noise_is_named() -> None:
    X, values = np.arange(3.0)[:, None], np.array([[0.1], [0.2], [np.nan]])
    ResidualSurrogate().fit(X, values, noise_std=np.array([[0.1], [0.1], [np.nan]]))
    for noise in (-0.1, np.array([[0.1], [np.nan], [0.1]]), np.array([[0.1], [np.inf], [0.1]])):
        with pytest.raises(InputError, match="finite and not negative"):
            ResidualSurrogate().fit(X, values, noise_std=noise)
    with pytest.raises(InputError, match="one number or the shape"):
        ResidualSurrogate().fit(X, values, noise_std=np.full(3, 0.1))


def test_where_no_noise_is_known_it_is_learnt() -> None:
    X, _, told = smooth(60)
    runs = [
        predictions(ResidualSurrogate(EXACT).fit(X[:40], told[:40, None], noise_std=noise), X)
        for noise in (None, np.full((40, 1), np.nan))
    ]
    assert (runs[0][0] == runs[1][0]).all()
    assert (runs[0][1] == runs[1][1]).all()

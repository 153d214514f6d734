"""The surrogate with crystals of several levels of fidelity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from paragenesis.engine.surrogate import ResidualSurrogate, SurrogateSettings
from paragenesis.engine.surrogate.levels_fit import _Posterior
from paragenesis.engine.surrogate.process import _Exact
from paragenesis.errors import InputError

FEW, MANY = 30, 200
EXACT = SurrogateSettings(ensemble_weight=0.0)
VARIATIONAL = SurrogateSettings(ensemble_weight=0.0, exact_up_to=100, inducing=150)


def problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Descriptors, the truth, and what the target's oracle said of it."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(1200, 3))
    truth = np.sin(2 * X[:, 0]) + 0.5 * X[:, 1] * X[:, 2] + 0.5
    return X, truth, truth + 0.05 * rng.normal(size=1200)


def fitted(
    settings: SurrogateSettings, X: np.ndarray, told: np.ndarray, cheap: np.ndarray | None
) -> tuple[ResidualSurrogate, np.ndarray, np.ndarray]:
    """The surrogate with posterior mean and deviation of crystals that no level knows."""
    rows, fidelity = np.arange(FEW), None
    values = told[:FEW]
    if cheap is not None:  # the cheap level knows the few, too
        rows = np.concatenate([rows, np.arange(MANY)])
        values, fidelity = np.concatenate([values, cheap[:MANY]]), np.repeat([0, 2], [FEW, MANY])
    surrogate = ResidualSurrogate(settings).fit(X[rows], values[:, None], pool=X, fidelity=fidelity)
    nothing = np.zeros((len(X) - MANY, 1))
    mean, std = surrogate.predict(X[MANY:], nothing, np.full(nothing.shape, np.nan))
    return surrogate, mean[:, 0], std[:, 0]


@pytest.mark.parametrize("settings", [EXACT, VARIATIONAL], ids=["exact", "variational"])
def test_many_cheap_and_biased_answers_help_few_of_the_target(settings: SurrogateSettings) -> None:
    X, truth, told = problem(0)
    cheap = 0.8 * truth + 7.0 + 0.2 * np.cos(X[:, 2])
    alone = fitted(settings, X, told, None)[1] - truth[MANY:]
    surrogate, mean, std = fitted(settings, X, told, cheap)
    error = mean - truth[MANY:]
    assert np.sqrt((error**2).mean()) < 0.4 * np.sqrt((alone**2).mean())
    assert (np.abs(error) < 1.645 * std).mean() > 0.8
    assert surrogate.calibration[0].n == FEW
    moved = fitted(settings, X, told, cheap + 1e4)[1]
    assert moved == pytest.approx(mean, abs=1e-2)


@pytest.mark.parametrize("settings", [EXACT, VARIATIONAL], ids=["exact", "variational"])
@pytest.mark.parametrize("kind", ["noise", "unrelated"])
def test_useless_cheap_answers_do_hardly_any_harm(settings: SurrogateSettings, kind: str) -> None:
    X, truth, told = problem(1)
    noise = 3.0 * np.random.default_rng(5).normal(size=len(X))
    cheap = noise if kind == "noise" else 2.0 * np.cos(2 * X[:, 2]) * X[:, 1]
    alone = fitted(settings, X, told, None)[1] - truth[MANY:]
    error = fitted(settings, X, told, cheap)[1] - truth[MANY:]
    assert np.sqrt((error**2).mean()) < 1.15 * np.sqrt((alone**2).mean())


def test_the_target_alone_is_as_without_levels() -> None:
    X, _, told = problem(2)
    nothing = np.zeros((100, 1)), np.full((100, 1), 0.3)
    plain = ResidualSurrogate().fit(X[:20], told[:20, None], pool=X)
    level = ResidualSurrogate().fit(X[:20], told[:20, None], pool=X, fidelity=np.zeros(20, dtype=int))
    for a, b in zip(plain.predict(X[:100], *nothing), level.predict(X[:100], *nothing), strict=True):
        assert (a == b).all()
    assert plain.calibration == level.calibration


def test_a_crystal_is_left_out_at_all_its_levels() -> None:
    X, truth, told = problem(3)
    surrogate = fitted(EXACT, X, told, truth + 1.0)[0]
    process = surrogate._processes[0]
    assert isinstance(process, _Exact)
    data = process._data
    K = data.kernel(data.X, data.X)
    assert np.diag(K) == pytest.approx(data.kernel.diagonal(data.X))
    errors, variances = process.left_out()
    assert errors.shape == variances.shape == (FEW,)
    for i in (0, 7, FEW - 1):
        rest = np.delete(np.arange(FEW + MANY), [i, FEW + i])
        gain = np.linalg.solve(K[np.ix_(rest, rest)] + np.diag(data.noise[rest]), K[rest, i])
        assert errors[i] == pytest.approx(data.size * (data.y[i] - gain @ data.y[rest]), rel=1e-5)
        assert variances[i] == pytest.approx(data.size**2 * (K[i, i] - gain @ K[rest, i] + data.new_noise), rel=1e-5)


@pytest.mark.parametrize("settings", [EXACT, VARIATIONAL], ids=["exact", "variational"])
def test_cheap_answers_alone_predict_but_promise_nothing(settings: SurrogateSettings) -> None:
    X, truth, _ = problem(4)
    surrogate = ResidualSurrogate(settings).fit(X[:150], truth[:150, None], fidelity=np.ones(150, dtype=int))
    mean, std = surrogate.predict(X[150:], np.zeros((1050, 1)), np.full((1050, 1), np.nan))
    assert np.corrcoef(mean[:, 0], truth[150:])[0, 1] > 0.8
    assert (std > 0).all()
    assert (surrogate.calibration[0].n, surrogate.calibration[0].scale) == (0, 1.0)
    assert "target level" in surrogate.calibration[0].sentence


@pytest.mark.parametrize("known", [None, 0.02])
@pytest.mark.parametrize("separate", [True, False])
def test_the_gradient_of_the_hyper_parameters(known: float | None, separate: bool) -> None:
    rng = np.random.default_rng(0)
    Z, levels = rng.normal(size=(60, 3)) / 2.5, np.sort(rng.integers(0, 3, 60))
    y = np.sin(3 * Z[:, 0]) + 0.3 * levels + 0.1 * rng.normal(size=60)
    posterior = _Posterior(Z, levels, y, None if known is None else np.full(60, known), separate)
    at = posterior.starts()[0] + 0.3 * rng.normal(size=len(posterior.bounds))
    numerical = approx_fprime(at, lambda x: posterior(x)[0], 1e-6)
    assert posterior(at)[1] == pytest.approx(numerical, abs=1e-5)


def test_impossible_levels_are_named() -> None:
    for fidelity, words in (
        (np.zeros(2, dtype=int), "each of the 3"),
        (np.array([0, 1, -1]), "integers"),
        (np.array([0.0, 1.0, 1.0]), "integers"),
    ):
        with pytest.raises(InputError, match=words):
            ResidualSurrogate().fit(np.arange(3.0)[:, None], np.ones((3, 1)), fidelity=fidelity)

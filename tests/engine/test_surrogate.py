"""The residual surrogate."""

from __future__ import annotations

import time

import numpy as np
import pytest

from paragenesis.engine.surrogate import ResidualSurrogate, SurrogateSettings
from paragenesis.engine.surrogate.kernels import Kernel
from paragenesis.engine.surrogate.process import _Exact, _Variational
from paragenesis.errors import InputError


def crystals(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * 10.0 ** np.arange(d)


def residual(X: np.ndarray) -> np.ndarray:
    """A bias and a smooth part for the first objective, a bias alone for the second."""
    return np.stack([0.2 + 0.1 * np.sin(X[:, 0]), np.full(len(X), -30.0)], axis=1)


def test_without_verified_crystals_it_is_the_ensemble() -> None:
    X, mean, std = crystals(5), np.arange(10.0).reshape(5, 2), np.full((5, 2), 0.3)
    for surrogate in (ResidualSurrogate(), ResidualSurrogate().fit(np.zeros((0, 6)), np.zeros((0, 2)), pool=X)):
        posterior = surrogate.predict(X, mean, std)
        assert (posterior[0] == mean).all()
        assert (posterior[1] == std).all()


def test_a_missing_spread_is_a_share_of_the_pools() -> None:
    mean = np.array([[0.0], [2.0], [np.nan]])
    settings = SurrogateSettings(default_spread=0.5)
    posterior = ResidualSurrogate(settings).predict(crystals(3), mean, np.full((3, 1), np.nan))
    assert posterior[1][:2, 0] == pytest.approx([0.5, 0.5])
    assert np.isnan(posterior[0][2, 0])


@pytest.mark.parametrize("k", [40, 150])
def test_it_learns_a_planted_bias(k: int) -> None:
    pool = crystals(400)
    known = np.arange(k)
    surrogate = ResidualSurrogate().fit(pool[known], residual(pool[known]), pool=pool)
    prior = np.tile([1.0, 500.0], (400, 1))
    mean, std = surrogate.predict(pool, prior, np.full((400, 2), np.nan))
    error = (mean - prior - residual(pool))[k:]
    assert np.sqrt((error**2).mean(0))[0] < 0.5 * np.std(residual(pool)[:, 0])
    assert np.abs(error[:, 1]).max() < 1.0
    assert 0.8 < (np.abs(error[:, 0]) < 1.645 * std[k:, 0]).mean() <= 1.0


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_a_few_crystals_move_the_mean_part_of_the_way_and_leave_wide_intervals(k: int) -> None:
    pool = crystals(200)
    surrogate = ResidualSurrogate().fit(pool[:k], np.full((k, 1), 0.4), pool=pool)
    mean, std = surrogate.predict(pool, np.zeros((200, 1)), np.full((200, 1), 0.1))
    far = mean[k:, 0]
    assert (far > 0.05).all()
    assert (far <= 0.41).all()
    assert (std > 0.02).all()
    assert np.median(np.abs(far - 0.4) / std[k:, 0]) < 2


def test_more_evidence_gives_narrower_intervals() -> None:
    pool = crystals(300, d=1)
    widths = []
    for k in (3, 30, 200):
        surrogate = ResidualSurrogate().fit(pool[:k], residual(pool[:k])[:, :1], pool=pool)
        widths.append(surrogate.predict(pool, np.zeros((300, 1)), np.full((300, 1), 0.3))[1].mean())
    assert widths[0] > 2 * widths[1] > 2 * widths[2]


def test_the_ensembles_doubt_about_a_crystal_stays() -> None:
    pool = crystals(50)
    surrogate = ResidualSurrogate().fit(pool[:6], residual(pool[:6]), pool=pool)
    prior = np.full((50, 2), 0.01)
    prior[20] = 2.0
    std = surrogate.predict(pool, np.zeros((50, 2)), prior)[1]
    assert std[20, 0] > 3 * np.delete(std[:, 0], 20).max()


def test_failed_verifications_are_left_out_per_objective() -> None:
    pool = crystals(60)
    values = residual(pool[:20])
    values[:4, 0], values[4:, 1] = np.nan, np.nan
    both = ResidualSurrogate().fit(pool[:20], values, pool=pool)
    first = ResidualSurrogate().fit(pool[4:20], values[4:, :1], pool=np.vstack([pool, pool[:4]]))
    prior = np.zeros((60, 2)), np.full((60, 2), 0.1)
    a, b = both.predict(pool, *prior)[0][:, 0], first.predict(pool, prior[0][:, :1], prior[1][:, :1])[0][:, 0]
    assert a == pytest.approx(b, abs=0.02)
    assert [c.n for c in both.calibration] == [16, 4]
    nobody = ResidualSurrogate().fit(pool[:2], np.full((2, 2), np.nan), pool=pool)
    assert (nobody.predict(pool, *prior)[1] == 0.1).all()


def test_an_objective_that_the_ensemble_knows_exactly_stays_exact() -> None:
    pool = crystals(30)
    surrogate = ResidualSurrogate().fit(pool[:6], np.zeros((6, 1)), prior_std=np.zeros((6, 1)), pool=pool)
    mean, std = surrogate.predict(pool, np.full((30, 1), 2e3), np.zeros((30, 1)))
    assert (mean == 2e3).all()
    assert (std == 0).all()


def test_duplicates_and_constant_descriptors() -> None:
    X = np.ones((5, 3))
    values = np.array([[0.1], [0.3], [0.2], [0.1], [0.3]])
    mean, std = ResidualSurrogate().fit(X, values).predict(X[:2], np.zeros((2, 1)), np.full((2, 1), np.nan))
    assert mean[:, 0] == pytest.approx([0.2, 0.2], abs=0.05)
    assert (std > 0.03).all()


def test_the_same_data_give_the_same_numbers_in_any_unit() -> None:
    pool = crystals(80)
    prior = np.zeros((80, 2)), np.full((80, 2), np.nan)
    plain = ResidualSurrogate().fit(pool[:12], residual(pool[:12]), pool=pool).predict(pool, *prior)
    again = ResidualSurrogate().fit(pool[:12], residual(pool[:12]), pool=pool).predict(pool, *prior)
    assert (plain[0] == again[0]).all()
    assert (plain[1] == again[1]).all()
    scaled = ResidualSurrogate().fit(3 * pool[:12], 1e4 * residual(pool[:12]), pool=3 * pool)
    mean, std = scaled.predict(3 * pool, *prior)
    assert mean / 1e4 == pytest.approx(plain[0], rel=1e-5)
    assert std / 1e4 == pytest.approx(plain[1], rel=1e-5)


def test_prediction_and_leave_one_out_agree_with_the_direct_computation() -> None:
    pool = crystals(25)
    noise = 0.02
    known = ResidualSurrogate().fit(pool[:9], residual(pool[:9])[:, :1], noise_std=noise, pool=pool)
    process = known._processes[0]
    assert isinstance(process, _Exact)
    data = process._data
    K = data.kernel(data.X, data.X) + np.diag(data.noise)
    errors, variances = process.left_out()
    for i in range(9):
        rest = np.delete(np.arange(9), i)
        cross = data.kernel(data.X[rest], data.X[[i]])[:, 0]
        gain = np.linalg.solve(K[np.ix_(rest, rest)], cross)
        assert errors[i] == pytest.approx(data.size * (data.y[i] - gain @ data.y[rest]), rel=1e-6)
        variance = data.kernel.diagonal(data.X[[i]])[0] - gain @ cross
        assert variances[i] == pytest.approx(variance * data.size**2, rel=1e-5)


@pytest.mark.parametrize("levels", [1, 2])
def test_correlations_are_what_a_further_crystal_tells(levels: int) -> None:
    pool = crystals(60, d=2)
    fidelity = np.arange(12) % levels
    surrogate = ResidualSurrogate().fit(pool[:12], residual(pool[:12]), noise_std=1e-3, pool=pool, fidelity=fidelity)
    correlation = surrogate.correlation(pool[45:53])
    assert correlation.shape == (2, 8, 8)
    process, space = surrogate._processes[0], surrogate._space
    assert isinstance(process, _Exact)
    assert space is not None
    data, Z = process._data, space(pool[45:53])
    first, others = data.at_target(Z[:1]), data.at_target(Z[1:])
    # take the first up as verified: the direct computation
    X, noise = np.vstack([data.X, first]), np.append(data.noise, data.new_noise)
    cross = data.kernel(X, others)
    told = (cross * np.linalg.solve(data.kernel(X, X) + np.diag(noise), cross)).sum(0)
    before = process.predict(Z[1:])[1] / data.size**2
    after = data.kernel.diagonal(others) - told + data.new_noise
    assert (after < 0.9 * before).any()
    assert after == pytest.approx(before * (1 - correlation[0, 0, 1:] ** 2), rel=1e-6)


def test_a_variational_process_that_remembers_all_correlates_as_the_exact_one() -> None:
    pool = crystals(60)
    surrogate = ResidualSurrogate().fit(pool[:50], residual(pool[:50])[:, :1], pool=pool)
    process, space = surrogate._processes[0], surrogate._space
    assert isinstance(process, _Exact)
    assert space is not None
    Z = space(pool[50:])
    assert _Variational(process._data, 512).correlation(Z) == pytest.approx(process.correlation(Z), abs=1e-3)


def test_what_is_not_learnt_correlates_with_nothing() -> None:
    pool = crystals(20)
    values = residual(pool[:9])
    values[:, 1] = np.nan
    surrogate = ResidualSurrogate().fit(pool[:9], values, pool=pool)
    correlation = surrogate.correlation(pool[9:])
    assert (correlation[1] == np.eye(11)).all()
    exact = ResidualSurrogate().fit(pool[:6], np.zeros((6, 1)), noise_std=0.0, pool=pool)
    assert np.isfinite(exact.correlation(pool)).all()


def test_prediction_agrees_with_botorchs_posterior() -> None:
    import torch

    from paragenesis.engine.surrogate.botorch_fit import botorch_model, exact_algebra

    pool = crystals(40)
    fitted = ResidualSurrogate().fit(pool[:15], residual(pool[:15])[:, :1], pool=pool)
    process = fitted._processes[0]
    assert isinstance(process, _Exact)
    data = process._data
    assert isinstance(data.kernel, Kernel)
    model = botorch_model(torch.as_tensor(data.X), torch.as_tensor(data.y[:, None]), None, separate=False)
    bias, smooth = model.covar_module.kernels
    bias.constant = torch.tensor(data.kernel.bias)
    smooth.outputscale = data.kernel.amplitude
    smooth.base_kernel.lengthscale = torch.as_tensor(data.kernel.length_scales)
    model.likelihood.noise = data.new_noise
    assert fitted._space is not None
    Z = fitted._space(pool)
    with torch.no_grad(), exact_algebra():
        posterior = model.posterior(torch.as_tensor(Z), observation_noise=True)
    mean, variance = process.predict(Z)
    assert mean / data.size == pytest.approx(posterior.mean.numpy()[:, 0], abs=1e-5)
    assert variance / data.size**2 == pytest.approx(posterior.variance.numpy()[:, 0], abs=1e-5)


def test_calibration_widens_an_overconfident_ensemble_to_the_nominal_coverage() -> None:
    pool, truth = crystals(1000), np.random.default_rng(1).normal(size=(1000, 1))
    overconfident = np.full((1000, 1), 0.3)
    surrogate = ResidualSurrogate(SurrogateSettings(ensemble_weight=1e6))
    surrogate.fit(pool[:100], truth[:100], prior_std=overconfident[:100], pool=pool)
    calibrated = surrogate.calibration[0]
    assert calibrated.coverage < 0.6
    assert "100 leave-one-out" in calibrated.sentence
    mean, std = surrogate.predict(pool[100:], np.zeros((900, 1)), overconfident[100:])
    assert 0.85 < (np.abs(truth[100:] - mean) < 1.645 * std).mean() < 0.95


def test_too_few_points_are_said() -> None:
    pool = crystals(30)
    scales = {}
    for k in (0, 1, 3, 6, 20):
        fitted = ResidualSurrogate().fit(pool[:k], residual(pool[:k])[:, :1], pool=pool).calibration[0]
        scales[k] = fitted.scale
        assert ("too few to promise" in fitted.sentence) == (k in (1, 3, 6))
        assert fitted.n == k
    assert scales[0] == 1.0
    assert min(scales[k] for k in (1, 3, 6)) >= 1.0, "wide, never narrow"
    late = ResidualSurrogate(SurrogateSettings(min_calibration=50)).fit(
        pool[:20], residual(pool[:20])[:, :1], pool=pool
    )
    assert late.calibration[0].scale >= 1.0
    assert "too few to promise" in late.calibration[0].sentence


def test_a_hundred_thousand_candidates_take_seconds() -> None:
    pool = crystals(100_000, d=20)
    surrogate = ResidualSurrogate().fit(pool[:60], residual(pool[:60]), pool=pool)
    started = time.process_time()
    mean, std = surrogate.predict(pool, np.zeros((100_000, 2)), np.full((100_000, 2), 0.1))
    assert time.process_time() - started < 30  # measured: 0.5 s
    some = np.arange(0, 100_000, 9973)
    part = surrogate.predict(pool[some], np.zeros((len(some), 2)), np.full((len(some), 2), 0.1))
    assert part[0] == pytest.approx(mean[some], rel=1e-9)
    assert part[1] == pytest.approx(std[some], rel=1e-9)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="row 1, column 0 is nan"):
        ResidualSurrogate().fit(np.array([[1.0], [np.nan]]), np.ones((2, 1)))
    with pytest.raises(InputError, match="3 crystals"):
        ResidualSurrogate().fit(np.ones((3, 1)), np.ones((2, 1)))
    fitted = ResidualSurrogate().fit(crystals(3), np.ones((3, 1)))
    with pytest.raises(InputError, match="6 descriptors were expected"):
        fitted.predict(np.ones((2, 4)), np.zeros((2, 1)), np.zeros((2, 1)))
    with pytest.raises(InputError, match="N x m"):
        fitted.predict(crystals(2), np.zeros((2, 2)), np.zeros((2, 2)))

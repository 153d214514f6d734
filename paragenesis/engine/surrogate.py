"""The surrogate: Gaussian processes that learn, objective by objective, what the ensemble gets wrong.

Verified crystals teach the **residual**, oracle minus ensemble mean, as a function of the descriptors. The posterior
for a candidate is the ensemble mean plus the expected residual. Without verified crystals it is the ensemble alone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.stats import norm

from paragenesis.crystals import FloatArray
from paragenesis.engine.acquisition.features import FeatureSpace, feature_matrix
from paragenesis.errors import InputError
from paragenesis.settings import Settings

if TYPE_CHECKING:
    import torch

_LOG = logging.getLogger(__name__)
_NOISE_FLOOR = 1e-4  # smallest noise variance relative to the mean square residual; keeps the factorisation stable
_SCALE_BOUNDS = (0.25, 10.0)  # a handful of residuals may not shrink or stretch the intervals beyond this


class SurrogateSettings(Settings):
    """How residuals are learnt.

    Attributes:
        dimensions: Principal components of the standardised descriptors that the kernel sees.
        points_per_length_scale: Verified crystals per component from which each component gets its own length scale.
        ensemble_weight: How many verified crystals the ensemble's own spread counts for in the posterior variance.
        default_spread: Standard deviation of a candidate without one (a single member has no spread), as a share of
            the objective's spread over the pool, until verified crystals tell better.
        level: Nominal coverage at which intervals are calibrated.
        min_calibration: Verified crystals below which intervals are left as they are.
    """

    dimensions: int = Field(default=16, ge=1)
    points_per_length_scale: int = Field(default=8, ge=1)
    ensemble_weight: float = Field(default=4.0, ge=0.0)
    default_spread: float = Field(default=0.25, ge=0.0)
    level: float = Field(default=0.9, gt=0.0, lt=1.0)
    min_calibration: int = Field(default=5, ge=2)


@dataclass(frozen=True)
class Calibration:
    """By how much the intervals of one objective were stretched, and on what evidence.

    Attributes:
        scale: The factor on every standard deviation.
        n: Verified crystals behind it.
        coverage: Share of them that lay inside their uncalibrated leave-one-out interval; NaN without any.
        level: The nominal coverage.
        sentence: The same in words.
    """

    scale: float
    n: int
    coverage: float
    level: float
    sentence: str


class ResidualSurrogate:
    """One exact Gaussian process per objective on oracle minus ensemble."""

    def __init__(self, settings: SurrogateSettings | None = None) -> None:
        """Start knowing nothing: predictions are the ensemble's."""
        self.settings = settings or SurrogateSettings()
        self._space: FeatureSpace | None = None
        self._processes: list[_Process | None] = []
        self.calibration: tuple[Calibration, ...] = ()

    def fit(
        self,
        X: FloatArray,
        residuals: FloatArray,
        noise_std: FloatArray | float | None = None,
        prior_std: FloatArray | None = None,
        pool: FloatArray | None = None,
        space: FeatureSpace | None = None,
    ) -> ResidualSurrogate:
        """Learn from k verified crystals, and calibrate on them left out one by one.

        Args:
            X: Their descriptors, shape `k x d`; `k` may be 0.
            residuals: Oracle minus ensemble mean, shape `k x m`; NaN where either is missing, left out per objective.
            noise_std: The oracle's own standard deviation, a number or shape `k x m`; learnt if not given.
            prior_std: The ensemble's standard deviations of the same crystals, shape `k x m`, for the calibration.
            pool: Descriptors of the candidates, shape `N x d`. They fix how descriptors are scaled and reduced: a few
                verified crystals cannot tell along which directions the candidates differ.
            space: How descriptors are scaled and reduced, where that is known already.

        Returns:
            The surrogate itself.

        Raises:
            InputError: Shapes disagree or a descriptor is not finite.
        """
        X, residuals = feature_matrix("descriptors", X, finite=True), feature_matrix("residuals", residuals)
        if len(X) != len(residuals):
            raise InputError(f"{len(X)} crystals with descriptors came with residuals of {len(residuals)}")
        noise = None if noise_std is None else np.broadcast_to(np.asarray(noise_std, float), residuals.shape)
        spread = np.full(residuals.shape, np.nan) if prior_std is None else feature_matrix("prior_std", prior_std)
        if space is None:
            basis = X if pool is None else np.vstack([feature_matrix("pool", pool, finite=True), X])
            space = FeatureSpace(basis, None if pool is None else self.settings.dimensions)
        self._space = space
        Z = self._space(X)
        self._processes = []
        for j in range(residuals.shape[1]):
            use = np.isfinite(residuals[:, j])
            known = None if noise is None else noise[use, j]
            self._processes.append(_Process(Z[use], residuals[use, j], known, self.settings) if use.any() else None)
        self.calibration = tuple(
            self._calibrate(process, spread[np.isfinite(residuals[:, j]), j])
            for j, process in enumerate(self._processes)
        )
        return self

    def predict(self, X: FloatArray, prior_mean: FloatArray, prior_std: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior of N candidates: ensemble plus expected residual, with calibrated standard deviations.

        With n verified crystals the variance is `(n v + w s^2) / (n + w)`: v the process's predictive variance, s the
        ensemble's standard deviation, which so counts for `w = ensemble_weight` crystals. Where s is missing (a
        single member), the same rule makes one from the mean square of the n residuals and, for s, the share
        `default_spread` of the standard deviation of the objective's prior means over these N candidates.

        Args:
            X: Descriptors, shape `N x d`.
            prior_mean: The ensemble's means, shape `N x m`; NaN stays NaN.
            prior_std: The ensemble's standard deviations, shape `N x m`; NaN where there was one member only.

        Returns:
            Mean and standard deviation, shape `N x m` each.

        Raises:
            InputError: Shapes disagree or a descriptor is not finite.
        """
        X = feature_matrix("descriptors", X, finite=True)
        mean, std = feature_matrix("prior_mean", prior_mean).copy(), feature_matrix("prior_std", prior_std).copy()
        m = len(self._processes) or mean.shape[1]
        if not mean.shape == std.shape == (len(X), m):
            raise InputError(
                f"prior mean and std need the shape N x m = {len(X)} x {m}, but {mean.shape}, {std.shape} came"
            )
        Z = self._space(X) if self._space is not None else X
        for j in range(m):
            process = self._processes[j] if self._processes else None
            std[:, j] = np.where(np.isnan(std[:, j]), self._default(process, mean[:, j]), std[:, j])
            if process is None:
                continue
            shift, variance = process.predict(Z)
            mean[:, j] += shift
            std[:, j] = self.calibration[j].scale * self._blend(process.n, variance, std[:, j])
        return mean, std

    def _default(self, process: _Process | None, prior_mean: FloatArray) -> float:
        """The standard deviation of a candidate whose ensemble has none."""
        known = prior_mean[np.isfinite(prior_mean)]
        share = self.settings.default_spread * float(known.std()) if known.size else 0.0
        return share if process is None else float(self._blend(process.n, np.array(process.size**2), np.array(share)))

    def _blend(self, n: int, variance: FloatArray, prior_std: FloatArray) -> FloatArray:
        weight = self.settings.ensemble_weight
        blended: FloatArray = np.sqrt((n * variance + weight * prior_std**2) / (n + weight))
        return blended

    def _calibrate(self, process: _Process | None, prior_std: FloatArray) -> Calibration:
        """Conformal scale factor from leave-one-out residuals (Barber et al., Ann. Stat. 49, 486 (2021))."""
        level, least = self.settings.level, self.settings.min_calibration
        if process is None:
            return Calibration(1.0, 0, np.nan, level, "nothing is verified: the intervals are the ensemble's own")
        error, variance = process.leave_one_out()
        std = self._blend(process.n, variance, np.where(np.isnan(prior_std), process.size, prior_std))
        scores = np.sort(np.abs(error) / np.maximum(std, 1e-300)) / norm.ppf(0.5 + 0.5 * level)
        n, coverage = process.n, float((scores <= 1.0).mean())
        if n < least:
            words = f"{n} verified, {least} are needed: the intervals are not calibrated"
            return Calibration(1.0, n, coverage, level, words)
        rank = int(np.ceil((n + 1) * level))
        if rank > n:
            scale = float(np.clip(scores[-1], 1.0, _SCALE_BOUNDS[1]))
            words = f"{n} verified are too few to promise {level:.0%}: stretched to the largest error, x{scale:.2f}"
        else:
            scale = float(np.clip(scores[rank - 1], *_SCALE_BOUNDS))
            words = f"x{scale:.2f} from {n} leave-one-out residuals ({coverage:.0%} inside {level:.0%} before)"
        return Calibration(scale, n, coverage, level, words)


class _Process:
    """A Gaussian process of one objective's residuals: a common bias, a smooth function, and noise.

    The mean is zero, and the bias has a variance of its own: with one verified crystal only part of its residual is
    believed, and the doubt about the bias stays in the intervals. Hyper-parameters are fitted by BoTorch; prediction
    and leave-one-out are written out below because both need the same factorisation and 1e5 candidates at a time.
    """

    def __init__(self, Z: FloatArray, residuals: FloatArray, noise: FloatArray | None, settings: SurrogateSettings):
        self.n = len(residuals)
        self.size = float(np.sqrt((residuals**2).mean()))
        self._Z = Z
        # residuals that are all zero (a property that needs no potential) have nothing to teach and no doubt to add
        self._unit = self.size
        unit = self.size if self.size > 0 else 1.0
        self._y = residuals / unit
        separate = self.n >= settings.points_per_length_scale * Z.shape[1]
        known = None if noise is None else np.maximum((noise / unit) ** 2, _NOISE_FLOOR)
        self._kernel, fitted_noise = _fit(Z, self._y, known, separate)
        self._noise = np.full(self.n, fitted_noise) if known is None else known
        # what is learnt as noise is scatter between crystals and belongs to a new one; the oracle's own does not
        self._new_noise = fitted_noise if known is None else 0.0
        self._factor = cho_factor(self._kernel(Z, Z) + np.diag(self._noise), lower=True)
        self._weights = cho_solve(self._factor, self._y)

    def predict(self, Z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Expected residuals and their predictive variances, shape `N` each, in the objective's unit."""
        mean, variance = np.empty(len(Z)), np.empty(len(Z))
        step = max(1, 2_000_000 // self.n)  # bounds the cross-covariance to 16 MB
        for start in range(0, len(Z), step):
            rows = slice(start, start + step)
            cross = self._kernel(Z[rows], self._Z)
            mean[rows] = cross @ self._weights
            explained = solve_triangular(self._factor[0], cross.T, lower=True, overwrite_b=False)
            variance[rows] = self._kernel.variance - (explained**2).sum(0)
        variance = np.maximum(variance, 0.0) + self._new_noise
        return mean * self._unit, variance * self._unit**2

    def leave_one_out(self) -> tuple[FloatArray, FloatArray]:
        """Error and predictive variance of each residual from the others (Rasmussen & Williams 2006, eq. 5.12)."""
        inverse = np.diag(cho_solve(self._factor, np.eye(self.n)))
        error = self._weights / inverse
        variance = np.maximum(1.0 / inverse - self._noise, 0.0) + self._new_noise
        return error * self._unit, variance * self._unit**2


@dataclass(frozen=True)
class _Kernel:
    """A constant plus a Matern-5/2 covariance."""

    bias: float
    amplitude: float
    length_scales: FloatArray

    @property
    def variance(self) -> float:
        """The covariance of a point with itself."""
        return self.bias + self.amplitude

    def __call__(self, A: FloatArray, B: FloatArray) -> FloatArray:
        A, B = A / self.length_scales, B / self.length_scales
        square = (A**2).sum(1)[:, None] + (B**2).sum(1)[None, :] - 2.0 * (A @ B.T)
        scaled = np.sqrt(5.0 * np.maximum(square, 0.0))
        matern: FloatArray = (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)
        return self.bias + self.amplitude * matern


def _fit(Z: FloatArray, y: FloatArray, noise: FloatArray | None, separate: bool) -> tuple[_Kernel, float]:
    """Maximum a posteriori hyper-parameters: the kernel and the learnt noise variance (NaN if the noise is known)."""
    import torch
    from botorch.exceptions.warnings import OptimizationWarning
    from botorch.optim.fit import fit_gpytorch_mll_scipy
    from gpytorch.mlls import ExactMarginalLogLikelihood

    known = None if noise is None else torch.as_tensor(noise[:, None])
    with _exact_algebra():
        model = _model(torch.as_tensor(Z), torch.as_tensor(y[:, None]), known, separate)
        with warnings.catch_warnings():
            # a search that stops early (flat likelihood, few points) leaves usable values; it is logged below
            warnings.simplefilter("ignore", OptimizationWarning)
            result = fit_gpytorch_mll_scipy(ExactMarginalLogLikelihood(model.likelihood, model).train())
        _LOG.debug("hyper-parameters from %d crystals: %s, %s", len(y), result.status, result.message)
    bias, smooth = model.covar_module.kernels
    kernel = _Kernel(
        float(bias.constant.detach()),
        float(smooth.outputscale.detach()),
        np.asarray(smooth.base_kernel.lengthscale.detach().numpy(), dtype=np.float64).reshape(-1),
    )
    return kernel, np.nan if noise is not None else float(model.likelihood.noise.detach())


def _model(X: torch.Tensor, Y: torch.Tensor, noise: torch.Tensor | None, separate: bool) -> Any:
    """A BoTorch model with zero mean, constant + Matern covariance, and priors in units of the data.

    Distances are in units of the pool's root mean square distance and residuals in units of their root mean square,
    so the same weakly informative priors serve every objective.
    """
    import torch
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import GreaterThan
    from gpytorch.kernels import ConstantKernel, MaternKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.means import ZeroMean
    from gpytorch.priors import LogNormalPrior

    smooth = MaternKernel(
        nu=2.5,
        ard_num_dims=X.shape[1] if separate else None,
        lengthscale_prior=LogNormalPrior(-0.7, 0.7),
        lengthscale_constraint=GreaterThan(1e-2),
    )
    smooth.lengthscale = 0.5
    scaled = ScaleKernel(smooth, outputscale_prior=LogNormalPrior(-1.0, 1.0))
    scaled.outputscale = 0.4
    bias = ConstantKernel(constant_prior=LogNormalPrior(-1.0, 1.0))
    bias.constant = torch.tensor(0.4)
    likelihood = None
    if noise is None:
        likelihood = GaussianLikelihood(
            noise_prior=LogNormalPrior(-2.5, 1.0), noise_constraint=GreaterThan(_NOISE_FLOOR)
        )
        likelihood.noise = 0.1
    return SingleTaskGP(
        X,
        Y,
        train_Yvar=noise,
        likelihood=likelihood,
        covar_module=bias + scaled,
        mean_module=ZeroMean(),
        outcome_transform=None,
    ).double()


@contextmanager
def _exact_algebra() -> Iterator[None]:
    """Cholesky at any size: the limit is a global of gpytorch, which importing botorch changes."""
    import gpytorch

    with gpytorch.settings.max_cholesky_size(1_000_000), gpytorch.settings.fast_computations(False, False, False):
        yield

"""The surrogate: Gaussian processes that learn, objective by objective, what the ensemble gets wrong.

Verified crystals teach the **residual**, oracle minus ensemble mean, as a function of the descriptors. The posterior
for a candidate is the ensemble mean plus the expected residual. Without verified crystals it is the ensemble alone.
"""

from __future__ import annotations

import numpy as np

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.acquisition.features import FeatureSpace, feature_matrix
from paragenesis.engine.surrogate.calibration import Calibration, calibrate
from paragenesis.engine.surrogate.process import Process, learn
from paragenesis.engine.surrogate.settings import SurrogateSettings
from paragenesis.errors import InputError

NOT_LEARNT = "nothing is verified: the intervals are the ensemble's own"


class ResidualSurrogate:
    """One Gaussian process per objective on oracle minus ensemble.

    It is exact up to `exact_up_to` crystals and variational beyond. Residuals may come from several levels of fidelity;
    predictions are made at level 0.
    """

    def __init__(self, settings: SurrogateSettings | None = None) -> None:
        """Start knowing nothing: predictions are the ensemble's."""
        self.settings = settings or SurrogateSettings()
        self._space: FeatureSpace | None = None
        self._processes: list[Process | None] = []
        self.calibration: tuple[Calibration, ...] = ()

    def fit(
        self,
        X: FloatArray,
        residuals: FloatArray,
        noise_std: FloatArray | float | None = None,
        prior_std: FloatArray | None = None,
        pool: FloatArray | None = None,
        space: FeatureSpace | None = None,
        fidelity: IntArray | None = None,
    ) -> ResidualSurrogate:
        """Learn from k verified crystals, and calibrate on those of the target level, left out in turn.

        Args:
            X: Their descriptors, shape `k x d`; `k` may be 0.
            residuals: Oracle minus ensemble mean, shape `k x m`; NaN where either is missing, left out per objective.
            noise_std: The oracle's own standard deviation, a number or shape `k x m`; learnt if not given, and for an
                objective whose column is all NaN. Lower levels may be noisier than that: what is more is learnt.
            prior_std: The ensemble's standard deviations of the same crystals, shape `k x m`, for the calibration.
            pool: Descriptors of the candidates, shape `N x d`. They fix how descriptors are scaled and reduced: a few
                verified crystals cannot tell along which directions the candidates differ.
            space: How descriptors are scaled and reduced, where that is known already.
            fidelity: The level of each residual, shape `k`: 0 is the target, at which predictions are made; larger
                numbers are cheaper and less accurate. A crystal known at two levels is two rows with the same
                descriptors. All are of the target level if not given.

        Returns:
            The surrogate itself.

        Raises:
            InputError: Shapes disagree, a descriptor is not finite, or a noise or level is not possible.
        """
        X, residuals = feature_matrix("descriptors", X, finite=True), feature_matrix("residuals", residuals)
        if len(X) != len(residuals):
            raise InputError(f"{len(X)} crystals with descriptors came with residuals of {len(residuals)}")
        noise = _noise(noise_std, residuals)
        levels = _levels(fidelity, len(X))
        spread = np.full(residuals.shape, np.nan) if prior_std is None else feature_matrix("prior_std", prior_std)
        if space is None:
            basis = X if pool is None else np.vstack([feature_matrix("pool", pool, finite=True), X])
            space = FeatureSpace(basis, None if pool is None else self.settings.dimensions)
        self._space = space
        Z = self._space(X)
        self._processes, calibration = [], []
        for j in range(residuals.shape[1]):
            use = np.isfinite(residuals[:, j])
            known = None if noise is None or np.isnan(noise[use, j]).all() else noise[use, j]
            process = learn(Z[use], residuals[use, j], known, levels[use], self.settings) if use.any() else None
            self._processes.append(process)
            calibration.append(self._calibrate(process, spread[use & (levels == 0), j]))
        self.calibration = tuple(calibration)
        return self

    def predict(self, X: FloatArray, prior_mean: FloatArray, prior_std: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior of N candidates: ensemble plus expected residual, with calibrated standard deviations.

        With n verified crystals of the target level the variance is `(n v + w s^2) / (n + w)`: v the process's
        predictive variance, s the ensemble's standard deviation, which so counts for `w = ensemble_weight` crystals.
        Where s is missing (a single member), the same rule makes one from the mean square of the n residuals and, for
        s, the share `default_spread` of the standard deviation of the objective's prior means over these N candidates.

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

    def believed(self, values: FloatArray, noise_std: FloatArray, X: FloatArray, prior_mean: FloatArray) -> FloatArray:
        """What to think of verified values: of those that are known to be noisy, what the posterior makes of them.

        The best of many noisy values is lucky; held against it, nothing that is new would look promising.

        Args:
            values: Verified values, shape `k x m`.
            noise_std: Their standard deviations, as `fit` took them, shape `k x m`; NaN where they are not known.
            X: Descriptors, shape `k x d`.
            prior_mean: The ensemble's means, shape `k x m`.

        Returns:
            Shape `k x m`; NaN where a value is missing.
        """
        noisy = np.isfinite(values) & (noise_std > 0)
        if not noisy.any():
            return values
        expected, _ = self.predict(X, prior_mean, np.zeros_like(prior_mean))
        return np.where(noisy & np.isfinite(expected), expected, values)

    def correlation(self, X: FloatArray) -> FloatArray:
        """How the errors of the posterior means of k candidates go together, by objective.

        What the ensemble's own spread adds to the variance is taken to go together in the same way.

        Args:
            X: Descriptors, shape `k x d`.

        Returns:
            Shape `m x k x k`, 1 on the diagonals; the identity where nothing is learnt.
        """
        X = feature_matrix("descriptors", X, finite=True)
        Z = self._space(X) if self._space is not None else X
        return np.stack([np.eye(len(Z)) if p is None else p.correlation(Z) for p in self._processes])

    def _default(self, process: Process | None, prior_mean: FloatArray) -> float:
        """The standard deviation of a candidate whose ensemble has none."""
        known = prior_mean[np.isfinite(prior_mean)]
        share = self.settings.default_spread * float(known.std()) if known.size else 0.0
        return share if process is None else float(self._blend(process.n, np.array(process.size**2), np.array(share)))

    def _blend(self, n: int, variance: FloatArray, prior_std: FloatArray) -> FloatArray:
        weight, n = self.settings.ensemble_weight, max(n, 1)  # lower levels alone count as one crystal
        blended: FloatArray = np.sqrt((n * variance + weight * prior_std**2) / (n + weight))
        return blended

    def _calibrate(self, process: Process | None, prior_std: FloatArray) -> Calibration:
        """Hold the intervals against the crystals of the target level; `prior_std` is the ensemble's, of these."""
        level = self.settings.level
        if process is None:
            return Calibration.none(level, NOT_LEARNT)
        if process.n == 0:
            words = "nothing is verified at the target level: the intervals are not calibrated"
            return Calibration.none(level, words)
        error, variance = process.left_out()
        std = self._blend(process.n, variance, np.where(np.isnan(prior_std), process.size, prior_std))
        return calibrate(error, std, process.own_noise, level, self.settings.min_calibration, process.way)


def _noise(noise_std: FloatArray | float | None, residuals: FloatArray) -> FloatArray | None:
    """The oracle's standard deviations, shape `k x m`; a column of NaN where they are not known.

    Raises:
        InputError: They do not fit the residuals, or one that belongs to a residual is negative, or missing while
            others of its objective are not.
    """
    if noise_std is None:
        return None
    noise = np.asarray(noise_std, dtype=np.float64)
    if noise.ndim and noise.shape != residuals.shape:
        raise InputError(f"noise_std needs one number or the shape {residuals.shape}, but the shape {noise.shape} came")
    noise = np.broadcast_to(noise, residuals.shape)
    wanted = np.isfinite(residuals)
    silent = (np.isnan(noise) | ~wanted).all(0)
    wrong = wanted & ~silent & ~(np.isfinite(noise) & (noise >= 0))
    if wrong.any():
        raise InputError(f"noise_std must be finite and not negative, but {noise[wrong][0]} is among them")
    return noise


def _levels(fidelity: IntArray | None, k: int) -> IntArray:
    """The level of each of k crystals.

    Raises:
        InputError: There are not k, or one is no integer from 0 on.
    """
    levels = np.zeros(k, dtype=np.int64) if fidelity is None else np.asarray(fidelity)
    if levels.shape != (k,):
        raise InputError(f"fidelity needs a level for each of the {k} crystals, but the shape {levels.shape} came")
    if k and not (np.issubdtype(levels.dtype, np.integer) and levels.min() >= 0):
        raise InputError("fidelity must be integers, 0 for the target and larger ones for cheaper levels")
    return levels.astype(np.int64)

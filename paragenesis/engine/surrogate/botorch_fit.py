"""Hyper-parameters of the exact process of up to some hundred crystals, by BoTorch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from paragenesis.crystals import FloatArray
from paragenesis.engine.surrogate.kernels import NOISE_FLOOR, Kernel

if TYPE_CHECKING:
    import torch

_LOG = logging.getLogger(__name__)


def fit_exact(Z: FloatArray, y: FloatArray, noise: FloatArray | None, separate: bool) -> tuple[Kernel, float]:
    """Maximum a posteriori hyper-parameters: the kernel and the learnt noise variance (NaN if the noise is known)."""
    import torch
    from botorch.exceptions.warnings import OptimizationWarning
    from botorch.optim.fit import fit_gpytorch_mll_scipy
    from gpytorch.mlls import ExactMarginalLogLikelihood

    known = None if noise is None else torch.as_tensor(noise[:, None])
    with exact_algebra():
        model = botorch_model(torch.as_tensor(Z), torch.as_tensor(y[:, None]), known, separate)
        with warnings.catch_warnings():
            # a search that stops early (flat likelihood, few points) leaves usable values; it is logged below
            warnings.simplefilter("ignore", OptimizationWarning)
            result = fit_gpytorch_mll_scipy(ExactMarginalLogLikelihood(model.likelihood, model).train())
        _LOG.debug("hyper-parameters from %d crystals: %s, %s", len(y), result.status, result.message)
    bias, smooth = model.covar_module.kernels
    kernel = Kernel(
        float(bias.constant.detach()),
        float(smooth.outputscale.detach()),
        np.asarray(smooth.base_kernel.lengthscale.detach().numpy(), dtype=np.float64).reshape(-1),
    )
    return kernel, np.nan if noise is not None else float(model.likelihood.noise.detach())


def botorch_model(X: torch.Tensor, Y: torch.Tensor, noise: torch.Tensor | None, separate: bool) -> Any:
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
            noise_prior=LogNormalPrior(-2.5, 1.0), noise_constraint=GreaterThan(NOISE_FLOOR)
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
def exact_algebra() -> Iterator[None]:
    """Cholesky at any size: the limit is a global of gpytorch, which importing botorch changes."""
    import gpytorch

    with gpytorch.settings.max_cholesky_size(1_000_000), gpytorch.settings.fast_computations(False, False, False):
        yield

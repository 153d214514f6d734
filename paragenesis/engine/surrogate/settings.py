"""What can be set about the surrogate."""

from __future__ import annotations

from pydantic import Field

from paragenesis.settings import Settings


class SurrogateSettings(Settings):
    """How residuals are learnt.

    Attributes:
        dimensions: Principal components of the standardised descriptors that the kernel sees; all descriptors,
            unturned, if there are not more (evidence: `benchmarks/README.md`, "Features").
        points_per_length_scale: Verified crystals per component from which each component gets its own length scale.
        ensemble_weight: How many verified crystals the ensemble's own spread counts for in the posterior variance.
        default_spread: Standard deviation of a candidate without one (a single member has no spread), as a share of
            the objective's spread over the pool, until verified crystals tell better.
        level: Nominal coverage at which intervals are calibrated.
        min_calibration: Verified crystals below which intervals are only ever stretched, to the largest error, and rule
            no candidate out.
        exact_up_to: Verified crystals up to which an objective's process is exact; with more it is a variational one.
        inducing: Points that the variational process remembers instead of all crystals.
    """

    dimensions: int = Field(default=64, ge=1)
    points_per_length_scale: int = Field(default=8, ge=1)
    ensemble_weight: float = Field(default=4.0, ge=0.0)
    default_spread: float = Field(default=0.25, ge=0.0)
    level: float = Field(default=0.9, gt=0.0, lt=1.0)
    min_calibration: int = Field(default=5, ge=2)
    exact_up_to: int = Field(default=2000, ge=1)
    inducing: int = Field(default=512, ge=2)

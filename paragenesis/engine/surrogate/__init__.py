"""The surrogate: what verified crystals teach about the ensemble's errors."""

from __future__ import annotations

from paragenesis.engine.surrogate.calibration import Calibration
from paragenesis.engine.surrogate.residual import ResidualSurrogate
from paragenesis.engine.surrogate.settings import SurrogateSettings

__all__ = ["Calibration", "ResidualSurrogate", "SurrogateSettings"]

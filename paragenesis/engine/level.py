"""Levels of theory: the key that every energy, hull and hull distance carries."""

from __future__ import annotations

import hashlib
import json

from paragenesis.settings import Settings

MP2020 = "mp2020-pbe(+u)"  # Materials Project 2020 correction scheme on PBE(+U)
MATPES_PBE = "matpes-pbe"
MATPES_R2SCAN = "matpes-r2scan"
MP_R2SCAN = "mp-r2scan"
EXPERIMENT = "experiment-298k"


class Level(Settings):
    """Where an energy comes from; two energies with different keys never mix silently.

    Attributes:
        engine: The code or model family ("chgnet").
        version: Its version ("0.3.0").
        functional: The level it is, or was trained to imitate ("mp2020-pbe(+u)").
        weights: sha256 of the weights; empty for codes without weights.
        references: Name of the elemental references in use ("fitted:<hash>", "prior").
        settings: Whatever else changes a number.
    """

    engine: str
    version: str
    functional: str
    weights: str = ""
    references: str = ""
    settings: dict[str, str | int | float | bool] = {}

    @property
    def key(self) -> str:
        """A short, readable, unique name: engine-version/functional/hash."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return f"{self.engine}-{self.version}/{self.functional}/{hashlib.sha256(text.encode()).hexdigest()[:12]}"

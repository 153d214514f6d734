"""MACE potentials from local files, through torch-sim's own wrapper."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paragenesis.engine.executor import describe
from paragenesis.engine.level import Level
from paragenesis.engine.potentials.contract import Potential, check_weights, file_sha256
from paragenesis.errors import InputError, PotentialError

with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # mace prints what it could not import
    warnings.simplefilter("ignore")  # of e3nn, about how it loads its own constants
    import mace.modules  # noqa: F401 - before e3nn: it makes e3nn's constants loadable
    from torch_sim.models.mace import MaceModel


def load(
    source: str,
    *,
    device: str = "cpu",
    sha256: str | None = None,
    functional: str | None = None,
    trust: bool = False,
) -> Potential:
    """A MACE model from a file; it is a pickle, which can run code, so its hash must be known or the file trusted.

    Raises:
        InputError: There is no such file.
        PotentialError: The hash differs, is not known, or the file holds no MACE model.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"there is no MACE file '{source}'; download it first and give its path")
    found = check_weights(path, file_sha256(path), sha256, trust=trust)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            network: Any = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:
            raise PotentialError(f"{path} cannot be read as a MACE model: {describe(error)}") from error
    if not isinstance(network, torch.nn.Module) or not hasattr(network, "r_max"):
        raise PotentialError(f"{path} holds a {type(network).__name__}, which is no MACE model")
    level = Level(
        engine="mace",
        version=importlib.metadata.version("mace-torch"),
        functional=functional or "unknown",
        weights=found,
    )
    model = CheckedMaceModel(network, device=torch.device(device), dtype=torch.float64)
    elements = frozenset(model.z_table.zs)
    return Potential(name=f"mace:{path.stem}", model=model, level=level, elements=elements)


class CheckedMaceModel(MaceModel):  # type: ignore[misc]
    """torch-sim's MACE wrapper without its memory.

    torch-sim 0.3 keeps the last batch's layout and renews it only when the atomic numbers change, so two batches with
    the same sequence of atoms, cut into crystals differently, get mixed up.
    """

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Evaluate a torch-sim state: energy [n] eV, forces [N, 3] eV/A, stress [n, 3, 3] eV/A^3."""
        self.atomic_numbers = torch.zeros(0, dtype=torch.int64, device=self.device)
        return super().forward(state)  # type: ignore[no-any-return]

"""Any matgl potential (TensorNet, M3GNet, CHGNet, QET, ...) behind torch-sim's model interface."""

from __future__ import annotations

import importlib.metadata
import json
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface

from paragenesis.engine.level import MATPES_PBE, MATPES_R2SCAN, Level
from paragenesis.engine.potentials.contract import Potential, check_weights, file_sha256
from paragenesis.engine.potentials.neighbours import find_bonds
from paragenesis.errors import InputError, PotentialError
from paragenesis.settings import one_line, shown

_FILES = ("model.json", "model.pt", "state.pt")
_FUNCTIONALS = ((r"matpes-pbe", MATPES_PBE), (r"matpes-r2scan", MATPES_R2SCAN))  # as matgl names its weights


def load(
    source: str,
    *,
    device: str = "cpu",
    sha256: str | None = None,
    functional: str | None = None,
    trust: bool = False,
) -> Potential:
    """A matgl potential from a folder, or by its name on matgl's hub.

    matgl reads its files without running code from them, so no trust is needed. `sha256` is that of `sha256sum
    model.json model.pt state.pt`'s output.

    Raises:
        InputError: The folder lacks one of its files.
        PotentialError: The files are not the ones asked for, cannot be loaded, or are no potential.
    """
    del trust
    folder = Path(source).expanduser()
    if folder.is_dir():
        paths = [folder / name for name in _FILES]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise InputError(f"matgl potential '{source}' has no {', '.join(missing)}; give the folder that holds them")
    elif "/" in source:
        raise InputError(f"there is no folder '{source}'; give the folder of a matgl potential")
    else:
        paths = _download(source)
    found = check_weights(folder, file_sha256(*paths), sha256)
    name = folder.resolve().name
    level = Level(
        engine="matgl",
        version=importlib.metadata.version("matgl"),  # it decides what the same weights compute
        functional=functional or _functional(name),
        weights=found,
    )
    model = MatglModel(_read(paths[0].parent), torch.device(device))
    return Potential(name=f"matgl:{name}", model=model, level=level, elements=frozenset(model.atomic_numbers))


def _functional(name: str) -> str:
    """The functional that a folder's name tells, or "unknown"."""
    return next((level for pattern, level in _FUNCTIONALS if re.search(pattern, name.lower())), "unknown")


def _read(folder: Path) -> Any:
    """The matgl `Potential` in a folder; the class that its JSON names is matgl's own, for naming one imports it."""
    import matgl

    try:
        named = json.loads((folder / "model.json").read_text())["@module"]
        if not str(named).startswith("matgl."):
            raise ValueError(f"model.json names the module {shown(named)}, which is not matgl's")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own lists of arrays
            potential = matgl.load_model(folder)
    except Exception as error:
        cause = one_line(f"{type(error).__name__}: {error.__cause__ or error}")
        raise PotentialError(
            f"matgl cannot load {folder}: {cause}; were the weights made by another version?"
        ) from error
    if not hasattr(potential, "calc_stresses"):
        raise PotentialError(f"{folder} holds a matgl {type(potential).__name__}, which predicts no forces")
    return potential


def _download(name: str) -> list[Path]:
    """The three files of a potential on matgl's hub, from its cache or the network."""
    from matgl.utils.io import _get_file_paths

    try:
        return [Path(path) for _, path in sorted(_get_file_paths(Path(name), str_path=name).items())]
    except (OSError, ValueError) as error:
        raise PotentialError(
            f"there is no folder '{name}', and matgl's hub does not give it ({error}); give a path to its folder"
        ) from error


class MatglModel(ModelInterface):  # type: ignore[misc]
    """A matgl potential: energy [n] eV, forces [N, 3] eV/A, stress [n, 3, 3] eV/A^3, and magmoms [N] if it has them."""

    def __init__(self, potential: Any, device: torch.device | None = None) -> None:
        """Take a `matgl.apps.pes.Potential`."""
        super().__init__()
        self._device = device or torch.device("cpu")
        self._dtype = torch.float64
        self._compute_stress = self._compute_forces = True
        self._memory_scales_with = "n_atoms_x_density"
        if potential.calc_charge:
            raise PotentialError("matgl potentials that need a total charge are not supported")
        potential.calc_stresses = potential.calc_forces = True
        potential.calc_hessian = False
        self.potential = potential.to(self._device).eval().requires_grad_(False)
        self.cutoff = float(potential.model.cutoff)
        self.atomic_numbers = _atomic_numbers(potential.model.element_types)
        place = torch.full((120,), -1, dtype=torch.int64)
        place[torch.tensor(self.atomic_numbers)] = torch.arange(len(self.atomic_numbers))
        self.register_buffer("place", place.to(self._device), persistent=False)

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Evaluate a torch-sim state.

        Raises:
            ValueError: An element is not known.
        """
        from matgl.utils.constants import EV_PER_ANG3_TO_GPA

        if isinstance(state, dict):
            import torch_sim as ts

            state = ts.SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        kinds = self.place[state.atomic_numbers]
        if bool((kinds < 0).any()):
            raise ValueError("the crystal holds an element that the potential was not trained on")
        graph = self._graph(state, kinds)
        lattices = state.row_vector_cell.float()
        states = torch.zeros((state.n_systems, 2), device=self._device)
        with torch.enable_grad():
            energy, forces, stress, _hessian, *extra = self.potential(graph, lattices, states)
        result = {
            "energy": energy.detach().double().reshape(-1),
            "forces": forces.detach().double(),
            "stress": stress.detach().double().reshape(-1, 3, 3) / EV_PER_ANG3_TO_GPA,
        }
        if self.potential.calc_magmom:
            result["magmoms"] = extra[-1].detach().double().reshape(-1)
        return result

    def _graph(self, state: Any, kinds: Tensor) -> Any:
        """The whole state as one PyTorch Geometric batch, every bond in both directions."""
        from torch_geometric.data import Batch

        counts = torch.bincount(state.system_idx).cpu().numpy()
        positions = state.positions.detach().double()
        lattices = state.row_vector_cell.detach().double()
        bonds = find_bonds(positions.cpu().numpy(), lattices.cpu().numpy(), counts, self.cutoff)
        i, j, images = (torch.from_numpy(x).to(self._device) for x in (bonds.i, bonds.j, bonds.images))
        frac = (positions[:, :, None] * torch.linalg.inv(lattices)[state.system_idx]).sum(1)
        graph = Batch(
            edge_index=torch.stack([torch.cat([i, j]), torch.cat([j, i])]),
            pbc_offset=torch.cat([images, -images]).float(),
            node_type=kinds,
            frac_coords=frac.float(),
            batch=state.system_idx,
            num_nodes=len(kinds),
        )
        graph._num_graphs = state.n_systems
        return graph


def _atomic_numbers(symbols: tuple[str, ...]) -> list[int]:
    """Atomic numbers of element symbols, in their order."""
    from ase.data import atomic_numbers

    return [atomic_numbers[symbol] for symbol in symbols]

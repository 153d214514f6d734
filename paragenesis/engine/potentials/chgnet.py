"""CHGNet behind torch-sim's model interface, rewritten for inference.

The weights are the ones that ship in the `chgnet` package, the arithmetic is its model's (Deng et al., Nature
Machine Intelligence 5, 1031 (2023)), but a batch is evaluated about four times as fast on a CPU:

* bonds and angles come from NumPy for the whole batch, and the two directions of a bond lie in two halves, so that
  what they share is computed once and repeated;
* the first layer of a gated MLP on concatenated features is split: each part is multiplied before it is gathered, by
  atom or bond instead of by edge or angle;
* one backward pass, by the bond vectors alone, gives forces and stress (the original makes two, and records them).

The features are single precision as in training; geometry and sums are double. On a CPU, a crystal's result does not
depend on which others are in its batch (see `_rows`).
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch_sim.models.interface import ModelInterface

from paragenesis.engine.level import MP2020, MP_R2SCAN, Level
from paragenesis.engine.potentials.contract import Potential, check_weights, file_sha256
from paragenesis.engine.potentials.neighbours import find_angles, find_bonds, refuse_isolated
from paragenesis.errors import InputError

_WEIGHTS = {  # version -> functional it imitates, file inside the package, its sha256
    "0.3.0": (
        MP2020,
        "0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        "d14ab7c0f093efe64b60a7bcd540bca10e74fb7f46c86108a079af60524659d1",
    ),
    "0.2.0": (
        MP2020,
        "0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
        "ef624f78b6db9d315b4ef256f1bb3207449924191b91720dc17d3f60c5df980e",
    ),
    "r2scan": (
        MP_R2SCAN,
        "r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
        "8eba3db0f35a2788bb3ae22885ad340591e27996f213c6643af522a633b50dad",
    ),
}
_MAX_Z = 94  # the embedding ends at plutonium
_MIN_ROWS = 16  # matrix products with fewer rows take another path, and round differently


def load(
    version: str,
    *,
    device: str = "cpu",
    sha256: str | None = None,
    functional: str | None = None,
    trust: bool = False,
) -> Potential:
    """CHGNet in one of the versions that ship with its package: 0.3.0, 0.2.0, r2scan.

    Raises:
        InputError: No such version.
        PotentialError: The installed file is not the one known, and it is not trusted.
    """
    if version not in _WEIGHTS:
        raise InputError(f"CHGNet has no version '{version}'; there are {', '.join(_WEIGHTS)}")
    known_functional, file, known = _WEIGHTS[version]
    import chgnet
    from chgnet.model import CHGNet

    path = Path(chgnet.__file__).parent / "pretrained" / file
    found = check_weights(path, file_sha256(path), sha256 or known, trust=trust)
    with contextlib.redirect_stdout(io.StringIO()):
        network = CHGNet.load(model_name=version, use_device="cpu", verbose=False)
    level = Level(engine="chgnet", version=version, functional=functional or known_functional, weights=found)
    return Potential(
        name=f"chgnet-{version}",
        model=CHGNetModel(network, torch.device(device)),
        level=level,
        elements=frozenset(range(1, _MAX_Z + 1)),
    )


class CHGNetModel(ModelInterface):  # type: ignore[misc]
    """A CHGNet network: energy [n] eV, forces [N, 3] eV/A, stress [n, 3, 3] eV/A^3, magmoms [N] mu_B."""

    def __init__(self, network: Any, device: torch.device | None = None) -> None:
        """Take the layers of a `chgnet.model.CHGNet` with site-wise read-out, as all pretrained ones have it."""
        super().__init__()
        self._device = device or torch.device("cpu")
        self._dtype = torch.float64
        self._compute_stress = self._compute_forces = True
        self._memory_scales_with = "n_atoms_x_density"
        if not (network.mlp_first and network.is_intensive and network.composition_model.is_intensive):
            raise InputError("this CHGNet was not trained on energies per atom with site-wise read-out")
        self.network = network.to(self._device).eval().requires_grad_(False)
        self.cutoff = float(network.graph_converter.atom_graph_cutoff)
        self.angle_cutoff = float(network.graph_converter.bond_graph_cutoff)
        self.atom_gates = [_Gate(layer.twoBody_atom) for layer in network.atom_conv_layers]
        self.bond_gates = [_Gate(layer.twoBody_bond) for layer in network.bond_conv_layers]
        self.angle_gates = [_Gate(layer.twoBody_bond) for layer in network.angle_layers]

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Evaluate a torch-sim state.

        Raises:
            ValueError: An atom is isolated, or an element is heavier than plutonium.
        """
        if isinstance(state, dict):
            import torch_sim as ts

            state = ts.SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        numbers, owner = state.atomic_numbers, state.system_idx
        if int(numbers.max()) > _MAX_Z or int(numbers.min()) < 1:
            raise ValueError("CHGNet knows the elements from hydrogen to plutonium only")
        graph = _Graph.of(state, self.cutoff, self.angle_cutoff)
        vectors = graph.vectors.clone().requires_grad_(True)
        with torch.enable_grad():
            energies, magmoms = self._features(graph, numbers, vectors)
            (slope,) = torch.autograd.grad(energies.sum(), vectors)
        atomic = energies.detach().double() + self.network.composition_model.fc.weight[0, numbers - 1].double()
        forces = torch.zeros_like(state.positions, dtype=torch.float64)
        forces = forces.index_add_(0, graph.i, slope, alpha=-1).index_add_(0, graph.j, slope)
        virial = graph.vectors[:, :, None] * slope[:, None, :]
        total = torch.zeros((state.n_systems, 3, 3), dtype=torch.float64, device=self._device)
        stress = total.index_add_(0, graph.crystal, virial) / torch.linalg.det(state.cell).abs().view(-1, 1, 1)
        energy = torch.zeros(state.n_systems, dtype=torch.float64, device=self._device).index_add_(0, owner, atomic)
        return {"energy": energy, "forces": forces, "stress": stress, "magmoms": magmoms.detach().double()}

    def _features(self, graph: _Graph, numbers: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (eV, shape `N`) and magnetic moment (mu_B, shape `N`) of each atom, differentiable by `vectors`."""
        net = self.network
        lengths = vectors.norm(dim=1)
        radial = _radial_basis(net.bond_basis_expansion.rbf_expansion_ag, lengths)
        near = lengths.index_select(0, graph.short)
        units = (vectors.index_select(0, graph.short) / near[:, None]).float()
        atom, bond = net.atom_embedding(numbers - 1), _rows(radial, net.bond_embedding)
        atom_weight = _twice(_rows(radial, net.bond_weights_ag))
        angle, angle_weight = self._angle_features(graph, near, units)
        for k, bond_layer in enumerate(net.bond_conv_layers):
            atom = self._atom_step(k, graph, atom, bond, atom_weight)
            if len(graph.centre):
                parts = (bond.index_select(0, graph.short), angle, atom)
                update = _pair_update(self.bond_gates[k], graph, *parts) * angle_weight
                into = torch.zeros_like(bond).index_add(0, graph.short.index_select(0, graph.one), update)
                bond = _rows(into, bond_layer.mlp_out) * graph.bent + bond
                if k + 1 < len(net.bond_conv_layers):  # nothing reads the angles after the last bond layer
                    parts = (bond.index_select(0, graph.short), angle, atom)
                    angle = _pair_update(self.angle_gates[k], graph, *parts) + angle
        magmoms = _dot(atom, net.site_wise).abs()
        atom = self._atom_step(-1, graph, atom, bond, atom_weight)
        if net.readout_norm is not None:
            atom = net.readout_norm(atom)
        *hidden, last = net.mlp.layers
        for layer in hidden:
            atom = _rows(atom, layer)
        return _dot(atom, last), magmoms

    def _angle_features(self, graph: _Graph, near: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and weight of each directed angle, shape `2A x 64` both."""
        net = self.network
        radial = _radial_basis(net.bond_basis_expansion.rbf_expansion_bg, near)
        weight = _rows(radial, net.bond_weights_bg)
        half = len(graph.centre) // 2
        one, two = graph.one[:half], graph.two[:half]
        cosine = (units.index_select(0, one) * units.index_select(0, two)).sum(1) * graph.sign
        basis = net.angle_basis_expansion.fourier_expansion(torch.acos(cosine * (1 - 1e-6)))  # as in training
        return (
            _twice(_rows(basis, net.angle_embedding)),
            _twice(weight.index_select(0, one) * weight.index_select(0, two)),
        )

    def _atom_step(self, k: int, graph: _Graph, atom: Tensor, bond: Tensor, weight: Tensor) -> Tensor:
        """One atom convolution: messages along both directions of every bond."""
        gate = self.atom_gates[k]
        centre, link, neighbour = (gate.first(p, part) for p, part in enumerate((atom, bond, atom)))
        mixed = centre.index_select(0, graph.end) + _twice(link) + neighbour.index_select(0, graph.other_end)
        summed = torch.zeros_like(atom).index_add(0, graph.end, gate.rest(mixed) * weight)
        return _rows(summed, self.network.atom_conv_layers[k].mlp_out) + atom


def _pair_update(gate: _Gate, graph: _Graph, bond: Tensor, angle: Tensor, atom: Tensor) -> Tensor:
    """A gated MLP on (bond, other bond, angle, atom between them) for each directed angle, shape `2A x 64`."""
    one, two, own, centre = (gate.first(p, part) for p, part in enumerate((bond, bond, angle, atom)))
    mixed = one.index_select(0, graph.one) + two.index_select(0, graph.two)
    return gate.rest(mixed + own + centre.index_select(0, graph.centre))


class _Graph:
    """Index tensors of a batch; directed bonds and angles lie in two halves, the second one reversed."""

    def __init__(self, bonds: Any, angles: Any, device: torch.device) -> None:
        def put(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        short, centre, pairs, sign = angles
        self.vectors, self.crystal = put(bonds.vectors), put(bonds.crystal)
        self.i, self.j, self.short = put(bonds.i), put(bonds.j), put(short)
        self.end, self.other_end = torch.cat([self.i, self.j]), torch.cat([self.j, self.i])
        first, second = put(pairs[:, 0]), put(pairs[:, 1])
        self.one, self.two = torch.cat([first, second]), torch.cat([second, first])
        self.centre, self.sign = _twice(put(centre)), put(sign).float()
        # Where a crystal has no angle at all, the original skips its bond layers, bias included.
        owner = torch.zeros(int(self.crystal.max()) + 1, device=device)
        owner[self.crystal[self.short[first]]] = 1
        self.bent = owner[self.crystal][:, None]

    @classmethod
    def of(cls, state: Any, cutoff: float, angle_cutoff: float) -> _Graph:
        """The graph of a torch-sim state."""
        counts = torch.bincount(state.system_idx).cpu().numpy()
        positions = state.positions.detach().double().cpu().numpy()
        bonds = find_bonds(positions, state.row_vector_cell.detach().double().cpu().numpy(), counts, cutoff)
        refuse_isolated(bonds, counts, cutoff)
        return cls(bonds, find_angles(bonds, counts, angle_cutoff), state.positions.device)


class _Gate:
    """A gated MLP whose first layer is split by its input parts; core and gate lie side by side."""

    def __init__(self, module: Any) -> None:
        core, gate = (
            [x for x in m.layers if isinstance(x, torch.nn.Linear)] for m in (module.mlp_core, module.mlp_gate)
        )
        joint = torch.cat([core[0].weight, gate[0].weight])
        self.width = core[0].out_features
        self.parts = [part.t().contiguous() for part in torch.split(joint, self.width, dim=1)]
        self.bias = torch.cat([core[0].bias, gate[0].bias])
        self.second = (core[1], gate[1]) if len(core) > 1 else None
        self.norms = (module.bn1, module.bn2)

    def first(self, part: int, features: Tensor) -> Tensor:
        """What one input part adds to the first layer; the bias comes with the first part."""
        out = _rows(features, lambda x: x @ self.parts[part])
        return out + self.bias if part == 0 else out

    def rest(self, mixed: Tensor) -> Tensor:
        """Everything after the first layer."""
        if self.second is not None:
            mixed = F.silu(mixed)
        core, gate = mixed[:, : self.width], mixed[:, self.width :]
        if self.second is not None:
            core, gate = _rows(core, self.second[0]), _rows(gate, self.second[1])
        if self.norms[0] is not None:
            core, gate = self.norms[0](core), self.norms[1](gate)
        return F.silu(core) * torch.sigmoid(gate)


def _radial_basis(module: Any, lengths: Tensor) -> Tensor:
    """Bessel functions times a polynomial envelope (Gasteiger et al., ICLR 2020, eq. 7 and 8), shape `E x n_radial`.

    The envelope is a difference of large numbers, hence double precision; its powers are products because torch's own
    `pow` rounds differently at the end of an array.
    """
    x = lengths[:, None] * module.inv_cutoff
    envelope = module.smooth_cutoff
    power = x
    for _ in range(int(envelope.p) - 1):
        power = power * x
    smooth = (1 + power * (envelope.a + x * (envelope.b + x * envelope.c))) * (x < 1)
    scale: Tensor = (smooth * module.norm_const / lengths[:, None]).float()
    waves: Tensor = torch.sin(module.frequencies * x.float())
    return scale * waves


def _twice(x: Tensor) -> Tensor:
    """The rows of `x`, and once more: both directions."""
    return torch.cat([x, x])


def _rows(x: Tensor, function: Any) -> Tensor:
    """`function(x)` row by row, with zero rows added to small matrices.

    Matrix libraries treat few rows differently from many; without the padding a crystal's last digits would depend
    on the size of its batch.
    """
    n = len(x)
    if n >= _MIN_ROWS:
        return function(x)  # type: ignore[no-any-return]
    return function(F.pad(x, (0, 0, 0, _MIN_ROWS - n)))[:n]  # type: ignore[no-any-return]


def _dot(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    """A linear layer with one output, as a sum by row: independent of the number of rows, which a product is not."""
    return (x * layer.weight[0]).sum(dim=1) + layer.bias

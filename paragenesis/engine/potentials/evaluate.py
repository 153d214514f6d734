"""Evaluating a batch so that one bad crystal harms no other: the splitter below judgement and relaxation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paragenesis.crystals import Crystals
from paragenesis.engine.executor import device_is_broken, out_of_memory

if TYPE_CHECKING:
    import torch_sim as ts

    from paragenesis.engine.potentials.contract import Potential

SMALLEST_HEIGHT = 0.5  # angstrom; flatter cells have so many neighbours that their list would fill the memory
SMALLEST_VOLUME = 0.5  # A^3 per atom
LAST_ELEMENT = 118
CPU_ATOMS, GPU_ATOMS = 128, 4096  # a batch: enough to hide the cost of a call


@dataclass(frozen=True, kw_only=True)
class Batch:
    """n crystals with N atoms as tensors on a model's device, double precision.

    Attributes:
        numbers: Atomic numbers, shape `N`.
        positions: Cartesian, angstrom, shape `N x 3`.
        cells: Lattice vectors as rows, angstrom, shape `n x 3 x 3`.
        counts: Atoms per crystal, shape `n`.
    """

    numbers: Tensor
    positions: Tensor
    cells: Tensor
    counts: Tensor

    @classmethod
    def of(cls, crystals: Crystals, device: torch.device) -> Batch:
        """The crystals as tensors."""
        frac = torch.as_tensor(crystals.frac, device=device)
        cells = torch.as_tensor(crystals.lattices, device=device)
        owner = torch.as_tensor(crystals.batch, device=device)
        return cls(
            numbers=torch.as_tensor(crystals.numbers, device=device),
            positions=(frac[:, :, None] * cells[owner]).sum(1),
            cells=cells,
            counts=torch.as_tensor(crystals.n_atoms, device=device),
        )

    def __len__(self) -> int:
        """How many crystals there are."""
        return len(self.counts)

    @cached_property
    def owner(self) -> Tensor:
        """The crystal each atom belongs to, shape `N`."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.counts.device), self.counts)

    @cached_property
    def offsets(self) -> list[int]:
        """Where each crystal's atoms begin and the last one's end, `n + 1` of them."""
        return list(accumulate(self.counts.tolist(), initial=0))

    def part(self, first: int, last: int) -> Batch:
        """Crystals `first` to `last - 1`."""
        begin, end = self.offsets[first], self.offsets[last]
        return Batch(
            numbers=self.numbers[begin:end],
            positions=self.positions[begin:end],
            cells=self.cells[first:last],
            counts=self.counts[first:last],
        )

    def state(self, dtype: torch.dtype) -> ts.SimState:
        """The batch as torch-sim wants it: cell vectors as columns."""
        import torch_sim as ts

        return ts.SimState(
            positions=self.positions.to(dtype),
            masses=torch.ones_like(self.numbers, dtype=dtype),  # neither energies nor forces depend on them
            cell=self.cells.transpose(1, 2).to(dtype).contiguous(),
            pbc=True,
            atomic_numbers=self.numbers,
            system_idx=self.owner,
        )


@dataclass(kw_only=True)
class Evaluation:
    """What a potential gives for a batch; a refused crystal has NaN everywhere and its error recorded.

    Attributes:
        energy: Total energies, eV, shape `n`.
        forces: eV/A, shape `N x 3`.
        stress: eV/A^3, positive under tension, shape `n x 3 x 3`.
        magmoms: Atomic moments, mu_B, shape `N`; NaN if not predicted.
        errors: Why a crystal was refused, by its index.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    magmoms: Tensor
    errors: dict[int, str]


def evaluate(potential: Potential, batch: Batch) -> Evaluation:
    """Evaluate a batch; a part that raises is split in halves until the guilty crystal stands alone.

    Raises:
        MemoryError: Or torch's own: there is not enough for one crystal alone. That is no fault of the crystal, as
            others may have taken the memory, so that another attempt may succeed.
    """
    out = Evaluation(
        energy=torch.full((len(batch),), torch.nan, dtype=torch.float64, device=batch.cells.device),
        forces=torch.full_like(batch.positions, torch.nan),
        stress=torch.full_like(batch.cells, torch.nan),
        magmoms=torch.full_like(batch.positions[:, 0], torch.nan),
        errors=_unusable(potential, batch),
    )
    for first, last in _runs(len(batch), set(out.errors)):
        _evaluate_part(potential, batch, first, last, out)
    return out


def batches(crystals: Crystals, atoms: int) -> Iterator[range]:
    """Index ranges of at most `atoms` atoms each (a larger crystal stands alone), in order."""
    first = 0
    while first < len(crystals):
        last = first + 1
        while last < len(crystals) and int(crystals.offsets[last + 1] - crystals.offsets[first]) <= atoms:
            last += 1
        yield range(first, last)
        first = last


def default_atoms(device: torch.device) -> int:
    """Atoms to evaluate at once where nothing else is asked for."""
    return CPU_ATOMS if device.type == "cpu" else GPU_ATOMS


def _evaluate_part(potential: Potential, batch: Batch, first: int, last: int, out: Evaluation) -> None:
    """Evaluate crystals `first` to `last - 1` into `out`."""
    part = batch if last - first == len(batch) else batch.part(first, last)
    try:
        result = potential.model(part.state(potential.model.dtype))
    except Exception as error:  # a model may raise anything for one bad crystal
        if device_is_broken(error):
            raise
        if last - first == 1:
            if out_of_memory(error):
                raise
            out.errors[first] = f"{type(error).__name__}: {error}"
            return
        middle = (first + last) // 2
        _evaluate_part(potential, batch, first, middle, out)
        _evaluate_part(potential, batch, middle, last, out)
        return
    atoms = slice(batch.offsets[first], batch.offsets[last])
    finite = _finite(result, part)
    for index in torch.nonzero(~finite).flatten().tolist():
        out.errors[first + index] = "the potential gave a number that is not finite"
    whole = finite[part.owner]
    out.energy[first:last] = torch.where(finite, result["energy"].double(), torch.nan)
    out.forces[atoms] = torch.where(whole[:, None], result["forces"].double(), torch.nan)
    out.stress[first:last] = torch.where(finite[:, None, None], result["stress"].double(), torch.nan)
    if "magmoms" in result:
        out.magmoms[atoms] = torch.where(whole, result["magmoms"].double(), torch.nan)


def _finite(result: dict[str, Tensor], part: Batch) -> Tensor:
    """Whether a crystal's energy, forces and stress are all finite, shape `n`."""
    bad = _any_atom(part, ~torch.isfinite(result["forces"]).all(dim=1))
    return ~bad & torch.isfinite(result["energy"]) & torch.isfinite(result["stress"]).flatten(1).all(dim=1)


def _runs(n: int, without: set[int]) -> Iterator[tuple[int, int]]:
    """Maximal ranges of the indices 0 .. n - 1 that hold none of `without`."""
    first = 0
    for stop in [*sorted(without), n]:
        if stop > first:
            yield first, stop
        first = stop + 1


def _unusable(potential: Potential, batch: Batch) -> dict[int, str]:
    """Crystals that no potential may be asked about: they could hang it instead of raising."""
    broken, flat = _impossible_cells(batch)
    known = _known(potential.elements, batch.numbers.device)
    strange = _any_atom(batch, ~known[batch.numbers.clamp(0, len(known) - 1)])
    errors = {}
    for index in (broken | flat | strange).nonzero().flatten().tolist():  # as a rule there are none
        if broken[index]:
            errors[index] = "a coordinate or lattice vector is not finite"
        elif flat[index]:
            errors[index] = "the cell is flat or far too small"
        else:
            unknown = potential.unknown_elements(batch.part(index, index + 1).numbers.tolist())
            errors[index] = f"{potential.name} does not know atomic number(s) {unknown}"
    return errors


def _impossible_cells(batch: Batch) -> tuple[Tensor, Tensor]:
    """Crystals with numbers that are not finite, and crystals whose cell is flat or far too small, shape `n` both."""
    broken = _any_atom(batch, ~torch.isfinite(batch.positions).all(dim=1))
    broken |= ~torch.isfinite(batch.cells).flatten(1).all(dim=1)
    cells = torch.where(
        broken[:, None, None], torch.eye(3, dtype=batch.cells.dtype, device=batch.cells.device), batch.cells
    )
    volume = torch.linalg.det(cells).abs()
    a, b, c = cells.unbind(1)
    faces = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=1)
    heights = volume[:, None] / faces.norm(dim=2).clamp_min(1e-30)
    return broken, (heights.amin(dim=1) < SMALLEST_HEIGHT) | (volume < SMALLEST_VOLUME * batch.counts)


def _any_atom(batch: Batch, atoms: Tensor) -> Tensor:
    """Whether something holds for any atom of a crystal, shape `n`."""
    return torch.zeros_like(batch.counts).index_add_(0, batch.owner, atoms.to(torch.int64)) > 0


@lru_cache(maxsize=16)
def _known(elements: frozenset[int], device: torch.device) -> Tensor:
    """Whether an element is known, by atomic number; all are if none is named; the last row is for what is none."""
    known = torch.full((LAST_ELEMENT + 2,), not elements)
    known[[z for z in elements if 0 < z <= LAST_ELEMENT]] = True
    return known.to(device)

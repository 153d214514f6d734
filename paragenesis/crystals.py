"""Crystals, the one currency: a batch of crystals as flat NumPy arrays.

`Crystals` is what generators make, screens judge, potentials relax and the ledger stores. The arrays of all
crystals lie end to end, so a batch goes to torch-sim, Arrow or another process without a loop over objects:

    n_atoms  [n]        how many atoms each crystal has
    numbers  [N]        atomic numbers, N = sum(n_atoms)
    frac     [N, 3]     fractional coordinates
    lattices [n, 3, 3]  rows are the lattice vectors, in angstrom

`Relaxed` adds what an ensemble of potentials says of each crystal, one row a member.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from paragenesis.errors import InputError

if TYPE_CHECKING:
    import torch
    import torch_sim as ts
    from ase import Atoms
    from pymatgen.core import Composition, Structure

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ATOMIC_MASS_TO_G_PER_CM3 = 1.66053906660  # 1 u / A^3 in g/cm^3 (CODATA 2018)


@dataclass(frozen=True, kw_only=True, eq=False)
class Crystals:
    """A batch of n periodic crystals with N atoms in all; values are not judged here (see `screening`).

    Attributes:
        ids: One name a crystal, `n` of them.
        n_atoms: Atoms per crystal, shape `n`.
        numbers: Atomic numbers, shape `N`.
        frac: Fractional coordinates, shape `N x 3`.
        lattices: Lattice vectors as rows, angstrom, shape `n x 3 x 3`.
        origins: Where each crystal comes from, in words; `n` of them.
    """

    ids: tuple[str, ...]
    n_atoms: IntArray
    numbers: IntArray
    frac: FloatArray
    lattices: FloatArray
    origins: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Bring the arrays to their types and check that the shapes agree."""
        n = len(self.ids)
        put = object.__setattr__
        put(self, "n_atoms", np.asarray(self.n_atoms, dtype=np.int64).reshape(-1))
        put(self, "numbers", np.asarray(self.numbers, dtype=np.int64).reshape(-1))
        put(self, "frac", np.asarray(self.frac, dtype=np.float64).reshape(-1, 3))
        put(self, "lattices", np.asarray(self.lattices, dtype=np.float64).reshape(-1, 3, 3))
        if not self.origins:
            put(self, "origins", ("",) * n)
        total = int(self.n_atoms.sum())
        if not (len(self.n_atoms) == len(self.lattices) == len(self.origins) == n):
            raise InputError(
                f"crystals need one n_atoms, lattice and origin each, but {n} ids came with {len(self.n_atoms)} "
                f"n_atoms, {len(self.lattices)} lattices and {len(self.origins)} origins"
            )
        if not (len(self.numbers) == len(self.frac) == total):
            raise InputError(
                f"n_atoms add up to {total}, but {len(self.numbers)} numbers and {len(self.frac)} coordinates came"
            )

    # --- a batch -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many crystals the batch holds."""
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        """True if ids, atoms, coordinates, lattices and origins are all identical."""
        if not isinstance(other, Crystals):
            return NotImplemented
        return (
            self.ids == other.ids
            and self.origins == other.origins
            and all(
                np.array_equal(getattr(self, name), getattr(other, name), equal_nan=True)
                for name in ("n_atoms", "numbers", "frac", "lattices")
            )
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def offsets(self) -> IntArray:
        """Where each crystal's atoms begin and the last one's end, shape `n + 1`."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)]).astype(np.int64)

    @cached_property
    def batch(self) -> IntArray:
        """The crystal each atom belongs to, shape `N`."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.n_atoms)

    def atoms_of(self, index: int) -> slice:
        """The slice of the atom arrays that holds crystal `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def __getitem__(self, which: int | slice | Sequence[int] | npt.NDArray[Any]) -> Crystals:
        """The crystals at an index, a slice, a list of indices or a boolean mask, as a new batch."""
        if isinstance(which, (int, np.integer)):
            which = [int(which)]
        picked = _picked(len(self), which)
        if picked.size == 0:
            return Crystals.empty()
        atoms = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in picked])
        return Crystals(
            ids=tuple(self.ids[i] for i in picked),
            n_atoms=self.n_atoms[picked],
            numbers=self.numbers[atoms],
            frac=self.frac[atoms],
            lattices=self.lattices[picked],
            origins=tuple(self.origins[i] for i in picked),
        )

    def __iter__(self) -> Iterator[Crystals]:
        """Each crystal as a batch of one."""
        return (self[i] for i in range(len(self)))

    @classmethod
    def empty(cls) -> Self:
        """A batch without crystals."""
        whole, real = np.zeros(0, dtype=np.int64), np.zeros(0)
        return cls(ids=(), n_atoms=whole, numbers=whole, frac=real, lattices=real)

    @classmethod
    def concatenate(cls, batches: Sequence[Crystals]) -> Crystals:
        """All crystals of several batches in one."""
        if not batches:
            return cls.empty()
        return Crystals(
            ids=tuple(i for b in batches for i in b.ids),
            n_atoms=np.concatenate([b.n_atoms for b in batches]),
            numbers=np.concatenate([b.numbers for b in batches]),
            frac=np.concatenate([b.frac for b in batches]),
            lattices=np.concatenate([b.lattices for b in batches]),
            origins=tuple(o for b in batches for o in b.origins),
        )

    def with_ids(self, ids: Sequence[str]) -> Crystals:
        """The same crystals under other names."""
        return replace(self, ids=tuple(ids))

    # --- what can be said without a potential ----------------------------------------------------------------------

    @cached_property
    def volumes(self) -> FloatArray:
        """Cell volumes, A^3, shape `n` (never negative; NaN where the lattice is not finite)."""
        with np.errstate(all="ignore"):
            return np.abs(np.linalg.det(self.lattices)) if len(self) else np.zeros(0)

    @cached_property
    def compositions(self) -> tuple[Composition, ...]:
        """Pymatgen compositions of the full cells, `n` of them."""
        from pymatgen.core import Composition, Element

        out = []
        for i in range(len(self)):
            numbers, counts = np.unique(self.numbers[self.atoms_of(i)], return_counts=True)
            out.append(Composition({Element.from_Z(int(z)): int(c) for z, c in zip(numbers, counts, strict=True)}))
        return tuple(out)

    @cached_property
    def formulas(self) -> tuple[str, ...]:
        """Reduced formulas, `n` of them."""
        return tuple(c.reduced_formula for c in self.compositions)

    @cached_property
    def chemical_systems(self) -> tuple[str, ...]:
        """Chemical systems such as "Mg-O", elements sorted by symbol, `n` of them."""
        return tuple(c.chemical_system for c in self.compositions)

    @cached_property
    def densities(self) -> FloatArray:
        """Mass densities, g/cm^3, shape `n`."""
        masses = np.array([c.weight for c in self.compositions], dtype=np.float64)
        return masses * ATOMIC_MASS_TO_G_PER_CM3 / self.volumes

    # --- to and from the libraries of the field ----------------------------------------------------------------------

    @classmethod
    def from_structures(
        cls, structures: Sequence[Structure], ids: Sequence[str] | None = None, origins: Sequence[str] | None = None
    ) -> Crystals:
        """Crystals from ordered pymatgen structures.

        Raises:
            InputError: A structure has partial occupancies or dummy species.
        """
        from pymatgen.core import Element

        for i, structure in enumerate(structures):
            if not structure.is_ordered:
                raise InputError(f"structure {i} ({structure.formula}) is disordered; order it first")
            for species in structure.species:
                if not isinstance(getattr(species, "element", species), Element):
                    raise InputError(f"structure {i} holds '{species}', which is no chemical element")
        return cls._build(
            [len(s) for s in structures],
            [s.atomic_numbers for s in structures],
            [s.frac_coords for s in structures],
            [s.lattice.matrix for s in structures],
            ids,
            origins,
        )

    @classmethod
    def from_atoms(
        cls, atoms: Sequence[Atoms], ids: Sequence[str] | None = None, origins: Sequence[str] | None = None
    ) -> Crystals:
        """Crystals from ASE atoms with a full cell."""
        for i, one in enumerate(atoms):
            if one.cell.rank < 3:
                raise InputError(f"crystal {i} ({one.symbols}) has no three-dimensional cell")
        return cls._build(
            [len(a) for a in atoms],
            [a.numbers for a in atoms],
            [a.cell.scaled_positions(a.positions) for a in atoms],
            [a.cell.array for a in atoms],
            ids,
            origins,
        )

    @classmethod
    def _build(
        cls,
        n_atoms: Sequence[int],
        numbers: Sequence[Any],
        frac: Sequence[Any],
        lattices: Sequence[Any],
        ids: Sequence[str] | None,
        origins: Sequence[str] | None,
    ) -> Crystals:
        """Lay per-crystal lists end to end."""
        if not n_atoms:
            return cls.empty()
        return cls(
            ids=tuple(ids) if ids is not None else tuple(str(i) for i in range(len(n_atoms))),
            n_atoms=np.asarray(n_atoms),
            numbers=np.concatenate([np.asarray(z) for z in numbers]),
            frac=np.concatenate([np.asarray(f, dtype=np.float64).reshape(-1, 3) for f in frac]),
            lattices=np.stack([np.asarray(m, dtype=np.float64) for m in lattices]),
            origins=tuple(origins) if origins is not None else (),
        )

    def to_structures(self) -> list[Structure]:
        """Pymatgen structures, `n` of them."""
        from pymatgen.core import Lattice, Structure

        return [
            Structure(Lattice(self.lattices[i]), self.numbers[self.atoms_of(i)].tolist(), self.frac[self.atoms_of(i)])
            for i in range(len(self))
        ]

    def to_atoms(self) -> list[Atoms]:
        """ASE atoms, periodic, `n` of them; `info["id"]` is the crystal's id."""
        from ase import Atoms

        return [
            Atoms(
                numbers=self.numbers[self.atoms_of(i)],
                scaled_positions=self.frac[self.atoms_of(i)],
                cell=self.lattices[i],
                pbc=True,
                info={"id": self.ids[i]},
            )
            for i in range(len(self))
        ]

    def to_torchsim(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> ts.SimState:
        """A torch-sim state of the whole batch (torch-sim stores cell vectors as columns)."""
        import torch
        import torch_sim as ts
        from ase.data import atomic_masses

        real = dtype or torch.float64
        cart = np.einsum("ai,aij->aj", self.frac, self.lattices[self.batch])
        return ts.SimState(
            positions=torch.as_tensor(cart, dtype=real, device=device),
            masses=torch.as_tensor(atomic_masses[self.numbers], dtype=real, device=device),
            cell=torch.as_tensor(self.lattices.transpose(0, 2, 1).copy(), dtype=real, device=device),
            pbc=True,
            atomic_numbers=torch.as_tensor(self.numbers, dtype=torch.int64, device=device),
            system_idx=torch.as_tensor(self.batch, dtype=torch.int64, device=device),
        )

    def moved_to(self, state: ts.SimState) -> Crystals:
        """The same crystals with the positions and cells of a torch-sim state, wrapped into the cell."""
        cart = state.positions.detach().cpu().double().numpy()
        lattices = state.cell.detach().cpu().double().numpy().transpose(0, 2, 1)
        inverse = np.linalg.inv(lattices)
        frac = np.einsum("ai,aij->aj", cart, inverse[self.batch])
        return replace(self, frac=frac - np.floor(frac), lattices=lattices)

    # --- Arrow -----------------------------------------------------------------------------------------------------

    def to_arrow(self) -> pa.Table:
        """One row a crystal: id, origin, numbers (list), frac (flat list), lattice (flat list of nine)."""
        offsets = pa.array(self.offsets.astype(np.int32))
        numbers = pa.ListArray.from_arrays(offsets, pa.array(self.numbers.astype(np.int16)))
        frac = pa.ListArray.from_arrays(pa.array((self.offsets * 3).astype(np.int32)), pa.array(self.frac.reshape(-1)))
        lattice = pa.ListArray.from_arrays(
            pa.array(np.arange(len(self) + 1, dtype=np.int32) * 9), pa.array(self.lattices.reshape(-1))
        )
        return pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                "origin": pa.array(self.origins, pa.string()),
                "numbers": numbers,
                "frac": frac,
                "lattice": lattice,
            }
        )

    @classmethod
    def from_arrow(cls, table: pa.Table, *, finite: bool = False) -> Crystals:
        """Crystals from a table as `to_arrow` makes it; further columns are ignored.

        Args:
            table: One row a crystal.
            finite: Whether coordinates and lattices that are not finite are refused; a generated crystal may have such.

        Raises:
            InputError: A column is missing or of another type, or the lists of a row do not belong together; equal
                totals would hide that, and move atoms from one crystal to the next.
        """
        numbers, frac, lattice = (_lists(table, name) for name in ("numbers", "frac", "lattice"))
        n_atoms, places, components = (
            np.asarray(pc.list_value_length(lists), dtype=np.int64) for lists in (numbers, frac, lattice)
        )
        odd = np.flatnonzero((places != 3 * n_atoms) | (components != 9))
        if odd.size:
            raise InputError(
                f"row {odd[0] + 1} of the crystals has {n_atoms[odd[0]]} atomic numbers, {places[odd[0]]} coordinates "
                f"and {components[odd[0]]} lattice components; each atom needs three coordinates, a lattice nine "
                "components"
            )
        if table.num_rows == 0:
            return cls.empty()
        crystals = cls(
            ids=tuple(table.column("id").to_pylist()),
            n_atoms=n_atoms,
            numbers=_values(numbers),
            frac=_values(frac),
            lattices=_values(lattice),
            origins=tuple(table.column("origin").to_pylist()) if "origin" in table.column_names else (),
        )
        if finite and (rows := crystals.not_finite).any():
            name = crystals.ids[int(np.argmax(rows))]
            raise InputError(f"crystal '{name}' has a coordinate or a lattice component that is not finite")
        return crystals

    @property
    def not_finite(self) -> BoolArray:
        """Which crystals have a coordinate or a lattice component that is not finite, shape `n`."""
        answer = np.zeros(len(self), dtype=np.bool_)
        answer[~np.isfinite(self.lattices).all(axis=(1, 2))] = True
        answer[self.batch[~np.isfinite(self.frac).all(axis=1)]] = True
        return answer


def _lists(table: pa.Table, name: str) -> pa.ListArray:
    """A column of lists of numbers, integers where they are atomic numbers.

    Raises:
        InputError: There is none, or it holds something else.
    """
    if table.column_names.count(name) != 1 or table.column_names.count("id") != 1:
        raise InputError(
            f"a table of crystals needs the columns id, numbers, frac and lattice, one each, not {table.column_names}"
        )
    kind = table.schema.field(name).type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    right = pa.types.is_integer if name == "numbers" else pa.types.is_floating
    if not lists or not right(kind.value_type):
        wanted = "integers" if name == "numbers" else "floating point numbers"
        raise InputError(f"the column '{name}' of a table of crystals holds {kind}; it needs lists of {wanted}")
    column = table.column(name).combine_chunks()
    if column.null_count or column.flatten().null_count:
        raise InputError(f"a row of the crystals has no {name}, or one that lacks a number")
    return column


def _values(lists: pa.ListArray) -> npt.NDArray[Any]:
    """All numbers of a column of lists, end to end."""
    return np.asarray(lists.flatten())


@dataclass(frozen=True, kw_only=True)
class Relaxed:
    """Relaxed crystals with what an ensemble of m potentials says of each of the n.

    The first member relaxed them; every member judged them at that geometry. A member that refused a crystal has
    NaN in its row.

    Attributes:
        crystals: The relaxed geometries.
        members: Names of the m potentials; the first one relaxed.
        energies: Total energies of each potential on its own scale, eV/atom, shape `m x n`.
        formation_energies: Against the same potential's elemental references, eV/atom, shape `m x n`.
        hull_distances: Energies above the hull, eV/atom, shape `m x n`; negative means below it.
        max_forces: Largest residual force on an atom, eV/A, shape `m x n`.
        pressures: Residual pressure, GPa, shape `m x n`.
        magnetic_moments: Sum of absolute atomic moments, mu_B per cell, shape `m x n`; NaN if not predicted.
        strains: Volumes of the equation of state relative to the relaxed one, shape `k`; empty if not asked for.
        strain_energies: Energies at those volumes, eV/atom, shape `m x n x k`.
        converged: Whether the relaxation reached its tolerance, shape `n`.
        steps: Relaxation steps taken, shape `n`.
        initial_volumes: Cell volumes before relaxation, A^3, shape `n`.
    """

    crystals: Crystals
    members: tuple[str, ...]
    energies: FloatArray
    formation_energies: FloatArray
    hull_distances: FloatArray
    max_forces: FloatArray
    pressures: FloatArray
    magnetic_moments: FloatArray
    strains: FloatArray
    strain_energies: FloatArray
    converged: BoolArray
    steps: IntArray
    initial_volumes: FloatArray

    def __post_init__(self) -> None:
        """Check that every table has the shape `m x n`."""
        shape = (len(self.members), len(self.crystals))
        for name in _MEMBER_TABLES:
            if getattr(self, name).shape != shape:
                raise InputError(f"Relaxed.{name} has shape {getattr(self, name).shape}, but m x n is {shape}")

    def __len__(self) -> int:
        """How many crystals there are."""
        return len(self.crystals)

    def __getitem__(self, which: slice | Sequence[int] | npt.NDArray[Any]) -> Relaxed:
        """The crystals at a slice, indices or a mask, with their judgements."""
        index = _picked(len(self), which)
        return replace(
            self,
            crystals=self.crystals[index],
            strain_energies=self.strain_energies[:, index],
            converged=self.converged[index],
            steps=self.steps[index],
            initial_volumes=self.initial_volumes[index],
            **{name: getattr(self, name)[:, index] for name in _MEMBER_TABLES},
        )

    @classmethod
    def concatenate(cls, batches: Sequence[Relaxed]) -> Relaxed:
        """All crystals of several batches, at least one, that the same members judged at the same strains."""
        joined: dict[str, Any] = {f: np.concatenate([getattr(b, f) for b in batches]) for f in _CRYSTAL_TABLES}
        joined |= {f: np.concatenate([getattr(b, f) for b in batches], axis=1) for f in _MEMBER_TABLES}
        return replace(
            batches[0],
            crystals=Crystals.concatenate([b.crystals for b in batches]),
            strain_energies=np.concatenate([b.strain_energies for b in batches], axis=1),
            **joined,
        )


def _picked(n: int, which: slice | Sequence[int] | npt.NDArray[Any]) -> IntArray:
    """The indices below n that a slice, a list of indices or a boolean mask picks."""
    if isinstance(which, slice):
        return np.arange(n)[which]
    index = np.asarray(which)
    picked: IntArray = np.arange(n)[index if index.size else index.astype(np.int64)]  # an empty list would be floats
    return picked


_MEMBER_TABLES = (
    "energies",
    "formation_energies",
    "hull_distances",
    "max_forces",
    "pressures",
    "magnetic_moments",
)
_CRYSTAL_TABLES = ("converged", "steps", "initial_volumes")

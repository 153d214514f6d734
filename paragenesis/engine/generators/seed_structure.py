"""A seed structure: a geometry that generated crystals keep, with some of its sites' elements held fast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from ase.data import chemical_symbols
from pydantic import Field, field_validator, model_validator

from paragenesis.crystals import Crystals, FloatArray, IntArray
from paragenesis.settings import Settings

Vector = tuple[float, float, float]

_LONGEST_VECTOR = 1e3  # angstrom; keeps determinants inside double precision
_FILE = "file"  # the key that stands for a structure in a campaign


class SeedStructure(Settings):
    """A crystal with n sites whose cell, up to its scale, and fractional coordinates are kept.

    In a campaign it is a file, read once: `seed_structure = { file = "perovskite.cif", fixed = [0, 1] }`. Its cell is
    taken as it stands, so the order of the sites is the file's; sites that are not fixed take any element.

    Attributes:
        numbers: Atomic number of each site, `n` of them.
        frac: Fractional coordinates, in [0, 1), shape `n x 3`.
        lattice: Lattice vectors as rows, angstrom, shape `3 x 3`.
        fixed: Sites, counted from 0, that keep their element.
    """

    numbers: tuple[Annotated[int, Field(ge=1, le=103)], ...] = Field(min_length=1, max_length=500)
    frac: tuple[Vector, ...]
    lattice: tuple[Vector, Vector, Vector]
    fixed: tuple[int, ...] = ()

    @classmethod
    def read(cls, file: str | Path, fixed: Sequence[int] = ()) -> Self:
        """The structure of a CIF, POSCAR or extxyz file.

        Args:
            file: The file; it holds one crystal.
            fixed: Sites, counted from 0 in the order of the file, that keep their element.

        Raises:
            InputError: The file cannot be read, holds several crystals, or has no such sites.
        """
        return cls.parse({_FILE: str(file), "fixed": fixed})

    @classmethod
    def located(cls, value: Any, directory: Path) -> Any:
        """Plain values of a seed structure with the file's path taken from `directory`; anything else as it is."""
        if isinstance(value, Mapping) and isinstance(value.get(_FILE), str | Path):
            return {**value, _FILE: str(directory / value[_FILE])}
        return value

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        """Plain values with what is in the file in place of its name."""
        from paragenesis.engine.screening.sanitise import sanitise

        if not isinstance(value, Mapping) or _FILE not in value:
            return value
        file = value[_FILE]
        if len(value.keys() - {_FILE, "fixed"}) > 0:
            raise ValueError("a seed structure is a file or its numbers, frac and lattice, not both; drop one of them")
        if not isinstance(file, str | Path):
            raise ValueError(f"file is the path of a CIF, POSCAR or extxyz file, but {file!r} was given")
        crystals = sanitise(file)
        if len(crystals) != 1:
            raise ValueError(f"{Path(file).name} holds {len(crystals)} crystals; give a file that holds one")
        return {
            "numbers": crystals.numbers.tolist(),
            "frac": crystals.frac.tolist(),
            "lattice": crystals.lattices[0].tolist(),
            "fixed": value.get("fixed", ()),
        }

    @field_validator("frac")
    @classmethod
    def _in_the_cell(cls, value: tuple[Vector, ...]) -> tuple[Vector, ...]:
        wrapped = np.array(value, dtype=np.float64).reshape(-1, 3) % 1.0
        return tuple((x, y, z) for x, y, z in np.where(wrapped == 1.0, 0.0, wrapped).tolist())  # -1e-17 % 1 is 1

    @field_validator("fixed")
    @classmethod
    def _in_order(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _of_one_piece(self) -> Self:
        if len(self.frac) != len(self.numbers):
            raise ValueError(
                f"{len(self.numbers)} numbers came with {len(self.frac)} coordinates; give one of each a site"
            )
        if np.abs(self.lattice).max() > _LONGEST_VECTOR:
            raise ValueError(f"the lattice of the seed structure has a vector longer than {_LONGEST_VECTOR:g} A")
        if abs(np.linalg.det(np.array(self.lattice))) < 1e-3:
            raise ValueError("the lattice of the seed structure has no volume; give three vectors that span a cell")
        outside = [site for site in self.fixed if not 0 <= site < len(self)]
        if outside:
            raise ValueError(f"there is no site {outside[0]} to fix; the seed structure has {self.described_sites}")
        return self

    def __len__(self) -> int:
        """How many sites there are."""
        return len(self.numbers)

    @property
    def described_sites(self) -> str:
        """Sites and elements in words: "0 Ca, 1 Ti, 2 O, 3 O, 4 O"."""
        return ", ".join(f"{site} {chemical_symbols[z]}" for site, z in enumerate(self.numbers))

    @property
    def fixed_elements(self) -> Counter[str]:
        """How many fixed sites each element has, by symbol."""
        return Counter(chemical_symbols[self.numbers[site]] for site in self.fixed)

    @property
    def free_sites(self) -> int:
        """How many sites take any element."""
        return len(self.numbers) - len(self.fixed)

    @property
    def crystal(self) -> Crystals:
        """The seed structure itself, a batch of one."""
        return Crystals(
            ids=("seed",),
            n_atoms=np.array([len(self)]),
            numbers=np.array(self.numbers),
            frac=np.array(self.frac),
            lattices=np.array(self.lattice)[None],
            origins=("seed structure",),
        )

    def violation(self, numbers: IntArray, frac: FloatArray, lattice: FloatArray, tolerance: float) -> str:
        """How a crystal strays from the geometry or the fixed elements, or "".

        The cell may be rotated and scaled as a whole, the sites may come in any order.

        Args:
            numbers: Atomic numbers, shape `n`.
            frac: Fractional coordinates, shape `n x 3`.
            lattice: Lattice vectors as rows, angstrom, shape `3 x 3`.
            tolerance: How far a site may lie from the seed's, and a lattice vector from its own, angstrom.
        """
        if len(numbers) != len(self):
            return f"{len(numbers)} sites, not the {len(self)} of the seed structure"
        own = np.array(self.lattice) * np.cbrt(abs(np.linalg.det(lattice) / np.linalg.det(self.lattice)))
        if not _same_cell(own, lattice, tolerance):
            return "a cell of another shape than the seed structure's"
        gap = np.array(self.frac)[:, None] - frac[None]
        distances = np.linalg.norm((gap - np.round(gap)) @ own, axis=-1)
        nearest = distances.argmin(1)
        if len(set(nearest.tolist())) < len(self) or distances.min(1).max() > tolerance:
            return "sites elsewhere than in the seed structure"
        return self._fixed_violation(numbers[nearest])

    def relaxed_violation(self, numbers: IntArray) -> str:
        """What the elements of a relaxed crystal lack of the fixed sites, or ""; its geometry has moved on."""
        present = Counter(chemical_symbols[z] for z in numbers.tolist())
        lost = self.fixed_elements - present
        if len(numbers) != len(self):
            return f"{len(numbers)} sites, not the {len(self)} of the seed structure"
        return f"fixed {', '.join(sorted(lost))} of the seed structure is missing" if lost else ""

    def _fixed_violation(self, numbers: IntArray) -> str:
        """Which fixed site has another element, or ""; `numbers` in the order of the seed's sites."""
        for site in self.fixed:
            if numbers[site] != self.numbers[site]:
                found, kept = chemical_symbols[numbers[site]], chemical_symbols[self.numbers[site]]
                return f"{found} on site {site} of the seed structure, where {kept} is fixed"
        return ""


def _same_cell(one: FloatArray, other: FloatArray, tolerance: float) -> bool:
    """Whether two cells of equal volume are the same but for a rotation; each vector within `tolerance`, angstrom."""
    lengths = np.linalg.norm(one, axis=1)
    slack = tolerance * (lengths[:, None] + lengths[None, :])  # a.b changes by |a| db + |b| da
    return bool((np.abs(one @ one.T - other @ other.T) <= slack).all())

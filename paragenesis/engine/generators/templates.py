"""The template library: prototypes whose sites take new elements.

"aflow" are the 288 prototypes that pymatgen ships (Mehl et al., Comput. Mater. Sci. 136, S1 (2017)); anything else is
a file or a folder of the user's own structures. Every template is reduced to its standard primitive cell.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.engine.screening.sanitise import read_structures
from paragenesis.errors import InputError, RejectedInput

if TYPE_CHECKING:
    from pymatgen.core import Structure

AFLOW = "aflow"
_FREE = 200  # added to the atomic numbers of a seed's free sites, so that they differ from fixed ones
_SUFFIXES = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz")


@dataclass(frozen=True, eq=False)
class Template:
    """A crystal in its standard primitive cell with n sites, whose elements are there to be replaced.

    Attributes:
        name: Unique in its library: "ABC3_cP5_221_a_c_b", or the file's stem.
        aliases: Further names: the mineral, the Strukturbericht symbol.
        formula: Reduced formula as it stands in the library.
        numbers: Atomic numbers, shape `n`.
        frac: Fractional coordinates, shape `n x 3`.
        lattice: Lattice vectors as rows, angstrom, shape `3 x 3`.
        orbits: The symmetry orbit of each site, counted from 0, shape `n`.
        symprec: Tolerance its symmetry was found with, angstrom.
        fixed: Sites that keep their element.
    """

    name: str
    aliases: tuple[str, ...]
    formula: str
    numbers: IntArray
    frac: FloatArray
    lattice: FloatArray
    orbits: IntArray
    symprec: float
    fixed: tuple[int, ...] = ()

    def __len__(self) -> int:
        """How many sites there are."""
        return len(self.numbers)

    @property
    def title(self) -> str:
        """The template in words: "ABC3_cP5_221_a_c_b (Perovskite, CaTiO3)"."""
        mineral = self.aliases[0] if self.aliases else ""
        return f"{self.name} ({', '.join(part for part in (mineral, self.formula) if part)})"

    @classmethod
    def of_seed(cls, seed: SeedStructure, symprec: float) -> Template:
        """A seed structure as a template, its cell as it is.

        Raises:
            InputError: No symmetry is found in it.
        """
        numbers = np.array(seed.numbers, dtype=np.int64)
        free = np.isin(np.arange(len(seed)), seed.fixed, invert=True)
        return cls(
            name="the seed structure",
            aliases=(),
            formula=seed.crystal.formulas[0],
            numbers=numbers,
            frac=np.array(seed.frac, dtype=np.float64),
            lattice=np.array(seed.lattice, dtype=np.float64),
            orbits=_seed_orbits(seed, numbers + _FREE * free, symprec),
            symprec=symprec,
            fixed=seed.fixed,
        )

    @property
    def permutations(self) -> IntArray:
        """How the symmetry of the bare sites, elements ignored, permutes them; shape `p x n`.

        Two decorations that such a permutation turns into each other are the same crystal (NaCl with its two elements
        exchanged is still the same rocksalt).
        """
        return self._bare_symmetry[0]

    @property
    def translations(self) -> IntArray:
        """The permutations that are pure translations, without the identity; shape `q x n`."""
        return self._bare_symmetry[1]

    @cached_property
    def _bare_symmetry(self) -> tuple[IntArray, IntArray]:
        from pymatgen.core import Lattice, Structure
        from pymatgen.symmetry.analyzer import SpacegroupAnalyzer  # moyo logs a warning for each cell not primitive

        bare = Structure(Lattice(self.lattice), [1] * len(self), self.frac)
        identity = tuple(range(len(self)))
        every, shifts = {identity}, set[tuple[int, ...]]()
        for operation in SpacegroupAnalyzer(bare, symprec=self.symprec).get_symmetry_operations():
            moved = self.frac @ operation.rotation_matrix.T + operation.translation_vector
            gap = moved[:, None, :] - self.frac[None, :, :]
            nearest = tuple(np.square((gap - np.round(gap)) @ self.lattice).sum(-1).argmin(1).tolist())
            if len(set(nearest)) < len(self):
                continue
            every.add(nearest)
            if np.array_equal(operation.rotation_matrix, np.eye(3)) and nearest != identity:
                shifts.add(nearest)
        return (
            np.array(sorted(every), dtype=np.int64),
            np.array(sorted(shifts), dtype=np.int64).reshape(-1, len(self)),
        )


class TemplateLibrary:
    """The templates of some sources, read and reduced when first asked for."""

    def __init__(self, sources: Sequence[str] = (AFLOW,), symprec: float = 0.01) -> None:
        """Remember where the templates are.

        Args:
            sources: "aflow", and/or paths of files (CIF, POSCAR, extxyz) or folders of such files.
            symprec: Tolerance of the symmetry search, angstrom.
        """
        self._sources = tuple(sources)
        self._symprec = symprec

    @cached_property
    def templates(self) -> tuple[Template, ...]:
        """All templates, in the order of the sources; about 1 s after pymatgen is loaded.

        Raises:
            InputError: A file is missing, unreadable or holds no ordered crystal.
        """
        found: list[Template] = []
        taken: Counter[str] = Counter()
        for source in self._sources:
            for name, aliases, structure in _aflow() if source == AFLOW else _from_path(Path(source)):
                taken[name] += 1
                unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
                found.append(_reduced(unique, aliases, structure, self._symprec))
        if not found:
            raise InputError("the template library is empty; name 'aflow' or a file with structures as its source")
        return tuple(found)

    def named(self, name: str) -> tuple[Template, ...]:
        """The templates of that name, mineral or Strukturbericht symbol; several may share one.

        Case and punctuation do not matter, and one word of the mineral is enough: "perovskite" finds
        "(Cubic) Perovskite". A whole name goes before a word.

        Raises:
            InputError: No template has that name.
        """
        wanted = _plain(name)
        kinds: tuple[Callable[[Template], bool], ...] = (
            lambda t: _plain(t.name) == wanted,
            lambda t: wanted in map(_plain, t.aliases),
            lambda t: any(f" {wanted} " in f" {_plain(alias)} " for alias in t.aliases),
        )
        for fits in kinds:
            if found := tuple(t for t in self.templates if fits(t)):
                return found
        names = {_plain(n): n for t in self.templates for n in (t.name, *t.aliases)}
        close = [names[match] for match in difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)]
        cure = f"did you mean {' or '.join(close)}?" if close else f"its first is {self.templates[0].name}"
        raise InputError(f"no prototype is named '{name}' among the {len(self.templates)} templates; {cure}")


def _plain(name: str) -> str:
    """A name without case and punctuation."""
    return " ".join(re.findall(r"\w+", name.casefold()))


def _aflow() -> Iterator[tuple[str, tuple[str, ...], Structure]]:
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    for entry in AFLOW_PROTOTYPE_LIBRARY:
        tags = entry["tags"]
        further = (tags["mineral"], tags["strukturbericht"])
        yield tags["aflow"], tuple(a for a in further if a and a != "None"), entry["snl"].structure


def _from_path(path: Path) -> Iterator[tuple[str, tuple[str, ...], Structure]]:
    if path.is_dir():
        files = [f for f in sorted(path.iterdir()) if f.suffix.lower() in _SUFFIXES or "POSCAR" in f.name]
        if not files:
            raise InputError(f"the folder {path} has no structures; put files {', '.join(_SUFFIXES)} or POSCAR there")
        for file in files:
            yield from _from_path(file)
        return
    if not path.is_file():
        raise InputError(f"no template file at {path}; give 'aflow' or the path of a CIF, POSCAR or extxyz file")
    try:
        structures = read_structures(path).to_structures()
    except RejectedInput as error:
        raise InputError(f"the template file {path} cannot be read: {error}") from None
    yield from ((path.stem, (), structure) for structure in structures)


def _seed_orbits(seed: SeedStructure, kinds: IntArray, symprec: float) -> IntArray:
    """The symmetry orbit of each site, counted from 0, if sites of different kinds differ; shape `n`."""
    from moyopy import Cell, MoyoDataset

    cell = Cell([list(v) for v in seed.lattice], [list(f) for f in seed.frac], kinds.tolist())
    try:
        orbits = MoyoDataset(cell, symprec=symprec).orbits
    except ValueError as error:
        raise InputError(f"no symmetry was found in the seed structure ({error}); check its geometry") from error
    return np.unique(orbits, return_inverse=True)[1].astype(np.int64)


def _reduced(name: str, aliases: tuple[str, ...], structure: Structure, symprec: float) -> Template:
    """A structure as a template in its standard primitive cell."""
    from moyopy import Cell, MoyoDataset

    try:
        given = Cell(structure.lattice.matrix.tolist(), structure.frac_coords.tolist(), list(structure.atomic_numbers))
        cell = MoyoDataset(given, symprec=symprec).prim_std_cell
        orbits = MoyoDataset(cell, symprec=symprec).orbits
    except ValueError as error:
        raise InputError(f"no symmetry was found in the template {name} ({error}); check its geometry") from error
    return Template(
        name=name,
        aliases=aliases,
        formula=structure.composition.reduced_formula,
        numbers=np.array(cell.numbers, dtype=np.int64),
        frac=np.array(cell.positions, dtype=np.float64) % 1.0,
        lattice=np.array(cell.basis, dtype=np.float64),
        orbits=np.unique(orbits, return_inverse=True)[1].astype(np.int64),
        symprec=symprec,
    )

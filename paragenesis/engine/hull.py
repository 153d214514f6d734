"""Energy above hull: how far a crystal's formation energy lies above the best mixture of known phases.

A `Hull` is a table of formation energies with a name, a functional and a key. The distance of a candidate is its
formation energy minus the hull energy of the reference at its composition; the elements stand at 0. It is negative
where the candidate lies below everything known, and 0 for a stable phase of the reference itself.

The hull energy at a composition x is the optimum of a linear programme (Akbarzadeh et al., Adv. Mater. 19, 3233,
2007). Up to six elements the lower facets of the convex hull are computed once per chemical system; each facet is a
set of chemical potentials mu, and the hull energy is the largest x . mu. Beyond that the programme is solved per
composition, because the number of facets explodes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paragenesis.crystals import FloatArray
from paragenesis.engine.level import EXPERIMENT, MP2020, Level
from paragenesis.engine.tables import ENERGY, read_number, read_table
from paragenesis.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Composition

EMBEDDED = f"{MP2020}+{EXPERIMENT}"  # the functional of `Hull.embedded`: a mixture, said to be one

_MOST_ELEMENTS_BY_FACETS = 6  # Qhull's facets grow as n^(k/2); above this a linear programme per composition is faster
_VERTICAL = 1e-9  # a facet whose normal has a smaller energy component is a wall of the composition simplex
_MOST_SYSTEMS_KEPT = 20_000  # a bound on the cache; a few kB each

System = tuple[str, ...]  # symbols of a chemical system, sorted


@dataclass(frozen=True)
class HullCoverage:
    """What a hull knows of one chemical system.

    Attributes:
        chemical_system: The system, such as "Ca-O-Ti".
        phases: Number of known compounds by number of elements (1 stands for the elements themselves).
        stable: Reduced formulas on the hull, elements included.
        missing_binaries: Pairs of elements without any known compound, such as "Ca-Ti".
        missing_elements: Elements that the reference does not know at all.
    """

    chemical_system: str
    phases: dict[int, int]
    stable: tuple[str, ...]
    missing_binaries: tuple[str, ...]
    missing_elements: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The coverage in one sentence, for the report."""
        if self.missing_elements:
            unknown = ", ".join(self.missing_elements)
            return f"{self.chemical_system}: the hull does not know {unknown}, so no distance can be given."
        known = " and ".join(
            f"{count} compounds of {size} elements" for size, count in sorted(self.phases.items()) if size > 1 and count
        )
        gaps = f" It knows no compound in {', '.join(self.missing_binaries)}." if self.missing_binaries else ""
        return (
            f"{self.chemical_system}: the hull knows {known or 'no compounds'}; {len(self.stable)} phases lie on it "
            f"(elements included).{gaps}"
        )


@dataclass(frozen=True)
class _Phases:
    """Known phases made of exactly the elements of one system: formulas `m`, fractions `m x k`, energies `m`."""

    formulas: tuple[str, ...]
    fractions: FloatArray
    energies: FloatArray


class Hull:
    """Formation energies of known phases, and distances from the convex hull they span."""

    def __init__(
        self, name: str, functional: str, formulas: Sequence[str], formation_energies: Sequence[float], note: str = ""
    ) -> None:
        """Sort phases into chemical systems.

        Args:
            name: What the hull is called in the report.
            functional: Level the energies belong to, such as `paragenesis.engine.level.MP2020`.
            formulas: Formulas, `m` of them; one formula may occur more than once.
            formation_energies: Formation energies, eV/atom, `m` of them.
            note: What a reader must know about the data, in one sentence.

        Raises:
            InputError: A formula cannot be read or an energy is not finite; the row is named (counted from 1).
        """
        self.name, self.functional, self.note = name, functional, note
        self.size = len(formulas)
        if len(formation_energies) != self.size:
            raise InputError(f"hull '{name}': {self.size} formulas came with {len(formation_energies)} energies")
        energies = np.asarray(formation_energies, dtype=np.float64)
        found: defaultdict[System, list[tuple[str, list[float], float]]] = defaultdict(list)
        digest = hashlib.sha256(functional.encode())
        for row, (formula, energy) in enumerate(zip(formulas, energies, strict=True), start=1):
            if not np.isfinite(energy):
                raise InputError(f"hull '{name}', row {row} ({formula}): the formation energy {energy} is not finite")
            fractions = _read(formula, f"hull '{name}', row {row}")
            found[tuple(fractions)].append((formula, list(fractions.values()), float(energy)))
            digest.update(f"{formula} {energy:.9g}\n".encode())
        self._systems = {
            system: _Phases(
                tuple(formula for formula, _, _ in phases),
                np.array([x for _, x, _ in phases], dtype=np.float64),
                np.array([e for _, _, e in phases], dtype=np.float64),
            )
            for system, phases in found.items()
        }
        self.elements = frozenset(itertools.chain.from_iterable(self._systems))
        self.key = f"hull/{functional}/{digest.hexdigest()[:12]}"
        self._potentials: dict[System, FloatArray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """The table without the cached facets: a worker computes the few it needs."""
        return {**self.__dict__, "_potentials": {}}

    # --- where hulls come from -----------------------------------------------------------------------------------

    @classmethod
    def embedded(cls) -> Hull:
        """The hull of the reference data that pymatgen ships: real, but sparse.

        Where the Materials Project and experiment both know a formula, the Materials Project counts.

        Raises:
            InputError: The installed pymatgen does not hold these data.
        """
        from paragenesis.engine.embedded import embedded_phases

        table = embedded_phases()
        return cls(table.name, EMBEDDED, table.formulas, table.formation_energies, table.note)

    @classmethod
    def from_file(cls, path: str | Path, functional: str) -> Hull:
        """The hull of a CSV, CSV.gz or Parquet file with columns `formula` and `formation_energy_per_atom`.

        Args:
            path: The file; other columns are ignored.
            functional: Level its energies belong to, such as `paragenesis.engine.level.MP2020`.

        Raises:
            InputError: The file cannot be read, a column is missing, or a row is wrong (the row is named).
        """
        path = Path(path)
        table = read_table(path, ["formula", ENERGY])
        formulas = [str(formula) for formula in table["formula"].to_pylist()]
        energies = [
            read_number(value, f"{path}, row {row} ({formulas[row - 1]}), {ENERGY}")
            for row, value in enumerate(table[ENERGY].to_pylist(), start=1)
        ]
        return cls(
            path.name, functional, formulas, energies, "Phases it does not hold make candidates look too stable."
        )

    # --- distances -----------------------------------------------------------------------------------------------

    def distances(
        self, compositions: Sequence[Composition | str], formation_energies: Sequence[float] | FloatArray
    ) -> FloatArray:
        """Energies above hull, eV/atom, shape `n`; negative below the hull, NaN where an element is unknown.

        Args:
            compositions: Compositions or formulas, `n` of them.
            formation_energies: Formation energies, eV/atom, `n` of them.

        Raises:
            InputError: A formula cannot be read.
        """
        energies = np.asarray(formation_energies, dtype=np.float64)
        if len(compositions) != len(energies):
            raise InputError(f"{len(compositions)} compositions came with {len(energies)} formation energies")
        systems: defaultdict[System, list[tuple[int, list[float]]]] = defaultdict(list)
        for index, composition in enumerate(compositions):
            fractions = _read(composition, f"composition {index}")
            systems[tuple(fractions)].append((index, list(fractions.values())))
        distances = np.full(len(energies), np.nan)
        for system, members in systems.items():
            if self.elements.issuperset(system):
                which = [index for index, _ in members]
                distances[which] = energies[which] - self._hull_energies(system, np.array([x for _, x in members]))
        return distances

    def coverage(self, chemical_system: str) -> HullCoverage:
        """What the hull knows of a chemical system such as "Ca-O-Ti".

        Raises:
            InputError: The system names something that is no element.
        """
        symbols = tuple(_read(chemical_system.replace("-", ""), f"chemical system '{chemical_system}'"))
        unknown = tuple(symbol for symbol in symbols if symbol not in self.elements)
        known = tuple(symbol for symbol in symbols if symbol in self.elements)
        phases: dict[int, int] = dict.fromkeys(range(1, len(symbols) + 1), 0)
        phases[1] = len(known)
        stable = [*known]
        for system, group in self._within(known):
            if len(system) > 1:
                lowest = self.distances(group.formulas, group.energies) < 1e-6
                reduced = [_reduced(formula) for formula in group.formulas]
                phases[len(system)] += len(set(reduced))
                stable += [formula for formula, low in zip(reduced, lowest, strict=True) if low]
        pairs = ["-".join(pair) for pair in itertools.combinations(symbols, 2) if pair not in self._systems]
        return HullCoverage(
            "-".join(symbols), phases, tuple(dict.fromkeys(stable)), tuple(pairs), missing_elements=unknown
        )

    def describe(self) -> str:
        """What the hull is, for the report: name, level, size, and what to beware of."""
        size = f"{self.size:,} phases of {len(self.elements)} elements"
        return f"{self.name} (level {self.functional}): {size}. {self.note}"

    # --- geometry ------------------------------------------------------------------------------------------------

    def _hull_energies(self, system: System, x: FloatArray) -> FloatArray:
        """Hull energies at compositions `x` (`n x k`) of a chemical system of k known elements, eV/atom."""
        if len(system) > _MOST_ELEMENTS_BY_FACETS:
            fractions, energies = self._competitors(system)
            return np.array([_mixture_energy(fractions, energies, one) for one in x])
        if system not in self._potentials:
            if len(self._potentials) >= _MOST_SYSTEMS_KEPT:
                self._potentials.clear()
            self._potentials[system] = _chemical_potentials(*self._competitors(system))
        return np.asarray((x @ self._potentials[system].T).max(axis=1))

    def _competitors(self, system: System) -> tuple[FloatArray, FloatArray]:
        """Fractions `m x k` and energies `m` of all phases that can lie on the hull; the k elements come first."""
        column = {symbol: i for i, symbol in enumerate(system)}
        fractions, energies = [np.eye(len(system))], [np.zeros(len(system))]
        for subsystem, phases in self._within(system):
            below = phases.energies < 0.0  # the elements stand at 0, so nothing above 0 is on the hull
            if below.any():
                block = np.zeros((int(below.sum()), len(system)))
                block[:, [column[symbol] for symbol in subsystem]] = phases.fractions[below]
                fractions.append(block)
                energies.append(phases.energies[below])
        return np.concatenate(fractions), np.concatenate(energies)

    def _within(self, system: System) -> Iterator[tuple[System, _Phases]]:
        """Known phases by chemical system, for every system inside `system`."""
        if 2 ** len(system) > len(self._systems):
            inside = set(system)
            yield from ((known, phases) for known, phases in self._systems.items() if inside.issuperset(known))
            return
        for size in range(1, len(system) + 1):
            for subsystem in itertools.combinations(system, size):
                if subsystem in self._systems:
                    yield subsystem, self._systems[subsystem]


def check_pairing(level: Level, hull: Hull, mixed: bool) -> str:
    """Whether energies of `level` may be held against `hull`, and the sentence that the report must carry.

    Raises:
        InputError: The functionals differ and `mixed` is not set.
    """
    who = f"{level.engine} {level.version}"
    if level.functional == hull.functional:
        return f"{who} imitates {level.functional}, the level of the hull '{hull.name}'."
    if not mixed:
        raise InputError(
            f"{who} gives energies of level '{level.functional}', but the hull '{hull.name}' is of level "
            f"'{hull.functional}'; give a hull of the same level, or mix them knowingly with mixed = true"
        )
    return (
        f"Mixed levels, as asked for: formation energies of {who} ({level.functional}) are held against a hull of "
        f"level {hull.functional}, so its hull distances carry the systematic difference of the two."
    )


def _chemical_potentials(fractions: FloatArray, energies: FloatArray) -> FloatArray:
    """Chemical potentials of the lower facets, `f x k`, eV/atom; the hull energy at x is the largest x . mu.

    Args:
        fractions: Atomic fractions of all competing phases, `m x k`; the first k are the pure elements.
        energies: Formation energies, eV/atom, shape `m`.
    """
    from scipy.spatial import ConvexHull

    k = fractions.shape[1]
    if k == 1:
        return np.array([[energies.min()]])
    if len(energies) == k:
        return np.zeros((1, k))
    points = np.column_stack([fractions[:, :-1], energies])
    # An apex above the middle makes the hull solid whatever the energies are; it touches no lower facet.
    apex = np.append(np.full(k - 1, 1.0 / k), 1.0)
    equations = ConvexHull(np.vstack([points, apex])).equations
    lower = equations[equations[:, k - 1] < -_VERTICAL]
    # A facet n . x + n_e e + d = 0 is e = -(n . x + d) / n_e; at the pure elements this gives the potentials.
    normals, slope, offset = lower[:, : k - 1], lower[:, k - 1 : k], lower[:, k:]
    return np.asarray(-(np.column_stack([normals, np.zeros(len(lower))]) + offset) / slope)


def _mixture_energy(fractions: FloatArray, energies: FloatArray, x: FloatArray) -> float:
    """The least energy of a mixture of phases with composition `x` (shape `k`), eV/atom, by linear programming."""
    from scipy.optimize import linprog

    exact = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    found = linprog(energies, A_eq=fractions.T, b_eq=x, bounds=(0, None), method="highs", options=exact)
    if not found.success:  # cannot be: the elements alone are a feasible mixture
        raise ArithmeticError(f"the hull's linear programme failed: {found.message}")
    return float(found.fun)


def _read(composition: Composition | str, where: str) -> dict[str, float]:
    """Atomic fractions by element symbol, sorted by symbol; isotopes and oxidation states do not count."""
    from ase.data import chemical_symbols
    from pymatgen.core import Composition

    try:
        read = composition if isinstance(composition, Composition) else Composition(str(composition))
        amounts: defaultdict[str, float] = defaultdict(float)
        for species, amount in read.items():
            amounts[chemical_symbols[species.Z]] += amount
    except (ValueError, AttributeError, TypeError, IndexError):
        amounts = defaultdict(float)
    total = sum(amounts.values())
    if not total > 0:
        raise InputError(f"{where}: '{composition}' is no chemical formula; write it like 'CaTiO3'")
    return {symbol: amounts[symbol] / total for symbol in sorted(amounts)}


def _reduced(formula: str) -> str:
    from pymatgen.core import Composition

    return str(Composition(formula).reduced_formula)

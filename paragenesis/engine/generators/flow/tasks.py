"""What a condition asks of the flow: where its paths begin, what rests, and how the ends become crystals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from paragenesis.crystals import BoolArray, Crystals, IntArray
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.flow.model import FlowNetwork
from paragenesis.engine.generators.flow.projection import Projection, Template
from paragenesis.engine.generators.flow.rules import TypeRules, partitions
from paragenesis.engine.generators.flow.sample import Course, integrate
from paragenesis.engine.generators.flow.state import MASKED, State, lattice_rows, niggli, pack, unpack
from paragenesis.engine.generators.learned.context import Wishes
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.engine.generators.volume import at_predicted_volume
from paragenesis.errors import InputError

if TYPE_CHECKING:
    from paragenesis.engine.generators.wyckoff.form import WyckoffForm

_LONGEST, _FLATTEST = 100.0, 1e-3  # A; volume in units of the product of the lengths
_FREE = 200  # added to the atomic numbers of free sites, so that symmetry tells them from fixed ones
_RARE = 0.1  # crystals that a size is taken to have besides those counted
_UNDECIDED = TypeRules(np.ones(104, dtype=np.bool_), frozenset(), None, False)


@dataclass(frozen=True)
class Attempt:
    """What came of some paths.

    Attributes:
        crystals: Those that ended well, with cells and coordinates that are numbers.
        finite: For each path, whether the network's outputs were finite.
        finished: For each path, whether every site found a type.
        free: Whether the crystals were grown without symmetry, which they may be given now.
    """

    crystals: Crystals
    finite: BoolArray
    finished: BoolArray
    free: bool


class Task(Protocol):
    """One way to make crystals."""

    def attempt(self, network: FlowNetwork, course: Course, n: int, random: torch.Generator) -> Attempt:
        """Run n paths."""
        ...


def task_of(
    condition: Condition,
    rules: TypeRules,
    wishes: Wishes,
    cells: Mapping[int, Mapping[int, int]],
    templates: Mapping[Template, int],
) -> Task:
    """The task of a condition.

    Args:
        condition: What every crystal must be.
        rules: Its rules for the types.
        wishes: What it wishes for, once.
        cells: Atoms of the training crystals' cells and how many there are of each, by the atoms of the formula.
        templates: Those to flow on, and how often each occurs; none for free flow.

    Raises:
        InputError: There is no crystal of such a size, or no template.
    """
    if condition.seed_structure is not None:
        return Decoration(condition.seed_structure, rules, wishes)
    if condition.space_group is not None or templates:
        return Projected(_fitting(condition, rules, templates), rules, wishes)
    sizes: Counter[int] = Counter()
    unit = sum(condition.formula_unit.values())
    for own, row in cells.items():
        sizes.update(row if unit in (0, own) else {})
    known = {n for row in cells.values() for n in row}
    least = max(condition.min_atoms, len(rules.required))
    within = {n for n in range(min(known), max(known) + 1) if least <= n <= condition.max_atoms}
    if rules.targets is not None:
        within &= {sum(count for _, count in target) for target in rules.targets}
    # a size between those of the training set that it has none of is possible all the same, but rare
    weights = {n: sizes[n] + _RARE for n in sorted(within)}
    if not weights:
        raise InputError(
            f"the flow knows cells of {min(known)} to {max(known)} atoms, and none of these fits the condition "
            f"({condition.min_atoms} to {condition.max_atoms} atoms); widen min_atoms and max_atoms"
        )
    return Free(condition, rules, wishes, weights)


def _fitting(condition: Condition, rules: TypeRules, templates: Mapping[Template, int]) -> dict[Template, int]:
    """The templates that can become a crystal of a condition.

    Raises:
        InputError: There are none.
    """
    fitting = {
        template: count
        for template, count in templates.items()
        if condition.space_group in (None, template.group)
        and condition.min_atoms <= template.n_atoms <= condition.max_atoms
        and len(template.sites) >= len(rules.required)
        and (rules.targets is None or any(_hosts(template, target) for target in rules.targets))
    }
    if not fitting:
        group = f" of space group {condition.space_group}" if condition.space_group is not None else ""
        raise InputError(
            f"none of the {len(templates)} Wyckoff templates{group} that the flow knows has room for the condition; "
            "widen min_atoms and max_atoms, ask for another space group, or use the generator 'wyckoff'"
        )
    return fitting


def _hosts(template: Template, target: Sequence[tuple[int, int]]) -> bool:
    """Whether a composition can be put on a template's orbits."""
    return partitions(tuple(sorted(count for _, count in target)), tuple(sorted(template.sizes)))


@dataclass(frozen=True)
class Free:
    """New crystals, or structures for a composition, without symmetry.

    Attributes:
        condition: What is asked for.
        rules: For the types.
        wishes: What is wished for, once.
        sizes: Atoms a cell may have, with weights.
    """

    condition: Condition
    rules: TypeRules
    wishes: Wishes
    sizes: Mapping[int, float]

    def attempt(self, network: FlowNetwork, course: Course, n: int, random: torch.Generator) -> Attempt:
        """See `Task`."""
        sizes = torch.tensor(list(self.sizes))
        weights = torch.tensor([float(w) for w in self.sizes.values()])
        n_atoms = sizes[torch.multinomial(weights, n, replacement=True, generator=random)].sort().values
        state = noise(network, n_atoms, random)
        origin = "flow: new crystal"
        if self.condition.composition is not None:
            state = replace(state, types=self._assigned(n_atoms.numpy(), state.types.shape[1]))
            origin = f"flow: structure predicted for {self.condition.composition}"
        ends = integrate(network, state, repeated(self.wishes, n), course, self.rules, random)
        good = ends.finite & ends.finished & sensible(ends.state)
        found = ends.state[torch.as_tensor(good)]
        return Attempt(unpack(found, [origin] * len(found)), ends.finite, ends.finished, free=True)

    def _assigned(self, n_atoms: IntArray, most: int) -> torch.Tensor:
        """The composition's types for cells of so many atoms."""
        by_size = {sum(c for _, c in t): [z for z, c in t for _ in range(c)] for t in self.rules.targets or ()}
        types = [[*by_size[n], *[MASKED] * (most - n)] for n in n_atoms.tolist()]
        return torch.tensor(types)


@dataclass(frozen=True)
class Projected:
    """Crystals inside the symmetry of Wyckoff templates.

    Attributes:
        templates: Those that fit, with weights.
        rules: For the types.
        wishes: What is wished for, once.
    """

    templates: Mapping[Template, int]
    rules: TypeRules
    wishes: Wishes

    def attempt(self, network: FlowNetwork, course: Course, n: int, random: torch.Generator) -> Attempt:
        """See `Task`."""
        from paragenesis.engine.generators.wyckoff.build import to_crystals

        templates = list(self.templates)
        weights = torch.tensor([float(w) for w in self.templates.values()])
        drawn = torch.multinomial(weights, n, replacement=True, generator=random).tolist()
        projection = Projection(sorted((templates[i] for i in drawn), key=lambda t: t.n_atoms))
        types = torch.full(projection.atoms.shape, MASKED)
        state = projection.start(types, network.mean.cpu(), network.std.cpu(), random)
        ends = integrate(network, state, repeated(self.wishes, n), course, self.rules, random, projection)
        good = np.flatnonzero(ends.finite & ends.finished & sensible(ends.state))
        forms = projection.forms(ends.state, good.tolist())
        origins = [f"flow on a template of space group {form.group}" for form in forms]
        return Attempt(to_crystals(forms, origins), ends.finite, ends.finished, free=False)


@dataclass(frozen=True)
class Decoration:
    """New elements on the sites of a given structure; symmetrically equivalent sites take the same.

    Attributes:
        seed: The structure.
        rules: For the types.
        wishes: What is wished for, once.
    """

    seed: SeedStructure
    rules: TypeRules
    wishes: Wishes

    def attempt(self, network: FlowNetwork, course: Course, n: int, random: torch.Generator) -> Attempt:
        """See `Task`."""
        one = pack(niggli(self.seed.crystal)[0])
        fixed = torch.zeros(one.types.shape, dtype=torch.bool)
        fixed[0, list(self.seed.fixed)] = True
        types = torch.where(fixed, one.types, MASKED)
        state = State(*(part.repeat_interleave(n, 0) for part in (types, one.frac, one.cell, one.atoms)))
        sites = torch.as_tensor(self._sites()).expand(n, -1)
        resting = replace(course, moving=False)
        ends = integrate(network, state, repeated(self.wishes, n), resting, self.rules, random, sites=sites)
        good = ends.finite & ends.finished
        numbers = ends.state.types.numpy()[good]
        seed = self.seed.crystal
        crystals = Crystals(
            ids=tuple(str(i) for i in range(len(numbers))),
            n_atoms=np.full(len(numbers), len(self.seed)),
            numbers=numbers.reshape(-1),
            frac=np.tile(seed.frac, (len(numbers), 1)),
            lattices=np.repeat(seed.lattices, len(numbers), axis=0),
            origins=("flow: seed structure decorated anew",) * len(numbers),
        )
        return Attempt(at_predicted_volume(crystals) if len(crystals) else crystals, ends.finite, ends.finished, False)

    def _sites(self) -> IntArray:
        """The orbit of each atom, or the atom itself where no composition of the rules fits the orbits."""
        orbits = _orbits(self.seed)
        if self.rules.targets is None:
            return orbits
        held = Counter(self.seed.numbers[i] for i in self.seed.fixed)
        free = [i for i in range(len(self.seed)) if i not in self.seed.fixed]
        sizes = list(Counter(orbits[free].tolist()).values())
        tied = self.rules.finishes(list(held.elements()), sizes)
        return orbits if tied else np.arange(len(self.seed))


def _orbits(seed: SeedStructure, symprec: float = 0.1) -> IntArray:
    """Orbit of each site under the symmetry of the seed structure, fixed and free sites told apart.

    Raises:
        InputError: The symmetry search fails.
    """
    import moyopy

    free = np.ones(len(seed), dtype=np.bool_)
    free[list(seed.fixed)] = False
    marked = np.array(seed.numbers) + _FREE * free
    cell = moyopy.Cell([list(v) for v in seed.lattice], [list(f) for f in seed.frac], marked.tolist())
    try:
        return np.array(moyopy.MoyoDataset(cell, symprec=symprec).orbits, dtype=np.int64)
    except ValueError as error:
        raise InputError(f"the seed structure has no symmetry that can be found ({error}); mend it") from None


def refined(
    network: FlowNetwork, forms: Sequence[WyckoffForm], course: Course, seed: int
) -> tuple[list[WyckoffForm], BoolArray]:
    """Forms drawn anew from `course.begin` on, and whether the network's outputs were finite for each."""
    random = torch.Generator().manual_seed(seed)
    projection = Projection([Template.of(form) for form in forms])
    numbers = [np.array(form.numbers)[basis.orbit] for form, basis in zip(forms, projection.bases, strict=True)]
    types = torch.zeros(projection.atoms.shape, dtype=torch.int64)
    for i, own in enumerate(numbers):
        types[i, : len(own)] = torch.as_tensor(own)
    started = projection.start(types, network.mean.cpu(), network.std.cpu(), random)
    state = projection.towards(forms, course.begin, started)
    nothing = Wishes.from_condition(Condition(), network.encoder.all_scales, len(forms))
    ends = integrate(network, state, nothing, course, _UNDECIDED, random, projection)
    good = ends.finite & sensible(ends.state)
    new = iter(projection.forms(ends.state, np.flatnonzero(good).tolist()))
    return [next(new) if ok else form for form, ok in zip(forms, good, strict=True)], good


def noise(network: FlowNetwork, n_atoms: torch.Tensor, random: torch.Generator) -> State:
    """Where new crystals of so many atoms each begin: everything masked, uniform and Gaussian."""
    n, most = len(n_atoms), int(n_atoms.max())
    cell = network.mean.cpu() + network.std.cpu() * torch.randn(n, 6, generator=random)
    frac = torch.rand(n, most, 3, generator=random)
    return State(torch.full((n, most), MASKED), frac, cell, torch.arange(most)[None] < n_atoms[:, None])


def repeated(wishes: Wishes, n: int) -> Wishes:
    """One crystal's wishes for n."""
    bins = {name: mask[:1].expand(n, -1) for name, mask in wishes.bins.items()}
    return Wishes(bins, wishes.fractions[:1].expand(n, -1), wishes.system[:1].expand(n, -1))


def sensible(state: State) -> BoolArray:
    """Whether a state's cell and coordinates are those of a crystal: finite, not endless and not flat."""
    finite = state.frac.isfinite().flatten(1).all(1) & state.cell.isfinite().all(1)
    rows = lattice_rows(torch.nan_to_num(state.cell).double(), state.n_atoms)
    lengths = rows.norm(dim=-1)
    solid = (lengths < _LONGEST).all(1) & (torch.linalg.det(rows) > _FLATTEST * lengths.prod(1))
    return np.asarray((finite & solid).numpy(), dtype=np.bool_)


def symmetrised(crystals: Crystals, symprec: float) -> Crystals:
    """Crystals in their standard primitive cells with the symmetry that they have within a tolerance.

    Those whose cell turns out to hold several primitive ones are left out. With `symprec` 0 the others stay as they
    are; so does a crystal whose symmetry cannot be found.
    """
    from moyopy import Cell, MoyoDataset

    kept: list[Crystals] = []
    for crystal in crystals:
        cell = Cell(crystal.lattices[0].tolist(), crystal.frac.tolist(), crystal.numbers.tolist())
        try:
            found = MoyoDataset(cell, symprec=symprec or 1e-3).prim_std_cell
        except ValueError:  # nearly flat, or atoms nearly on top of each other
            kept.append(crystal)
            continue
        if found.num_atoms < len(crystal.numbers):
            continue
        if symprec > 0:
            crystal = replace(
                crystal,
                numbers=np.array(found.numbers),
                frac=np.array(found.positions) % 1.0,
                lattices=np.array(found.basis)[None],
            )
        kept.append(crystal)
    return Crystals.concatenate(kept)

"""Conditions that no crystal can obey: found when a condition is written down, each told in one sentence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.engine.generators.obedience import listed, space_group
from paragenesis.engine.generators.seed_structure import SeedStructure

if TYPE_CHECKING:
    from paragenesis.engine.generators.condition import Condition


def contradiction(condition: Condition) -> str:
    """Why no crystal can obey a condition, or ""; the cheap tests first."""
    return (
        _size(condition)
        or _chemistry(condition)
        or _wishes(condition)
        or _seed(condition)
        or _charges(condition)
        or _room(condition)
    )


def _size(condition: Condition) -> str:
    """Why no cell can have the number of atoms asked for, or ""."""
    low, high = condition.min_atoms, condition.max_atoms
    if low > high:
        return f"min_atoms = {low} is more than max_atoms = {high}; swap or widen them"
    unit = sum(condition.formula_unit.values())
    if unit and high // unit * unit < low:
        return (
            f"a cell of {condition.composition} has a multiple of {unit} atoms, and none lies between min_atoms = "
            f"{low} and max_atoms = {high}; widen them"
        )
    needed = condition.exact_elements or condition.required_elements
    if len(needed) > high:
        return f"{len(needed)} elements ({listed(needed)}) do not fit in max_atoms = {high}; raise it"
    return ""


def _chemistry(condition: Condition) -> str:
    """Which two parts name elements that exclude each other, or ""."""
    required = set(condition.required_elements)
    system = set(condition.chemical_system.split("-")) if condition.chemical_system is not None else None
    unit = set(condition.formula_unit)
    allowed = set(condition.allowed_elements) if condition.allowed_elements is not None else None
    if system is not None and required - system:
        return (
            f"required element {listed(required - system)} is outside the chemical system {condition.chemical_system}"
        )
    if unit and required - unit:
        return f"required element {listed(required - unit)} is not in the composition {condition.composition}"
    if unit and system is not None and unit != system:
        return f"the composition {condition.composition} is not of the chemical system {condition.chemical_system}"
    if allowed is None:
        return ""
    for what, elements in (
        ("required_elements", required),
        ("chemical_system", system or set()),
        ("composition", unit),
    ):
        if elements - allowed:
            return f"{what} has {listed(elements - allowed)}, which allowed_elements leaves out; allow it or drop it"
    return ""


def _wishes(condition: Condition) -> str:
    """Which property is wished for twice, or ""."""
    names = Counter(wish.property for wish in condition.properties)
    twice = [name for name, count in names.items() if count > 1]
    return f"the property '{twice[0]}' is wished for twice; give it one range" if twice else ""


def _seed(condition: Condition) -> str:
    """Why the sites of the seed structure cannot be decorated as asked, or ""."""
    seed = condition.seed_structure
    if seed is None:
        return ""
    if condition.prototype is not None:
        return f"the prototype '{condition.prototype}' and the seed structure are two geometries; drop one"
    if not condition.min_atoms <= len(seed) <= condition.max_atoms:
        return (
            f"the seed structure has {len(seed)} sites, but min_atoms = {condition.min_atoms} and max_atoms = "
            f"{condition.max_atoms} were asked for; widen them"
        )
    return _seed_chemistry(condition, seed) or _seed_symmetry(condition, seed)


def _seed_chemistry(condition: Condition, seed: SeedStructure) -> str:
    """Why the fixed sites, or the number of the others, do not fit the elements asked for, or ""."""
    fixed = seed.fixed_elements
    for what, elements in (
        ("allowed_elements", condition.allowed_elements),
        (f"composition {condition.composition}", condition.exact_elements if condition.composition else None),
        (f"chemical system {condition.chemical_system}", condition.exact_elements),
    ):
        if elements is not None and fixed.keys() - set(elements):
            return (
                f"the seed structure fixes {listed(fixed.keys() - set(elements))}, which the {what} leaves out; free it"
            )
    unit = condition.formula_unit
    cells, rest = divmod(len(seed), sum(unit.values())) if unit else (0, 0)
    if rest:
        return (
            f"the seed structure has {len(seed)} sites, which cannot hold {condition.composition}; that takes a "
            f"multiple of {sum(unit.values())}"
        )
    over = [symbol for symbol, count in fixed.items() if unit and count > cells * unit[symbol]]
    if over:
        return (
            f"the seed structure fixes {fixed[over[0]]} {over[0]}, but {condition.composition} on {len(seed)} sites "
            f"has only {cells * unit[over[0]]}; free some of them"
        )
    missing = set(condition.exact_elements or condition.required_elements) - fixed.keys()
    if len(missing) > seed.free_sites:
        return f"the seed structure leaves {seed.free_sites} sites free, too few for {listed(missing)}; fix fewer sites"
    return ""


def _seed_symmetry(condition: Condition, seed: SeedStructure) -> str:
    """Why no decoration of the seed structure has the space group asked for, or "".

    Elements can only take symmetry away from the bare sites, so every kind of rotation of the space group must be
    among theirs. Where all sites are fixed, the seed structure itself must have the space group.
    """
    from dataclasses import replace

    asked, crystal = condition.space_group, seed.crystal
    if asked is None:
        return ""
    if not seed.free_sites:
        found = space_group(crystal, 0)
        return (
            "" if found == asked else f"the seed structure, all fixed, has space group {found}, not {asked}; free sites"
        )
    bare = space_group(replace(crystal, numbers=np.ones_like(crystal.numbers)), 0)
    if bare and _rotations(asked) - _rotations(bare):
        return (
            f"no decoration of the seed structure has space group {asked}: its bare sites have only {bare}; "
            "ask for a subgroup of it"
        )
    return ""


def _rotations(group: int) -> Counter[tuple[int, int]]:
    """How many rotations of each kind (determinant, trace) a space group has, its translations aside."""
    from moyopy import operations_from_number

    rotations = {tuple(np.ravel(r).tolist()) for r in operations_from_number(group).rotations}
    matrices = [np.array(r).reshape(3, 3) for r in rotations]
    return Counter((round(np.linalg.det(m)), int(np.trace(m))) for m in matrices)


def _charges(condition: Condition) -> str:
    """Why no crystal of these elements is charge-neutral, or ""."""
    if not condition.charge_neutral:
        return ""
    from paragenesis.engine.generators.neutrality import composition_reason, elements_reason

    if condition.composition is not None:
        reason = composition_reason(condition.formula_unit)
        return f"{reason}; ask for another composition, or drop charge_neutral" if reason else ""
    exact = condition.exact_elements
    reason = elements_reason(
        allowed=exact if exact is not None else condition.allowed_elements,
        required=exact if exact is not None else condition.required_elements,
        min_atoms=condition.min_atoms,
        max_atoms=condition.max_atoms,
    )
    return f"{reason}; allow other elements, or drop charge_neutral" if reason else ""


def _room(condition: Condition) -> str:
    """Why the Wyckoff positions of the space group cannot take the atoms, or ""."""
    group = condition.space_group
    if group is None:
        return ""
    from paragenesis.engine.generators.wyckoff.room import Room, hosts
    from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites

    unit = condition.formula_unit
    if hosts(group, unit, condition.max_atoms, condition.min_atoms) if unit else Room.of(condition).holds(group):
        return ""
    elements = condition.exact_elements or condition.required_elements
    what = condition.composition or (f"a crystal of {listed(elements)}" if elements else "any crystal")
    sizes = sorted({site.in_primitive for site in wyckoff_sites(group)})
    return (
        f"space group {group} has no room for {what} in {condition.min_atoms} to {condition.max_atoms} atoms, as its "
        f"Wyckoff positions take {', '.join(map(str, sizes))} atoms of the primitive cell; ask for another space group "
        "or number of atoms"
    )

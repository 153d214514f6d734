"""From Wyckoff forms to crystals, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.generators.wyckoff.cell import lattice_of
from paragenesis.engine.generators.wyckoff.contacts import closest_contacts
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.sites import exact, space_group, wyckoff_sites
from paragenesis.errors import InputError

__all__ = ["closest_contacts", "orbit_maps", "to_crystals"]


def to_crystals(forms: Sequence[WyckoffForm], origins: Sequence[str] | None = None) -> Crystals:
    """The crystals of forms, in the primitive cell of the standard setting; ids are "0", "1", ...

    Atoms come orbit by orbit, in the order of the form. A form whose parameters lie on a site of higher symmetry gives
    atoms that coincide (`closest_contacts` is 0 then).

    Raises:
        InputError: A form's orbits do not have the number of parameters that their sites ask for.
    """
    if not forms:
        return Crystals.empty()
    linear, offset, values, sizes, numbers, n_atoms = [], [], [], [], [], []
    for form in forms:
        total = 0
        for site, number, parameters in zip(form.sites, form.numbers, form.parameters, strict=True):
            matrices, shifts, free = orbit_maps(form.group, site)
            if len(parameters) != free:
                raise InputError(_wrong_parameters(form, site, len(parameters)))
            linear.append(matrices)
            offset.append(shifts)
            values.append((*parameters, 0.0, 0.0, 0.0)[:3])
            sizes.append(len(shifts))
            numbers.append(number)
            total += len(shifts)
        n_atoms.append(total)
    each = np.repeat(np.array(values), sizes, axis=0)
    frac = np.einsum("aij,aj->ai", np.concatenate(linear), each) + np.concatenate(offset)
    primitive = np.stack([space_group(form.group).primitive for form in forms])
    return Crystals(
        ids=tuple(str(i) for i in range(len(forms))),
        n_atoms=np.array(n_atoms),
        numbers=np.repeat(np.array(numbers), sizes),
        frac=frac - np.floor(frac),
        lattices=primitive @ lattice_of(np.array([form.cell for form in forms], dtype=np.float64)),
        origins=tuple(origins) if origins is not None else (),
    )


@cache
def orbit_maps(group: int, site: int) -> tuple[FloatArray, FloatArray, int]:
    """How a site's free parameters give its points in the primitive cell: `matrices @ u + shifts`.

    Returns:
        Matrices, shape `m x 3 x 3` (columns beyond the free parameters are zero), shifts, shape `m x 3`, and the
        number f of free parameters; coordinates are of the primitive cell, the representative point comes first.
    """
    symmetry, own = space_group(group), wyckoff_sites(group)[site]
    free = list(own.free)
    to_primitive = np.rint(np.linalg.inv(symmetry.primitive)).T  # x_primitive = x @ inverse(primitive)
    matrices = np.zeros((len(symmetry.rotations), 3, 3))
    matrices[:, :, : len(free)] = to_primitive @ symmetry.rotations @ own.linear[:, free]
    shifts = exact((symmetry.rotations @ own.offset + symmetry.translations) @ to_primitive.T) % 1.0
    keys = np.concatenate([matrices.reshape(len(matrices), 9) * 24, shifts * 24], axis=1)
    _, first = np.unique(np.rint(keys), axis=0, return_index=True)
    first.sort()
    return matrices[first], shifts[first], len(free)


def _wrong_parameters(form: WyckoffForm, site: int, given: int) -> str:
    """The message for an orbit with too few or too many parameters."""
    own = wyckoff_sites(form.group)[site]
    return (
        f"site {own.letter} of group {form.group} has {len(own.free)} free parameters, but {given} came; give as many"
    )

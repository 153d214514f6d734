"""The flow inside the symmetry of Wyckoff templates.

A template fixes the space group and the orbits; what is left are the free parameters of the orbits and of the cell.
Every atom is `base + M p` with the parameters p of all orbits, so that

* noise is uniform in the parameters, each of which runs once around its own torus: uniform on the special positions,
  which an average of uniform atoms is not;
* a velocity of the atoms becomes one of the parameters by the pseudo-inverse of M, in the metric of the crystal. Over
  an orbit that is the average over the group, whatever the basis; the average of one atom's velocity over its site
  symmetry in the fractional basis is an oblique projection.

These are the two points in which the published projection (Jiao et al., DiffCSP++, ICLR 2024) goes wrong. The metric is
averaged over the rotations, which keeps it positive definite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.generators.flow.paths import wrapped
from paragenesis.engine.generators.flow.state import State, cell_numbers, metric_of
from paragenesis.engine.generators.wyckoff import cell as cells
from paragenesis.engine.generators.wyckoff.build import orbit_maps
from paragenesis.engine.generators.wyckoff.cell import lattice_of
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.sites import family_of, space_group, wyckoff_sites
from paragenesis.errors import InputError


@dataclass(frozen=True, order=True)
class Template:
    """A crystal without elements and free parameters.

    Attributes:
        group: Space group.
        sites: Index of each orbit's site in `wyckoff_sites(group)`.
        cell: Conventional cell of a crystal that has it: a, b, c in A, alpha, beta, gamma in degrees. Decides the basis
            in which the network sees the template.
    """

    group: int
    sites: tuple[int, ...]
    cell: tuple[float, ...]

    @classmethod
    def of(cls, form: WyckoffForm) -> Template:
        """The template of a form."""
        return cls(form.group, form.sites, form.cell)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Atoms of each orbit in the primitive cell."""
        sites = wyckoff_sites(self.group)
        return tuple(sites[site].in_primitive for site in self.sites)

    @property
    def n_atoms(self) -> int:
        """Atoms in the primitive cell."""
        return sum(self.sizes)


@dataclass(frozen=True, eq=False)
class Basis:
    """A template in the reduced primitive cell: atom i lies at `base[i] + maps[i] @ p`.

    Attributes:
        base: Shape `N x 3`.
        maps: Shape `N x 3 x P`.
        orbit: Orbit of each atom, shape `N`.
        owner: Orbit of each parameter, shape `P`.
        rotations: Of the space group, on columns of reduced coordinates, shape `R x 3 x 3`.
        change: Conventional lattice rows from reduced ones, `L_conventional = change @ L_reduced`, shape `3 x 3`.
    """

    base: FloatArray
    maps: FloatArray
    orbit: IntArray
    owner: IntArray
    rotations: FloatArray
    change: FloatArray


@lru_cache(maxsize=4096)
def basis_of(template: Template) -> Basis:
    """The template in its reduced primitive cell.

    Raises:
        InputError: The cell does not fit the space group.
    """
    from moyopy import niggli_reduce

    symmetry = space_group(template.group)
    rows = symmetry.primitive @ lattice_of(np.array([template.cell]))[0]
    if not np.linalg.det(rows) > 0:
        raise InputError(f"the cell {template.cell} spans no volume; give lengths and angles that do")
    reduced = np.asarray(niggli_reduce(rows.tolist())[0])
    turn = np.rint(rows @ np.linalg.inv(reduced))  # primitive lattice rows = turn @ reduced ones
    change = np.linalg.inv(symmetry.primitive) @ turn
    rotations = change.T @ symmetry.rotations @ np.linalg.inv(change.T)
    pieces = [orbit_maps(template.group, site) for site in template.sites]
    sizes, free = [len(shifts) for _, shifts, _ in pieces], [f for _, _, f in pieces]
    orbit, owner = np.repeat(np.arange(len(pieces)), sizes), np.repeat(np.arange(len(pieces)), free)
    maps = np.zeros((len(orbit), 3, len(owner)))
    for k, (matrices, _, f) in enumerate(pieces):
        maps[np.ix_(orbit == k, [0, 1, 2], owner == k)] = turn.T @ matrices[:, :, :f]
    return Basis(
        base=np.concatenate([shifts for _, shifts, _ in pieces]) @ turn,
        maps=maps,
        orbit=orbit,
        owner=owner,
        rotations=np.unique(np.rint(rotations), axis=0),
        change=change,
    )


class Projection:
    """The subspace of B crystals with one template each; holds their free parameters while they flow."""

    def __init__(self, templates: Sequence[Template]) -> None:
        """Lay the templates side by side, padded to the largest."""
        self.templates = tuple(templates)
        self.bases = [basis_of(template) for template in templates]
        atoms, free = (max(b.maps.shape[k] for b in self.bases) for k in (0, 2))
        most = max(len(b.rotations) for b in self.bases)
        n = len(templates)
        self.base, self.maps = torch.zeros(n, atoms, 3), torch.zeros(n, atoms, 3, free)
        self.sites = torch.full((n, atoms), -1)
        self.atoms = torch.zeros(n, atoms, dtype=torch.bool)
        self.rotations, self.weights = torch.zeros(n, most, 3, 3, dtype=torch.float64), torch.zeros(n, most)
        self.free = torch.zeros(n, free, dtype=torch.bool)
        for i, basis in enumerate(self.bases):
            m, _, p = basis.maps.shape
            self.base[i, :m], self.maps[i, :m, :, :p] = torch.as_tensor(basis.base), torch.as_tensor(basis.maps)
            self.sites[i, :m], self.atoms[i, :m], self.free[i, :p] = torch.as_tensor(basis.orbit), True, True
            self.rotations[i, : len(basis.rotations)] = torch.as_tensor(basis.rotations)
            self.weights[i, : len(basis.rotations)] = 1 / len(basis.rotations)
        self.parameters = torch.zeros(n, free)

    def start(self, types: Tensor, mean: Tensor, std: Tensor, generator: torch.Generator) -> State:
        """Noise in the subspace: parameters uniform, the cell a projected Gaussian; types as given, shape `B x N`."""
        self.parameters = torch.rand(self.parameters.shape, generator=generator) * self.free
        cell = mean + std * torch.randn(len(types), 6, generator=generator)
        return State(types, self.placed(), self.project_cell(cell, self.atoms.sum(1)), self.atoms)

    def placed(self) -> Tensor:
        """Coordinates of the atoms, shape `B x N x 3`."""
        moved = torch.einsum("bnkp,bp->bnk", self.maps, self.parameters)
        return (self.base + moved) % 1.0 * self.atoms[..., None]

    def project(self, start: State, change: Tensor) -> Tensor:
        """Move the parameters by the least-squares image of a change of the atoms; the coordinates after it."""
        if self.parameters.shape[1]:
            metric = metric_of(start.cell, start.n_atoms).double()
            maps = self.maps.double()
            weighted = torch.einsum("bkl,bnlp->bnkp", metric, maps)
            normal = torch.einsum("bnkp,bnkq->bpq", maps, weighted)
            normal = normal + torch.diag_embed((~self.free).double())
            right = torch.einsum("bnkp,bnk->bp", weighted, change.double())
            self.parameters = self.parameters + torch.linalg.solve_ex(normal, right).result.to(self.parameters.dtype)
        return self.placed()

    def project_cell(self, cell: Tensor, n_atoms: Tensor) -> Tensor:
        """Cell numbers of the metrics averaged over the rotations, shape `B x 6`."""
        metric = metric_of(cell.double(), n_atoms)
        turned = self.rotations.transpose(-1, -2) @ metric[:, None] @ self.rotations
        mean = (turned * self.weights[..., None, None]).sum(1)
        return cell_numbers(mean, n_atoms).to(cell.dtype)

    def towards(self, forms: Sequence[WyckoffForm], begin: float, noise: State) -> State:
        """A point between noise in the subspace and given crystals of these templates.

        Args:
            forms: The crystals, of the templates in their order.
            begin: How far along the way, 0 to 1.
            noise: What `start` gave.
        """
        goal = torch.zeros_like(self.parameters)
        for i, form in enumerate(forms):
            own = [value for orbit in form.parameters for value in orbit]
            goal[i, : len(own)] = torch.tensor(own)
        self.parameters = self.parameters + begin * wrapped(goal - self.parameters)
        back = [np.linalg.inv(basis.change) for basis in self.bases]
        conventional = cells.metric_of(np.array([form.cell for form in forms]))
        metric = np.stack([one @ own @ one.T for one, own in zip(back, conventional, strict=True)])
        end = cell_numbers(torch.as_tensor(metric), noise.n_atoms).to(noise.cell.dtype)
        cell = self.project_cell(noise.cell + begin * (end - noise.cell), noise.n_atoms)
        return replace(noise, frac=self.placed(), cell=cell)

    def forms(self, state: State, which: Sequence[int]) -> list[WyckoffForm]:
        """The forms of some states of the subspace, whose types are known."""
        out = []
        metrics = metric_of(state.cell.double(), state.n_atoms).numpy()
        for i in which:
            template, basis = self.templates[i], self.bases[i]
            types = state.types[i].numpy()[: len(basis.orbit)]
            values = self.parameters[i, : len(basis.owner)].double().numpy() % 1.0
            cell = cells.cells_of((basis.change @ metrics[i] @ basis.change.T)[None])[0]
            orbits = range(len(template.sites))
            out.append(
                WyckoffForm(
                    group=template.group,
                    sites=template.sites,
                    numbers=tuple(int(types[basis.orbit == k][0]) for k in orbits),
                    cell=cells.snapped(cell, family_of(template.group)),
                    parameters=tuple(tuple(values[basis.owner == k].tolist()) for k in orbits),
                )
            )
        return out

"""Relaxation that keeps the space group: against a noisy potential, in any batch, along the free path where it can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.spacegroup import crystal
from torch_sim.models.interface import ModelInterface

from paragenesis.crystals import Crystals
from paragenesis.engine.potentials.contract import Potential, load_potential
from paragenesis.engine.potentials.fire import GeneralForces
from paragenesis.engine.potentials.relax import RelaxSettings, relax
from paragenesis.engine.potentials.symmetry import Projection
from paragenesis.engine.symmetry import Operations, space_groups, symmetrised
from paragenesis.errors import InputError
from paragenesis.testing import lennard_jones_potential

KEEP, FREE = RelaxSettings(), RelaxSettings(symmetry="free")
POTENTIALS = ["lennard-jones", "chgnet-0.3.0"]


class Noisy(ModelInterface):  # type: ignore[misc]
    """A model whose forces and stresses are a little off, in no symmetric way."""

    def __init__(self, inner: ModelInterface) -> None:
        super().__init__()
        self._device, self._dtype = inner.device, inner.dtype
        self._compute_stress = self._compute_forces = True
        self.inner, self.random = inner, torch.Generator().manual_seed(0)

    def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
        out: dict[str, torch.Tensor] = self.inner(state)
        for name, size in (("forces", 0.05), ("stress", 0.002)):
            out[name] = out[name] + size * torch.randn(out[name].shape, generator=self.random, dtype=torch.float64)
        return out


def noisy(name: str) -> Potential:
    potential = load_potential(name)
    return replace(potential, model=Noisy(potential.model))


@pytest.fixture(scope="module")
def symmetric() -> Crystals:
    """Six crystals off their equilibrium with the symmetry of their space groups, one in a doubled cell."""
    rutile = crystal(["Ti", "O"], [(0, 0, 0), (0.295, 0.295, 0)], spacegroup=136, cellpar=[4.8, 4.8, 2.9, 90, 90, 90])
    quartz = crystal(
        ["Si", "O"], [(0.48, 0, 2 / 3), (0.41, 0.25, 0.78)], spacegroup=154, cellpar=[5.1, 5.1, 5.4, 90, 90, 120]
    )
    perovskite = crystal(
        ["Ca", "O", "Ti", "O"],
        [(0.01, 0.25, 0.035), (0.49, 0.25, 0.08), (0, 0, 0.5), (0.29, 0.03, 0.71)],
        spacegroup=62,
        cellpar=[5.5, 7.8, 5.4, 90, 90, 90],
    )
    wurtzite = bulk("ZnS", "wurtzite", a=3.9, c=6.1, u=0.39)
    doubled = bulk("NaCl", "rocksalt", 5.8) * (1, 1, 2)
    alloy = bulk("NiAl", "cesiumchloride", 3.0)
    names = ["rutile", "quartz", "perovskite", "wurtzite", "doubled", "NiAl"]
    return Crystals.from_atoms([rutile, quartz, perovskite, wurtzite, doubled, alloy], ids=names)


GROUPS = [136, 154, 62, 186, 225, 221]


@pytest.mark.parametrize(("name", "which"), [("lennard-jones", [0, 2, 4, 5]), ("chgnet-0.3.0", [0])])
def test_a_noisy_potential_does_not_break_the_symmetry(name: str, which: list[int], symmetric: Crystals) -> None:
    crystals, groups = symmetric[which], [GROUPS[i] for i in which]
    steps = {"fmax": 1e-6, "max_steps": 110}
    kept = relax(noisy(name), crystals, KEEP.model_copy(update=steps))
    assert not kept.errors
    assert (kept.steps == 110).all()
    for symprec in (1e-3, 1e-7):
        assert space_groups(kept.crystals, symprec).tolist() == groups
    assert (np.abs(kept.crystals.volumes / crystals.volumes - 1) > 1e-3).all()
    lost = relax(noisy(name), crystals, FREE.model_copy(update=steps))
    assert (space_groups(lost.crystals, 1e-3) != groups).all()


def test_cells_keep_their_crystal_family(symmetric: Crystals) -> None:
    from ase.cell import Cell

    kept = relax(noisy("lennard-jones"), symmetric, RelaxSettings(fmax=1e-6, max_steps=60)).crystals
    shapes = dict(zip(kept.ids, (Cell(h).cellpar() for h in kept.lattices), strict=True))
    for name in ("rutile", "quartz", "wurtzite"):
        assert shapes[name][0] == pytest.approx(shapes[name][1], abs=1e-9)
    np.testing.assert_allclose([shapes["rutile"][3:], shapes["perovskite"][3:]], 90, atol=1e-9)
    np.testing.assert_allclose([shapes["quartz"][3:], shapes["wurtzite"][3:]], [[90, 90, 120]] * 2, atol=1e-9)
    assert len({round(length, 3) for length in shapes["perovskite"][:3]}) == 3


@pytest.mark.parametrize("name", POTENTIALS)
def test_without_noise_the_path_is_the_free_one(name: str, symmetric: Crystals) -> None:
    potential = load_potential(name)
    crystals = symmetric[[0, 3, 4, 5]]
    free, kept = relax(potential, crystals, FREE), relax(potential, crystals, KEEP)
    assert kept.converged.all()
    assert kept.steps.tolist() == free.steps.tolist()
    assert kept.steps.max() > 10
    np.testing.assert_allclose(kept.crystals.lattices, free.crystals.lattices, atol=1e-4)
    gap = kept.crystals.frac - free.crystals.frac
    np.testing.assert_allclose(gap - np.round(gap), 0, atol=1e-5)


@pytest.mark.parametrize("name", POTENTIALS)
def test_a_crystal_without_symmetry_walks_as_if_free(name: str, rattled: Crystals) -> None:
    potential = load_potential(name)
    assert space_groups(rattled).tolist() == [1] * len(rattled)
    assert relax(potential, rattled, KEEP).crystals == relax(potential, rattled, FREE).crystals


def test_neither_neighbours_nor_the_order_matter(symmetric: Crystals, rattled: Crystals) -> None:
    potential = lennard_jones_potential()
    crystals = Crystals.concatenate([symmetric[[0, 2]], rattled, symmetric[3:]])
    together = relax(potential, crystals, KEEP)
    assert not together.errors
    for batch_atoms in (1, 12, 25):
        other = relax(potential, crystals, RelaxSettings(batch_atoms=batch_atoms))
        assert other.steps.tolist() == together.steps.tolist()
        np.testing.assert_allclose(other.crystals.lattices, together.crystals.lattices, atol=1e-9)
    order = np.random.default_rng(0).permutation(len(crystals))
    turned = relax(potential, crystals[order], RelaxSettings(batch_atoms=20))
    assert turned.steps.tolist() == together.steps[order].tolist()
    for one, same in zip(turned.crystals, together.crystals[order], strict=True):
        np.testing.assert_allclose(one.lattices, same.lattices, atol=1e-9)
        gap = one.frac - same.frac
        np.testing.assert_allclose(gap - np.round(gap), 0, atol=1e-9)


def test_a_start_within_symprec_is_made_symmetric_and_one_beyond_is_not(symmetric: Crystals) -> None:
    moved = np.random.default_rng(0).uniform(-0.0015, 0.0015, symmetric.frac.shape)
    frac = symmetric.frac + np.einsum("ai,aij->aj", moved, np.linalg.inv(symmetric.lattices)[symmetric.batch])
    near = replace(symmetric, frac=frac)[[0, 3]]
    stay = {"max_steps": 0}
    potential = lennard_jones_potential()
    made = relax(potential, near, RelaxSettings(**stay)).crystals
    assert space_groups(made, 1e-6).tolist() == [136, 186]
    strict = relax(potential, near, RelaxSettings(symprec=1e-4, **stay)).crystals
    np.testing.assert_allclose(strict.frac, near.frac - np.floor(near.frac), atol=1e-12)


def averaged(forces: torch.Tensor, cell: torch.Tensor, own: Operations) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over the operations, written out: for a crystal in a primitive cell."""
    atoms, cells = torch.zeros_like(forces), torch.zeros_like(cell)
    for rotation, g in zip(torch.as_tensor(own.rotations), own.images, strict=True):
        atoms[torch.as_tensor(g)] += forces @ rotation.T / len(own.rotations)
        cells += rotation @ cell @ rotation.T / len(own.rotations)
    return atoms, cells


def random_forces(crystals: Crystals) -> GeneralForces:
    random = torch.Generator().manual_seed(3)
    atoms = torch.randn((len(crystals.numbers), 3), generator=random, dtype=torch.float64)
    cells = torch.randn((len(crystals), 3, 3), generator=random, dtype=torch.float64)
    return GeneralForces(atoms=atoms, cells=cells)


def test_the_projection_is_the_mean_over_the_operations(symmetric: Crystals) -> None:
    exact, operations = symmetrised(symmetric, 0.01)
    projection = Projection.start(exact, operations, torch.device("cpu"))
    forces = random_forces(exact)
    once = projection(forces)
    for i in (0, 1, 2, 3, 5):
        rows = exact.atoms_of(i)
        sites = torch.as_tensor(np.argsort(operations[i].sites))
        atoms, cell = averaged(forces.atoms[rows][sites], forces.cells[i], operations[i])
        torch.testing.assert_close(once.atoms[rows][sites], atoms, atol=1e-12, rtol=0)
        torch.testing.assert_close(once.cells[i], cell, atol=1e-12, rtol=0)
    twice = projection(once)
    torch.testing.assert_close(twice.atoms, once.atoms, atol=1e-12, rtol=0)
    torch.testing.assert_close(twice.cells, once.cells, atol=1e-12, rtol=0)
    assert float(once.atoms[exact.atoms_of(4)].abs().max()) == 0.0  # rock salt has no free coordinate
    assert float(once.atoms.norm()) > 0.1


def test_copies_of_an_atom_in_a_larger_cell_feel_the_same_force(symmetric: Crystals) -> None:
    rutile = symmetric.to_atoms()[0]
    once, twice = (Crystals.from_atoms([atoms]) for atoms in (rutile, rutile * (1, 2, 1)))
    small, large = (Projection.start(*symmetrised(c, 0.01), torch.device("cpu")) for c in (once, twice))
    forces = random_forces(twice)
    mean = GeneralForces(atoms=(forces.atoms[:6] + forces.atoms[6:]) / 2, cells=forces.cells)
    expected, found = small(mean), large(forces)
    torch.testing.assert_close(found.atoms, expected.atoms.repeat(2, 1), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.cells, expected.cells, atol=1e-12, rtol=0)
    assert float(found.atoms.norm()) > 0.1


def test_projections_come_and_go_with_their_crystals(symmetric: Crystals) -> None:
    exact, operations = symmetrised(symmetric, 0.01)
    cpu = torch.device("cpu")
    whole = Projection.start(exact, operations, cpu)
    first, second = (Projection.start(exact[part], operations[part], cpu) for part in (slice(0, 2), slice(2, 6)))
    forces = random_forces(exact)
    expected, joined = whole(forces), first.joined_by(second)(forces)
    torch.testing.assert_close(joined.atoms, expected.atoms, atol=0, rtol=0)
    torch.testing.assert_close(joined.cells, expected.cells, atol=0, rtol=0)
    keep = torch.tensor([False, True, True, False, False, True])
    rows = keep[torch.as_tensor(exact.batch)]
    rest = whole.where(keep)(GeneralForces(atoms=forces.atoms[rows], cells=forces.cells[keep]))
    torch.testing.assert_close(rest.atoms, expected.atoms[rows], atol=0, rtol=0)
    torch.testing.assert_close(rest.cells, expected.cells[keep], atol=0, rtol=0)


@pytest.mark.parametrize("wrong", [{"symmetry": "lose"}, {"symprec": 0.0}, {"symprec": 1.0}])
def test_settings_refuse_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        RelaxSettings(**wrong)

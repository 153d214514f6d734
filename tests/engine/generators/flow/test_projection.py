from __future__ import annotations

import numpy as np
import pytest
import torch

from paragenesis.engine.generators.flow.projection import Projection, Template, basis_of
from paragenesis.engine.generators.flow.state import State, cell_numbers, metric_of, unpack
from paragenesis.engine.generators.obedience import space_group
from paragenesis.engine.generators.wyckoff.build import to_crystals
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites

MEAN, STD = torch.tensor([2.9, 0, 0, 0, 0, 0]), torch.tensor([0.3, 0.2, 0.2, 0.3, 0.3, 0.3])


def some_templates() -> list[Template]:
    """A general and a special position in a group of every family and centring."""
    cells = {
        2: (4.0, 5.0, 6.0, 80.0, 95.0, 100.0),
        14: (4.0, 5.0, 6.0, 90.0, 105.0, 90.0),
        15: (6.0, 5.0, 7.0, 90.0, 105.0, 90.0),
        44: (4.0, 5.0, 6.0, 90.0, 90.0, 90.0),
        63: (4.0, 7.0, 6.0, 90.0, 90.0, 90.0),
        139: (4.0, 4.0, 11.0, 90.0, 90.0, 90.0),
        166: (5.0, 5.0, 13.0, 90.0, 90.0, 120.0),
        186: (4.0, 4.0, 6.0, 90.0, 90.0, 120.0),
        225: (8.0, 8.0, 8.0, 90.0, 90.0, 90.0),
    }
    return [Template(g, (0, len(wyckoff_sites(g)) - 1), cell) for g, cell in cells.items()]


@pytest.fixture
def projection() -> Projection:
    return Projection(some_templates())


def noisy(projection: Projection, seed: int = 0) -> State:
    types = torch.zeros(projection.atoms.shape, dtype=torch.int64)
    for i, basis in enumerate(projection.bases):
        types[i, : len(basis.orbit)] = torch.as_tensor(np.array([26, 8])[basis.orbit])
    return projection.start(types, MEAN, STD, torch.Generator().manual_seed(seed))


def test_noise_has_the_symmetry_of_its_template(projection: Projection) -> None:
    state = noisy(projection)
    crystals = unpack(state, [""] * len(state))
    for i, template in enumerate(projection.templates):
        assert space_group(crystals, i, 1e-3) == template.group


def test_forms_are_the_state(projection: Projection) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    state = noisy(projection)
    forms = projection.forms(state, range(len(state)))
    mine, theirs = unpack(state, [""] * len(state)), to_crystals(forms)
    assert np.allclose(mine.volumes, theirs.volumes, rtol=1e-4)
    matcher = StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.1, primitive_cell=False, scale=False)
    for one, other in zip(mine.to_structures(), theirs.to_structures(), strict=True):
        assert matcher.fit(one, other)


def test_projection_keeps_what_lies_in_the_subspace(projection: Projection) -> None:
    state = noisy(projection)
    change = torch.einsum("bnkp,bp->bnk", projection.maps, 0.05 * projection.free.float())
    before = projection.parameters.clone()
    projection.project(state, change)
    assert torch.allclose(projection.parameters - before, 0.05 * projection.free.float(), atol=1e-5)


def test_projection_is_orthogonal_in_the_metric(projection: Projection) -> None:
    """The pseudo-inverse: what it takes away of a change is orthogonal to every direction that it leaves."""
    state = noisy(projection)
    change = 0.1 * torch.randn(state.frac.shape, generator=torch.Generator().manual_seed(1)) * state.atoms[..., None]
    before = projection.parameters.clone()
    projection.project(state, change)
    kept = torch.einsum("bnkp,bp->bnk", projection.maps, projection.parameters - before)
    metric = metric_of(state.cell, state.n_atoms)
    inner = torch.einsum("bnkp,bkl,bnl->bp", projection.maps, metric, change - kept)
    assert inner.abs().max() < 1e-3
    assert kept.abs().max() > 1e-3


def test_noise_is_uniform_along_a_special_position() -> None:
    """An average of uniform atoms would pile up in the middle; here it is the parameter that is uniform."""
    line = next(i for i, s in enumerate(wyckoff_sites(166)) if s.letter == "c")
    projection = Projection([Template(166, (line,), (5.0, 5.0, 13.0, 90.0, 90.0, 120.0))] * 4000)
    noisy_types = torch.zeros(projection.atoms.shape, dtype=torch.int64)
    projection.start(noisy_types, MEAN, STD, torch.Generator().manual_seed(0))
    shares = torch.histc(projection.parameters[:, 0], 10, 0, 1) / 4000
    assert (shares - 0.1).abs().max() < 0.02


def test_cells_are_averaged_over_the_group(projection: Projection) -> None:
    n_atoms = projection.atoms.sum(1)
    cell = MEAN + STD * torch.randn(len(n_atoms), 6, generator=torch.Generator().manual_seed(2))
    once = projection.project_cell(cell, n_atoms)
    assert torch.allclose(projection.project_cell(once, n_atoms), once, atol=1e-5)
    metric = metric_of(once.double(), n_atoms)
    for i, basis in enumerate(projection.bases):
        for rotation in torch.as_tensor(basis.rotations):
            assert torch.allclose(rotation.T @ metric[i] @ rotation, metric[i], rtol=1e-3, atol=1e-3)


def test_the_end_of_the_way_is_the_form() -> None:
    forms = [
        WyckoffForm(t.group, t.sites, (26, 8), t.cell, tuple(tuple(0.1 + 0.2 * k for k in range(f)) for f in free))
        for t in some_templates()
        for free in [[len(wyckoff_sites(t.group)[s].free) for s in t.sites]]
    ]
    projection = Projection([Template.of(form) for form in forms])
    ended = projection.towards(forms, 1.0, noisy(projection))
    for form, again in zip(forms, projection.forms(ended, range(len(forms))), strict=True):
        assert np.allclose(form.cell, again.cell, atol=1e-3)
        for own, other in zip(form.parameters, again.parameters, strict=True):
            assert np.allclose(own, other, atol=1e-5)


def test_the_basis_is_reduced_and_right_handed() -> None:
    for template in some_templates():
        basis = basis_of(template)
        assert np.linalg.det(basis.change) > 0
        assert np.allclose(basis.rotations, np.rint(basis.rotations))
        metric = torch.eye(3, dtype=torch.float64)[None]
        assert cell_numbers(metric, torch.tensor([1])).shape == (1, 6)
        assert len(basis.base) == template.n_atoms

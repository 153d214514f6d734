"""Relaxation: ASE's path, independence of neighbours, and crystals that go wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from torch_sim.models.interface import ModelInterface

from paragenesis.crystals import Crystals
from paragenesis.engine.potentials.contract import Potential, load_potential
from paragenesis.engine.potentials.judge import EV_PER_A3_IN_GPA, judge
from paragenesis.engine.potentials.relax import RelaxSettings, relax
from paragenesis.errors import InputError
from paragenesis.testing import lennard_jones_potential


class Bridge(Calculator):  # type: ignore[misc]
    """A potential of ours as an ASE calculator."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        out = self.potential.model(Crystals.from_atoms([atoms]).to_torchsim())
        s = out["stress"][0].numpy()
        self.results = {
            "energy": float(out["energy"][0]),
            "forces": out["forces"].numpy(),
            "stress": np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]]),
        }


class Trap(ModelInterface):  # type: ignore[misc]
    """A Lennard-Jones model that misbehaves for one element."""

    def __init__(self, inner: ModelInterface, poison: int, how: str) -> None:
        super().__init__()
        self._device, self._dtype = inner.device, inner.dtype
        self._compute_stress = self._compute_forces = True
        self.inner, self.poison, self.how, self.calls = inner, poison, how, 0

    def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
        self.calls += 1
        bad = state.atomic_numbers == self.poison
        if self.how == "raise" and bool(bad.any()):
            raise RuntimeError("poisoned")
        out: dict[str, torch.Tensor] = self.inner(state)
        if self.how == "nan":
            out["energy"][state.system_idx[bad]] = torch.nan
        elif self.how == "push":
            out["forces"][bad] = 1e5
        elif self.how == "swell":
            out["stress"][state.system_idx[bad]] = -10 * torch.eye(3, dtype=torch.float64)
        return out


@pytest.fixture(scope="module")
def lj() -> Potential:
    return lennard_jones_potential()


def trapped(lj: Potential, how: str) -> Potential:
    return replace(lj, model=Trap(lj.model, poison=79, how=how))


def with_gold(rattled: Crystals) -> Crystals:
    """The crystals, the third of them made of gold."""
    numbers = rattled.numbers.copy()
    numbers[rattled.atoms_of(2)] = 79
    return replace(rattled, numbers=numbers)


@pytest.mark.parametrize("fmax", [0.05, 0.001])
def test_the_path_is_that_of_ase(lj: Potential, rattled: Crystals, fmax: float) -> None:
    ours = relax(lj, rattled, RelaxSettings(fmax=fmax, max_steps=500))
    energies = judge(lj, ours.crystals).energies
    for i, atoms in enumerate(rattled.to_atoms()):
        atoms.calc = Bridge(lj)
        optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
        assert optimizer.run(fmax=fmax, steps=500) == bool(ours.converged[i])
        assert optimizer.nsteps == ours.steps[i]
        assert energies[i] == pytest.approx(atoms.get_potential_energy() / len(atoms), abs=1e-9)
        assert ours.crystals.volumes[i] == pytest.approx(atoms.get_volume(), rel=1e-6)
    assert ours.converged.all()


def test_converged_crystals_have_small_forces_and_pressures(rattled: Crystals) -> None:
    potential = load_potential("chgnet-0.3.0")
    result = relax(potential, rattled, RelaxSettings(fmax=0.05))
    assert result.converged.all()
    judged = judge(potential, result.crystals)
    assert judged.max_forces.max() < 0.06  # atoms are held in the frame of the initial cell
    limit = 0.05 * result.crystals.n_atoms / result.crystals.volumes * EV_PER_A3_IN_GPA
    assert (np.abs(judged.pressures) < limit).all()
    assert judge(potential, rattled).energies.sum() > judged.energies.sum()


@pytest.mark.parametrize("name", ["lennard-jones", "chgnet-0.3.0"])
def test_a_crystals_result_does_not_depend_on_its_neighbours(name: str, rattled: Crystals) -> None:
    potential = load_potential(name)
    together = relax(potential, rattled)
    again = relax(potential, rattled)
    assert again.crystals == together.crystals
    for settings in (RelaxSettings(batch_atoms=1), RelaxSettings(batch_atoms=9)):
        other = relax(potential, rattled, settings)
        assert other.steps.tolist() == together.steps.tolist()
        np.testing.assert_allclose(other.crystals.lattices, together.crystals.lattices, atol=1e-6)
        gap = other.crystals.frac - together.crystals.frac
        np.testing.assert_allclose(gap - np.round(gap), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("raise", "poisoned"), ("nan", "not finite"), ("push", "force: "), ("swell", "volume: ")],  # causes, to count by
)
def test_a_bad_crystal_is_a_recorded_failure_and_harms_no_other(
    lj: Potential, rattled: Crystals, how: str, reason: str
) -> None:
    crystals = with_gold(rattled)
    result = relax(trapped(lj, how), crystals)
    assert list(result.errors) == [2]
    assert reason in result.errors[2]
    assert not result.converged[2]
    assert result.crystals[2] == crystals[2]  # as it came
    others = [0, 1, 3]
    clean = relax(lj, crystals[others])
    assert result.steps[others].tolist() == clean.steps.tolist()
    np.testing.assert_allclose(result.crystals[others].lattices, clean.crystals.lattices, atol=1e-9)


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda c: replace(c, frac=np.full_like(c.frac, np.nan)), "not finite"),
        (lambda c: replace(c, lattices=c.lattices * np.inf), "not finite"),
        (lambda c: replace(c, lattices=c.lattices * 0.01), "flat or far too small"),
        (lambda c: replace(c, lattices=c.lattices * np.array([[[1.0], [1.0], [0.0]]])), "flat or far too small"),
        (lambda c: replace(c, lattices=c.lattices * 10), "isolated"),
        (lambda c: replace(c, numbers=np.full_like(c.numbers, 100)), "does not know"),
    ],
    ids=["nan", "inf", "tiny", "flat", "isolated", "fermium"],
)
def test_crystals_that_cannot_be_evaluated_are_refused(break_it: Any, reason: str, rattled: Crystals) -> None:
    potential = load_potential("chgnet-0.3.0")
    mixed = Crystals.concatenate([rattled[1], break_it(rattled[0]), rattled[3]])
    result = relax(potential, mixed, RelaxSettings(max_steps=2))
    judged = judge(potential, mixed)
    assert list(result.errors) == list(judged.errors) == [1]
    assert reason in result.errors[1]
    assert np.isnan(judged.energies).tolist() == [False, True, False]


def test_a_crystal_out_of_steps_is_not_converged_but_no_failure(lj: Potential, rattled: Crystals) -> None:
    result = relax(lj, rattled, RelaxSettings(max_steps=3))
    assert not result.converged.any()
    assert result.steps.tolist() == [3] * len(rattled)
    assert not result.errors


def test_no_evaluation_is_wasted_on_converged_crystals(lj: Potential, rattled: Crystals) -> None:
    potential = trapped(lj, "never")
    steps = relax(potential, rattled).steps
    assert potential.model.calls == steps.max() + 1
    serial = trapped(lj, "never")
    relax(serial, rattled, RelaxSettings(batch_atoms=1))
    assert serial.model.calls == (steps + 1).sum()


def test_progress_counts_every_crystal_once(lj: Potential, rattled: Crystals) -> None:
    done: list[int] = []
    relax(lj, rattled, progress=done.append)
    assert sum(done) == len(rattled)


def test_no_crystals_are_no_problem(lj: Potential) -> None:
    assert len(relax(lj, Crystals.empty()).crystals) == 0
    assert judge(lj, Crystals.empty()).energies.shape == (0,)


@pytest.mark.parametrize("wrong", [{"fmax": 0}, {"max_steps": -1}, {"max_volume_change": 1.0}, {"fmx": 0.1}])
def test_settings_refuse_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        RelaxSettings(**wrong)

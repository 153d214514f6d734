"""Every model keeps torch-sim's contract, and its forces and stress are the derivatives of its energy."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_sim.models.interface import validate_model_outputs

from paragenesis.crystals import Crystals
from paragenesis.engine.potentials.contract import Potential, file_sha256, load_potential
from paragenesis.engine.potentials.judge import EV_PER_A3_IN_GPA, judge
from paragenesis.errors import InputError, PotentialError

CHGNETS = ("chgnet-0.3.0", "chgnet-0.2.0", "chgnet-r2scan")


@pytest.fixture(scope="module")
def mace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a very small MACE model that knows ten elements."""
    path = tmp_path_factory.mktemp("mace") / "tiny.model"
    with warnings.catch_warnings(action="ignore"):  # e3nn, as it compiles
        torch.save(random_mace([8, 11, 12, 13, 14, 17, 26, 28, 31, 33]), path)
    return path


def random_mace(elements: list[int]) -> torch.nn.Module:
    """A MACE network with random weights."""
    from mace import modules  # before e3nn

    o3 = importlib.import_module("e3nn.o3")

    torch.manual_seed(0)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    network: torch.nn.Module = modules.ScaleShiftMACE(
        r_max=4.0,
        num_bessel=4,
        num_polynomial_cutoff=5,
        max_ell=1,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=1,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps("8x0e"),
        MLP_irreps=o3.Irreps("8x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=10.0,
        atomic_numbers=elements,
        correlation=1,
        radial_type="bessel",
        atomic_inter_scale=10.0,
        atomic_inter_shift=0.0,
    )
    return network


@pytest.fixture(params=["chgnet-0.3.0", "chgnet-0.2.0", "chgnet-r2scan", "lennard-jones", "mace", "matgl"])
def potential(request: pytest.FixtureRequest) -> Potential:
    name = request.param
    if name == "mace":
        path = request.getfixturevalue("mace_file")
        return load_potential(f"mace:{path}", sha256=file_sha256(path), functional="none")
    if name == "matgl":
        weights = request.getfixturevalue("shared_weights")
        return load_potential(f"matgl:{weights / 'TensorNet-MatPES-PBE-v2025.1-PES'}")
    return load_potential(name)


def energies(potential: Potential, crystals: Crystals) -> np.ndarray:
    return np.asarray(potential.model(crystals.to_torchsim())["energy"])


def moved(crystals: Crystals, strain: np.ndarray) -> Crystals:
    return replace(crystals, lattices=crystals.lattices @ (np.eye(3) + strain))


def test_model_keeps_the_contract_of_torch_sim(potential: Potential) -> None:
    validate_model_outputs(potential.model, potential.model.device, potential.model.dtype)


def test_stress_is_the_derivative_of_the_energy_in_ev_per_cubic_angstrom(
    potential: Potential, rattled: Crystals
) -> None:
    stress = potential.model(rattled.to_torchsim())["stress"].numpy()
    h = 2e-3
    for a, b in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] = strain[b, a] = h if a == b else h / 2
        slope = energies(potential, moved(rattled, strain)) - energies(potential, moved(rattled, -strain))
        expected = slope / (2 * h) / rattled.volumes
        np.testing.assert_allclose(stress[:, a, b], expected, atol=3e-4, rtol=0.02)
    assert np.abs(stress).max() > 2e-3  # else the comparison says nothing


def test_forces_are_the_negative_derivative_of_the_energy(potential: Potential, rattled: Crystals) -> None:
    state = rattled.to_torchsim()
    forces = potential.model(state)["forces"].numpy()
    h = 5e-3
    for atom, axis in ((0, 0), (9, 1)):
        ends = []
        for sign in (1, -1):
            state = rattled.to_torchsim()
            state.positions[atom, axis] += sign * h
            ends.append(float(potential.model(state)["energy"].sum()))
        assert forces[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / (2 * h), abs=5e-3)
    assert np.abs(forces).max() > 0.01


def test_result_does_not_depend_on_the_batch(potential: Potential, rattled: Crystals) -> None:
    together = judge(potential, rattled)
    for i in range(len(rattled)):
        alone = judge(potential, rattled[i])
        assert alone.energies[0] == pytest.approx(together.energies[i], abs=2e-6)
        assert alone.max_forces[0] == pytest.approx(together.max_forces[i], abs=2e-5)


def test_chgnet_agrees_with_its_own_package(rattled: Crystals) -> None:
    from chgnet.model import CHGNet

    structures = rattled.to_structures()
    for name in CHGNETS:
        potential = load_potential(name)
        with contextlib.redirect_stdout(io.StringIO()):
            network = CHGNet.load(model_name=name.removeprefix("chgnet-"), use_device="cpu", verbose=False)
        ours = potential.model(rattled.to_torchsim())
        with warnings.catch_warnings(action="ignore"):
            theirs = [network.predict_structure(s) for s in structures]
        per_atom = ours["energy"].numpy() / rattled.n_atoms
        np.testing.assert_allclose(per_atom, [float(t["e"]) for t in theirs], atol=1e-5)
        np.testing.assert_allclose(ours["forces"], np.concatenate([t["f"] for t in theirs]), atol=3e-4)
        np.testing.assert_allclose(ours["magmoms"], np.concatenate([t["m"] for t in theirs]), atol=1e-4)
        in_gpa = ours["stress"].numpy() * EV_PER_A3_IN_GPA
        np.testing.assert_allclose(in_gpa, np.stack([t["s"] for t in theirs]), atol=3e-3)


def test_chgnet_agrees_with_its_own_package_where_no_bond_is_short() -> None:
    """Without angles CHGNet skips its bond layers; version 0.2.0 has a bias there."""
    from ase.build import bulk

    crystals = Crystals.from_atoms([bulk("CsCl", "cesiumchloride", 4.2), bulk("MgO", "rocksalt", 4.2)])
    with contextlib.redirect_stdout(io.StringIO()):
        from chgnet.model import CHGNet

        network = CHGNet.load(model_name="0.2.0", use_device="cpu", verbose=False)
    with warnings.catch_warnings(action="ignore"):
        theirs = [float(network.predict_structure(s)["e"]) for s in crystals.to_structures()]
    np.testing.assert_allclose(judge(load_potential("chgnet-0.2.0"), crystals).energies, theirs, atol=1e-5)


def test_chgnet_is_silent(capfd: pytest.CaptureFixture[str], rattled: Crystals) -> None:
    judge(load_potential("chgnet-0.3.0"), rattled)
    assert capfd.readouterr() == ("", "")


def test_chgnet_gives_the_documented_moment_of_iron() -> None:
    from ase.build import bulk

    moment = judge(load_potential("chgnet-0.3.0"), Crystals.from_atoms([bulk("Fe", "bcc", 2.83)])).magnetic_moments
    assert 1.8 < moment[0] < 2.6  # experiment: 2.2 mu_B


def test_matgl_weights_give_their_documented_energy(shared_weights: Path) -> None:
    from ase.build import bulk

    salt = Crystals.from_atoms([bulk("NaCl", "rocksalt", 5.64)])
    for folder, energy, functional in (
        ("TensorNet-MatPES-PBE-v2025.1-PES", -3.3562, "matpes-pbe"),
        ("TensorNet-MatPES-r2SCAN-v2025.1-PES", -6.8496, "matpes-r2scan"),
    ):
        potential = load_potential(f"matgl:{shared_weights / folder}")
        assert judge(potential, salt).energies[0] == pytest.approx(energy, abs=1e-3)
        assert potential.level.functional == functional


def test_mace_is_not_confused_by_batches_with_the_same_atoms(mace_file: Path) -> None:
    """torch-sim's wrapper renews its layout only when the atomic numbers change."""
    from ase.build import bulk

    potential = load_potential(f"mace:{mace_file}", trust=True)
    small, large = bulk("Fe", "bcc", 2.8), bulk("Fe", "bcc", 2.8, cubic=True)
    two = judge(potential, Crystals.from_atoms([small, small])).energies
    one = judge(potential, Crystals.from_atoms([large])).energies
    np.testing.assert_allclose([two[0], two[1]], one[0], atol=1e-9)


@pytest.fixture
def wrong_hash() -> str:
    return "0" * 64


def test_pickled_weights_need_their_hash_or_trust(mace_file: Path, wrong_hash: str) -> None:
    name = f"mace:{mace_file}"
    with pytest.raises(PotentialError, match="can run code"):
        load_potential(name)
    with pytest.raises(PotentialError, match="was expected"):
        load_potential(name, sha256=wrong_hash, trust=True)
    assert load_potential(name, trust=True).level.functional == "unknown"


def test_weights_with_another_hash_are_refused(shared_weights: Path, wrong_hash: str) -> None:
    folder = shared_weights / "TensorNet-MatPES-PBE-v2025.1-PES"
    right = load_potential(f"matgl:{folder}").level.weights
    assert load_potential(f"matgl:{folder}", sha256=right).level.weights == right
    for name in (f"matgl:{folder}", "chgnet-0.3.0"):
        with pytest.raises(PotentialError, match="was expected"):
            load_potential(name, sha256=wrong_hash)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("chgnet-0.3.O", "did you mean 'chgnet-0.3.0"),
        ("nonsense", "known are"),
        ("matgl:/no/such/folder", "no folder"),
        ("mace:/no/such/file.model", "no MACE file"),
        ("json:dumps", "no loader"),
        ("no_such_module:load", "cannot be imported"),
    ],
)
def test_unknown_names_get_one_clear_sentence(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        load_potential(name)


def test_a_users_own_loader_is_found_by_import_path() -> None:
    assert load_potential("paragenesis.testing:lennard_jones_potential").name == "lennard-jones"


def test_levels_tell_versions_and_functionals_apart() -> None:
    levels = {name: load_potential(name).level for name in CHGNETS}
    assert levels["chgnet-0.3.0"].functional == levels["chgnet-0.2.0"].functional == "mp2020-pbe(+u)"
    assert levels["chgnet-r2scan"].functional == "mp-r2scan"
    assert len({level.key for level in levels.values()}) == 3

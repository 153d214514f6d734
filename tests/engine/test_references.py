"""Elemental references: unbiased where compounds teach them, silent about what nobody knows."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch

from paragenesis.crystals import Crystals
from paragenesis.engine import references as references_module
from paragenesis.engine.level import MP2020, MP_R2SCAN, Level
from paragenesis.engine.potentials.contract import Potential, file_sha256, load_potential
from paragenesis.engine.references import (
    ElementReferences,
    ReferenceSettings,
    fit_references,
    held_out_errors,
    references_for,
    ridge_fit,
    shipped_references,
)
from paragenesis.engine.tables import covering_sample, read_known_crystals
from paragenesis.errors import InputError
from paragenesis.testing import lennard_jones_potential

TRUE = {"Mg": -1.5, "O": -5.0, "Si": -5.4, "Lu": -4.4, "U": -11.0}
CIF = """data_x
_cell_length_a 4.2
_cell_length_b 4.2
_cell_length_c 4.2
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_chemical_formula_sum '{0}1 {1}1'
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{0}1 {0} 0 0 0
{1}2 {1} 0.5 0.5 0.5
"""


def binaries(pairs: list[tuple[str, str]]) -> Crystals:
    from ase import Atoms

    return Crystals.from_atoms(
        [Atoms(f"{a}{b}", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[4.2] * 3, pbc=True) for a, b in pairs],
        ids=[str(i) for i in range(len(pairs))],
    )


def mixed(n: int, seed: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Random fractions of Mg, O, Si, U by atomic number, and offsets that the true references explain."""
    from ase.data import atomic_numbers

    rng = np.random.default_rng(seed)
    fractions = np.zeros((n, 119))
    for row in fractions:
        for symbol in rng.choice(["Mg", "O", "Si", "U"], size=2, replace=False):
            row[atomic_numbers[symbol]] = rng.integers(1, 5)
    fractions /= fractions.sum(axis=1, keepdims=True)
    table = np.zeros(119)
    for symbol, value in TRUE.items():
        table[atomic_numbers[symbol]] = value
    return fractions, fractions @ table + rng.normal(0.0, noise, n) if noise else fractions @ table


def fake(functional: str = MP2020, weights: str = "") -> Potential:
    level = Level(engine="fake", version="1", functional=functional, weights=weights)
    return Potential(name="fake", model=torch.nn.Identity(), level=level)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A potential whose energies are 0.5 eV/atom below the true references; its elemental crystals are 0.2 off."""
    biased = {s: e + 0.2 for s, e in TRUE.items() if s != "U"}

    def energies(_: Potential, crystals: Crystals) -> np.ndarray:
        exact = ElementReferences(TRUE, 0.0, 0.0, 0, "")
        return -exact.formation_energies(crystals, np.zeros(len(crystals))) - 0.5

    monkeypatch.setattr(references_module, "judged_energies", energies)
    monkeypatch.setattr(references_module, "element_energies", lambda _: biased)
    return biased


def test_formation_energies_subtract_each_atoms_reference() -> None:
    crystals = binaries([("Mg", "O"), ("Si", "O"), ("Fe", "O")])
    found = ElementReferences(TRUE, 0.02, 0.0, 9, "").formation_energies(crystals, np.array([-6.25, -6.0, -6.0]))
    assert found[:2] == pytest.approx([-3.0, -0.8])
    assert np.isnan(found[2]), "iron has no reference, so there is no formation energy"


def test_the_fit_corrects_a_wrong_prior_and_finds_elements_without_one() -> None:
    fractions, offsets = mixed(200, seed=0)
    fitted = ridge_fit(fractions, offsets, {"Mg": -1.5, "O": -5.0, "Si": -4.8, "Lu": -4.4}, ReferenceSettings())
    assert fitted["Si"] == pytest.approx(TRUE["Si"], abs=0.01)
    assert fitted["U"] == pytest.approx(TRUE["U"], abs=0.01)
    assert fitted["Lu"] == -4.4, "no compound speaks of lutetium, so its prior stays"


def test_an_element_that_few_compounds_teach_gets_no_reference() -> None:
    fractions, offsets = mixed(60, seed=1)
    rare = np.flatnonzero(fractions[:, 92] == 0.0).tolist() + np.flatnonzero(fractions[:, 92])[:3].tolist()
    prior = {"Mg": -1.5, "O": -5.0, "Si": -5.4}
    assert "U" not in ridge_fit(fractions[rare], offsets[rare], prior, ReferenceSettings(least=4))
    assert "U" in ridge_fit(fractions[rare], offsets[rare], prior, ReferenceSettings(least=3))


def test_held_out_errors_are_larger_than_those_of_the_fit_and_unbiased() -> None:
    fractions, offsets = mixed(40, seed=2, noise=0.05)
    settings = ReferenceSettings(folds=5)
    held_out = held_out_errors(fractions, offsets, {}, settings)
    table = np.zeros(119)
    for symbol, value in ridge_fit(fractions, offsets, {}, settings).items():
        table[{"Mg": 12, "O": 8, "Si": 14, "U": 92}[symbol]] = value
    assert len(held_out) == 40
    assert np.abs(held_out).mean() > np.abs(offsets - fractions @ table).mean()
    assert abs(held_out.mean()) < 0.02


def test_a_fit_reports_its_error_and_its_level(judged: dict[str, float]) -> None:
    pairs = [("Mg", "O"), ("Si", "O"), ("U", "O"), ("Mg", "Si"), ("U", "Si")] * 8
    fitted = fit_references(fake(MP_R2SCAN), binaries(pairs), np.full(len(pairs), -0.5), data="table.csv")
    assert fitted.n_held_out == len(pairs)
    assert fitted.mae < 0.01 < abs(judged["Mg"] - TRUE["Mg"])
    assert abs(fitted.bias) < 0.01
    assert "40 crystals of table.csv" in fitted.source
    assert MP_R2SCAN in fitted.source
    assert MP_R2SCAN not in fit_references(fake(), binaries(pairs), np.full(len(pairs), -0.5), data="t").source


@pytest.mark.usefixtures("judged")
def test_too_few_crystals_are_refused() -> None:
    with pytest.raises(InputError, match=r"table\.csv: fake can judge 3 of 3 crystals"):
        fit_references(fake(), binaries([("Mg", "O")] * 3), np.full(3, -0.5), data="table.csv")


@pytest.mark.usefixtures("judged")
def test_a_users_file_is_fitted(tmp_path: Path) -> None:
    file = tmp_path / "known.csv"
    pairs = [("Mg", "O"), ("Si", "O"), ("Mg", "Si"), ("U", "O")] * 8
    rows = [f'"{CIF.format(*pair)}",-0.5' for pair in pairs]
    file.write_text("cif,formation_energy_per_atom\n" + "\n".join(rows) + "\n")
    fitted = references_for(fake(), file)
    assert fitted.mae < 0.01
    assert "32 crystals of known.csv" in fitted.source
    file.write_text(file.read_text().replace("-0.5", "low", 1))
    with pytest.raises(InputError, match=r"known\.csv, row 1.*'low'"):
        references_for(fake(), file)
    file.write_text("cif,energy\nx,1\n")
    with pytest.raises(InputError, match="no column 'formation_energy_per_atom'"):
        references_for(fake(), file)


def test_unknown_weights_get_the_bare_elements_with_their_bias_said(judged: dict[str, float]) -> None:
    bare = references_for(fake(weights="no such hash"))
    assert bare.values == judged
    assert bare.n_held_out == 1, "magnesia is the only known compound of these elements"
    assert "bare elemental crystals, not fitted" in bare.source
    assert f"bias is {bare.bias:+.3f}" in bare.source


def test_bare_references_are_computed_with_the_potential() -> None:
    bare = references_for(lennard_jones_potential())
    assert len(bare.values) >= 60
    assert np.isfinite([*bare.values.values()]).all()
    assert bare.n_held_out > 10


def test_known_weights_get_the_shipped_references() -> None:
    folder = Path(str(distribution("chgnet").locate_file("chgnet"))) / "pretrained"
    hashes = {path.parent.name: file_sha256(path) for path in folder.glob("*/*.pth.tar")}
    assert set(hashes) >= {"0.3.0", "0.2.0", "r2scan"}
    for version, bound in {"0.3.0": 0.03, "0.2.0": 0.05, "r2scan": 0.09}.items():
        shipped = references_for(fake(weights=hashes[version]))
        assert shipped is shipped_references()[hashes[version]]
        assert 0.0 < shipped.mae < bound
        assert abs(shipped.bias) < 0.01
        assert shipped.n_held_out > 1_000
        assert len(shipped.values) >= 85
        assert "Materials Project (CC BY 4.0)" in shipped.source


def test_the_shared_tensornets_have_shipped_references(shared_weights: Path) -> None:
    for folder in sorted(shared_weights.glob("TensorNet-*")):
        weights = file_sha256(*(folder / name for name in ("model.json", "model.pt", "state.pt")))
        assert shipped_references()[weights].mae < 0.09


def test_a_change_of_one_reference_changes_the_key() -> None:
    one = ElementReferences(TRUE, 0.02, 0.0, 9, "a")
    assert one.key == ElementReferences(dict(reversed(TRUE.items())), 0.5, 0.1, 2, "b").key
    assert one.key != ElementReferences(TRUE | {"O": -5.001}, 0.02, 0.0, 9, "a").key


def test_shipped_references_make_chgnet_nearly_unbiased(shared_data: Path) -> None:
    known = read_known_crystals([shared_data / "mp20_train.csv.gz"])
    which = covering_sample(known.amounts, 48, seed=7, at_least=1, most_atoms=10)
    crystals, truth = known.crystals(which), known.formation_energies[which]
    potential = load_potential("chgnet-0.3.0")
    energies = references_module.judged_energies(potential, crystals)
    errors = references_for(potential).formation_energies(crystals, energies) - truth
    assert np.abs(errors).mean() < 0.05
    assert abs(errors.mean()) < 0.025


def test_a_covering_sample_sees_rare_elements_and_leaves_out_large_cells() -> None:
    common = [{"Mg": 1.0, "O": 1.0}] * 500
    rare = [{"U": 1.0, "O": 2.0}] * 4
    large = [{"Pu": 30.0, "O": 30.0}]
    which = covering_sample([*common, *rare, *large], 20, seed=0, at_least=4)
    assert len(which) == 20
    assert {500, 501, 502, 503} <= set(which)
    assert 504 not in which
    assert which == covering_sample([*common, *rare, *large], 20, seed=0, at_least=4)
    assert which != covering_sample([*common, *rare, *large], 20, seed=1, at_least=4)

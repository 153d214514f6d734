"""The template library: the shipped prototypes and the user's own structures."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import write
from pymatgen.core import Lattice, Structure

from paragenesis.engine.generators.templates import TemplateLibrary
from paragenesis.errors import InputError


@pytest.fixture(scope="module")
def aflow() -> TemplateLibrary:
    return TemplateLibrary()


def conventional_rocksalt() -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_all_prototypes_are_there_as_primitive_cells(aflow: TemplateLibrary) -> None:
    names = [t.name for t in aflow.templates]
    assert len(names) == len(set(names)) == 288
    (rocksalt,) = aflow.named("B1")
    assert len(rocksalt) == 2
    assert sum(len(t) <= 20 for t in aflow.templates) == 250


@pytest.mark.parametrize(
    ("name", "formulas"),
    [
        ("ab_cf8_225_a_b", {"NaCl"}),
        ("Rock Salt", {"NaCl"}),
        ("perovskite", {"CaTiO3"}),
        ("spinel", {"MgAl2O4"}),
    ],
)
def test_names_are_found(aflow: TemplateLibrary, name: str, formulas: set[str]) -> None:
    assert {t.formula for t in aflow.named(name)} == formulas


def test_an_unknown_name_suggests_another(aflow: TemplateLibrary) -> None:
    with pytest.raises(InputError, match=r"did you mean .*Perovskite"):
        aflow.named("peroskite")


def test_exchanging_the_sites_of_rocksalt_is_a_symmetry_but_not_of_perovskite(aflow: TemplateLibrary) -> None:
    assert len(aflow.named("B1")[0].permutations) == 2
    perovskite = aflow.named("E2_1")[0]
    a, b = (perovskite.numbers.tolist().index(z) for z in (20, 22))
    assert (perovskite.permutations[:, a] == a).all()
    assert (perovskite.permutations[:, b] == b).all()


def test_own_structures_of_every_format(tmp_path: Path) -> None:
    structure = conventional_rocksalt()
    structure.to(tmp_path / "one.cif")
    structure.to(tmp_path / "POSCAR_two", fmt="poscar")
    write(tmp_path / "three.extxyz", [structure.to_ase_atoms()] * 2, format="extxyz")
    (tmp_path / "notes.txt").write_text("not a structure")
    library = TemplateLibrary((str(tmp_path),))
    assert {t.name for t in library.templates} == {"one", "POSCAR_two", "three", "three#2"}
    assert {(len(t), t.formula) for t in library.templates} == {(2, "MgO")}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.cif", None, "no template file at"),
        ("bad.cif", "nothing", "cannot be read"),
        ("bad.extxyz", "2\nnothing\n", "cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_files_are_named(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        _ = TemplateLibrary((str(path),)).templates
    assert name in str(caught.value)


def test_an_empty_folder_and_disorder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no structures"):
        _ = TemplateLibrary((str(tmp_path),)).templates
    alloy = Structure(Lattice.cubic(3), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    alloy.to(tmp_path / "alloy.cif")
    with pytest.raises(InputError, match=r"occupancy 0\.5; only full ones"):
        _ = TemplateLibrary((str(tmp_path),)).templates

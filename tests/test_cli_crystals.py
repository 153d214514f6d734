"""`generate` and `relax` as a user types them: what each option does, and what is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.io import read

Run = Any  # the fixture `cli` of conftest.py


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (["--chemical-system", "Mg-O"], lambda a: set(a.symbols) == {"Mg", "O"}),
        (["--composition", "MgO"], lambda a: a.get_chemical_formula(empirical=True) == "MgO"),
        (["--allowed-elements", "Mg", "O", "S"], lambda a: set(a.symbols) <= {"Mg", "O", "S"}),
        (["--required-elements", "Ti", "--max-atoms", "6"], lambda a: "Ti" in a.symbols and len(a) <= 6),
        (["--chemical-system", "Mg-O", "--min-atoms", "5"], lambda a: len(a) >= 5),
        (["--chemical-system", "Ca-Ti-O", "--prototype", "Perovskite"], lambda a: len(a) % 5 == 0),
        (["--chemical-system", "Na-Cl", "--space-group", "225"], lambda a: True),
    ],
)
def test_generate_obeys_each_option(cli: Run, tmp_path: Path, words: list[str], holds: Callable[..., bool]) -> None:
    out = tmp_path / "new" / "g.extxyz"
    code, _, err = cli("generate", "-n", 2, "--seed", 1, "--out", out, *words)
    assert (code, err) == (0, "")
    crystals = read(out, ":")
    assert 1 <= len(crystals) <= 2
    assert all(holds(atoms) for atoms in crystals)
    if "--space-group" in words:
        assert {atoms.info["space_group"] for atoms in crystals} == {225}


def test_generate_says_when_fewer_exist(cli: Run, tmp_path: Path) -> None:
    code, out, _ = cli("generate", "-n", 200, "--composition", "MgO", "--max-atoms", 2, "--out", tmp_path / "g.extxyz")
    count = len(read(tmp_path / "g.extxyz", ":"))
    assert code == 0
    assert f"no more than {count} distinct candidates" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "0"], "-n must be at least 1, but 0 was given"),
        (["--seed", "-1"], "--seed must be 0 or more"),
        (["--chemical-system", "Mg-Xx"], "'chemical_system': 'Xx' is no chemical element"),
        (["--chemical-system", "Mg-O", "--required-elements", "Si"], "required element Si is outside"),
        (["--space-group", "231"], "'space_group'"),
        (["--prototype", "Foo"], "no prototype is named 'Foo'"),
        (["--composition", "NaCl", "--prototype", "Perovskite"], "no candidate"),
        (["--generator", "nothing"], "no generator 'nothing'"),
        (["--generator", "random", "--space-group", "3"], "'random' cannot honour space_group"),
        (["--composition", "NaCl2", "--charge-neutral"], "makes NaCl2 neutral (the closest leaves -1)"),
        (
            ["--composition", "NaCl", "--space-group", "230", "--max-atoms", "10"],
            "space group 230 has no room for NaCl",
        ),
        (["--property", "band_gap=1:2"], "'substitution' cannot honour properties"),
        (["--property", "band_gap"], "'band_gap' is no property with its range"),
        (["--property", "band_gap=2:1"], "'properties.0': low = 2 of 'band_gap' is more than high = 1"),
        (["--property", "gap=1:", "--property", "gap=:2"], "the property 'gap' is wished for twice"),
        (["--guidance", "-1"], "'guidance'"),
        (["--seed-structure", "nowhere.cif"], "'seed_structure': nowhere.cif cannot be read"),
        (["--fixed-sites", "0,1"], "--fixed-sites are sites of a seed structure"),
    ],
)
def test_generate_refuses_what_cannot_be(cli: Run, tmp_path: Path, words: list[str], said: str) -> None:
    assert said in cli.refused("generate", "--out", tmp_path / "g.extxyz", *words)
    assert not list(tmp_path.iterdir())


def test_generate_decorates_a_seed_structure(cli: Run, tmp_path: Path) -> None:
    seed, out = tmp_path / "seed.extxyz", tmp_path / "g.extxyz"
    cli("generate", "-n", 1, "--composition", "CaTiO3", "--prototype", "Perovskite", "--max-atoms", 5, "--out", seed)
    oxygen = [i for i, symbol in enumerate(read(seed).symbols) if symbol == "O"]
    words = ["--seed-structure", seed, "--fixed-sites", ",".join(map(str, oxygen)), "--charge-neutral"]
    code, _, err = cli("generate", "-n", 5, *words, "--guidance", 1, "--out", out)
    assert (code, err) == (0, "")
    made = read(out, ":")
    assert len(made) == 5
    assert all(set(atoms.symbols[oxygen]) == {"O"} for atoms in made)
    assert len({atoms.get_chemical_formula() for atoms in made}) > 1
    said = cli.refused("generate", *words[:2], "--fixed-sites", "9", "--out", out)
    assert "there is no site 9 to fix; the seed structure has 0 " in said


def test_generate_takes_options_of_the_generator_and_writes_extxyz_alone(cli: Run, tmp_path: Path) -> None:
    words = [
        "generate",
        "--generator",
        "wyckoff",
        "-n",
        1,
        "--composition",
        "NaCl",
        "--space-group",
        225,
        "--max-atoms",
        2,
    ]
    out = tmp_path / "salt.extxyz"
    assert cli(*words, "--option", "known=allow", "--out", out)[0] == 0
    assert len(read(out, ":")) == 1
    assert 'known = "allow"' in cli.refused(*words, "--out", tmp_path / "none.extxyz")
    assert "unknown key 'knwon'" in cli.refused(*words, "--option", "knwon=allow", "--out", out)
    assert "call it 'salt.extxyz'" in cli.refused(*words, "--out", tmp_path / "salt.cif")


def test_an_out_that_cannot_be_written_is_refused_before_the_work(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place, said in ((tmp_path, "is a folder"), (tmp_path / "file" / "g.extxyz", "cannot be written")):
        assert said in cli.refused("generate", "--chemical-system", "Mg-O", "--out", place)
        assert said in cli.refused("relax", tmp_path / "file", "--out", place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_relax_keeps_the_space_group_unless_told_otherwise(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ase.build import bulk

    from paragenesis.engine.potentials import RelaxSettings, relax

    bulk("NaCl", "rocksalt", 5.6).write(tmp_path / "nacl.cif")
    asked: list[RelaxSettings] = []

    def noted(potential: Any, crystals: Any, settings: RelaxSettings) -> Any:
        asked.append(settings)
        return relax(potential, crystals, settings)

    monkeypatch.setattr("paragenesis.engine.potentials.relax", noted)
    for words in ([], ["--free"]):
        assert cli("relax", tmp_path / "nacl.cif", "--potential", "lennard-jones", *words)[0] == 0
    assert [settings.symmetry for settings in asked] == ["keep", "free"]
    assert read(tmp_path / "nacl.relaxed.extxyz").info["space_group"] == 225


def test_relax_leaves_out_what_is_no_crystal_and_says_why(cli: Run, tmp_path: Path) -> None:
    from ase.build import bulk
    from ase.io import write

    good = bulk("NaCl", "rocksalt", 5.6)
    overlapping = good.copy()
    overlapping.positions[1] = overlapping.positions[0] + 0.1
    write(tmp_path / "c.extxyz", [good, overlapping, good], format="extxyz")
    with (tmp_path / "c.extxyz").open("a") as file:
        file.write("two\natoms\n")
    code, out, _ = cli("relax", tmp_path / "c.extxyz", "--potential", "lennard-jones", "--max-steps", 5)
    assert code == 0
    assert len(read(tmp_path / "c.relaxed.extxyz", ":")) == 2
    rows = {line.split()[1]: line for line in out.splitlines() if " c-" in line}
    assert sorted(rows) == ["c-0", "c-1", "c-2", "c-3"]
    assert "overlap: Na-Cl" in rows["c-1"]
    assert "should be a number of atoms" in rows["c-3"]
    assert "2 could not be relaxed" in out
    write(tmp_path / "bad.extxyz", [overlapping], format="extxyz")
    assert "no crystal that can be relaxed: bad-0: overlap" in cli.refused("relax", tmp_path / "bad.extxyz")


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("no.cif", [], "there is no file"),
        ("crystal.txt", [], "the format of crystal.txt is unknown"),
        ("crystal.cif", [], "crystal"),
        ("crystal.txt", ["--fmax", "-1"], "'fmax'"),
        ("crystal.txt", ["--max-steps", "-1"], "'max_steps'"),
        ("nacl.cif", ["--potential", "chgnet"], "no potential 'chgnet'"),
        ("nacl.cif", ["--potential", "mace:{file}"], "pickled and can run code"),
    ],
)
def test_relax_refuses_what_cannot_be(cli: Run, tmp_path: Path, name: str, words: list[str], said: str) -> None:
    from ase.build import bulk

    for text in ("crystal.txt", "crystal.cif"):
        (tmp_path / text).write_text("not a crystal")
    bulk("NaCl", "rocksalt", 5.6).write(tmp_path / "nacl.cif")
    before = sorted(tmp_path.iterdir())
    given = [word.format(file=tmp_path / "crystal.txt") for word in words]
    assert said in cli.refused("relax", tmp_path / name, *given)
    assert sorted(tmp_path.iterdir()) == before

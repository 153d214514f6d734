"""`paragenesis evaluate`: a table, a JSON file in which every figure stands with its conditions, clear refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write
from pymatgen.core import Structure

Run = Any  # the fixture `cli` of conftest.py
LJ = ["--potential", "lennard-jones", "--fmax", 0.3, "--max-steps", 20]


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    """Four crystals: two new ones, one twice; a clash; and a frame that is none."""
    salt, other = bulk("NaCl", "rocksalt", 5.69), bulk("CsCl", "cesiumchloride", a=4.2)
    clash = salt.copy()
    clash.positions[1] = [0.3, 0, 0]
    file = tmp_path / "g.extxyz"
    write(file, [salt, other, salt, clash], format="extxyz")
    with file.open("a") as out:
        out.write("one\natom\n")
    return file


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A table of known crystals that holds KCl and CsCl."""
    file = tmp_path / "known.csv"
    structures = [
        Structure([[0, 3.2, 3.2], [3.2, 0, 3.2], [3.2, 3.2, 0]], ["K", "Cl"], [[0, 0, 0], [0.5] * 3]),
        Structure([[4.2, 0, 0], [0, 4.2, 0], [0, 0, 4.2]], ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3]),
    ]
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["id", "cif"], *([i, s.to(fmt="cif")] for i, s in enumerate(structures))])
    return file


@pytest.fixture
def hull(tmp_path: Path) -> Path:
    """A hull table that knows caesium chloride and the elements of both salts."""
    file = tmp_path / "hull.csv"
    rows = [("CsCl", -2.0), ("Na", 0), ("Cl2", 0), ("Cs", 0), ("NaCl2", 3.0)]
    file.write_text("formula,formation_energy_per_atom\n" + "".join(f"{f},{e}\n" for f, e in rows))
    return file


def figures(file: Path) -> dict[str, dict[str, Any]]:
    return {figure["name"]: figure for figure in json.loads(file.read_text())["figures"]}


def test_without_a_potential_everything_that_needs_no_energy(
    cli: Run, generated: Path, reference: Path, hull: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out.json"
    out.parent.mkdir()
    words = ["--reference", reference, "--hull", hull, "--json", out, "--required-elements", "Cl", "--space-group", 225]
    code, said, err = cli("evaluate", generated, *words)
    assert (code, err) == (0, "")
    assert "g.extxyz: 5 crystals, not relaxed" in said
    found = figures(out)
    counted = {name: (figure["count"], figure["n"]) for name, figure in found.items()}
    assert counted["readable"] == (4, 5)
    assert counted["strictly valid"] == (3, 5)
    assert counted["unique"] == (2, 3)
    assert counted["valid, unique and novel"] == (1, 5)
    assert counted["unlisted, valid, unique and novel"] == (1, 5)
    assert counted["new template, valid, unique and novel"] == (0, 5)  # KCl has the template of NaCl
    assert counted["obeys required_elements"] == (4, 5)
    assert counted["obeys space_group"] == (2, 5)
    assert found["valid, unique and novel"]["reference"] == "known.csv"
    assert not any("S.U.N." in name for name in found)
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in found.values())
    rows = json.loads(out.read_text())
    assert [row["formula"] for row in rows["crystals"]] == ["NaCl", "CsCl", "NaCl", "NaCl"]
    assert rows["crystals"][1]["known_as"] == "1 in known.csv"
    assert rows["crystals"][2]["same_as"] == "g-0"
    assert rows["crystals"][3]["invalid"].startswith("overlap")
    assert rows["unreadable"][0]["id"] == "g-4"


def test_with_a_potential_stability_and_its_conditions(
    cli: Run, generated: Path, reference: Path, hull: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    words = ["--reference", reference, "--hull", hull, "--relax", 1, "--json", out, *LJ]
    code, said, err = cli("evaluate", generated, *words, "--property", "energy_above_hull=0:100")
    assert (code, err) == (0, "")
    assert "by lennard-jones" in said
    assert "Mixed levels" in said
    figure = figures(out)["metastable S.U.N."]
    assert (figure["scorer"], figure["hull"], figure["reference"]) == ("lennard-jones", "hull.csv", "known.csv")
    assert figure["relaxed"]
    assert figures(out)["energy_above_hull in 0..100"]["n"] == 1
    row = json.loads(out.read_text())["crystals"][0]
    assert row["energy_above_hull"]["lennard-jones"] is not None
    assert row["steps"] >= 0


def test_the_embedded_hull_and_the_prototypes_are_said_to_be_sparse(cli: Run, generated: Path) -> None:
    code, said, _ = cli("evaluate", generated, *LJ)
    assert code == 0
    assert "the embedded one is sparse" in said
    assert "AFLOW prototypes" in said


def test_a_property_model_of_the_user_judges_ranges(cli: Run, generated: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text("import numpy as np\n\ndef gap(crystals):\n    return np.linspace(0.5, 2.5, len(crystals))\n")
    wish = ["--property", "band_gap=1:2", "--property-model", f"band_gap={model}:gap", "--json", tmp_path / "o.json"]
    assert cli("evaluate", generated, *wish)[0] == 0
    figure = figures(tmp_path / "o.json")["band_gap in 1..2"]
    assert (figure["count"], figure["n"], figure["of"]) == (1, 3, "strictly valid")
    said = cli("evaluate", generated, "--property", "band_gap=1:2")[1]
    assert "band_gap needs a --property-model to be judged" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no.extxyz"], "cannot be read"),
        (["{file}", "--relax", "0"], "'relax'"),
        (["{file}", "--seed", "-1"], "'seed'"),
        (["{file}", "--reference", "no.csv"], "no.csv"),
        (["{file}", "--hull", "no.csv"], "no.csv"),
        (["{file}", "--potential", "chgnet"], "no potential 'chgnet'"),
        (["{file}", *map(str, LJ), "--potential", "lennard-jones"], "distinct names"),
        (["{file}", "--space-group", "300"], "'space_group'"),
        (["{file}", "--property-model", "band_gap"], "should read like band_gap=file.py:name"),
        (["{file}", "--property-model", "band_gap=math:pi"], "must be a function of crystals"),
        (["{file}", "--json", "{folder}"], "is a folder"),
    ],
)
def test_what_cannot_be_is_refused(cli: Run, generated: Path, words: list[str], said: str) -> None:
    given = [word.format(file=generated, folder=generated.parent) for word in words]
    code, _, err = cli("evaluate", *given)
    assert code == 2
    assert said in err

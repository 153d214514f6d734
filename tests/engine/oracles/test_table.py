"""The table oracle: look-ups by id, formula and space group; what is not there; what cannot be read."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.oracles import check_oracle, estimated_costs
from paragenesis.engine.oracles.table import TableOracle, TableOracleSettings
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.errors import InputError, RejectedInput


def cubic(name: str, numbers: list[int], frac: list[list[float]], edge: float) -> Crystals:
    """A cubic crystal from the atoms of its conventional cell."""
    return Crystals(
        ids=(name,), n_atoms=np.array([len(numbers)]), numbers=np.array(numbers), frac=np.array(frac),
        lattices=edge * np.eye(3)[None],
    )  # fmt: skip


FACES = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
ROCK_SALT = cubic("a", [11] * 4 + [17] * 4, FACES + [[x + 0.5, y, z] for x, y, z in FACES], 5.64)  # Fm-3m, 225
CAESIUM_CHLORIDE = cubic("b", [11, 17], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], 3.4)  # Pm-3m, 221
MAGNESIA = cubic("c", [12] * 4 + [8] * 4, FACES + [[x + 0.5, y, z] for x, y, z in FACES], 4.2)
THREE = Crystals.concatenate([ROCK_SALT, CAESIUM_CHLORIDE, MAGNESIA])


def oracle(folder: Path, text: str, **settings: Any) -> TableOracle:
    (folder / "table.csv").write_text(text)
    parsed = TableOracleSettings.parse({"path": "table.csv", "functional": "made-up", **settings})
    return TableOracle(parsed, directory=folder)


def test_by_formula(tmp_path: Path) -> None:
    # Na2Cl2 is NaCl; a column of text is no property
    table = oracle(tmp_path, "formula,energy_above_hull,source\nNa2Cl2,0.01,x\nCaO,0.02,y\n")
    verified = table.verify(THREE)
    np.testing.assert_array_equal(verified.values["energy_above_hull"], [0.01, 0.01, np.nan])
    assert list(verified.values) == ["energy_above_hull"]
    assert verified.errors == {2: "MgO is not in table.csv"}
    assert (verified.cost_seconds == 0.0).all()
    assert estimated_costs(table, THREE).tolist() == [1.0, 1.0, 1.0]
    assert check_oracle(table, THREE) == []


def test_by_formula_and_space_group(tmp_path: Path) -> None:
    text = "formula,sg,energy\nNaCl,225,-4.0\nNaCl,221,-3.9\nMgO,186,-6.0\n"
    verified = oracle(tmp_path, text, space_group_column="sg").verify(THREE)
    np.testing.assert_array_equal(verified.values["energy"], [-4.0, -3.9, np.nan])
    assert verified.errors == {2: "MgO in space group 225 is not in table.csv"}


def test_by_id_with_named_columns(tmp_path: Path) -> None:
    text = "name,e_hull,other\nc,0.3,1\na,,2\n"
    settings = {"match": "id", "key_column": "name", "columns": {"energy_above_hull": "e_hull"}}
    table = oracle(tmp_path, text, **settings)
    verified = table.verify(THREE)
    np.testing.assert_array_equal(verified.values["energy_above_hull"], [np.nan, np.nan, 0.3])
    assert verified.errors == {1: "b is not in table.csv"}


def test_the_noise_of_values_is_no_value(tmp_path: Path) -> None:
    text = "formula,density,error\nNaCl,2.0,0.1\nMgO,3.6,\n"
    table = oracle(tmp_path, text, noise_columns={"density": "error"})
    verified = table.verify(THREE)
    assert list(verified.values) == ["density"]
    np.testing.assert_array_equal(verified.noise["density"], [0.1, 0.1, np.nan])
    assert check_oracle(table, THREE) == []
    with pytest.raises(InputError, match=r"column 'formula' of .* numbers are expected"):
        oracle(tmp_path, text, noise_columns={"density": "formula"})


def test_ids_that_look_like_numbers(tmp_path: Path) -> None:
    table = oracle(tmp_path, "id,density\n7,2.0\n8,3.0\n", match="id")
    verified = table.verify(THREE.with_ids(["8", "7", "9"]))
    np.testing.assert_array_equal(verified.values["density"], [3.0, 2.0, np.nan])


def test_sodium_nitride_is_no_missing_value(tmp_path: Path) -> None:
    nitride = cubic("n", [11, 7], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], 3.0)
    verified = oracle(tmp_path, "formula,density\nNaN,2.0\nMgO,3.6\n").verify(nitride)
    np.testing.assert_array_equal(verified.values["density"], [2.0])


def test_parquet_and_gzip_say_the_same(tmp_path: Path) -> None:
    text = "formula,density\nNaCl,2.16\nMgO,3.6\n"
    expected = oracle(tmp_path, text).verify(THREE).values["density"]
    pq.write_table(pa.table({"formula": ["NaCl", "MgO"], "density": [2.16, 3.6]}), tmp_path / "t.parquet")
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(text)
    for name in ("t.parquet", "t.csv.gz"):
        other = TableOracle(TableOracleSettings(path=tmp_path / name, functional="made-up"))
        np.testing.assert_array_equal(other.verify(THREE).values["density"], expected)


def test_the_level_follows_the_files_content(tmp_path: Path) -> None:
    first = oracle(tmp_path, "formula,density\nNaCl,2.16\n").level
    assert first == oracle(tmp_path, "formula,density\nNaCl,2.16\n").level
    assert first.key != oracle(tmp_path, "formula,density\nNaCl,2.17\n").level.key
    assert first.functional == "made-up"


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("formula,density\nNaCl,1\nClNa,2\n", {}, "two rows for NaCl: 1 and 2; .*space_group_column"),
        ("name,density\nNaCl,1\n", {}, "no column 'formula'; its columns are name, density"),
        ("formula,density\nNaCl,1\n", {"columns": {"density": "rho"}}, "no column 'rho'"),
        ("formula,density\nNaCl,heavy\n", {"columns": {"density": "density"}}, "holds 'heavy' in row 1, but numbers"),
        ("formula,name\nNaCl,salt\n", {}, "no numeric column"),
        ("formula,density\nsalt!,1\n", {}, "the formula 'salt!'"),
        ("formula,sg,density\nNaCl,Fm-3m,1\n", {"space_group_column": "sg"}, "holds 'Fm-3m' in row 1, but numbers"),
        ("formula,sg,density\nNaCl,0,1\n", {"space_group_column": "sg"}, "holds '0' in row 1, but space groups"),
        ("formula,density\nNaCl\n", {}, "table.csv cannot be read as a table"),
        ("formula,density\nNaCl,1\nMgO,-inf\n", {}, "'density' .* holds '-inf' in row 2, which is no finite number"),
        ("formula,density,a\nNaCl,NaN,\nMgO,NA,-\n", {}, "no numeric column"),
        ("formula,density\nNaCl,nan\n", {"columns": {"density": "density"}}, "holds no number, but numbers"),
        ("formula,density\nNaCl,1\n,2\n", {}, "nothing in column 'formula' of row 2"),
        ("formula,density,density\nNaCl,1,2\n", {}, "table.csv has 2 columns 'density'; keep one"),
        ("formula,density\nNa1e999Cl,1\n", {}, "the formula 'Na1e999Cl'"),
        (f"formula,density\n{'(' * 3000},1\n", {}, "the formula '.* cannot be read"),
        ("".join(f"c{i}," for i in range(10_001)), {}, "has 10002 columns; at most 10000"),
        ("formula,density\nNaCl,1\n", {"path": "absent.csv"}, "there is no oracle table"),
        ("formula,density\nNaCl,1\n", {"functional": ""}, "'functional'"),
    ],
)
def test_an_unusable_table_says_why(tmp_path: Path, text: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        oracle(tmp_path, text, **settings)


def files_of_nobody(folder: Path) -> dict[str, Path]:
    """Files that are no tables, or are more than a machine should read."""
    few_bytes = io.BytesIO()
    pq.write_table(pa.table({"formula": ["NaCl"] * 200_000}), few_bytes, compression="zstd")
    contents = {
        "noise.csv": bytes(range(256)) * 40,
        "noise.parquet": bytes(range(256)) * 40,
        "cut.parquet": few_bytes.getvalue()[:-7],
        "vast.parquet": few_bytes.getvalue(),  # hundreds of bytes that stand for 200,000 rows
        "bomb.csv.gz": gzip.compress(b"formula,density\n" + b"NaCl,1\n" * 200_000),
        "cut.csv.gz": gzip.compress(b"formula,density\nNaCl,1\n")[:-9],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_a_file_of_nobody_is_refused_in_a_sentence_and_the_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in a process of its own, behind the limits for everything from outside, here lower ones."""
    limits = InputLimits(max_file_bytes=1_000_000)
    monkeypatch.setattr("paragenesis.engine.oracles.table.InputLimits", lambda: limits)
    for name, path in files_of_nobody(tmp_path).items():
        with pytest.raises(RejectedInput) as caught:
            TableOracle(TableOracleSettings(path=path, functional="made-up"))
        assert name in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert oracle(tmp_path, "formula,density\nNaCl,2.16\n").verify(ROCK_SALT).values["density"] == [2.16]

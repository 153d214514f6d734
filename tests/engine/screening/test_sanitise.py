from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure

from paragenesis.crystals import Crystals
from paragenesis.engine.screening import InputLimits, sanitise, sanitise_text
from paragenesis.errors import RejectedInput

CIF = """data_NaCl
_cell_length_a {a}
_cell_length_b 3.99
_cell_length_c 3.99
_cell_angle_alpha {alpha}
_cell_angle_beta 60
_cell_angle_gamma 60
loop_
_symmetry_equiv_pos_as_xyz
{operations}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{label} {symbol} {x} 0 0 {occupancy}
Cl1 Cl 0.5 0.5 0.5 1
"""
FINE: dict[str, object] = {
    "a": 3.99, "alpha": 60, "operations": "'x,y,z'", "label": "Na1", "symbol": "Na", "x": 0, "occupancy": 1,
}  # fmt: skip
POSCAR = "salt\n1.0\n0 2.82 2.82\n2.82 0 2.82\n2.82 2.82 0\nNa Cl\n1 {n}\nDirect\n0 0 0\n0.5 0.5 0.5\n"


def test_a_sound_cif_is_accepted() -> None:
    crystals = sanitise_text(CIF.format(**FINE), "cif", "salt")
    assert (crystals.ids, crystals.formulas) == (("salt",), ("NaCl",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": "nan"}, "_cell_length_a nan"),
        ({"a": "inf"}, "_cell_length_a inf"),
        ({"a": "1e300"}, "lattice: a cell vector of"),
        ({"a": "-4"}, "_cell_length_a -4"),
        ({"a": "0"}, "_cell_length_a 0"),
        ({"a": "four"}, "cannot be read as CIF"),
        ({"alpha": "0"}, "_cell_angle_alpha 0"),
        ({"alpha": "180"}, "_cell_angle_alpha 180"),
        ({"alpha": "170"}, "cannot be read as CIF"),  # no such cell exists with beta = gamma = 60
        ({"x": "1e18"}, r"fract_x 1e18.*, which is no place in a cell"),
        ({"x": "inf"}, "fract_x inf"),
        ({"x": "nan"}, "fract_x nan"),
        ({"x": "?"}, "cannot be read as CIF"),
        *(({"occupancy": value}, f"occupancy {value}; only full") for value in ("0", "-1", "nan", "0.5", "1.5")),
        ({"occupancy": "1e9"}, "occupancy 1e9; only full"),
        ({"label": "Xx1", "symbol": "Xx"}, "no chemical element|cannot be read"),
        ({"label": "Zz1", "symbol": "Zz"}, "no chemical element|cannot be read"),
        ({"operations": "\n".join(["'x,y,z'"] * 10_000)}, "10000 symmetry operations"),
        ({"operations": "__import__('os').getcwd()"}, "cannot be read as CIF|not valid"),
    ],
)
def test_hostile_values_are_refused_in_a_sentence(change: dict[str, object], message: str) -> None:
    with pytest.raises(RejectedInput, match=message):
        sanitise_text(CIF.format(**(FINE | change)), "cif", "it")


def test_markup_in_labels_and_names_does_not_get_in(tmp_path: Path) -> None:
    path = tmp_path / "<script>alert(1)<.cif"
    path.write_text(CIF.format(**(FINE | {"label": "<script>alert(1)</script>"})))
    crystals = sanitise(path)
    assert "<" not in crystals.ids[0] + crystals.origins[0]
    assert crystals.formulas == ("NaCl",)


def test_a_cif_of_many_atoms_is_refused_before_it_is_parsed() -> None:
    rows = "\n".join(f"Na{i} Na 0.{i:05d} 0.1 0.2 1" for i in range(20_000))
    with pytest.raises(RejectedInput, match="20002 atom sites; at most 500"):
        sanitise_text(CIF.format(**FINE) + rows, "cif")
    with pytest.raises(RejectedInput, match="characters; at most"):
        sanitise_text(CIF.format(**FINE) + rows, "cif", limits=InputLimits(max_text_bytes=1000))


def test_a_space_group_by_name_counts_as_all_its_operations() -> None:
    text = CIF.format(**FINE).replace(
        "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'", "_symmetry_space_group_name_H-M Fm-3m"
    )
    rows = "\n".join(f"Na{i} Na 0.{i:03d} 0.1 0.2 1" for i in range(100))
    with pytest.raises(RejectedInput, match="102 sites times 192 symmetry operations"):
        sanitise_text(text + rows, "cif")


def test_blocks_of_one_name_do_not_hide_each_other() -> None:
    with pytest.raises(RejectedInput, match="same name"):
        sanitise_text(CIF.format(**FINE) * 2, "cif")
    both = CIF.format(**FINE) + CIF.format(**FINE).replace("data_NaCl", "data_other")
    assert sanitise_text(both, "cif", "two").ids == ("two-0", "two-1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (POSCAR.format(n=10**9), "at most 500|element symbols"),
        (POSCAR.format(n=2), "cannot be read as POSCAR"),
        (POSCAR.format(n=1).replace("Na Cl\n", ""), "element symbols on line 6"),
        (POSCAR.format(n=1).replace("Na", "Qq"), "no chemical element|cannot be read"),
        (POSCAR.format(n=1).replace("2.82 0 2.82", "nan 0 2.82"), "not_finite|cannot be read"),
        ("", "element symbols on line 6"),
    ],
)
def test_hostile_poscars_are_refused(text: str, message: str) -> None:
    with pytest.raises(RejectedInput, match=message):
        sanitise_text(text, "poscar")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100000000\nx\n", "100000000 atoms; at most 500"),
        ("many\nx\n", "should be a number of atoms, but is 'many'"),
        ("1\nno lattice\nNa 0 0 0\n", "three-dimensional cell"),
        ('1\nLattice="nan 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3\nNa 0 0 0\n', "not_finite|cannot be read"),
        ("", "holds no crystals"),
    ],
)
def test_hostile_extxyz_are_refused(text: str, message: str) -> None:
    with pytest.raises(RejectedInput, match=message):
        sanitise_text(text, "extxyz")


@given(text=st.text(max_size=300), edit=st.tuples(st.integers(0, 600), st.text("-.0179ex'\n;_# ", max_size=4)))
@settings(max_examples=80, deadline=None)
def test_any_text_is_accepted_or_refused_and_nothing_else(text: str, edit: tuple[int, str]) -> None:
    for form, sound in (("cif", CIF.format(**FINE)), ("poscar", POSCAR.format(n=1)), ("extxyz", "1\n\nNa 0 0 0\n")):
        at, change = edit
        for attempt in (text, sound[:at] + change + sound[at:]):
            try:
                crystals = sanitise_text(attempt, form)  # type: ignore[arg-type]
            except RejectedInput:
                continue
            assert np.isfinite(crystals.frac).all()
            assert (crystals.volumes / crystals.n_atoms >= 4).all()


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.cif", "a.cif.gz", "POSCAR", "a.vasp", "a.extxyz", "a.parquet", "a.csv", "a.csv.gz"]
)
def test_every_format_gives_the_same_crystal(
    name: str, tmp_path: Path, batch: Callable[..., Crystals], structures: dict[str, Structure]
) -> None:
    path = tmp_path / name
    rutile = structures["rutile"]
    if "csv" in name:
        text = 'material_id,cif\nmp-1,"' + rutile.to(fmt="cif").replace('"', '""') + '"\n'
    elif name.endswith("parquet"):
        pq.write_table(batch("rutile").to_arrow(), path)
    elif "xyz" in name:
        ase.io.write(path, batch("rutile").to_atoms())
    else:
        text = rutile.to(fmt="cif" if "cif" in name else "poscar")
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif not path.exists():
        path.write_text(text)
    crystals = sanitise(path)
    assert crystals.formulas == ("TiO2",)
    assert crystals.volumes[0] == pytest.approx(rutile.volume)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match=r"absent\.cif cannot be read: .*No such file"):
        sanitise(tmp_path / "absent.cif")
    (tmp_path / "a.docx").write_text("")
    with pytest.raises(RejectedInput, match=r"format of a\.docx is unknown; expected \.cif"):
        sanitise(tmp_path / "a.docx")
    (tmp_path / "a.csv").write_text("formula\nNaCl\n")
    with pytest.raises(RejectedInput, match="no column 'cif', only formula"):
        sanitise(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(RejectedInput, match="cannot be read as a table"):
        sanitise(tmp_path / "a.parquet")


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.cif.gz"
    path.write_bytes(gzip.compress(b"0" * 3_000_000))
    with pytest.raises(RejectedInput, match="larger than 1000000 bytes"):
        sanitise(path, InputLimits(max_file_bytes=1_000_000))


def test_an_invalid_crystal_in_parquet_is_named(tmp_path: Path, batch: Callable[..., Crystals]) -> None:
    table = batch("NaCl", "rutile").to_arrow()
    numbers = pa.array([[0] * 8, [22, 22, 8, 8, 8, 8]], pa.list_(pa.int16()))
    pq.write_table(table.set_column(table.column_names.index("numbers"), "numbers", numbers), tmp_path / "a.parquet")
    with pytest.raises(RejectedInput, match=r"crystal NaCl of a\.parquet is not valid: unknown_element"):
        sanitise(tmp_path / "a.parquet")

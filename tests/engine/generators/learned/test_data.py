"""Training data come from what people have, in primitive cells; what is left out is counted, what is wrong is said."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.extxyz import write_extxyz
from paragenesis.engine.generators.learned.data import TrainingSet, primitive, read_training_set, training_set
from paragenesis.engine.generators.learned.sources import plain_cif
from paragenesis.engine.ledger import LedgerReader
from paragenesis.engine.screening.sanitise import sanitise_text
from paragenesis.errors import InputError

HEADER = "# generated\ndata_{name}\n_symmetry_space_group_name_H-M   'P 1'\n"
LOOPS = """loop_
 _symmetry_equiv_pos_site_id
 _symmetry_equiv_pos_as_xyz
  1  'x, y, z'
loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_symmetry_multiplicity
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
"""
CUBE = ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0))


def cif(name: str, lengths: tuple[float, float, float], atoms: list[tuple[str, tuple[float, ...]]]) -> str:
    cell = "".join(f"_cell_length_{k}   {v:.8f}\n" for k, v in zip("abc", lengths, strict=True))
    angles = "".join(f"_cell_angle_{k}   90.00000000\n" for k in ("alpha", "beta", "gamma"))
    sites = "".join(f"  {s}  {s}{i}  1  {x:.8f}  {y:.8f}  {z:.8f}  1\n" for i, (s, (x, y, z)) in enumerate(atoms))
    return HEADER.format(name=name) + cell + angles + LOOPS + sites


def rocksalt(a: float, cation: str, anion: str) -> str:
    """The conventional cell: four times the primitive one."""
    anions = [(anion, tuple((np.array(p) + 0.5) % 1)) for p in CUBE]
    return cif(cation + anion, (a, a, a), [(cation, p) for p in CUBE] + anions)


def caesium_chloride(a: float) -> str:
    return cif("CsCl", (a, a, a), [("Cs", (0, 0, 0)), ("Cl", (0.5, 0.5, 0.5))])


def write_csv(path: Path, header: str, rows: list[str]) -> Path:
    text = "\n".join([header, *rows]) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        f'mp-1,NaCl,0.0,225,"{rocksalt(5.64, "Na", "Cl")}"',
        f'mp-2,NaN,,221,"{caesium_chloride(4.12)}"',
        'mp-3,rubbish,0.2,1,"data_x"',
        f'mp-4,crowded,nan,1,"{caesium_chloride(1.0)}"',
    ]
    return write_csv(tmp_path / "t.csv.gz", "material_id,formula,energy_above_hull,number,cif", rows)


def test_a_table_gives_primitive_cells_labels_and_what_was_left_out(table: Path) -> None:
    data = read_training_set([table], licence="CC BY 4.0")
    assert data.crystals.ids == ("mp-1", "mp-2")
    assert data.crystals.n_atoms.tolist() == [2, 2]
    assert data.crystals.volumes == pytest.approx([5.64**3 / 4, 4.12**3])
    assert set(data.labels) == {"energy_above_hull", "number"}  # the formula NaN is no number
    assert data.labels["number"].tolist() == [225.0, 221.0]
    assert data.labels["energy_above_hull"][0] == 0.0
    assert np.isnan(data.labels["energy_above_hull"][1])
    assert data.left_out == {"with a CIF that cannot be read": 1, "not a valid crystal": 1}
    assert "2 crystals to learn from; left out: 1 with a CIF that cannot be read, 1 not" in data.summary
    assert (data.sources, data.licence) == (("t.csv.gz",), "CC BY 4.0")


def test_large_primitive_cells_are_left_out(tmp_path: Path) -> None:
    rows = [f'"{rocksalt(5.6, "Na", "Cl")}"', f'"{caesium_chloride(4.1)}"']
    path = write_csv(tmp_path / "t.csv", "cif", rows)
    assert len(read_training_set([path], max_atoms=2)) == 2
    with pytest.raises(InputError, match="2 with more than 1 atoms in the primitive cell"):
        read_training_set([path], max_atoms=1)


def test_labels_of_several_files_are_put_together(table: Path, tmp_path: Path) -> None:
    other = write_csv(tmp_path / "o.csv", "band_gap,cif", [f'1.5,"{caesium_chloride(4.2)}"'])
    data = read_training_set([table, other])
    assert len(data) == 3
    np.testing.assert_array_equal(data.labels["band_gap"], [np.nan, np.nan, 1.5])
    np.testing.assert_array_equal(data.labels["number"], [225.0, 221.0, np.nan])


def test_the_digest_tells_data_and_filter_but_not_places(table: Path, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    moved = tmp_path / "else" / "u.csv.gz"
    moved.write_bytes(table.read_bytes())
    digest = read_training_set([table]).digest
    assert read_training_set([moved]).digest == digest
    assert read_training_set([table], max_atoms=4).digest != digest
    assert read_training_set([table, moved]).digest != digest


def test_the_quick_way_reads_what_the_thorough_one_reads(shared_data: Path) -> None:
    import pyarrow.csv

    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    table = pyarrow.csv.read_csv(shared_data / "mpts52_train.csv.gz", parse_options=options)
    for text in table["cif"].to_pylist()[:3000:100]:
        quick, thorough = plain_cif(text, "x"), sanitise_text(text, "cif", "x")
        assert quick is not None
        assert sorted(quick.numbers) == sorted(thorough.numbers)
        np.testing.assert_allclose(quick.lattices, thorough.lattices, atol=1e-6)
        order_a, order_b = (np.lexsort(np.round(c.frac % 1, 4).T) for c in (quick, thorough))
        np.testing.assert_array_equal(quick.numbers[order_a], thorough.numbers[order_b])
        np.testing.assert_allclose((quick.frac % 1)[order_a], (thorough.frac % 1)[order_b], atol=2e-4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'x, y, z'", "'x, y, z'\n  2  '-x, -y, -z'"),
        ("  1\n  Cl", "  0.5\n  Cl"),
        ("  Cl  Cl1", "  Cl-  Cl1"),
        ("data_CsCl", "data_CsCl\ndata_again"),
        ("_cell_length_a   4.1", "_cell_length_a   4.1(3)"),
    ],
)
def test_the_quick_way_leaves_to_the_thorough_one_what_it_does_not_understand(old: str, new: str) -> None:
    text = caesium_chloride(4.1)
    assert plain_cif(text, "x") is not None
    assert old in text
    assert plain_cif(text.replace(old, new), "x") is None


def test_symmetric_cifs_are_read_too(tmp_path: Path) -> None:
    from pymatgen.io.cif import CifWriter

    text = str(CifWriter(Crystals.to_structures(sanitise_text(rocksalt(5.64, "Na", "Cl"), "cif"))[0], symprec=0.01))
    assert plain_cif(text, "x") is None
    path = write_csv(tmp_path / "t.csv", "cif", ['"' + text.replace('"', "'") + '"'])
    assert read_training_set([path]).crystals.n_atoms.tolist() == [2]


def crystals() -> Crystals:
    texts = (rocksalt(5.6, "Na", "Cl"), rocksalt(4.2, "Mg", "O"), caesium_chloride(4.1))
    return Crystals.concatenate([sanitise_text(text, "cif", f"c{i}") for i, text in enumerate(texts)])


def test_parquet_with_structure_columns_and_extxyz_keep_their_numbers(tmp_path: Path) -> None:
    known = crystals()
    gaps = [5.0, None, 6.0]
    table = known.to_arrow().append_column("band_gap", pa.array(gaps, pa.float64()))
    pq.write_table(table.append_column("who", pa.array(["a", "b", "c"])), tmp_path / "t.parquet")
    write_extxyz(
        known, tmp_path / "t.extxyz", [{"id": i, "band_gap": g or 0.0} for i, g in zip("abc", gaps, strict=True)]
    )
    for name in ("t.parquet", "t.extxyz"):
        data = read_training_set([tmp_path / name])
        assert data.crystals.n_atoms.tolist() == [2, 2, 2]
        assert set(data.labels) == {"band_gap"}
        assert data.labels["band_gap"][2] == 6.0


def test_a_primitive_cell_is_the_same_crystal() -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    known = crystals()
    small = primitive(known)
    assert small.n_atoms.tolist() == [2, 2, 2]
    assert small.ids == known.ids
    np.testing.assert_allclose(small.volumes / small.n_atoms, known.volumes / known.n_atoms)
    for a, b in zip(known.to_structures(), small.to_structures(), strict=True):
        assert StructureMatcher().fit(a, b)


def test_crystals_in_memory_become_a_training_set() -> None:
    labels = {"band_gap": np.array([1.0, np.nan, 2.0]), "unknown": np.full(3, np.nan)}
    data = training_set(crystals(), labels, licence="mine")
    assert isinstance(data, TrainingSet)
    assert set(data.labels) == {"band_gap"}
    assert data.digest == training_set(crystals(), labels).digest
    assert data.digest != training_set(crystals(), {"band_gap": np.array([1.0, 3.0, 2.0])}).digest
    with pytest.raises(InputError, match=r"'band_gap' has shape \(2,\), but there are 3"):
        training_set(crystals(), {"band_gap": np.zeros(2)})


def test_a_campaign_gives_the_kept_crystals_of_its_closed_rounds(finished: Path, tmp_path: Path) -> None:
    directory = tmp_path / "campaign"
    shutil.copytree(finished, directory)
    with LedgerReader.open(directory) as ledger:
        kept = ledger.crystals("verdict = 'kept'")
        hull = "SELECT candidate_id, mean FROM predictions WHERE model = 'ensemble' AND property = 'energy_above_hull'"
        heights = dict(zip(*(c.to_pylist() for c in ledger.query(hull).columns), strict=True))
        sql = "SELECT candidate_id, value FROM verifications WHERE property = 'formation_energy' AND value IS NOT NULL"
        verified = dict(zip(*(c.to_pylist() for c in ledger.query(sql).columns), strict=True))
    data = read_training_set([directory], max_atoms=100)
    good = {i for i in kept.ids if not heights.get(i, 0.0) > 0.1}
    assert good
    assert set(data.crystals.ids) <= good
    assert len(data) + data.left_out.get("not a valid crystal", 0) == len(good)
    found = dict(zip(data.crystals.ids, data.labels["formation_energy"], strict=True))
    assert verified
    assert all(found[i] == value for i, value in verified.items() if i in found)
    one = next((directory / "exports").glob("round=*")) / "candidates.parquet"
    assert set(read_training_set([one], max_atoms=100).crystals.ids) <= set(kept.ids)
    moved = one.rename(tmp_path / "elsewhere.parquet")
    for content, said in ((lambda: one.symlink_to(moved), "but a link"), (lambda: one.write_bytes(b""), "was changed")):
        content()
        with pytest.raises(InputError, match=rf"candidates.parquet .*{said}.*recover {directory}"):
            read_training_set([directory], max_atoms=100)
        one.unlink()


def test_what_cannot_be_used_is_refused_with_a_reason(tmp_path: Path) -> None:
    for paths, said in (
        ([], "no training data were given"),
        ([tmp_path / "none.csv"], "there is no training data"),
        ([tmp_path], "holds no closed round of a campaign"),
        ([write_csv(tmp_path / "a.csv", "id,energy", ["1,2"])], "has no column 'cif'"),
        (
            [write_csv(tmp_path / "b.csv", "id,cif", ["1,rubbish"])],
            "no crystal to train on is left in b.csv: 1 with a CIF",
        ),
        ([write_csv(tmp_path / "c.parquet", "id,cif", ["1,rubbish"])], "cannot be read as a table"),
        ([write_csv(tmp_path / "d.txt", "", [])], "format of d.txt is unknown"),
    ):
        with pytest.raises(InputError, match=said):
            read_training_set(paths)
    with pytest.raises(InputError, match="max_atoms must be at least 1"):
        read_training_set([tmp_path / "a.csv"], max_atoms=0)

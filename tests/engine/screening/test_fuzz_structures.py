"""Whatever a file holds, it is an accepted valid crystal or a refusal in one sentence, within the limits."""

from __future__ import annotations

import gzip
import io
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, currently_in_test_context, event, given, settings
from hypothesis import strategies as st

from paragenesis.crystals import Crystals
from paragenesis.engine.evaluation.read import read_sample
from paragenesis.engine.generators.learned.data import read_training_set
from paragenesis.engine.generators.learned.sources import plain_cif
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.engine.generators.templates import TemplateLibrary
from paragenesis.engine.screening import InputLimits, ScreeningSettings, sanitise, sanitise_text
from paragenesis.engine.screening.files import is_table
from paragenesis.engine.screening.reference import load_reference
from paragenesis.engine.screening.sanitise import crystals_of, faults
from paragenesis.engine.screening.texts import frames
from paragenesis.engine.tables import read_known_crystals
from paragenesis.errors import InputError, RejectedInput

Kind = Literal["cif", "poscar", "extxyz"]
CORPUS = Path(__file__).parents[2] / "corpus"
TRIES = settings(max_examples=settings.default.max_examples, suppress_health_check=list(HealthCheck))
FEW = settings(TRIES, max_examples=max(1, TRIES.max_examples // 2))

CIF = """data_NaCl
_symmetry_space_group_name_H-M 'P 1'
_cell_length_a 3.99
_cell_length_b 3.99
_cell_length_c 3.99
_cell_angle_alpha 60
_cell_angle_beta 60
_cell_angle_gamma 60
_chemical_formula_sum 'Na1 Cl1'
loop_
_symmetry_equiv_pos_as_xyz
'x,y,z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 1
Cl1 Cl 0.5 0.5 0.5 1
"""
POSCAR = "salt\n1.0\n0 2.82 2.82\n2.82 0 2.82\n2.82 2.82 0\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
FRAME = (
    '2\nLattice="0 2.82 2.82 2.82 0 2.82 2.82 2.82 0" Properties=species:S:1:pos:R:3 gap=5.1 pbc="T T T"\n'
    "Na 0 0 0\nCl 2.82 2.82 2.82\n"
)
SOUND: dict[Kind, str] = {"cif": CIF, "poscar": POSCAR, "extxyz": FRAME * 2}

# --- what hostile files are made of ----------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """The words between single blanks; a tilde stands for a blank."""
    return [word.replace("~", " ") for word in text.split(" ")]


NUMBERS = st.one_of(
    st.sampled_from(
        words(
            "0 -1 nan inf -inf 1e300 1e-300 1e18 -0.0 . ? 1(2) 1( () 1e999999999 0x10 1_0 --1 1/3 ٣ ½ 3.99(4) 192 501 "
            "99999999999999999999 1.7976931348623157e308 5e-324 NaN 1e 1d3 T"
        )
    ),
    st.just("9" * 400),
    st.floats().map(repr),
    st.integers().map(str),
)
WORDS = st.one_of(
    st.sampled_from(
        words(
            "Na Cl Xx Zz X D T Na+ Fe2+ Og Uuo Na1O2 na NA Vac OH2 Water <script>alert(1)</script> ' \" ; # _x loop_ "
            "data_ data_NaCl save_ global_ stop_ 'P~1' Fm-3m 225 P1 'F~m~-3~m' x,y,z -x,y+1/2,z x,y x*y,y,z 1/0,y,z "
            "_atom_site_label _atom_site_fract_x _cell_length_a _symmetry_equiv_pos_as_xyz _atom_site_moment_label "
            "_atom_site_aniso_U_11 _space_group_magn.transform_BNS_Pp_abc Direct Cartesian Selective Lattice= "
            "Properties=species:S:1:pos:R:3 Properties=species:S:1:pos:R:3:x:R:99999 pbc=F VEC1 ../../etc/passwd "
            "=cmd|' \x00 \x1b[31m \u2028 \u202e \ufeff \ud800 powder_pattern"
        )
    ),
    st.text(max_size=8),
)
TOKENS = st.one_of(NUMBERS, WORDS)
GAPS = st.sampled_from([" ", "\n", "\t", "", "  ", "\n\n", "\r\n", "\r", "\x0b", "\x0c", "\n;", "\n;\n", " #", "\n_"])


@st.composite
def mutated(draw: st.DrawFn, sound: str) -> str:
    """A valid text with some of its pieces replaced, repeated, swapped or lost."""
    pieces = re.split(r"(\s+)", sound)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(pieces) - 1))
        match draw(st.integers(0, 5)):
            case 0:
                pieces[at] = draw(TOKENS)
            case 1:
                pieces[at : at + 1] = []
            case 2:
                pieces[at:at] = pieces[at : at + draw(st.integers(1, 20))] * draw(st.integers(1, 30))
            case 3:
                other = draw(st.integers(0, len(pieces) - 1))
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 4:
                pieces[at] += draw(TOKENS)
            case _:
                pieces[at:at] = [draw(GAPS), draw(TOKENS), draw(GAPS)]
        pieces = pieces or [""]
    return "".join(pieces)


@st.composite
def cif_texts(draw: st.DrawFn) -> str:
    """A CIF by its grammar, any value of which may be hostile."""

    def value(sound: str) -> str:
        return draw(TOKENS) if draw(st.integers(0, 9)) == 0 else sound

    columns = draw(st.permutations(["label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy"]))
    columns = columns[: draw(st.integers(4, 6))]
    usual = {"label": "Na1", "type_symbol": "Na", "fract_x": "0", "fract_y": "0.5", "fract_z": "0.5", "occupancy": "1"}
    operations = draw(st.sampled_from(["x,y,z", "-x,-y,-z", "x+1/2,y,z", "-y,x-y,z+1/3", "X, Y, Z", "z,x,y"]))
    lines = [f"data_{value('a')}"]
    for key in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"):
        lines.append(f"_cell_{key} {value('90' if 'angle' in key else '5.1')}")
    lines.append(f"_symmetry_space_group_name_H-M '{value(draw(st.sampled_from(['P 1', 'F m -3 m', 'P 63/m m c'])))}'")
    if draw(st.booleans()):
        lines += ["loop_", "_symmetry_equiv_pos_as_xyz", "'x,y,z'", f"'{value(operations)}'"]
    lines += ["loop_", *(f"_atom_site_{name}" for name in columns)]
    for _ in range(draw(st.integers(0, 4))):
        lines.append(" ".join(value(usual[name]) for name in columns))
    return "\n".join(lines) + draw(GAPS)


@st.composite
def poscar_texts(draw: st.DrawFn) -> str:
    """A POSCAR by its grammar, any value of which may be hostile."""

    def value(sound: str) -> str:
        return draw(TOKENS) if draw(st.integers(0, 9)) == 0 else sound

    n = draw(st.integers(0, 4))
    vectors = [" ".join(value("4.2" if i == j else "0") for j in range(3)) for i in range(3)]
    places = [" ".join(value(str(0.25 * i)) for _ in range(3)) for i in range(n)]
    mode = value(draw(st.sampled_from(["Direct", "Cartesian", "Selective dynamics\nDirect", "d"])))
    return "\n".join([value("x"), value("1.0"), *vectors, value("Na"), value(str(n)), mode, *places])


@st.composite
def frame_texts(draw: st.DrawFn) -> str:
    """Frames of an extxyz file, any value of which may be hostile."""

    def value(sound: str) -> str:
        return draw(TOKENS) if draw(st.integers(0, 9)) == 0 else sound

    out = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(0, 3))
        lattice = " ".join(value("4.2" if i % 4 == 0 else "0") for i in range(9))
        notes = draw(st.lists(st.tuples(WORDS, TOKENS), max_size=3))
        properties = value("species:S:1:pos:R:3")
        extra = " ".join(f"{key}={value}" for key, value in notes)
        out += [value(str(n)), f'Lattice="{lattice}" Properties={properties} {extra}']
        out += [f"{value('Na')} " + " ".join(value(str(1.3 * i)) for _ in range(3)) for i in range(n)]
    return "\n".join(out) + draw(GAPS)


# --- the one property ------------------------------------------------------------------------------------------------


def refused(attempt: Callable[[], Any], error: type[Exception] = RejectedInput) -> Any:
    """What an attempt gives; None where it ends in a refusal of one printable sentence. Anything else fails."""
    started = time.perf_counter()
    try:
        found = attempt()
    except error as refusal:
        said = str(refusal)
        if currently_in_test_context():
            event(re.sub(r"['\"0-9].*", "", said)[:40])
        assert said.isprintable(), repr(said)
        assert 5 < len(said) < 1500
        assert "made the parser fail" not in said, said
        found = None
    assert time.perf_counter() - started < 100
    return found


def valid(crystals: Crystals | None) -> None:
    """Crystals that were accepted are valid, and their names are safe."""
    if crystals is None:
        return
    if currently_in_test_context():
        event("accepted")
    assert len(crystals)
    assert crystals.n_atoms.max() <= InputLimits().max_atoms
    assert not any(faults(crystals))
    assert all(re.fullmatch(r"[A-Za-z0-9_.:+()-]{1,80}", name) for name in crystals.ids)
    assert all(origin.isprintable() for origin in crystals.origins)


@pytest.mark.parametrize("kind", SOUND)
@given(data=st.data())
@TRIES
def test_a_changed_file_is_accepted_or_refused(kind: Kind, data: st.DataObject) -> None:
    text = data.draw(mutated(SOUND[kind]))
    valid(refused(lambda: sanitise_text(text, kind, "it")))


@given(text=cif_texts())
@TRIES
def test_any_cif_is_accepted_or_refused(text: str) -> None:
    valid(refused(lambda: sanitise_text(text, "cif", "it")))


@given(text=poscar_texts())
@FEW
def test_any_poscar_is_accepted_or_refused(text: str) -> None:
    valid(refused(lambda: sanitise_text(text, "poscar", "it")))


@given(text=frame_texts())
@FEW
def test_any_extxyz_is_accepted_or_refused(text: str) -> None:
    valid(refused(lambda: sanitise_text(text, "extxyz", "it")))


@given(
    text=mutated(
        "# x\n" + CIF.replace("'x,y,z'\n", "1 'x, y, z'\n").replace("_as_xyz", "_site_id\n_symmetry_equiv_pos_as_xyz")
    )
)
@TRIES
def test_the_quick_way_to_read_a_cif_never_raises(text: str) -> None:
    plain_cif(text, "it")


LATTICES = st.lists(
    st.one_of(st.sampled_from([0.0, 4.2, -4.2, 1e3, 999.999, 1e-3, 1e-9, 2.1, 1e300]), st.floats()),
    min_size=9,
    max_size=9,
)


@given(lattice=LATTICES, frac=st.lists(st.floats(width=64), min_size=6, max_size=6), z=st.integers(-5, 130))
@TRIES
def test_numbers_of_any_kind_are_judged(lattice: list[float], frac: list[float], z: int) -> None:
    crystals = Crystals(
        ids=("a",), n_atoms=np.array([2]), numbers=np.array([z, 17]), frac=np.array(frac), lattices=np.array(lattice)
    )
    assert len(faults(crystals)) == 1


# --- tables and files ------------------------------------------------------------------------------------------------

CELLS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.one_of(st.none(), st.integers(), st.text(max_size=5), st.just("<b>" * 40)),
    "origin": st.one_of(st.none(), st.text(max_size=5), st.binary(max_size=3)),
    "numbers": st.one_of(
        st.just([11, 17]),
        st.none(),
        st.integers(-1, 200),
        st.lists(st.one_of(st.integers(-2, 2**40), st.none()), max_size=4),
        st.lists(st.floats(), max_size=3),
        st.text(max_size=3),
    ),
    "frac": st.one_of(
        st.just([0.0, 0.0, 0.0, 0.5, 0.5, 0.5]),
        st.none(),
        st.lists(st.one_of(st.floats(), st.none()), max_size=7),
        st.lists(st.lists(st.floats(), max_size=3), max_size=2),
    ),
    "lattice": st.one_of(
        st.just([0.0, 2.82, 2.82, 2.82, 0.0, 2.82, 2.82, 2.82, 0.0]), LATTICES, st.none(), st.lists(st.floats())
    ),
}


@st.composite
def arrow_tables(draw: st.DrawFn) -> pa.Table:
    """A table that has the columns of crystals, filled with anything that Arrow holds."""
    rows = draw(st.integers(0, 3))
    columns = {}
    for name, cells in CELLS.items():
        sound = draw(st.integers(0, 2)) > 0
        cell = draw(cells)
        values = [cell if sound else draw(cells) for _ in range(rows)]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):  # Arrow has no such column
            columns[name] = pa.nulls(rows)
    return pa.table(columns)


@given(table=arrow_tables())
@TRIES
def test_any_table_holds_crystals_or_is_refused(table: pa.Table) -> None:
    crystals = refused(lambda: crystals_of(table, "it"))
    if crystals is not None:
        assert len(crystals) == table.num_rows
        assert len(faults(crystals)) == len(crystals)


def test_atoms_do_not_move_from_one_row_to_the_next() -> None:
    two = Crystals.concatenate([sanitise_text(CIF, "cif", name) for name in "ab"]).to_arrow()
    frac = pa.array([[0.0] * 3, [0.0] * 9])
    with pytest.raises(
        RejectedInput, match="it hold no crystals: row 1 of the crystals has 2 atomic numbers, 3 coordinates"
    ):
        crystals_of(two.set_column(two.column_names.index("frac"), "frac", frac), "it")


@pytest.fixture(scope="module")
def stored() -> dict[str, bytes]:
    """Sound files by name."""
    crystals = Crystals.concatenate([sanitise_text(CIF, "cif", name) for name in "abc"])
    columns, cifs = io.BytesIO(), io.BytesIO()
    pq.write_table(crystals.to_arrow(), columns)
    pq.write_table(pa.table({"id": ["a", "b"], "cif": [CIF, CIF]}), cifs)
    csv = f'id,formula,cif\na,NaCl,"{CIF}"\n'.encode()
    return {
        "a.parquet": columns.getvalue(), "b.parquet": cifs.getvalue(), "c.csv": csv, "d.csv.gz": gzip.compress(csv),
        "e.cif.gz": gzip.compress(CIF.encode()), "f.extxyz": (FRAME * 3).encode(), "POSCAR": POSCAR.encode(),
    }  # fmt: skip


@given(data=st.data())
@TRIES
def test_files_with_spoilt_bytes_are_read_or_refused_by_all_who_read_files(
    stored: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(stored)))
    content = bytearray(stored[name])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    valid(refused(lambda: sanitise(path)))
    refused(lambda: read_sample(path))
    refused(lambda: read_training_set([path]), InputError)
    refused(lambda: SeedStructure.read(path), InputError)
    refused(lambda: load_reference(ScreeningSettings(reference=str(path))), InputError)
    refused(lambda: read_known_crystals([path]), InputError)
    if name in ("e.cif.gz", "f.extxyz", "POSCAR"):
        refused(lambda: TemplateLibrary((str(path),)).templates, InputError)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)
SEED = {"numbers": [11, 17], "frac": [[0, 0, 0], [0.5, 0.5, 0.5]], "lattice": [[4.1, 0, 0], [0, 4.1, 0], [0, 0, 4.1]]}


@given(data=st.data())
@TRIES
def test_a_structure_as_a_dictionary_is_a_seed_structure_or_refused(data: st.DataObject) -> None:
    values = dict(SEED) | {"fixed": data.draw(st.lists(st.integers(-3, 3), max_size=3))}
    key = data.draw(st.sampled_from(["numbers", "frac", "lattice", "fixed", "file", "more"]))
    values[key] = data.draw(
        st.one_of(
            JSON,
            st.lists(st.floats(), min_size=2, max_size=2),
            st.lists(st.lists(st.floats(), min_size=3, max_size=3), min_size=2, max_size=3),
            st.lists(st.integers(0, 120), min_size=1, max_size=3),
        )
    )
    seed = refused(lambda: SeedStructure.parse(values), InputError)
    if seed is not None:
        assert np.isfinite(seed.crystal.lattices).all()
        assert (seed.crystal.volumes > 0).all()
        seed.violation(np.array(seed.numbers), np.array(seed.frac), np.array(seed.lattice), 0.1)


# --- limits ----------------------------------------------------------------------------------------------------------


def with_operation(operation: str) -> str:
    return CIF.replace("'x,y,z'", f"'{operation}'")


BOMBS: dict[str, tuple[Kind, Callable[[], str]]] = {
    # Left alone, each of these takes the parsers from minutes to days, or gigabytes.
    "quotes": ("cif", lambda: CIF + "_x " + "'a " * 300_000),
    "quotes in short lines": ("cif", lambda: CIF + ("_x " + "'a " * 600 + "\n") * 500),
    "digits of an operation": ("cif", lambda: with_operation("1" * 2000 + ",y,z")),
    "blank lines": ("cif", lambda: CIF + "\n" * 900_000 + "x"),
    "lines of blanks": ("cif", lambda: CIF + " \n" * 400_000 + "x"),
    "one long line of blanks": ("cif", lambda: CIF + " " * 900_000 + "x"),
    "brackets of a formula": ("cif", lambda: CIF.replace("Na1 Cl1", "(" * 900 + "Na" + ")9" * 500)),
    "many keys": ("cif", lambda: "\n".join(f"_k{i} 1" for i in range(60_000))),
    "many blocks": ("cif", lambda: "\n".join(f"data_{i}" for i in range(70_000))),
    "many columns": ("cif", lambda: CIF + "loop_\n" + "\n".join(f"_a{i}" for i in range(50_000)) + "\n1\n"),
    "many loops": ("cif", lambda: CIF + "loop_\n_a\n1\n" * 60_000),
    "columns of a frame": ("extxyz", lambda: FRAME.replace("pos:R:3", "pos:R:3:x:R:999999999")),
    "columns in hiding": ("extxyz", lambda: FRAME.replace("Properties=", 'a="Properties=x:R:1" Properties=')
        .replace("pos:R:3", "pos:R:3:x:R:99999999")),
    "nested JSON": ("extxyz", lambda: FRAME.replace("gap=5.1", 'gap="_JSON ' + "[" * 400_000 + '"')),
    "nested brackets": ("extxyz", lambda: FRAME.replace("gap=5.1", "gap=" + "[" * 400_000)),
    "a long note": ("extxyz", lambda: FRAME.replace("gap=5.1", "gap='" + "1 " * 400_000 + "'")),
    "a long scale": ("poscar", lambda: POSCAR.replace("1.0", "9" * 500_000)),
    "many vectors": ("poscar", lambda: POSCAR + "0 0 0\n" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_text_made_to_stall_or_swell_a_parser_ends_within_its_limits(bomb: str) -> None:
    kind, text = BOMBS[bomb]
    limits = InputLimits(max_seconds=5, max_memory_bytes=500_000_000)
    began = time.perf_counter()
    valid(refused(lambda: sanitise_text(text(), kind, "it", limits)))
    assert time.perf_counter() - began < 100
    assert sanitise_text(CIF, "cif", "after").formulas == ("NaCl",)


def test_frames_are_read_one_at_a_time_and_all_of_a_file_within_its_time() -> None:
    assert list(frames(2 * FRAME)) == [FRAME, FRAME.rstrip()]
    tracemalloc.start()
    first = next(frames("0\n\n" * 1_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert first == "0\n\n"
    assert peak < 10_000_000  # as a list of lines it was 50 times the text
    limits = InputLimits(max_file_seconds=1)
    with pytest.raises(RejectedInput, match=r"it was not read in 1 s, only its first \d+ crystals; split it"):
        sanitise_text(FRAME * 20_000, "extxyz", "it", limits)


def repeated(text: str, rows: int) -> bytes:
    """A small Parquet file in which one long text stands for many rows."""
    out = io.BytesIO()
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([text]))
    pq.write_table(pa.table({"id": column, "cif": column}), out, compression="zstd", store_schema=False)
    return out.getvalue()


@pytest.mark.parametrize("name", ["a.parquet", "b.cif.gz", "c.csv.gz", "d.csv"])
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(name: str, tmp_path: Path) -> None:
    limits = InputLimits(max_file_bytes=20_000_000, max_memory_bytes=300_000_000)
    content = {
        "a.parquet": lambda: repeated("x" * 100_000, 100_000),  # 10 GB
        "b.cif.gz": lambda: gzip.compress(b"\n" * 30_000_000),
        "c.csv.gz": lambda: gzip.compress(b"id,cif\n" + b"a,b\n" * 6_000_000),
        "d.csv": lambda: ("a," * 500_000 + "cif\n").encode(),
    }[name]()
    path = tmp_path / name
    path.write_bytes(content)
    for read in (sanitise, read_sample):
        with pytest.raises(RejectedInput, match=r"larger than|more than|at most|takes the parser"):
            read(path, limits)
    assert psutil.Process().memory_info().rss < 4e9


@pytest.mark.parametrize("path", sorted((CORPUS / "structures").iterdir()), ids=lambda path: path.name)
def test_what_fuzzing_found_stays_found(path: Path) -> None:
    valid(refused(lambda: sanitise(path)))
    refused(lambda: read_sample(path))
    refused(lambda: read_training_set([path]), InputError)
    if is_table(path):
        refused(lambda: read_known_crystals([path]), InputError)
        refused(lambda: load_reference(ScreeningSettings(reference=str(path))), InputError)
    else:
        refused(lambda: TemplateLibrary((str(path),)).templates, InputError)


def test_what_was_accepted_without_a_word_is_refused() -> None:
    for name in ("atoms-in-the-row-before.parquet", "numbers-that-are-no-integers.parquet"):
        with pytest.raises(RejectedInput, match="hold no crystals"):
            read_sample(CORPUS / "structures" / name)
    with pytest.raises(InputError, match="holds an atom of no element"):
        _ = TemplateLibrary((str(CORPUS / "structures" / "atoms-of-no-element.extxyz"),)).templates
    with pytest.raises(RejectedInput, match="should be a number of atoms"):
        sanitise(CORPUS / "structures" / "frames-after-a-blank-line.extxyz")

"""A ledger that came from somebody else reads and writes nothing outside its directory, and runs nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ase.io
import duckdb
import pyarrow as pa
import pytest

from paragenesis.engine.ledger import (
    Ledger,
    LedgerReader,
    digest,
    export_crystals,
    read_only_sql,
    recover,
    verify_ledger,
)
from paragenesis.engine.ledger.disk import sha256_of
from paragenesis.engine.planning import weights_in_use
from paragenesis.engine.report import write_report
from paragenesis.errors import InputError, LedgerError
from paragenesis.terminal import as_csv, cell

SECRET = "not for you"
NAN = "frac = list_prepend('nan'::DOUBLE, frac[2:])"
STATEMENTS = [
    "COPY candidates TO '{out}'",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "EXPLAIN ANALYZE COPY candidates TO '{out}'",
    "EXPLAIN ANALYZE DELETE FROM candidates",
    "EXPLAIN ANALYZE INSERT INTO meta VALUES ('a', 'b')",
    "EXPORT DATABASE '{out}'",
    "IMPORT DATABASE '{out}'",
    "ATTACH '{out}' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH ledger",
    "USE memory",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE MACRO m(x) AS x",
    "CREATE SECRET (TYPE s3)",
    "ALTER TABLE meta ADD COLUMN x INT",
    "DROP TABLE candidates",
    "UPDATE candidates SET verdict = 'kept'",
    "INSERT INTO meta VALUES ('a', 'b')",
    "TRUNCATE candidates",
    "INSTALL httpfs",
    "FORCE INSTALL httpfs",
    "INSTALL httpfs FROM 'http://127.0.0.1:9'",
    "LOAD httpfs",
    "LOAD '{out}'",
    "UPDATE EXTENSIONS",
    "SET enable_external_access = true",
    "SET GLOBAL lock_configuration = false",
    "SET VARIABLE a = 1",
    "RESET enable_external_access",
    "PRAGMA enable_external_access",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "PREPARE a AS SELECT 1",
    "EXECUTE a",
    "BEGIN",
    "CHECKPOINT",
    "VACUUM",
    "SELECT 1; DELETE FROM candidates",
    "SELECT 1 /* ; */; -- x\nSELECT 2",
    "SELECT * FROM '{secret}'",
    "FROM '{secret}'",
    "FROM 'https://127.0.0.1:9/a.csv'",
    "FROM read_csv('s3://a/b')",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_csv_auto('{secret}', header = false)",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_text('{ledger}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_json_objects('{secret}')",
    "SELECT * FROM read_parquet('{secret}')",
    "SELECT * FROM parquet_scan('{secret}')",
    "SELECT * FROM parquet_metadata('{secret}')",
    "SELECT * FROM read_duckdb('{secret}')",
    "SELECT * FROM sqlite_scan('{secret}', 'b')",
    "SELECT * FROM postgres_scan('a', 'b', 'c')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM duckdb_secrets()",
    "FROM query('SELECT * FROM read_text(''{secret}'')')",
    "FROM query('DELETE FROM meta')",
    "FROM query_table('{secret}')",
    "SELECT getenv('HOME')",
    "SELECT load_extension('x')",
    "SELECT * FROM arrow_scan(1::POINTER, 2::POINTER, 3::POINTER)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM secret",  # a Python variable
    "SELECT (SELECT content FROM read_text('{secret}'))",
    "WITH t AS (SELECT * FROM read_text('{secret}')) SELECT * FROM t",
    "\x00",
    "SELECT '\ud800'",
    "(" * 2000,
    "SELECT " + "(" * 5000 + "1" + ")" * 5000,
]


@pytest.mark.parametrize("sql", STATEMENTS, ids=lambda sql: ascii(sql)[:60])
def test_sql_reads_the_ledger_and_nothing_else(filled: Path, tmp_path: Path, sql: str) -> None:
    out, secret = tmp_path / "out", tmp_path / "secret.csv"
    secret.write_text(f"{SECRET}\n")
    before = digest(filled)
    sql = sql.replace("{out}", str(out)).replace("{secret}", str(secret))
    with pytest.raises(InputError) as caught:
        read_only_sql(filled, sql.replace("{ledger}", str(filled / "ledger.duckdb")))
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert digest(filled) == before


def test_a_view_in_place_of_a_table_reads_no_files(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:
        connection.execute(f"CREATE VIEW spy AS SELECT * FROM read_text('{tmp_path / 'secret'}')")
        connection.execute(f"CREATE MACRO spied() AS (SELECT content FROM read_text('{tmp_path / 'secret'}'))")
    for sql in ("SELECT * FROM spy", "SELECT spied()"):
        with pytest.raises(InputError, match="Permission Error"):
            read_only_sql(filled, sql)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "weights/../../secret", "link/secret", "\x00"])
def test_weights_are_read_and_written_in_the_campaign_only(filled: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (filled / "link").symlink_to(tmp_path)
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:
        connection.execute("DELETE FROM learning")
        connection.execute(
            "INSERT INTO learning (round, generator, outcome, crystals, weights, sha256) "
            "VALUES (1, 'g', 'accepted', 1, ?, 'x')", [name.replace("\x00", "a\x00b")],
        )  # fmt: skip

    def never(round: int, generator: str) -> None:  # noqa: A002
        raise AssertionError("it learnt in order to write there")

    with LedgerReader.open_unchecked(filled) as ledger, pytest.raises(InputError, match="leads out of"):
        weights_in_use(ledger, 2, never)  # type: ignore[arg-type]


def test_what_is_written_follows_no_link_out_of_the_campaign(filled: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text(SECRET)
    (tmp_path / "elsewhere").mkdir()
    (filled / "selected").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of"):
        export_crystals(filled, "selected", "cif", filled / "selected")
    assert not list((tmp_path / "elsewhere").iterdir())
    (filled / "cifs").mkdir()
    (filled / "cifs" / "r1-c0-0.cif").symlink_to(precious)
    (filled / ".s.extxyz.new").symlink_to(precious)
    (filled / "report.html").symlink_to(precious)
    export_crystals(filled, "selected", "cif", filled / "cifs")
    export_crystals(filled, "selected", "extxyz", filled / "s.extxyz")
    write_report(filled)
    assert precious.read_text() == SECRET
    assert not (filled / "report.html").is_symlink()
    export_crystals(filled, "selected", "cif", tmp_path / "elsewhere")  # where the user says
    assert len(list((tmp_path / "elsewhere").iterdir())) == 4


LINKED = {
    "exports": "exports",
    "a round": "exports/round=01",
    "a manifest": "exports/round=01/manifest.json",
    "a table": "exports/round=01/candidates.parquet",
    "head": "ledger.head",
}


@pytest.mark.parametrize("name", LINKED.values(), ids=LINKED)
def test_links_are_followed_by_neither_verify_nor_recover(filled: Path, tmp_path: Path, name: str) -> None:
    """What a link leads to is sound, so only the link itself can be what is wrong."""
    before, outside = digest(filled), tmp_path / "outside"
    (filled / name).rename(outside)
    (filled / name).symlink_to(outside)
    listed = {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}
    [problem, *_] = verify_ledger(filled)
    assert "is a link out of the campaign" in problem or "is no file of the campaign, but a link" in problem
    if name == "exports":  # there is no place for new exports
        with pytest.raises(LedgerError, match="exports is a link out of the campaign; remove it"):
            recover(filled)
        (filled / name).unlink()
    recover(filled)
    assert (digest(filled), verify_ledger(filled)) == (before, [])
    assert not (filled / name).is_symlink()
    assert {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()} == listed


def test_a_ledger_that_is_a_link_is_not_opened(filled: Path, tmp_path: Path) -> None:
    (filled / "ledger.duckdb").rename(tmp_path / "outside")
    (filled / "ledger.duckdb").symlink_to(tmp_path / "outside")
    content = (tmp_path / "outside").read_bytes()
    for opened in (verify_ledger, Ledger.open, LedgerReader.open):
        with pytest.raises(LedgerError, match=r"ledger\.duckdb is a link out of the campaign"):
            opened(filled)
    assert "ledger.duckdb is a link; it is not followed" in recover(filled).problems[0]
    assert verify_ledger(filled) == []
    assert (tmp_path / "outside").read_bytes() == content
    (filled / "ledger.duckdb.wal").symlink_to(tmp_path / "log")
    with pytest.raises(LedgerError, match=r"wal is a link out of the campaign"):
        Ledger.open(filled)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("name", ["../../../secret.parquet", "{out}/secret.parquet", "a/../../secret.parquet", ".."])
def test_names_in_a_manifest_lead_nowhere(filled: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret.parquet"
    secret.write_text(SECRET)
    path = filled / "exports" / "round=01" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name.replace("{out}", str(tmp_path))] = {"sha256": sha256_of(secret), "rows": 1}
    path.write_text(json.dumps(manifest))
    [problem] = verify_ledger(filled)
    assert "is in the manifest, but absent" in problem
    before = digest(filled)
    assert "is in the manifest, but absent" in recover(filled).problems[0]
    assert (digest(filled), verify_ledger(filled)) == (before, [])
    assert secret.read_text() == SECRET


def test_folders_pipes_and_leftovers_in_exports_stop_nobody(filled: Path, tmp_path: Path) -> None:
    """A pipe that is opened hangs, a folder that is read raises, a link is written through."""
    (tmp_path / "elsewhere").mkdir()
    folder = filled / "exports" / "round=01"
    (folder / "candidates.parquet").unlink()
    os.mkfifo(folder / "candidates.parquet")
    (folder / "levels.parquet").unlink()
    (folder / "levels.parquet").mkdir()
    (filled / "exports" / ".round=01.new").symlink_to(tmp_path / "elsewhere")
    (filled / "exports" / "round=1").mkdir()  # no export has such a name
    found = [problem for problem in verify_ledger(filled) if "is no file of the campaign" in problem]
    assert [Path(problem.partition(" ")[0]).name for problem in found] == ["candidates.parquet", "levels.parquet"]
    recover(filled)
    assert verify_ledger(filled) == []
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE candidates SET frac = frac[:3] WHERE candidate_id = 'r1-c0-0'", "2 atomic numbers, 3 coordinates"),
        ("UPDATE candidates SET lattice = lattice[:8] WHERE candidate_id = 'r1-c0-0'", "8 lattice components"),
        ("UPDATE candidates SET frac[1] = 'nan' WHERE candidate_id = 'r1-c0-0'", "r1-c0-0' has .* not finite"),
    ],
)
def test_crystals_that_are_none_are_not_read(filled: Path, change: str, words: str) -> None:
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:
        connection.execute("CREATE TABLE changed AS FROM candidates")
        connection.execute(change.replace("UPDATE candidates", "UPDATE changed").replace("frac[1] = 'nan'", NAN))
        connection.execute("DROP TABLE candidates")
        connection.execute("ALTER TABLE changed RENAME TO candidates")
    with LedgerReader.open(filled) as ledger, pytest.raises(LedgerError, match=f"(?s){words}.*`paragenesis verify`"):
        ledger.crystals("verdict = 'kept'")


def test_ids_and_origins_of_a_foreign_ledger_add_no_crystals_to_an_export(filled: Path, tmp_path: Path) -> None:
    attack = 'x"\n1\nLattice="9 0 0 0 9 0 0 0 9"\nAu 0 0 0\n../../\x1b[31m'
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:
        for table in ("candidates", "selections", "predictions", "verifications"):
            connection.execute(f"UPDATE {table} SET candidate_id = candidate_id || ?", [attack])
        connection.execute("UPDATE candidates SET origin = ?", [attack])
    assert export_crystals(filled, "selected", "extxyz", tmp_path / "s.extxyz") == 4
    found = ase.io.read(tmp_path / "s.extxyz", index=":")
    assert [one.get_chemical_formula() for one in found] == ["MgO"] * 4
    export_crystals(filled, "selected", "cif", tmp_path / "cifs")
    assert len(list((tmp_path / "cifs").glob("*.cif"))) == 4
    assert {path.name for path in tmp_path.iterdir()} == {filled.name, "s.extxyz", "cifs"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("objectives", "[" * 100_000),
        ("objectives", '[{"name": 1}]'),
        ("objectives", '[{"name": "a", "goal": {"kind": "maximize"}, "unit": {}}]'),
        ("objectives", "3"),
        ("members", '{"a": 1}'),
        ("hull", "[1]"),
        ("oracle", "7"),
        ("hits", '[{"objective": ["a"]}]'),
        ("versions", "null"),
    ],
)
def test_a_report_of_a_foreign_ledger_is_written_or_refused_in_a_sentence(filled: Path, key: str, value: str) -> None:
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, value])
    try:
        page = write_report(filled)
    except LedgerError as error:
        said = str(error)
    else:
        said = page.name
    assert said.isprintable()


def test_a_spreadsheet_runs_nothing_of_a_csv() -> None:
    runs = ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "-", "+1-555"]
    numbers = ["-1.5", "+3", "-2e-7", "12", "-0.", "text", "a=b", ""]
    table = pa.table({"=evil()": runs + numbers})
    lines = as_csv(table)
    assert lines.startswith("'=evil()\n")
    assert all(f"'{text}" in lines for text in runs)
    assert not any(f"'{text}" in lines for text in numbers if text)
    assert as_csv(pa.table({"x": [-1.5]})) == "x\n-1.5\n"


def test_a_cell_steers_no_terminal() -> None:
    said = cell("a\x1b]52;c;cm0=\x07b\x9bc\u202ed\ne").plain
    assert said == "a\ufffd]52;c;cm0=\ufffdb\ufffdc\ufffdd\ne"

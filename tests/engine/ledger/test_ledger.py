"""Commits are all or nothing, once or never; there is one writer; rounds close for good."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paragenesis.crystals import Crystals
from paragenesis.engine.ledger import (
    Ledger,
    digest,
    read_only_sql,
    read_status,
    rows,
    structure_columns,
    verify_ledger,
)
from paragenesis.engine.ledger.database import refusal
from paragenesis.errors import DiskFullError, InputError, LedgerError


def count(ledger: Ledger, table: str) -> int:
    return ledger.query(f"SELECT count(*) AS n FROM {table}").column("n")[0].as_py()


# --- commits ---------------------------------------------------------------------------------------------------------


def test_a_commit_delivered_twice_counts_once(ledger, make_chunk):
    assert ledger.commit(*make_chunk(1, 0)) is True
    before = digest(ledger)
    assert ledger.commit(*make_chunk(1, 0)) is False
    assert count(ledger, "candidates") == 5
    assert digest(ledger) == before
    assert ledger.committed(1, "chunk") == {"r1/c0"}


def test_the_order_of_rows_does_not_make_another_commit(ledger, make_chunk):
    key, number, kind, tables = make_chunk(1, 0)
    ledger.commit(key, number, kind, tables)
    assert ledger.commit(key, number, kind, {k: t.take(np.arange(len(t))[::-1]) for k, t in tables.items()}) is False


def test_a_key_with_other_content_is_refused(ledger, make_chunk):
    key, number, kind, _ = make_chunk(1, 0)
    ledger.commit(*make_chunk(1, 0))
    with pytest.raises(LedgerError, match="other content"):
        ledger.commit(key, number, kind, make_chunk(1, 1)[3])


def test_a_redelivery_after_the_round_closed_is_still_a_no_op(ledger, make_chunk):
    ledger.commit(*make_chunk(1, 0))
    ledger.close_round(1, {})
    assert ledger.commit(*make_chunk(1, 0)) is False
    with pytest.raises(LedgerError, match="round 1 is closed"):
        ledger.commit(*make_chunk(1, 1))


def candidates(**columns):
    table = {"candidate_id": ["a"], "round": [1], "verdict": ["kept"]} | columns
    return {"candidates": pa.table({name: values for name, values in table.items() if values is not None})}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"candidate": pa.table({"a": [1]})}, "no table 'candidate'"),
        ({"meta": pa.table({"key": ["a"], "value": ["b"]})}, "written by the ledger itself"),
        (candidates(colour=["red"]), "no column 'colour'"),
        (candidates(verdict=None), "'verdict' of 'candidates' needs a value"),
        (candidates(verdict=["perhaps"]), "CHECK"),
        (candidates(chunk=["one"]), "'chunk' of 'candidates' takes int32"),
        (candidates(round=[2]), "belongs to round 2, not 1"),
        (candidates(candidate_id=["a", "a"], round=[1, 1], verdict=["kept", "kept"]), "refused, nothing was written"),
        (
            {"predictions": pa.table({"candidate_id": ["ghost"], "model": ["m"], "property": ["p"]})},
            "'ghost', which is no candidate",
        ),
        (
            candidates()
            | {"predictions": pa.table({"candidate_id": ["a"], "model": ["m"], "property": ["p"], "mean": [np.inf]})},
            "infinite",
        ),
        (
            candidates()
            | {"predictions": pa.table({"candidate_id": ["a"], "model": ["posterior:7"], "property": ["p"]})},
            "belongs to round 7",
        ),
    ],
)
def test_a_commit_that_does_not_fit_leaves_nothing(ledger, tables, message):
    with pytest.raises(LedgerError, match=message):
        ledger.commit("bad", 1, "chunk", tables)
    assert count(ledger, "candidates") == count(ledger, "predictions") == count(ledger, "commits") == 0
    assert ledger.commit("bad", 1, "chunk", candidates()) is True  # the key is still free


def test_a_row_of_another_commit_cannot_be_written_again(ledger, make_chunk):
    key, number, kind, tables = make_chunk(1, 0)
    ledger.commit(key, number, kind, tables)
    with pytest.raises(LedgerError, match="primary key"):
        ledger.commit("another key", number, kind, tables)
    assert ledger.committed(1, "chunk") == {key}


def test_nan_is_stored_as_no_value(ledger, make_chunk):
    ledger.commit(*make_chunk(1, 0))
    assert ledger.query("SELECT count(*) AS n FROM predictions WHERE std IS NULL").column("n")[0].as_py() == 1
    assert ledger.query("SELECT count(*) AS n FROM predictions WHERE isnan(std)").column("n")[0].as_py() == 0


def test_a_posterior_of_an_older_candidate_belongs_to_the_round_that_made_it(ledger, make_chunk):
    ledger.commit(*make_chunk(1, 0))
    ledger.close_round(1, {})
    ledger.open_round(2, "{}")
    old = {"candidate_id": ["r1-c0-0"], "property": "hardness", "mean": 1.0}
    ledger.commit("posterior", 2, "triage", {"predictions": rows("predictions", model="posterior:2", **old)})
    with pytest.raises(LedgerError, match="belongs to round 1, not 2"):
        ledger.commit("late", 2, "triage", {"predictions": rows("predictions", model="late", **old)})


# --- crystals --------------------------------------------------------------------------------------------------------

_reals = st.floats(allow_nan=True, allow_infinity=True, width=64)


@st.composite
def _crystals(draw: st.DrawFn) -> Crystals:
    n_atoms = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    total, n = sum(n_atoms), len(n_atoms)
    ids = draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=n, max_size=n, unique=True))
    return Crystals(
        ids=tuple(sorted(ids, key=str.encode)),
        n_atoms=np.array(n_atoms),
        numbers=draw(hnp.arrays(np.int64, total, elements=st.integers(0, 118))),
        frac=draw(hnp.arrays(np.float64, (total, 3), elements=_reals)),
        lattices=draw(hnp.arrays(np.float64, (n, 3, 3), elements=_reals)),
        origins=tuple(draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=n, max_size=n))),
    )


def test_crystals_come_back_as_they_went_in_whatever_they_hold(tmp_path):
    number = 0
    with Ledger.create(tmp_path, {}) as ledger:
        ledger.open_round(1, "{}")

        @settings(max_examples=40, deadline=None)
        @given(_crystals())
        def round_trip(crystals: Crystals) -> None:
            nonlocal number
            number += 1
            table = rows(
                "candidates",
                candidate_id=[f"{number}:{name}" for name in crystals.ids],
                round=1,
                generator=str(number),
                origin=list(crystals.origins),
                verdict="rejected",
                **structure_columns(crystals),
                **structure_columns(crystals, "initial_"),
            )
            assert ledger.commit(f"{number}", 1, "chunk", {"candidates": table})
            for initial in (False, True):
                back = ledger.crystals("generator = ?", (str(number),), initial=initial)
                assert back.with_ids([name.split(":", 1)[1] for name in back.ids]) == crystals
            assert ledger.commit(f"{number}", 1, "chunk", {"candidates": table}) is False

        round_trip()


def test_what_was_stored_still_has_the_digest_it_was_committed_with(tmp_path):
    odd = np.array([[np.nan, -0.0, np.inf], [5e-324, 1e308, 0.1]])
    crystals = Crystals(
        ids=("ü\0'",), n_atoms=np.array([2]), numbers=np.array([1, 118]), frac=odd, lattices=np.eye(3)[None] * np.nan
    )
    with Ledger.create(tmp_path, {}) as ledger:
        ledger.open_round(0, "{}")
        table = rows(
            "candidates",
            candidate_id=list(crystals.ids),
            round=0,
            verdict="rejected",
            stage="finite",
            reason="not finite",
            **structure_columns(crystals),
        )
        ledger.commit("odd", 0, "chunk", {"candidates": table})
        ledger.close_round(0, {})
    assert verify_ledger(tmp_path) == []


def test_ten_thousand_crystals_go_into_one_commit(ledger):
    n = 10_000
    rng = np.random.default_rng(0)
    crystals = Crystals(
        ids=tuple(f"{i:05d}" for i in range(n)),
        n_atoms=np.full(n, 8),
        numbers=rng.integers(1, 90, 8 * n),
        frac=rng.random((8 * n, 3)),
        lattices=rng.random((n, 3, 3)),
    )
    table = rows("candidates", candidate_id=list(crystals.ids), round=1, verdict="kept", **structure_columns(crystals))
    assert ledger.commit("large", 1, "chunk", {"candidates": table})
    assert ledger.crystals("candidate_id >= ?", ("09000",)) == crystals[9000:]


# --- one writer ------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_holds_the_ledger(ledger, tmp_path):
    script = (
        "import sys\nfrom paragenesis.engine.ledger import Ledger\nfrom paragenesis.errors import LedgerError\n"
        "try:\n    Ledger.open(sys.argv[1])\nexcept LedgerError as error:\n    print(error)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(ledger.directory)], capture_output=True, text=True, check=True
    )
    assert f"in use by process {os.getpid()}" in told.stdout
    assert told.stdout.count("\n") == 1


@pytest.mark.parametrize("use", [Ledger.open, verify_ledger, lambda d: read_only_sql(d, "SELECT 1")])
def test_nobody_in_the_same_process_shares_the_ledger_either(ledger, make_chunk, use):
    with pytest.raises(LedgerError, match=f"in use by process {os.getpid()}.*exports"):
        use(ledger.directory)
    assert ledger.commit(*make_chunk(1, 0))  # and the holder is not disturbed


def test_foreign_and_damaged_files_are_refused(tmp_path, filled):
    for name, content in (
        ("empty", b""),
        ("text", b"hello" * 4000),
        ("torn", (filled / "ledger.duckdb").read_bytes()[:9000]),
    ):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "ledger.duckdb").write_bytes(content)
        for use in (Ledger.open, verify_ledger):
            with pytest.raises(LedgerError, match="cannot be opened as a ledger"):
                use(directory)
    other = tmp_path / "other"
    other.mkdir()
    with duckdb.connect(str(other / "ledger.duckdb")) as connection:
        connection.execute("CREATE TABLE candidates (a INT)")
    with pytest.raises(LedgerError, match="no ledger of Paragenesis"):
        Ledger.open(other)
    with pytest.raises(LedgerError, match="there is no ledger in"):
        Ledger.open(tmp_path / "nowhere")


# --- crashes ---------------------------------------------------------------------------------------------------------

_CRASH = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import conftest
from paragenesis.engine.ledger import Ledger
from paragenesis.engine.ledger import ledger as module
directory, where = sys.argv[1], sys.argv[3]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "create":
    os.link = die
ledger = Ledger.create(directory, conftest.META)
ledger.open_round(1, "{}")
ledger.commit(*conftest.chunk(1, 0))
if where == "transaction":
    Ledger._stray_row = die
    ledger.commit(*conftest.chunk(1, 1))
if where == "export":
    module.export_closed_rounds = die
    ledger.close_round(1, {"hits": 3})
if where == "loop":
    for index in range(1, 10_000):
        ledger.commit(*conftest.chunk(1, index))
        print(index, flush=True)
"""


def crash(directory: Path, where: str) -> subprocess.Popen[str]:
    here = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", _CRASH, str(directory), here, where], stdout=subprocess.PIPE, text=True
    )


def test_a_crash_in_create_leaves_no_ledger_and_does_not_hinder_the_next(tmp_path):
    assert crash(tmp_path, "create").wait() == -signal.SIGKILL
    assert not Ledger.exists(tmp_path)
    Ledger.create(tmp_path, {"name": "again"}).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger.duckdb", "ledger.head", "status.json"]


def test_a_crash_inside_a_transaction_undoes_it_and_nothing_else(tmp_path, make_chunk):
    assert crash(tmp_path, "transaction").wait() == -signal.SIGKILL
    assert read_status(tmp_path)["state"] == "interrupted"
    with Ledger.open(tmp_path) as ledger:
        assert ledger.committed(1, "chunk") == {"r1/c0"}
        assert count(ledger, "candidates") == 5
        assert ledger.commit(*make_chunk(1, 0)) is False
        assert ledger.commit(*make_chunk(1, 1)) is True
    assert verify_ledger(tmp_path) == []


def test_no_acknowledged_commit_is_lost_by_a_kill_at_any_time(tmp_path):
    process = crash(tmp_path, "loop")
    acknowledged = int(process.stdout.readline())
    time.sleep(0.4)
    process.kill()
    acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    process.wait()
    with Ledger.open(tmp_path) as ledger:
        keys = ledger.committed(1, "chunk")
        assert {f"r1/c{i}" for i in range(acknowledged + 1)} <= keys
        assert count(ledger, "candidates") == 5 * len(keys)
    assert verify_ledger(tmp_path) == []


def test_a_crash_between_close_and_export_is_healed_on_opening(tmp_path):
    assert crash(tmp_path, "export").wait() == -signal.SIGKILL
    assert not (tmp_path / "exports").exists()
    aside = tmp_path / "exports" / ".round=01.new"  # as a crash in the middle of an export leaves it
    aside.mkdir(parents=True)
    (aside / "candidates.parquet").write_bytes(b"half")
    Ledger.open(tmp_path).close()
    assert [p.name for p in (tmp_path / "exports").iterdir()] == ["round=01"]
    assert verify_ledger(tmp_path) == []


# --- rounds, status --------------------------------------------------------------------------------------------------


def test_rounds_follow_one_another(ledger):
    ledger.open_round(1, "{}")  # again: nothing happens
    with pytest.raises(LedgerError, match="another condition"):
        ledger.open_round(1, '{"max_atoms": 4}')
    with pytest.raises(LedgerError, match="while round 1 is open"):
        ledger.open_round(2, "{}")
    ledger.close_round(1, {})
    with pytest.raises(LedgerError, match="next round is 2"):
        ledger.open_round(3, "{}")
    assert ledger.closed_rounds() == [1]


def test_closing_counts_and_refuses_a_wrong_summary(ledger, make_chunk, make_decision):
    for commit in (make_chunk(1, 0), make_chunk(1, 1), *make_decision(1)):
        ledger.commit(*commit)
    with pytest.raises(LedgerError, match="summary says 11 generated, the tables 10"):
        ledger.close_round(1, {"generated": 11})
    with pytest.raises(LedgerError, match="no 'colour'"):
        ledger.close_round(1, {"colour": 1})
    summary = {"generated": 10, "hits": np.int64(2), "hypervolume": np.float64(0.5), "ref_point": np.array([1.0, 2.0])}
    assert ledger.close_round(1, summary) is True
    assert ledger.close_round(1, summary) is False
    with pytest.raises(LedgerError, match="other content"):
        ledger.close_round(1, summary | {"hits": 3})
    [row] = ledger.query("SELECT * EXCLUDE (opened_at, closed_at, condition, calibration) FROM rounds").to_pylist()
    assert row == {
        "round": 1,
        "state": "closed",
        "generated": 10,
        "kept": 6,
        "rejected": 2,
        "failed": 2,
        "selected": 2,
        "verified": 1,
        "hits": 2,
        "hypervolume": 0.5,
        "ref_point": [1.0, 2.0],
    }


def test_status_tells_after_every_commit_what_the_ledger_holds(ledger, make_chunk, make_decision):
    for done, commit in enumerate([make_chunk(1, 0), make_chunk(1, 1), *make_decision(1)], start=1):
        ledger.commit(*commit)
        status = json.loads((ledger.directory / "status.json").read_text())
        assert status["kept"] == 3 * min(done, 2)
        assert status["last_commit"].endswith("Z")
    assert (status["campaign"], status["state"], status["round"], status["pid"]) == (
        "a test",
        "running",
        1,
        os.getpid(),
    )
    assert (status["generated"], status["rejected"], status["failed"]) == (10, 2, 2)
    assert (status["selected"], status["verified"]) == (2, 1)
    ledger.report_activity("relaxing 3 of 7")
    assert read_status(ledger.directory)["activity"] == "relaxing 3 of 7"
    ledger.close()
    assert read_status(ledger.directory)["state"] == "stopped"


def test_status_without_a_campaign_is_an_error_not_a_traceback(tmp_path):
    for text in (None, "[1]", "{}", '{"pid": "one"}', "[" * 100_000):
        if text is not None:
            (tmp_path / "status.json").write_text(text)
        with pytest.raises(LedgerError, match=r"status\.json"):
            read_status(tmp_path)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_sql_answers_with_values_as_parameters(filled):
    table = read_only_sql(filled, "SELECT verdict, count(*) AS n FROM candidates GROUP BY verdict ORDER BY verdict")
    assert table.to_pydict() == {"verdict": ["failed", "kept", "rejected"], "n": [4, 12, 4]}
    with Ledger.open(filled) as ledger:
        assert len(ledger.crystals("formula = ? OR candidate_id = ?", ("'; DROP TABLE candidates; --", "r1-c0-0"))) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "COPY candidates TO '{out}'",
        "ATTACH '{out}' AS other",
        "SELECT 1; DELETE FROM candidates",
        "DELETE FROM candidates",
        "CREATE TABLE t AS SELECT 1",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELEC 1",
        "",
        "SELECT * FROM sql",  # a Python variable of the caller
    ],
)
def test_sql_of_users_reaches_nothing_but_the_ledger_and_changes_nothing(filled, tmp_path, sql):
    before = digest(filled)
    with pytest.raises(InputError) as caught:
        read_only_sql(filled, sql.format(out=tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert digest(filled) == before


def test_the_digest_sees_the_science_and_nothing_else(filled, fill_into, tmp_path):
    other = fill_into(tmp_path / "other", reverse=True)  # other order, times, costs, notes
    assert digest(other) == digest(filled)
    assert digest(other, [1]) != digest(other, [2])
    with duckdb.connect(str(other / "ledger.duckdb")) as connection:
        connection.execute("UPDATE verifications SET value = value + 1e-12 WHERE round = 2 AND property = 'cost'")
    assert digest(other) != digest(filled)
    assert digest(other, [1]) == digest(filled, [1])


class NoRoom:
    """A connection whose checkpoint finds the disk full, in DuckDB's words."""

    def __init__(self, connection):
        self.real = connection

    def __getattr__(self, name):
        return getattr(self.real, name)

    def execute(self, sql, *values):
        if sql == "CHECKPOINT":
            raise duckdb.IOException('IO Error: Could not write file "ledger.duckdb": No space left on device')
        return self.real.execute(sql, *values)


def test_a_checkpoint_without_room_leaves_the_round_closed(ledger, make_chunk):
    ledger.open_round(1, "{}")
    ledger.commit(*make_chunk(1, 0))
    ledger.connection = NoRoom(ledger.connection)
    with pytest.raises(
        DiskFullError, match="the checkpoint of round 1 failed, but the round is closed: the disk is full"
    ):
        ledger.close_round(1, {})
    ledger.connection = ledger.connection.real
    assert ledger.close_round(1, {}) is False, "it was closed before"
    assert (ledger.directory / "exports" / "round=01").is_dir()
    ledger.close()
    assert verify_ledger(ledger.directory) == []


def test_a_quota_that_is_spent_is_a_full_disk():
    for error in (OSError(errno.EDQUOT, "quota d'espace"), duckdb.IOException("write: Disk quota exceeded")):
        assert isinstance(refusal(error, "nothing was written"), DiskFullError)
    assert not isinstance(refusal(OSError(errno.EACCES, "Permission denied"), "nothing was written"), DiskFullError)

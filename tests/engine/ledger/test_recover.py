"""Whatever happens to the files: it is detected or harmless, never silent, and closed rounds come back."""

from __future__ import annotations

import shutil

import pytest

from paragenesis.engine.ledger import Ledger, LedgerReader, digest, recover, verify_ledger
from paragenesis.errors import LedgerError


@pytest.fixture
def faults(script):
    """The planted faults that the benchmark of reliability uses, too."""
    return script("bench_faults")


def test_no_damage_is_silent_and_closed_rounds_come_back(faults, killed, tmp_path):
    whole = shutil.copytree(killed, tmp_path / "whole")
    Ledger.open(whole).close()  # what is compared with may be opened
    found = list(faults.matrix(killed, tmp_path / "work", range(1)))
    assert len(found) == len(faults.DAMAGED_FILES) * len(faults.DAMAGES)
    assert [case for case in found if case[3].outcome == "silent" or not case[3].recovered] == []
    outcomes = {name: {case[3].outcome for case in found if case[0] == name} for name in faults.DAMAGED_FILES}
    assert outcomes["ledger.head"] == {"refused"}
    assert outcomes["an export"] == {"reported"}
    assert outcomes["a manifest"] == {"reported"}
    assert "refused" in outcomes["ledger.duckdb"]
    assert "refused" in outcomes["ledger.duckdb.wal"]


def test_the_open_round_is_kept_where_its_rows_add_up(killed):
    (killed / "ledger.head").unlink()
    before = digest(shutil.copytree(killed, killed.with_name("twin")) and _healed(killed.with_name("twin")))
    recovered = recover(killed)
    assert (list(recovered.closed), recovered.commits) == ([1, 2], 2)
    assert digest(killed) == before
    with Ledger.open(killed) as ledger:
        assert ledger.committed(3, "chunk") == {"r3/c0", "r3/c1"}
    assert (recovered.aside / "ledger.duckdb").is_file(), "nothing is deleted"


def _healed(directory):
    recover(directory)
    return directory


def test_a_lost_log_costs_the_open_round_only(killed):
    (killed / "ledger.duckdb.wal").unlink()
    recovered = recover(killed)
    assert (list(recovered.closed), recovered.commits) == ([1, 2], 0)
    with Ledger.open(killed) as ledger:
        ledger.open_round(3, "{}")  # it is done again
    assert verify_ledger(killed) == []


def test_a_lost_file_comes_back_from_the_exports(filled):
    before = digest(filled)
    for name in ("ledger.duckdb", "ledger.head"):
        (filled / name).unlink()
    assert recover(filled).problems == [f"{filled / 'ledger.duckdb'} is absent"]
    assert digest(filled) == before
    assert verify_ledger(filled) == []


def test_a_damaged_export_comes_back_from_the_file(filled):
    before = digest(filled)
    export = filled / "exports" / "round=01" / "candidates.parquet"
    export.write_bytes(b"")
    (filled / "ledger.head").unlink()
    [problem] = recover(filled).problems
    assert "candidates.parquet was changed" in problem
    assert export.read_bytes(), "the round is exported again"
    assert digest(filled) == before
    assert verify_ledger(filled) == []


def test_a_round_that_is_lost_takes_those_after_it_along(filled):
    (filled / "exports" / "round=01" / "candidates.parquet").write_bytes(b"")
    (filled / "ledger.duckdb").write_bytes(b"")
    recovered = recover(filled)
    assert list(recovered.closed) == []
    assert "round 2 is dropped, as round 1 before it is lost" in recovered.problems
    assert {path.name for path in recovered.aside.iterdir()} >= {"round=01", "round=02"}
    assert verify_ledger(filled) == []
    with LedgerReader.open(filled) as ledger:
        assert ledger.meta()["name"] == "a test"


def test_the_file_of_another_campaign_is_not_mixed_in(filled, tmp_path):
    before = digest(filled)
    with Ledger.create(tmp_path / "other", {"name": "another"}):
        pass
    shutil.copy(tmp_path / "other" / "ledger.duckdb", filled / "ledger.duckdb")
    assert "of another campaign than the exports" in recover(filled).problems[0]
    assert digest(filled) == before


def test_nothing_left_is_said_and_a_living_ledger_left_alone(tmp_path, ledger):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LedgerError, match="nothing can be recovered"):
        recover(tmp_path / "empty")
    before = digest(ledger)
    with pytest.raises(LedgerError, match="in use by process"):
        recover(ledger.directory)
    assert digest(ledger) == before

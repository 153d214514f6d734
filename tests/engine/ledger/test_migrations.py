"""Ledgers of other versions: newer ones are refused, older ones brought up to date, whole or not at all."""

from __future__ import annotations

import duckdb
import pytest

from paragenesis.engine.ledger import Ledger, LedgerReader, digest, schema, verify_ledger
from paragenesis.errors import DiskFullError, LedgerError


def count(ledger: Ledger, table: str) -> int:
    return ledger.query(f"SELECT count(*) AS n FROM {table}").column("n")[0].as_py()


def test_a_ledger_of_a_newer_version_is_refused(filled):
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 'from the future', now()::TIMESTAMP)")
    for use in (Ledger.open, verify_ledger):
        with pytest.raises(LedgerError, match="update Paragenesis"):
            use(filled)


def add_a_column(connection):
    connection.execute("ALTER TABLE triage ADD COLUMN severity INT")


def break_down(connection):
    add_a_column(connection)
    raise RuntimeError("power failure")


def run_out_of_room(connection):
    add_a_column(connection)
    raise duckdb.IOException("IO Error: Could not write file: No space left on device")


def test_an_older_ledger_is_brought_up_to_date_whole_or_not_at_all(filled, monkeypatch):
    first, newest = schema.MIGRATIONS, schema.newest_version()
    monkeypatch.setattr(schema, "MIGRATIONS", (*first, break_down))
    with pytest.raises(RuntimeError, match="power failure"):
        Ledger.open(filled)
    monkeypatch.setattr(schema, "MIGRATIONS", (*first, run_out_of_room))
    with pytest.raises(DiskFullError, match="could not be opened: the disk is full"):
        Ledger.open(filled)
    monkeypatch.setattr(schema, "MIGRATIONS", (*first, add_a_column))
    with pytest.raises(LedgerError, match=f"has version {newest}, but {newest + 1} is needed"):
        verify_ledger(filled)
    with Ledger.open(filled) as ledger:
        applied = ledger.query("SELECT name FROM migrations ORDER BY version").column("name").to_pylist()
        assert applied == [change.__name__ for change in (*first, add_a_column)]
        assert ledger.query("SELECT severity FROM triage").column("severity").null_count == 2


def test_a_ledger_of_an_older_version_opens_sound_and_with_the_same_digest(filled, aged):
    before = digest(filled)
    with LedgerReader.open(filled) as ledger:
        [written] = (
            ledger.query("SELECT digest FROM commits WHERE commit_key = 'r1/verification'").column(0).to_pylist()
        )
    assert "verifications:3:590b3d12fd2bf05618ac74a7dff3a68c" in written.split(), "as version 2 would have written it"
    aged(filled, 2)
    with Ledger.open(filled) as ledger:
        assert (
            count(ledger, "verifications WHERE before_decision IS NULL AND noise IS NULL")
            == count(ledger, "verifications")
            == 6
        )
        assert count(ledger, "selections WHERE most_like IS NULL AND similarity IS NULL") == count(ledger, "selections")
    assert verify_ledger(filled) == []
    assert digest(filled) == before


def test_an_old_copy_of_an_older_version_does_not_replace_the_head(filled, aged):
    head = (filled / "ledger.head").read_bytes()
    aged(filled, 2)
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:
        connection.execute("DELETE FROM commits WHERE kind = 'close' AND round = 2")
    (filled / "ledger.head").write_bytes(head)
    with pytest.raises(LedgerError, match=r"of an older version and holds \d+ commits, but ledger.head tells of \d+"):
        Ledger.open(filled)
    assert (filled / "ledger.head").read_bytes() == head

"""What was acknowledged cannot go missing unnoticed, and a run that was replaced cannot write any more."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from paragenesis.engine.ledger import Ledger, LedgerReader, chain, digest, verify_ledger
from paragenesis.errors import LedgerError

FILES = ("ledger.duckdb", "ledger.duckdb.wal")


def taken(directory, into):
    """A copy of the ledger's files as they are now, as a careless backup makes it."""
    into.mkdir()
    for name in FILES:
        if (directory / name).exists():
            shutil.copy(directory / name, into / name)
    return into


def put_back(copy, directory):
    for name in FILES:
        (directory / name).unlink(missing_ok=True)
        if (copy / name).exists():
            shutil.copy(copy / name, directory / name)


def killed(ledger):
    """The ledger's directory as a killed process leaves it: with its write-ahead log."""
    left = ledger.directory.with_name("killed")
    shutil.copytree(ledger.directory, left)
    ledger.close()
    return left


@pytest.fixture
def crashed(ledger, make_chunk):
    """A directory with two commits of an open round in the write-ahead log."""
    for index in range(2):
        ledger.commit(*make_chunk(1, index))
    return killed(ledger)


def test_every_commit_moves_the_head(ledger, make_chunk):
    before = chain.Head.read(ledger.directory)
    ledger.commit(*make_chunk(1, 0))
    after = chain.Head.read(ledger.directory)
    assert (before.seq, after.seq) == (0, 1)
    assert before.chain != after.chain
    ledger.commit(*make_chunk(1, 0))
    assert chain.Head.read(ledger.directory) == after, "the same commit once more is none"


def test_the_head_outlasts_a_power_failure(ledger, make_chunk, monkeypatch):
    """Its content is on the disk before it gets its name, and its name before the commit is acknowledged."""
    steps = []
    fsync, rename = os.fsync, Path.replace

    def synced(descriptor):
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(self, target):
        if target.name == "ledger.head":
            steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    ledger.commit(*make_chunk(1, 0))
    assert steps == ["file", "rename", "folder"]


def test_a_deleted_write_ahead_log_is_noticed_by_writers_readers_and_verify(crashed):
    (crashed / "ledger.duckdb.wal").unlink()
    for use in (Ledger.open, LedgerReader.open):
        with pytest.raises(LedgerError, match=r"2 of 2 acknowledged commits are missing .* `paragenesis recover"):
            use(crashed)
    assert any("2 of 2 acknowledged commits are missing" in problem for problem in verify_ledger(crashed))


def test_an_old_copy_of_the_file_is_noticed(filled, tmp_path, make_chunk):
    copy = taken(filled, tmp_path / "copy")
    with Ledger.open(filled) as ledger:
        ledger.open_round(3, "{}")
        ledger.commit(*make_chunk(3, 0))
    put_back(copy, filled)
    with pytest.raises(LedgerError, match="1 of 13 acknowledged commits are missing"):
        Ledger.open(filled)


def test_the_file_of_another_campaign_is_noticed(filled, tmp_path, fill_into):
    shutil.copy(filled / "ledger.head", tmp_path / "head")
    with Ledger.create(tmp_path / "other", {"name": "another"}):
        pass
    put_back(taken(tmp_path / "other", tmp_path / "copy"), filled)
    with pytest.raises(LedgerError, match="12 of 12 acknowledged commits are missing"):
        Ledger.open(filled)
    put_back(taken(filled, tmp_path / "again"), tmp_path / "other")
    grown = fill_into(tmp_path / "grown", rounds=3)
    put_back(taken(grown, tmp_path / "third"), tmp_path / "other")
    with pytest.raises(LedgerError, match="not of the same campaign"):
        Ledger.open(tmp_path / "other")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda head: head.unlink(), "ledger.head is absent, so nobody can tell"),
        (lambda head: head.write_bytes(b""), "ledger.head is damaged"),
        (lambda head: head.write_bytes(head.read_bytes()[:20]), "ledger.head is damaged"),
        (lambda head: head.write_text(head.read_text().replace('"seq": 12', '"seq": 11')), "ledger.head is damaged"),
        (lambda head: head.write_text(json.dumps([1])), "ledger.head is damaged"),
    ],
)
def test_a_spoilt_head_is_refused(filled, spoil, said):
    spoil(filled / "ledger.head")
    with pytest.raises(LedgerError, match=said):
        Ledger.open(filled)


def test_a_crash_between_commit_and_head_loses_nothing(ledger, make_chunk, monkeypatch):
    ledger.commit(*make_chunk(1, 0))
    with monkeypatch.context() as crash:
        crash.setattr(chain.Head, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ledger.commit(*make_chunk(1, 1))
    left = killed(ledger)
    with Ledger.open(left) as again:
        assert again.committed(1, "chunk") == {"r1/c0", "r1/c1"}
    assert chain.Head.read(left).seq == 2
    assert verify_ledger(left) == []


def test_a_run_that_was_replaced_cannot_commit(ledger, make_chunk):
    ledger.commit(*make_chunk(1, 0))
    before = digest(ledger)
    head = chain.Head.read(ledger.directory)
    chain.Head(head.seq, head.chain, head.epoch + 1).write(ledger.directory)  # as a later run does
    for act in (lambda: ledger.commit(*make_chunk(1, 1)), lambda: ledger.close_round(1, {})):
        with pytest.raises(LedgerError, match=r"another run \(epoch 2\) has taken over"):
            act()
    assert digest(ledger) == before


def test_every_opening_is_a_run_of_its_own(filled):
    before = chain.Head.read(filled)
    Ledger.open(filled).close()
    after = chain.Head.read(filled)
    assert after.epoch == before.epoch + 1
    assert (after.seq, after.chain) == (before.seq, before.chain)

"""Whatever happens to the files: it is detected or harmless, never silent, and closed rounds come back."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import sys

import duckdb
import pytest

from paragenesis.engine.ledger import Ledger, LedgerReader, digest, recover, verify_ledger
from paragenesis.errors import DiskFullError, LedgerError


@pytest.fixture
def faults(script):
    """The planted faults that the benchmark of reliability uses, too."""
    return script("bench_faults")


# each damage that is found in a way of its own; all of them, many times over, in `benchmarks/reliability.py`
DAMAGED = {
    "ledger.duckdb": ("truncated", "flipped", "zeroed", "deleted", "replaced", "foreign"),
    "ledger.duckdb.wal": ("truncated", "flipped", "deleted", "foreign"),
    "ledger.head": ("flipped", "deleted", "foreign"),
    "an export": ("flipped", "deleted"),
    "a manifest": ("truncated", "flipped"),
}
MUTE = ("silent", "refused without a cure")
PAIRED = (
    ("ledger.duckdb", "an export"),
    ("ledger.duckdb.wal", "ledger.head"),
    ("ledger.duckdb.wal", "an export"),
    ("an export", "a manifest"),
)


def test_no_damage_is_silent_and_closed_rounds_come_back(faults, killed, foreign, tmp_path):
    whole = faults.Whole.of(killed, foreign)
    found = list(faults.matrix(whole, tmp_path / "work", range(1), DAMAGED))
    assert len(found) == sum(map(len, DAMAGED.values()))
    assert [case for case in found if case[3].outcome in MUTE or not case[3].recovered] == []
    outcomes = {name: {case[3].outcome for case in found if case[0] == name} for name in DAMAGED}
    assert outcomes["ledger.head"] == {"refused"}
    assert outcomes["an export"] == {"reported"}
    assert outcomes["a manifest"] == {"reported"}
    assert "refused" in outcomes["ledger.duckdb"]
    assert "refused" in outcomes["ledger.duckdb.wal"]


def test_of_two_damaged_files_all_comes_back_that_is_left_somewhere(faults, killed, tmp_path):
    found = list(faults.pairs(faults.Whole.of(killed), tmp_path / "work", range(1), PAIRED))
    assert len(found) == len(PAIRED)
    assert [case for case in found if case[3].outcome in MUTE or not case[3].recovered] == []
    assert {case[0] for case in found if not case[3].all_closed} <= {("ledger.duckdb", "an export")}


def test_a_damaged_log_does_not_take_the_file_along(killed):
    """The file without its log holds the closed round whose export is damaged."""
    log = killed / "ledger.duckdb.wal"
    content = log.read_bytes()
    log.write_bytes(content[: len(content) // 2] + b"\xff" * 40 + content[len(content) // 2 + 40 :])
    (killed / "exports" / "round=01" / "candidates.parquet").write_bytes(b"")
    recovered = recover(killed)
    assert (list(recovered.closed), recovered.commits) == ([1, 2], 0)
    assert any("not with its write-ahead log" in problem for problem in recovered.problems)
    assert verify_ledger(killed) == []


FORKS = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
_STEPS = []


@pytest.fixture
def halfway(faults, killed, tmp_path):
    """Recoveries from every damage that are ended at every so many steps, and what became of them."""
    whole, work = faults.Whole.of(killed), tmp_path / "work"
    for damage in faults.RECOVERIES if not _STEPS else ():
        _STEPS.extend((damage, at) for at, _ in enumerate(faults.steps_of_recovery(whole, work, damage), 1))

    def ended(kind, stride, times=1):
        steps = _STEPS[len(kind) % stride :: stride]
        return [faults.crash_recovery(whole, work, *step, kind, times) for step in steps]

    return ended


def lost(found):
    """Those after which a closed round is gone, or which would have been gone on without a word."""
    return [one for one in found if not one.same or one.meanwhile in MUTE]


@FORKS
@pytest.mark.parametrize(("kind", "stride"), [("kill", 29), ("disk", 53), ("memory", 59)])
def test_a_recovery_that_is_ended_half_way_loses_no_closed_round(halfway, kind, stride):
    found = halfway(kind, stride)
    assert len(found) > 1
    assert lost(found) == []


@FORKS
@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", ["kill", "disk", "memory"])
def test_a_recovery_that_is_ended_anywhere_loses_no_closed_round(halfway, kind, times):
    assert lost(halfway(kind, 1, times)) == []


@FORKS
def test_what_was_put_together_outlives_the_files_that_were_put_aside(faults, killed, tmp_path):
    """The old file holds the round whose export is damaged; where a kill leaves it aside, it is not forgotten."""
    whole, work = faults.Whole.of(killed), tmp_path / "work"
    at = faults.steps_of_recovery(whole, work, "export damaged").index("before ledger.head is put aside") + 1
    found = faults.crash_recovery(whole, work, "export damaged", at, "kill", times=2)
    assert (found.meanwhile, found.same) == ("refused", True)


def test_two_recoveries_do_not_work_in_one_folder(filled):
    holder = os.open(filled, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(LedgerError, match="another `paragenesis recover` is at work"):
        recover(filled)
    os.close(holder)
    assert recover(filled).problems == []


def test_no_campaign_begins_where_one_was(filled):
    """Without its file a ledger is one to recover, not a place for a new one; what is left says so, each alone."""
    (filled / "ledger.duckdb").unlink()
    with pytest.raises(LedgerError, match=r"had a campaign, but its ledger\.duckdb is absent; `paragenesis recover"):
        Ledger.create(filled, {"name": "a test"})
    (filled / "ledger.head").unlink()
    with pytest.raises(LedgerError, match="had a campaign"):
        Ledger.create(filled, {"name": "a test"})


def test_the_export_of_another_round_or_campaign_is_not_taken(filled, tmp_path):
    """A backup put back in the wrong place: its files agree with its manifest, but not with the campaign."""
    before = digest(filled)
    exports = filled / "exports"
    shutil.rmtree(exports / "round=02")
    shutil.copytree(exports / "round=01", exports / "round=02")
    assert any("manifest.json is that of round 1" in problem for problem in verify_ledger(filled))
    assert any("manifest.json is that of round 1" in problem for problem in recover(filled).problems)
    assert (digest(filled), verify_ledger(filled)) == (before, [])
    with Ledger.create(tmp_path / "other", {"name": "another"}) as other:
        other.open_round(1, "{}")
        other.close_round(1, {})
    shutil.rmtree(exports / "round=01")
    shutil.copytree(tmp_path / "other" / "exports" / "round=01", exports / "round=01")
    assert "of another campaign than the rest" in recover(filled).problems[0]
    assert (digest(filled), verify_ledger(filled)) == (before, [])


def test_a_full_disk_is_no_damage(killed, monkeypatch):
    """What cannot be read for want of room is not taken for lost."""

    def full(file, *, read_only):
        raise LedgerError(f"{file} cannot be opened as a ledger (IO Error: No space left on device)")

    (killed / "ledger.head").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["paragenesis.engine.ledger.recover"], "connect", full)
        with pytest.raises(DiskFullError, match="make room"):
            recover(killed)
    assert recover(killed).commits == 2, "the open round is still there"


def test_the_open_round_is_kept_where_its_rows_add_up(killed):
    (killed / "ledger.head").unlink()
    before = digest(shutil.copytree(killed, killed.with_name("twin")) and _healed(killed.with_name("twin")))
    recovered = recover(killed)
    assert (list(recovered.closed), recovered.commits) == ([1, 2], 2)
    assert digest(killed) == before
    with Ledger.open(killed) as ledger:
        assert ledger.committed(3, "chunk") == {"r3/c0", "r3/c1"}
    assert (recovered.aside / "ledger.duckdb").is_file(), "nothing is deleted"


@pytest.mark.parametrize(
    "change", ["commit_key = 'r3/c9' WHERE commit_key = 'r3/c1'", "kind = 'decision' WHERE commit_key = 'r3/c0'"]
)
def test_the_open_round_is_taken_as_far_as_the_chain_holds(killed, change):
    """The rows of a commit under another name would be there twice once it is made again."""
    with duckdb.connect(str(killed / "ledger.duckdb")) as connection:
        connection.execute(f"UPDATE commits SET {change}")
    recovered = recover(killed)
    assert (list(recovered.closed), recovered.commits) == ([1, 2], 0)
    assert any("of round 3 does not follow" in problem for problem in recovered.problems)
    assert verify_ledger(killed) == []


@pytest.mark.parametrize("change", ["kind = 'decision'", "chain = 'else'"])
def test_a_changed_commit_of_a_closed_round_costs_nothing(killed, change):
    with duckdb.connect(str(killed / "ledger.duckdb")) as connection:
        connection.execute(f"UPDATE commits SET {change} WHERE commit_key = 'r1/c0'")
    (killed / "exports" / "round=02" / "candidates.parquet").write_bytes(b"")
    recovered = recover(killed)
    assert (list(recovered.closed), recovered.commits) == ([1, 2], 2)
    assert verify_ledger(killed) == []


def test_a_commit_that_was_put_in_is_not_taken(killed):
    """Work would count as done that never was."""
    with duckdb.connect(str(killed / "ledger.duckdb")) as connection:
        connection.execute(
            "INSERT INTO commits SELECT * REPLACE ('r3/c2' AS commit_key, '' AS digest, 0 AS n_rows) FROM commits "
            "WHERE commit_key = 'r3/c1'"
        )
    assert recover(killed).commits == 2
    with Ledger.open(killed) as ledger:
        assert ledger.committed(3, "chunk") == {"r3/c0", "r3/c1"}


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
    assert "of another campaign than the rest" in recover(filled).problems[0]
    assert digest(filled) == before


def test_nothing_left_is_said_and_a_living_ledger_left_alone(tmp_path, ledger):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LedgerError, match="nothing can be recovered"):
        recover(tmp_path / "empty")
    before = digest(ledger)
    with pytest.raises(LedgerError, match="in use by process"):
        recover(ledger.directory)
    assert digest(ledger) == before

"""A sound ledger is called sound, and every planted corruption is named."""

from __future__ import annotations

import json
import shutil

import duckdb
import pyarrow.parquet as pq
import pytest

from paragenesis.engine.ledger import Ledger, digest, verify_ledger
from paragenesis.errors import LedgerError


def test_a_sound_ledger_has_no_problems_open_round_or_not(filled, make_chunk):
    assert verify_ledger(filled) == []
    with Ledger.open(filled) as ledger:
        ledger.open_round(3, "{}")
        ledger.commit(*make_chunk(3, 0))
    assert verify_ledger(filled) == []


@pytest.mark.parametrize(
    ("corruption", "sentence"),
    [
        (
            "UPDATE candidates SET reason = 'ugly' WHERE candidate_id = 'r1-c0-0'",
            "'r1-c0-0' is kept, but carries a reason",
        ),
        ("UPDATE candidates SET stage = NULL WHERE verdict = 'failed'", "'r1-c0-4' (and 3 more) is rejected or failed"),
        ("UPDATE candidates SET reason = '' WHERE verdict = 'rejected'", "without a stage or a reason"),
        ("UPDATE candidates SET numbers = NULL WHERE candidate_id = 'r1-c0-0'", "has no structure"),
        ("UPDATE candidates SET frac = frac[1:5] WHERE candidate_id = 'r1-c0-0'", "lengths that do not agree"),
        ("UPDATE candidates SET lattice = NULL WHERE candidate_id = 'r1-c0-0'", "lengths that do not agree"),
        ("UPDATE candidates SET initial_frac = [1.0] WHERE candidate_id = 'r1-c0-0'", "lengths that do not agree"),
        (
            "UPDATE candidates SET frac = list_concat(['nan'::DOUBLE], frac[2:]) WHERE candidate_id = 'r1-c0-0'",
            "vector that is not finite",
        ),
        ("UPDATE verified_structures SET lattice = lattice[1:8]", "lists do not agree"),
        (
            "UPDATE verified_structures SET frac = list_concat(['inf'::DOUBLE], frac[2:])",
            "verified with a coordinate or lattice vector",
        ),
        ("UPDATE verified_structures SET energy = 'nan'", "energy that is not finite"),
        ("UPDATE predictions SET mean = 'inf' WHERE property = 'cost'", "a mean that is not finite"),
        ("UPDATE predictions SET half_widths = [0.1] WHERE property = 'cost'", "intervals that are not nine finite"),
        ("UPDATE verifications SET value = 'nan' WHERE property = 'cost'", "a value that is not finite"),
        ("UPDATE verifications SET value = NULL WHERE property = 'cost'", "verified without a value"),
        ("UPDATE verifications SET error = NULL", "without an error"),
        ("UPDATE candidates SET attempts = 0 WHERE verdict = 'failed'", "failed with a fault of no known kind"),
        ("UPDATE candidates SET fault = 'bad luck' WHERE verdict = 'failed'", "failed with a fault of no known kind"),
        ("UPDATE verifications SET attempts = 1 WHERE status = 'verified'", "although it did not fail"),
        ("UPDATE verifications SET fault = 'scientific' WHERE status = 'failed'", "a value of round"),
        ("UPDATE verifications SET round = 1 WHERE candidate_id = 'r2-c0-0'", "before it was selected"),
        ("UPDATE verifications SET before_decision = true WHERE round = 2", "before it was selected"),
        ("UPDATE verifications SET before_decision = true WHERE round = 2", "a value of round 2 in 'verifications'"),
        ("DELETE FROM levels", "a level of theory that the ledger does not describe"),
        ("UPDATE selections SET candidate_id = 'r1-c0-4' WHERE rank = 2 AND round = 1", "selected, but was not kept"),
        ("UPDATE predictions SET candidate_id = 'ghost' WHERE model = 'posterior:1'", "'ghost' is in 'predictions'"),
        ("UPDATE selections SET candidate_id = 'ghost' WHERE rank = 2 AND round = 1", "'ghost' is in 'selections'"),
        (
            "UPDATE verifications SET candidate_id = 'ghost' WHERE status = 'failed' AND round = 1",
            "'ghost' is in 'verifications'",
        ),
        (
            "INSERT INTO chunks VALUES (1, 'substitution', 0, 4, NULL)",
            "'r1-c0-0' is of a chunk that holds more crystals than it was asked for",
        ),
        (
            "INSERT INTO learning (round, generator, outcome, crystals, weights, sha256) "
            "VALUES (2, 'flow', 'accepted', 9, 'weights/none.safetensors', 'ab')",
            "none.safetensors, which 'flow' learnt for round 2, are absent",
        ),
        ("UPDATE candidates SET round = 9 WHERE candidate_id = 'r1-c1-3'", "a round that was never opened"),
        ("DELETE FROM candidates WHERE candidate_id = 'r1-c1-3'", "closed with 10 generated, but the tables have 9"),
        ("UPDATE rounds SET hypervolume = 9 WHERE round = 1", "'rounds' of round 1 was changed since"),
        ("UPDATE commits SET epoch = 9 WHERE commit_key = 'r1/c1'", "'commits' of round 1 was changed since"),
        ("UPDATE commits SET n_rows = 1 WHERE commit_key = 'r1/c1'", "'r1/c1' does not follow from those before"),
        ("DELETE FROM commits WHERE commit_key = 'close-2'", "1 of 12 acknowledged commits are missing"),
        ("UPDATE rounds SET kept = 7 WHERE round = 1", "10 generated, but 7 kept + 2 rejected + 2 failed"),
        ("UPDATE rounds SET verified = 5 WHERE round = 2", "closed with 5 verified, but the tables have 1"),
        ("DELETE FROM rounds WHERE round = 1", "must follow one another"),
        ("UPDATE rounds SET state = 'open' WHERE round = 1", "round 1 is still open although later rounds exist"),
        ("DELETE FROM commits WHERE commit_key = 'close-2'", "round 2 is closed, but its closing was never committed"),
        ("DELETE FROM commits WHERE commit_key = 'r1/c1'", "committed 5 rows to 'candidates', but 10 are there"),
        ("DELETE FROM predictions WHERE model = 'posterior:2'", "round 2 committed 13 rows to 'predictions', but 12"),
        ("UPDATE commits SET n_rows = 1 WHERE commit_key = 'r1/c1'", "commit 'r1/c1' says 1 rows, its digest 11"),
        ("UPDATE commits SET digest = 'hello' WHERE commit_key = 'r1/c1'", "digest of commit 'r1/c1' cannot be read"),
        (
            "UPDATE predictions SET std = std + 1e-9 WHERE model = 'posterior:2'",
            "a value of round 2 in 'predictions' was",
        ),
        (
            "UPDATE candidates SET frac = list_concat(frac[:5], [0.25]) WHERE candidate_id = 'r2-c1-1'",
            "a value of round 2 in 'candidates' was",
        ),
    ],
)
def test_planted_corruptions_of_the_tables_are_found(filled, corruption, sentence):
    with duckdb.connect(str(filled / "ledger.duckdb")) as connection:
        connection.execute(corruption)
    assert any(sentence in problem for problem in verify_ledger(filled)), verify_ledger(filled)


def test_a_block_that_cannot_be_read_is_one_sentence(filled, tmp_path):
    """DuckDB finds it when the block is read, which may be long after it opened the file."""
    size, said = 262_144, []
    content = (filled / "ledger.duckdb").read_bytes()
    for start in range(3 * 4096, len(content), size):
        damaged = bytearray(content)
        damaged[start + 100] ^= 255
        shutil.copytree(filled, tmp_path / str(start))
        (tmp_path / str(start) / "ledger.duckdb").write_bytes(damaged)
        for attempt in (verify_ledger, Ledger.open, digest):
            try:
                attempt(tmp_path / str(start))
            except LedgerError as error:
                said.append(str(error))
    assert any("is damaged" in words and "paragenesis recover" in words for words in said), said


def test_exports_that_the_ledger_knows_nothing_of_are_found(filled):
    """A ledger and its head that were both put back from an older copy agree with each other."""
    shutil.copytree(filled / "exports" / "round=02", filled / "exports" / "round=03")
    [problem] = verify_ledger(filled)
    assert "round 3 has exports, but is not closed in the ledger" in problem


def _flip(folder):
    path = folder / "candidates.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _miscount(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["candidates.parquet"]["rows"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("corrupt", "sentence"),
    [
        (_flip, "candidates.parquet was changed"),
        (_miscount, "round 1 exported 11 rows of 'candidates', but 10 are there"),
        (lambda folder: (folder / "selections.parquet").unlink(), "selections.parquet is in the manifest, but absent"),
        (lambda folder: (folder / "more.parquet").touch(), "more.parquet is not in the manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is absent or unreadable"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is absent or unreadable"),
    ],
)
def test_planted_corruptions_of_the_exports_are_found(filled, corrupt, sentence):
    corrupt(filled / "exports" / "round=01")
    problems = verify_ledger(filled)
    assert len(problems) == 1
    assert sentence in problems[0]


def test_a_lost_export_is_found_and_made_again_with_the_same_bytes(filled):
    folder = filled / "exports" / "round=01"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert verify_ledger(filled) == [f"round 1 is closed, but {folder / 'manifest.json'} is absent or unreadable"]
    Ledger.open(filled).close()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_exports_hold_every_row_of_every_table_once(filled):
    tables = ("candidates", "predictions", "triage", "selections", "verifications", "verified_structures", "rounds")
    with Ledger.open(filled) as ledger:
        for table in tables:
            exported = [
                pq.read_table(f"{filled}/exports/round=0{n}/{table}.parquet", partitioning=None) for n in (1, 2)
            ]
            stored = ledger.query(f"FROM {table}")
            rows = [json.dumps(row, sort_keys=True, default=str) for one in exported for row in one.to_pylist()]
            assert sorted(rows) == sorted(json.dumps(r, sort_keys=True, default=str) for r in stored.to_pylist())
        assert digest(ledger) == digest(ledger, [1, 2])

"""Is a ledger sound? Every invariant that its tables, commits and exports must obey, as a sentence when broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from paragenesis.engine.ledger.chain import check_chain
from paragenesis.engine.ledger.content import SCIENCE, RowSum, parse_commit_digest, table_sums
from paragenesis.engine.ledger.database import LEDGER_FILE, legible
from paragenesis.engine.ledger.disk import sha256_of
from paragenesis.engine.ledger.export import export_folder, exported_rounds, manifest_problems, manifest_rows
from paragenesis.engine.ledger.query import LedgerReader
from paragenesis.engine.ledger.schema import tables
from paragenesis.errors import InputError, LedgerError
from paragenesis.naming import path_inside

_REFERRING = ("predictions", "triage", "probes", "probe_answers", "selections", "verifications", "verified_structures")
_NUMBERS = {
    "predictions": ("mean", "std"),
    "selections": ("score", "gain", "uncertainty"),
    "verifications": ("value", "noise", "cost_seconds"),
    "probe_answers": ("value", "noise", "cost_seconds"),
    "verified_structures": ("energy",),
}


def _infinite(column: str) -> str:
    return f"len(list_filter({column}, lambda x: x IS NULL OR NOT isfinite(x))) > 0"


def _misshapen(atoms: str, frac: str, lattice: str) -> str:
    """SQL that is true where the lists of a structure do not belong together."""
    return f"(len({frac}) IS DISTINCT FROM 3 * len({atoms}) OR len({lattice}) IS DISTINCT FROM 9)"


# What is said of the offending crystals, and the SQL that finds them.
_RULES: list[tuple[str, str]] = [
    ("kept, but carries a reason", "FROM candidates WHERE verdict = 'kept' AND coalesce(reason, '') <> ''"),
    (
        "rejected or failed without a stage or a reason",
        "FROM candidates WHERE verdict <> 'kept' AND (coalesce(stage, '') = '' OR coalesce(reason, '') = '')",
    ),
    *(
        (
            f"in '{table}' with a fault or attempts although it did not fail, or failed with a fault of no known kind",
            f"FROM {table} WHERE ({state} <> 'failed' AND (fault IS NOT NULL OR attempts IS NOT NULL)) "
            "OR fault NOT IN ('scientific', 'infrastructure') OR attempts < 1",
        )
        for table, state in (("candidates", "verdict"), ("verifications", "status"), ("probe_answers", "status"))
    ),
    ("kept, but has no structure", "FROM candidates WHERE verdict = 'kept' AND numbers IS NULL"),
    (
        "stored with numbers, coordinates and lattice of lengths that do not agree",
        f"FROM candidates WHERE (numbers IS NOT NULL AND ({_misshapen('numbers', 'frac', 'lattice')} "
        f"OR n_atoms <> len(numbers))) "
        f"OR (initial_frac IS NOT NULL AND {_misshapen('numbers', 'initial_frac', 'initial_lattice')})",
    ),
    (
        "verified with a structure whose lists do not agree in length",
        f"FROM verified_structures WHERE {_misshapen('numbers', 'frac', 'lattice')}",
    ),
    (
        "kept with a coordinate or lattice vector that is not finite",
        f"FROM candidates WHERE verdict = 'kept' AND ({_infinite('frac')} OR {_infinite('lattice')})",
    ),
    (
        "verified with a coordinate or lattice vector that is not finite",
        f"FROM verified_structures WHERE {_infinite('frac')} OR {_infinite('lattice')}",
    ),
    (
        "predicted with intervals that are not nine finite numbers",
        f"FROM predictions WHERE half_widths IS NOT NULL AND (len(half_widths) <> 9 OR {_infinite('half_widths')})",
    ),
    (
        "selected, but was not kept",
        "FROM selections s JOIN candidates USING (candidate_id) WHERE verdict <> 'kept'",
    ),
    (
        "answered by the oracle before it was selected",
        "FROM verifications v JOIN selections s USING (candidate_id) WHERE v.round < s.round "
        "OR (v.round = s.round AND v.before_decision)",
    ),
    ("verified without a value", "FROM verifications WHERE status = 'verified' AND value IS NULL"),
    (
        "recorded as failed in verification, but without an error",
        "FROM verifications WHERE status = 'failed' AND coalesce(error, '') = ''",
    ),
    (
        "verified at a level of theory that the ledger does not describe",
        "FROM verifications WHERE status = 'verified' AND level_key NOT IN (SELECT level_key FROM levels)",
    ),
    ("probed, but was not kept", "FROM probes JOIN candidates USING (candidate_id) WHERE verdict <> 'kept'"),
    (
        "answered by a cheaper oracle that was not asked about it",
        "FROM probe_answers ANTI JOIN probes USING (candidate_id, fidelity, round)",
    ),
    (
        "answered by a cheaper oracle without a value, or failed there without an error",
        "FROM probe_answers WHERE (status = 'verified' AND value IS NULL) "
        "OR (status = 'failed' AND coalesce(error, '') = '')",
    ),
    (
        "of a chunk that holds more crystals than it was asked for",
        "FROM (SELECT min(candidate_id) AS candidate_id FROM candidates c JOIN chunks USING (round, generator, chunk) "
        "GROUP BY round, generator, chunk, n HAVING count(*) > n)",
    ),
    ("of a round that was never opened", "FROM candidates WHERE round NOT IN (SELECT round FROM rounds)"),
    *(
        (f"in '{table}', but is no candidate", f"FROM {table} ANTI JOIN candidates USING (candidate_id)")
        for table in _REFERRING
    ),
    *(
        (f"in '{table}' with a {column} that is not finite", f"FROM {table} WHERE NOT isfinite({column})")
        for table, columns in _NUMBERS.items()
        for column in columns
    ),
]

_ROUND_COUNTS = """
SELECT r.round, r.generated, r.kept, r.rejected, r.failed, r.selected, r.verified,
    count(c.verdict), count(*) FILTER (c.verdict = 'kept'), count(*) FILTER (c.verdict = 'rejected'),
    count(*) FILTER (c.verdict = 'failed'),
    (SELECT count(*) FROM selections s WHERE s.round = r.round),
    (SELECT count(DISTINCT candidate_id) FROM verifications v WHERE v.round = r.round AND status = 'verified')
FROM rounds r LEFT JOIN candidates c ON c.round = r.round WHERE r.state = 'closed' GROUP BY ALL ORDER BY r.round
"""


def verify_ledger(directory: Path | str) -> list[str]:
    """Everything that is wrong with the ledger in `directory`, in sentences; empty if it is sound.

    Raises:
        LedgerError: There is no ledger, a writer holds it, or the file is so damaged that it cannot be opened.
    """
    with LedgerReader.open_unchecked(directory) as ledger, legible(ledger.directory / LEDGER_FILE):
        closed = ledger.closed_rounds()
        return [
            *_chain(ledger),
            *_rows_that_break_rules(ledger.connection),
            *_round_order(ledger.connection),
            *_round_counts(ledger.connection),
            *_exports_of_no_round(ledger, closed),
            *(problem for number in closed for problem in manifest_problems(ledger.directory, number)),
            *_commits_against_tables(ledger),
            *_against_exports(ledger),
            *_weights(ledger),
        ]


def _exports_of_no_round(ledger: LedgerReader, closed: Sequence[int]) -> Iterator[str]:
    """Exports that tell of rounds which the ledger does not know: it is older than they are."""
    for number in exported_rounds(ledger.directory):
        if number not in closed:
            yield (
                f"round {number} has exports, but is not closed in the ledger, which may be an old copy with its head; "
                f"`paragenesis recover {ledger.directory}` takes the round from the exports"
            )


def _chain(ledger: LedgerReader) -> Iterator[str]:
    """Commits that are missing, changed or foreign."""
    try:
        check_chain(ledger.connection, ledger.directory, ledger.meta())
    except LedgerError as error:
        yield str(error)


def _rows_that_break_rules(connection: Any) -> Iterator[str]:
    for what, source in _RULES:
        found = connection.execute(f"SELECT DISTINCT candidate_id {source} ORDER BY 1").fetchall()
        if found:
            others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            yield f"candidate '{found[0][0]}'{others} is {what}"


def _round_order(connection: Any) -> Iterator[str]:
    rounds = connection.execute("SELECT round, state FROM rounds ORDER BY round").fetchall()
    numbers = [number for number, _ in rounds]
    if numbers and (numbers[0] not in (0, 1) or numbers != list(range(numbers[0], numbers[0] + len(numbers)))):
        yield f"the rounds are {', '.join(map(str, numbers))}, but they must follow one another from 0 or 1"
    for number, state in rounds[:-1]:
        if state != "closed":
            yield f"round {number} is still open although later rounds exist"
    closing = {n for (n,) in connection.execute("SELECT round FROM commits WHERE kind = 'close'").fetchall()}
    for number, state in rounds:
        if (state == "closed") != (number in closing):
            yield f"round {number} is {state}, but its closing was {'' if number in closing else 'never '}committed"


def _round_counts(connection: Any) -> Iterator[str]:
    names = ("generated", "kept", "rejected", "failed", "selected", "verified")
    for number, *numbers in connection.execute(_ROUND_COUNTS).fetchall():
        said, counted = numbers[:6], numbers[6:]
        if said[0] != sum(n or 0 for n in said[1:4]):
            yield f"round {number}: {said[0]} generated, but {said[1]} kept + {said[2]} rejected + {said[3]} failed"
        for name, of_round, of_table in zip(names, said, counted, strict=True):
            if of_round != of_table:
                yield f"round {number} was closed with {of_round} {name}, but the tables have {of_table}"


def _commits_against_tables(ledger: LedgerReader) -> Iterator[str]:
    """Rows and hashes of every table and round: as committed, as found, and as exported."""
    promised, problems = _promised(ledger.connection)
    yield from problems
    exported = {
        number: manifest_rows(ledger.directory, number)
        for number in ledger.closed_rounds()
        if not manifest_problems(ledger.directory, number)
    }
    for table in SCIENCE:
        found = table_sums(ledger.connection, table)
        for number in sorted(set(found) | {n for n, name in promised if name == table}, key=str):
            if number is None:
                continue  # rows of no candidate: a rule of its own
            have, want = found.get(number, RowSum()), promised.get((number, table), RowSum())
            if have.rows != want.rows:
                yield f"round {number} committed {want.rows} rows to '{table}', but {have.rows} are there"
            elif have != want:
                yield f"a value of round {number} in '{table}' was changed after it was committed"
            if (files := exported.get(number)) is not None and files.get(table) != have.rows:
                yield f"round {number} exported {files.get(table)} rows of '{table}', but {have.rows} are there"


def _against_exports(ledger: LedgerReader) -> Iterator[str]:
    """What was said of closed rounds, and of their commits, that differs from the exports."""
    for number in ledger.closed_rounds():
        if manifest_problems(ledger.directory, number):
            continue
        for table in ("rounds", "commits"):
            path = export_folder(ledger.directory, number) / f"{table}.parquet"
            try:
                exported = pq.read_table(path)
                known = [name for name in tables()[table].schema.names if name in exported.column_names]
                sql = f"SELECT {', '.join(known)} FROM {table} WHERE round = {number} ORDER BY {known[0]}"
                stored = ledger.connection.sql(sql).to_arrow_table()
                same = stored.equals(exported.select(known).cast(stored.schema))
            except MemoryError:
                raise
            except (OSError, IndexError, pa.ArrowException) as error:
                yield f"{path} holds no table as it was exported: {error}"
                continue
            if not same:
                yield f"'{table}' of round {number} was changed since the round was exported"


def _weights(ledger: LedgerReader) -> Iterator[str]:
    """Files of weights that are not as they were learnt."""
    sql = "SELECT round, generator, weights, sha256 FROM learning WHERE outcome = 'accepted' ORDER BY ALL"
    for number, generator, name, sha256 in ledger.connection.execute(sql).fetchall():
        try:
            path = path_inside(ledger.directory, name)
        except InputError as error:
            yield str(error)
            continue
        if not path.is_file() or sha256_of(path) != sha256:
            what = "were changed" if path.is_file() else "are absent"
            yield f"the weights {path}, which '{generator}' learnt for round {number}, {what}"


def _promised(connection: Any) -> tuple[dict[tuple[int, str], RowSum], list[str]]:
    """What the commits say was written, by round and table, and what is wrong with the commits themselves."""
    promised: dict[tuple[int, str], RowSum] = {}
    problems = []
    sql = "SELECT commit_key, round, n_rows, digest FROM commits WHERE kind <> 'close' ORDER BY commit_key"
    for key, number, n_rows, text in connection.execute(sql).fetchall():
        try:
            sums = parse_commit_digest(text)
        except ValueError:
            problems.append(f"the digest of commit '{key}' cannot be read")
            continue
        if sum(s.rows for s in sums.values()) != n_rows:
            problems.append(f"commit '{key}' says {n_rows} rows, its digest {sum(s.rows for s in sums.values())}")
        for table, value in sums.items():
            promised[number, table] = promised.get((number, table), RowSum()) + value
    return promised, problems

"""The ledger's tables: numbered migrations, and Arrow tables brought to the tables' columns.

The migrations are the only place where columns are declared; Arrow types are read back from the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paragenesis.crystals import Crystals
from paragenesis.engine.failpoints import reach
from paragenesis.engine.ledger.chain import unchained
from paragenesis.errors import LedgerError

_MIGRATIONS_TABLE = """
CREATE TABLE IF NOT EXISTS migrations (version INT PRIMARY KEY, name TEXT NOT NULL, applied_at TIMESTAMP NOT NULL)
"""
_FIRST_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE levels (level_key TEXT PRIMARY KEY, level TEXT NOT NULL);
CREATE TABLE commits (
    commit_key TEXT PRIMARY KEY, round INT NOT NULL, kind TEXT NOT NULL, n_rows INT NOT NULL, digest TEXT NOT NULL,
    committed_at TIMESTAMP NOT NULL);
CREATE TABLE rounds (
    round INT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('open', 'closed')), condition TEXT NOT NULL,
    generated INT, kept INT, rejected INT, failed INT, selected INT, verified INT, hits INT,
    hypervolume DOUBLE, ref_point DOUBLE[], calibration TEXT, opened_at TIMESTAMP NOT NULL, closed_at TIMESTAMP);
CREATE TABLE candidates (
    candidate_id TEXT PRIMARY KEY, round INT NOT NULL, generator TEXT, chunk INT, origin TEXT, formula TEXT,
    chemical_system TEXT, space_group INT, n_atoms INT, key TEXT,
    verdict TEXT NOT NULL CHECK (verdict IN ('kept', 'rejected', 'failed')), stage TEXT, reason TEXT,
    numbers SMALLINT[], frac DOUBLE[], lattice DOUBLE[], initial_frac DOUBLE[], initial_lattice DOUBLE[],
    converged BOOLEAN, steps INT);
CREATE TABLE predictions (
    candidate_id TEXT, model TEXT, property TEXT, mean DOUBLE, std DOUBLE, note TEXT,
    PRIMARY KEY (candidate_id, model, property));
CREATE TABLE triage (
    round INT, candidate_id TEXT, reason TEXT NOT NULL, detail TEXT, PRIMARY KEY (round, candidate_id));
CREATE TABLE selections (
    round INT, candidate_id TEXT, rank INT NOT NULL, score DOUBLE, gain DOUBLE, uncertainty DOUBLE, why TEXT,
    PRIMARY KEY (round, candidate_id));
CREATE TABLE verifications (
    candidate_id TEXT, level_key TEXT, property TEXT, round INT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('verified', 'failed')), value DOUBLE, error TEXT, cost_seconds DOUBLE,
    PRIMARY KEY (candidate_id, level_key, property));
CREATE TABLE verified_structures (
    candidate_id TEXT, level_key TEXT, round INT NOT NULL, energy DOUBLE, numbers SMALLINT[], frac DOUBLE[],
    lattice DOUBLE[], PRIMARY KEY (candidate_id, level_key));
"""


_PLANS_YIELDS_LEARNING = """
CREATE TABLE chunks (
    round INT, generator TEXT, chunk INT, n INT NOT NULL, aim TEXT, PRIMARY KEY (round, generator, chunk));
CREATE TABLE yields (
    round INT, generator TEXT, asked INT NOT NULL, generated INT NOT NULL, kept INT NOT NULL, selected INT NOT NULL,
    verified INT NOT NULL, hits INT NOT NULL, cost DOUBLE NOT NULL, next_share DOUBLE NOT NULL,
    PRIMARY KEY (round, generator));
CREATE TABLE learning (
    round INT, generator TEXT, outcome TEXT NOT NULL CHECK (outcome IN ('accepted', 'refused', 'failed', 'skipped')),
    reason TEXT, error TEXT, crystals INT NOT NULL, weights TEXT, sha256 TEXT,
    asked INT, valid_before INT, valid_after INT, unique_before INT, unique_after INT, novel_before INT,
    novel_after INT, PRIMARY KEY (round, generator));
"""


# TRUE: a late answer that came before its round's decision, which therefore knows of it; all others are NULL
_LATE_ANSWERS = "ALTER TABLE verifications ADD COLUMN before_decision BOOLEAN"

# the verified, pending or chosen crystal that a selected one is most like
_DIVERSITY = "ALTER TABLE selections ADD COLUMN most_like TEXT; ALTER TABLE selections ADD COLUMN similarity DOUBLE"

# the oracle's own standard deviation of a value; what cheaper oracles are asked about (level 1 is the one most like
# the campaign's own), and what they say
_NOISE_AND_PROBES = """
ALTER TABLE verifications ADD COLUMN noise DOUBLE;
CREATE TABLE probes (
    round INT NOT NULL, fidelity INT, candidate_id TEXT, rank INT NOT NULL, score DOUBLE, gain DOUBLE,
    uncertainty DOUBLE, why TEXT, PRIMARY KEY (fidelity, candidate_id));
CREATE TABLE probe_answers (
    candidate_id TEXT, level_key TEXT, property TEXT, round INT NOT NULL, fidelity INT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('verified', 'failed')), value DOUBLE, noise DOUBLE, error TEXT,
    cost_seconds DOUBLE, PRIMARY KEY (candidate_id, level_key, property));
"""


# of the predictions from which crystals were selected: half the widths of the central intervals that hold 10, 20, ...
# 90 % by the errors of crystals that were left out
_RECALIBRATION = "ALTER TABLE predictions ADD COLUMN half_widths DOUBLE[]"


# of what failed: "scientific" (the crystal, the objective, the oracle, the generator) or "infrastructure" (a worker
# that died, hung or ran out of memory), and in how many calls
_FAULTS = "".join(
    f"ALTER TABLE {table} ADD COLUMN fault TEXT; ALTER TABLE {table} ADD COLUMN attempts INT;"
    for table in ("candidates", "verifications", "probe_answers")
)


def first_tables(connection: Any) -> None:
    """The tables of the first release."""
    connection.execute(_FIRST_TABLES)


def plans_yields_learning(connection: Any) -> None:
    """What each round asks of each generator, what came of it, and what the generators learnt."""
    connection.execute(_PLANS_YIELDS_LEARNING)


def late_answers(connection: Any) -> None:
    """Which answers of earlier rounds came before a round's decision."""
    connection.execute(_LATE_ANSWERS)


def diversity(connection: Any) -> None:
    """What each selected crystal is diverse from."""
    connection.execute(_DIVERSITY)


def noise_and_probes(connection: Any) -> None:
    """How uncertain the oracle is of its own values, and what cheaper oracles say."""
    connection.execute(_NOISE_AND_PROBES)


def chained_commits(connection: Any) -> None:
    """Each commit holds the hash of the one before, see `chain`, and the number of the run that wrote it."""
    connection.execute("ALTER TABLE commits ADD COLUMN seq INT; ALTER TABLE commits ADD COLUMN chain TEXT")
    connection.execute("ALTER TABLE commits ADD COLUMN epoch INT")
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    found = unchained(connection, meta)
    connection.execute(
        "UPDATE commits SET seq = made.seq, chain = made.chain, epoch = 0 FROM "
        "(SELECT unnest($1::TEXT[]) AS key, unnest($2::INT[]) AS seq, unnest($3::TEXT[]) AS chain) AS made "
        "WHERE commit_key = made.key",
        [[key for key, _ in found], [head.seq for _, head in found], [head.chain for _, head in found]],
    )


def recalibration(connection: Any) -> None:
    """What intervals of every level are, where errors are not normal."""
    connection.execute(_RECALIBRATION)


def faults(connection: Any) -> None:
    """Failures of the science and of the infrastructure are different states."""
    connection.execute(_FAULTS)


# version = position + 1; never edit, only append
MIGRATIONS: tuple[Callable[[Any], None], ...] = (
    first_tables,
    plans_yields_learning,
    late_answers,
    diversity,
    noise_and_probes,
    chained_commits,
    recalibration,
    faults,
)
CHAINED = MIGRATIONS.index(chained_commits) + 1  # the first version whose commits are chained


def migrate(connection: Any) -> None:
    """Bring the tables to the newest version, one transaction a migration.

    Each ends in a CHECKPOINT: changes of tables in a write-ahead log are DuckDB's recurring recovery bug.
    """
    for version in range(schema_version(connection) + 1, newest_version() + 1):
        change = MIGRATIONS[version - 1]
        reach(f"before migration {version}")
        connection.execute("BEGIN")
        connection.execute(_MIGRATIONS_TABLE)
        change(connection)
        connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", [version, change.__name__, now()])
        connection.execute("COMMIT")
        reach(f"before the checkpoint of migration {version}")
        connection.execute("CHECKPOINT")
        reach(f"after the checkpoint of migration {version}")


def newest_version() -> int:
    """The version that this Paragenesis writes."""
    return len(MIGRATIONS)


def schema_version(connection: Any) -> int:
    """The newest migration that was applied; 0 if there is no table of migrations."""
    known = "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'migrations'"
    if connection.execute(known).fetchall() == [(0,)]:
        return 0
    [(version,)] = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchall()
    return int(version)


def now() -> datetime:
    """The time in UTC, without a zone, as the ledger's TIMESTAMP columns want it."""
    return datetime.now(UTC).replace(tzinfo=None)


# --- Arrow ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """What is known of one table: its Arrow schema (null or not as declared) and its primary key."""

    schema: pa.Schema
    primary_key: tuple[str, ...]


@cache
def tables() -> Mapping[str, Table]:
    """All tables by name, read from an empty ledger in memory."""
    with duckdb.connect(":memory:") as connection:
        migrate(connection)
        names = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {name: _describe(connection, name) for name in names}


def _describe(connection: Any, name: str) -> Table:
    described = connection.execute(f"DESCRIBE {name}").fetchall()
    types = connection.sql(f"FROM {name} LIMIT 0").to_arrow_table().schema
    fields = [pa.field(column, types.field(column).type, null == "YES") for column, _, null, *_ in described]
    return Table(pa.schema(fields), tuple(row[0] for row in described if row[3] == "PRI"))


def rows(name: str, **columns: Any) -> pa.Table:
    """An Arrow table for the ledger's table `name` from columns given as lists, arrays, or one value for all rows.

    NaN in a column of numbers becomes NULL, "no value".

    Raises:
        LedgerError: No such table or column, a value of the wrong type, an infinite number, or a missing value.
    """
    lengths = {len(values) for values in columns.values() if _is_column(values)}
    if len(lengths) != 1:
        raise LedgerError(f"the columns for '{name}' have {sorted(lengths)} rows; give them one length")
    count = lengths.pop()
    filled = {
        column: values if isinstance(values, (pa.Array, pa.ChunkedArray)) else _array(name, column, values, count)
        for column, values in columns.items()
    }
    return conform(name, pa.table(filled))


def _is_column(values: Any) -> bool:
    return not isinstance(values, str) and hasattr(values, "__len__")


def _array(name: str, column: str, values: Any, count: int) -> pa.Array:
    field = _field(name, column)
    try:
        return pa.array(values if _is_column(values) else [values] * count, field.type, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise LedgerError(f"column '{column}' of '{name}' takes {field.type}, but {error}") from None


def structure_columns(crystals: Crystals, prefix: str = "") -> dict[str, pa.Array]:
    """The columns numbers, frac and lattice of `crystals`; with prefix "initial_" the latter two under that name."""
    table = crystals.to_arrow()
    columns = {f"{prefix}{name}": table.column(name) for name in ("frac", "lattice")}
    return columns if prefix else {"numbers": table.column("numbers"), **columns}


def conform(name: str, table: pa.Table) -> pa.Table:
    """The table with the columns, order and types of the ledger's table `name`; absent columns are NULL.

    Raises:
        LedgerError: No such table or column, a value of the wrong type, an infinite number, or a missing value.
    """
    schema = _schema(name)
    for column in table.column_names:
        _field(name, column)
    return pa.table([_conform_column(name, field, table) for field in schema], schema=schema)


def _schema(name: str) -> pa.Schema:
    if name not in tables():
        raise LedgerError(f"the ledger has no table '{name}'; it has {', '.join(sorted(tables()))}")
    return tables()[name].schema


def _field(name: str, column: str) -> pa.Field:
    schema = _schema(name)
    if column not in schema.names:
        raise LedgerError(f"table '{name}' has no column '{column}'; it has {', '.join(schema.names)}")
    return schema.field(column)


def _conform_column(name: str, field: pa.Field, table: pa.Table) -> pa.Array:
    if field.name not in table.column_names:
        column = pa.nulls(table.num_rows, field.type)
    else:
        try:
            column = table.column(field.name).cast(field.type)
        except pa.ArrowException as error:
            raise LedgerError(f"column '{field.name}' of '{name}' takes {field.type}, but {error}") from None
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, field.type)
    if pa.types.is_floating(field.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, field.type), column)  # NaN is NumPy's "no value"
        if pc.any(pc.is_inf(column)).as_py():
            raise LedgerError(f"column '{field.name}' of '{name}' holds an infinite number; store a NULL and say why")
    if not field.nullable and column.null_count:
        raise LedgerError(f"column '{field.name}' of '{name}' needs a value in every row, but one is missing")
    return column


def to_numpy(column: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers as float64; NULL becomes NaN."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)

"""The ledger: the one place where a campaign's facts are written, in DuckDB, by one process.

Every commit has a key that says what it is ("r1/substitution/3"). The same key with the same content is a no-op, so
work that was delivered twice counts once, and what was not committed is simply done again. Commits are chained and the
head of the chain stands in a file beside the ledger (`chain`): what was acknowledged cannot go missing unnoticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from paragenesis.engine.failpoints import reach
from paragenesis.engine.interruption import finishing
from paragenesis.engine.ledger.chain import HEAD_FILE, Head, check_chain, following, genesis, unchained
from paragenesis.engine.ledger.content import OF_CANDIDATES, SCIENCE, commit_digest, rows_of_rounds
from paragenesis.engine.ledger.database import LEDGER_FILE, connect, legible, refusal
from paragenesis.engine.ledger.disk import sync
from paragenesis.engine.ledger.export import export_closed_rounds
from paragenesis.engine.ledger.query import LedgerReader, check_version, existing, had_a_ledger
from paragenesis.engine.ledger.schema import CHAINED, conform, migrate, newest_version, now, schema_version
from paragenesis.engine.ledger.status import counts, write_status
from paragenesis.errors import LedgerError

KINDS = ("plan", "learning", "chunk", "triage", "probe", "selection", "verification", "yield")
_COUNTED = ("generated", "kept", "rejected", "failed", "selected", "verified")
_SUMMARY = (*_COUNTED, "hits", "hypervolume", "ref_point", "calibration")


class Ledger(LedgerReader):
    """The ledger of one campaign, open for writing; the only writer there can be."""

    def __init__(self, directory: Path, connection: Any) -> None:
        """Wrap an open connection; use `create` or `open`.

        Raises:
            LedgerError: Commits are missing or changed, or another file is of another campaign.
        """
        super().__init__(directory, connection)
        self._activity = ""
        meta = self.meta()
        self._name = meta.get("name", directory.name)
        head = check_chain(connection, directory, meta)
        self._head = replace(head, epoch=head.epoch + 1)  # from now on no earlier run can commit
        self._write_head()
        try:
            export_closed_rounds(connection, directory)
            self._refresh_status()
        except OSError as error:
            raise refusal(error, f"the exports and the status in {directory} cannot be written") from None

    @staticmethod
    def exists(directory: Path | str) -> bool:
        """Whether `directory` has a ledger."""
        return (Path(directory) / LEDGER_FILE).is_file()

    @staticmethod
    def was_in(directory: Path | str) -> bool:
        """Whether `directory` has what is left of a ledger whose file is absent; opening it says so."""
        return not Ledger.exists(directory) and had_a_ledger(Path(directory))

    @classmethod
    @finishing()
    def create(cls, directory: Path | str, meta: Mapping[str, str]) -> Self:
        """Create a ledger in `directory`, whole or not at all, and open it.

        Args:
            directory: Made if it is absent.
            meta: What is said of the campaign, once and for all; structured values as JSON.

        Raises:
            LedgerError: There is a ledger already, or what is left of one, or the directory cannot be written.
        """
        final = Path(directory) / LEDGER_FILE
        if final.exists():
            raise LedgerError(f"{directory} has a ledger already; open it, or choose another directory")
        if had_a_ledger(final.parent):
            raise LedgerError(
                f"{directory} had a campaign, but its {LEDGER_FILE} is absent; `paragenesis recover {directory}` "
                "rebuilds it, or choose an empty directory"
            )
        aside = final.with_name(f".{LEDGER_FILE}.{uuid.uuid4().hex}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(connect(aside, read_only=False)) as connection:
                migrate(connection)
                for item in meta.items():
                    connection.execute("INSERT INTO meta VALUES (?, ?)", list(item))
                connection.execute("CHECKPOINT")
            sync(aside)
            genesis(meta).write(final.parent)  # first, so that a ledger without one has lost it
            reach("before the ledger is put in place")
            os.link(aside, final)  # unlike a rename, fails if another process was faster
            reach("after the ledger was put in place")
            for left in final.parent.glob(f".{LEDGER_FILE}.*"):  # ours, and what crashes left
                left.unlink(missing_ok=True)
            sync(final.parent)
        except FileExistsError:
            raise LedgerError(f"{directory} was given a ledger by another process; open that one") from None
        except (OSError, duckdb.Error) as error:
            raise refusal(error, f"no ledger can be created in {directory}") from None
        finally:
            for left in (aside, aside.with_name(f"{aside.name}.wal")):
                with contextlib.suppress(OSError):  # where nothing could be written, nothing is left
                    left.unlink()
        return cls.open(directory)

    @classmethod
    @finishing()
    def open(cls, directory: Path | str) -> Self:
        """Open the ledger in `directory` for writing; bring its tables and its exports up to date.

        Raises:
            LedgerError: There is none, another process holds it, it is damaged, or of a newer version.
        """
        file = existing(directory)
        connection = connect(file, read_only=False)
        check_version(connection, file, older_too=False)
        try:
            with legible(file):
                if schema_version(connection) < CHAINED:
                    _write_first_head(connection, file.parent)
                migrate(connection)
                return cls(file.parent, connection)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def upgrade(cls, directory: Path | str) -> None:
        """Bring the tables of a ledger of an older version up to date; any other is left alone.

        Raises:
            LedgerError: There is none, another process holds it, or it is damaged.
        """
        with contextlib.closing(connect(existing(directory), read_only=True)) as connection:
            older = 0 < schema_version(connection) < newest_version()
        if older:
            cls.open(directory).close()

    # --- writing -----------------------------------------------------------------------------------------------------

    @finishing()
    def commit(self, key: str, round: int, kind: str, tables: Mapping[str, pa.Table]) -> bool:  # noqa: A002
        """Write rows into tables, all or none of them, durably.

        Columns are matched by name; absent ones are NULL, and so is a NaN (not inside structures). Rows of `levels`
        that are there already are passed over.

        Args:
            key: Names this piece of work; the same work always has the same key.
            round: The open round it belongs to; so must all rows.
            kind: What sort of work it is, one of `KINDS`.
            tables: Rows by table.

        Returns:
            False if this key was committed before (nothing is changed), else True.

        Raises:
            LedgerError: The key was committed with other content; the round is not open; a table, column or value
                does not fit; a row is there already or refers to no candidate; the disk is full.
        """
        content = {name: conform(name, table) for name, table in tables.items()}
        for name in content:
            if name not in SCIENCE and name != "levels":
                raise LedgerError(
                    f"table '{name}' is written by the ledger itself; commit {', '.join(SCIENCE)}, levels"
                )
        if kind not in KINDS:
            raise LedgerError(f"'{kind}' is no kind of commit; choose one of {', '.join(KINDS)}")
        fingerprint = commit_digest(content)
        if self._known(key, fingerprint):
            return False
        self._require_open(round)
        n_rows = sum(table.num_rows for name, table in content.items() if name in SCIENCE)
        with self._transaction(f"commit '{key}'"):
            self._record(key, round, kind, n_rows, fingerprint)
            for name in (*SCIENCE, "levels"):  # candidates first: the others refer to them
                if name in content:
                    self._insert(name, round, content[name])
        self._refresh_status()
        return True

    @finishing()
    def open_round(self, round: int, condition_json: str) -> None:  # noqa: A002
        """Open a round; opening it again under the same condition changes nothing.

        Raises:
            LedgerError: It was opened under another condition, or the rounds before it are not all closed.
        """
        known = self.connection.execute("SELECT condition FROM rounds WHERE round = ?", [round]).fetchall()
        if known and known != [(condition_json,)]:
            raise LedgerError(f"round {round} was opened under another condition: {known[0][0]}")
        if known:
            return
        rounds = self.connection.execute("SELECT round, state FROM rounds ORDER BY round").fetchall()
        if any(state == "open" for _, state in rounds):
            raise LedgerError(f"round {round} cannot be opened while round {rounds[-1][0]} is open; close that first")
        allowed = [rounds[-1][0] + 1] if rounds else [0, 1]
        if round not in allowed:
            raise LedgerError(f"round {round} cannot be opened; the next round is {' or '.join(map(str, allowed))}")
        with self._transaction(f"the opening of round {round}"):
            self.connection.execute(
                "INSERT INTO rounds (round, state, condition, opened_at) VALUES (?, 'open', ?, ?)",
                [round, condition_json, now()],
            )
        self._refresh_status()

    @finishing()
    def close_round(self, round: int, summary: Mapping[str, Any]) -> bool:  # noqa: A002
        """Close a round for good and export it; closing it again with the same summary changes nothing.

        Args:
            round: The open round.
            summary: hits, hypervolume, ref_point (list), calibration (JSON text); counts such as generated, kept or
                verified may be given and must then agree with the tables.

        Returns:
            False if it was closed before, else True.

        Raises:
            LedgerError: The round is not open, was closed with another summary, or a count is wrong.
        """
        if unknown := sorted(set(summary) - set(_SUMMARY)):
            raise LedgerError(f"a round's summary has no '{unknown[0]}'; it has {', '.join(_SUMMARY)}")
        summary = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in summary.items()}
        fingerprint = hashlib.sha256(json.dumps(summary, sort_keys=True).encode()).hexdigest()
        key = f"close-{round}"
        closed = self._known(key, fingerprint)
        if not closed:
            self._require_open(round)
            counted = self._count(round, summary)
            with self._transaction(f"the closing of round {round}"):
                self._record(key, round, "close", 0, fingerprint)
                self._write_summary(round, counted, summary)
            reach(f"before the checkpoint of round {round}")
            try:
                self.connection.execute("CHECKPOINT")
            except duckdb.Error as error:
                raise refusal(error, f"the checkpoint of round {round} failed, but the round is closed") from None
            reach(f"after the checkpoint of round {round}")
        export_closed_rounds(self.connection, self.directory)
        self._refresh_status()
        return not closed

    def report_activity(self, text: str) -> None:
        """Say in `status.json` what is being done now."""
        self._activity = text
        write_status(self.directory, **self.status())

    def status(self) -> dict[str, Any]:
        """What `status.json` says: campaign, state, round, counts, activity."""
        return {"campaign": self._name, "state": "running", **self._counts, "activity": self._activity}

    def close(self) -> None:
        """Say in `status.json` that the campaign does not run any more, and give the file back."""
        try:
            write_status(self.directory, **(self.status() | {"state": "stopped"}))
        finally:
            self.connection.close()

    # --- steps -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        """All statements inside, or none of them, with the head after them; DuckDB's errors become the ledger's."""
        self._check_epoch()
        before = self._head
        self.connection.execute("BEGIN")
        try:
            yield
            reach(f"before {what}")
            self.connection.execute("COMMIT")
            reach(f"after {what}")
        except BaseException as error:
            with contextlib.suppress(duckdb.Error):  # a failed COMMIT has ended the transaction already
                self.connection.execute("ROLLBACK")
            self._head = before
            if isinstance(error, duckdb.Error):
                raise refusal(error, f"{what} was refused, nothing was written") from None
            raise
        if self._head != before:
            self._write_head()

    def _check_epoch(self) -> None:
        """Refuse to go on if another run has opened this ledger since.

        Raises:
            LedgerError: So, or the head cannot be read any more.
        """
        epoch = Head.read(self.directory).epoch
        if epoch != self._head.epoch:
            raise LedgerError(
                f"another run (epoch {epoch}) has taken over the ledger in {self.directory} since this one (epoch "
                f"{self._head.epoch}) began; this one stops, and nothing of it is written any more"
            )

    def _write_head(self) -> None:
        """Put the head beside the ledger.

        Raises:
            LedgerError: It cannot be written; what was committed is safe.
        """
        try:
            self._head.write(self.directory)
        except OSError as error:
            raise refusal(error, "what was committed is safe, but the head of its chain cannot be written") from None

    def _known(self, key: str, fingerprint: str) -> bool:
        known = self.connection.execute("SELECT digest FROM commits WHERE commit_key = ?", [key]).fetchall()
        if known and known != [(fingerprint,)]:
            raise LedgerError(
                f"'{key}' was committed before with other content; the same key must always name the same work, "
                "so something in it is not deterministic"
            )
        return bool(known)

    def _require_open(self, number: int) -> None:
        state = self.connection.execute("SELECT state FROM rounds WHERE round = ?", [number]).fetchall()
        if state != [("open",)]:
            raise LedgerError(f"round {number} is {'closed' if state else 'not open'}, so nothing can be added to it")

    def _record(self, key: str, number: int, kind: str, n_rows: int, fingerprint: str) -> None:
        self._head = head = following(self._head, key, number, kind, n_rows, fingerprint)
        values = [key, number, kind, n_rows, fingerprint, now(), head.seq, head.chain, head.epoch]
        self.connection.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _insert(self, name: str, number: int, table: pa.Table) -> None:
        """Add rows, then check that each belongs to the round and refers to a candidate where it should."""
        self.connection.register("batch", table)  # a view of this transaction: a rollback takes it away
        known = "ON CONFLICT DO NOTHING" if name == "levels" else ""
        self.connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM batch {known}")
        stray = None if name == "levels" else self._stray_row(name, number)
        self.connection.unregister("batch")
        if stray is not None:
            raise LedgerError(
                f"'{name}' has a row for '{stray[0]}', which "
                + ("is no candidate" if stray[1] is None else f"belongs to round {stray[1]}, not {number}")
            )

    def _stray_row(self, name: str, number: int) -> tuple[str, int | None] | None:
        """A row of the registered batch that belongs to another round, or to a candidate that does not exist."""
        batch = rows_of_rounds(name).replace(f"FROM {name}", "FROM batch")
        if name not in OF_CANDIDATES:
            odd = f"SELECT generator, of_round FROM ({batch}) WHERE of_round IS DISTINCT FROM ? LIMIT 1"
            return next(iter(self.connection.execute(odd, [number]).fetchall()), None)
        found = self.connection.execute(
            f"SELECT b.candidate_id, CASE WHEN c.candidate_id IS NULL THEN NULL ELSE b.of_round END "
            f"FROM ({batch}) b LEFT JOIN candidates c ON c.candidate_id = b.candidate_id "
            "WHERE c.candidate_id IS NULL OR b.of_round IS DISTINCT FROM ? LIMIT 1",
            [number],
        ).fetchall()
        return found[0] if found else None

    def _count(self, number: int, summary: Mapping[str, Any]) -> list[int]:
        """The counts of a round from the tables, in the order of `_COUNTED`; the summary's must agree."""
        sql = (
            "SELECT count(*), count(*) FILTER (verdict = 'kept'), count(*) FILTER (verdict = 'rejected'), "
            "count(*) FILTER (verdict = 'failed'), (SELECT count(*) FROM selections WHERE round = $1), "
            "(SELECT count(DISTINCT candidate_id) FROM verifications WHERE round = $1 AND status = 'verified') "
            "FROM candidates WHERE round = $1"
        )
        counted = [int(n) for n in self.connection.execute(sql, [number]).fetchall()[0]]
        generated, kept, rejected, failed = counted[:4]
        if generated != kept + rejected + failed:
            raise LedgerError(
                f"round {number} cannot be closed: {generated} crystals were generated, but {kept} kept + {rejected} "
                f"rejected + {failed} failed"
            )
        for name, count in zip(_COUNTED, counted, strict=True):
            if summary.get(name, count) != count:
                raise LedgerError(
                    f"round {number} cannot be closed: its summary says {summary[name]} {name}, the tables {count}"
                )
        return counted

    def _write_summary(self, number: int, counted: list[int], summary: Mapping[str, Any]) -> None:
        hypervolume = summary.get("hypervolume")
        if hypervolume is not None and not math.isfinite(hypervolume):
            raise LedgerError(f"round {number} has the hypervolume {hypervolume}; give a finite number, or none")
        self.connection.execute(
            "UPDATE rounds SET state = 'closed', closed_at = ?, generated = ?, kept = ?, rejected = ?, failed = ?, "
            "selected = ?, verified = ?, hits = ?, hypervolume = ?, ref_point = ?, calibration = ? WHERE round = ?",
            [
                now(),
                *counted,
                summary.get("hits"),
                hypervolume,
                summary.get("ref_point"),
                summary.get("calibration"),
                number,
            ],
        )

    def _refresh_status(self) -> None:
        self._counts = counts(self.connection)
        write_status(self.directory, **self.status())


def _write_first_head(connection: Any, directory: Path) -> None:
    """Put the head of an older ledger, whose commits are not chained yet, beside it.

    Raises:
        LedgerError: Another one is there already, so that this file is an old copy of a ledger that went on.
    """
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    found = unchained(connection, meta)
    head = found[-1][1] if found else genesis(meta)
    if os.path.lexists(directory / HEAD_FILE):  # an upgrade that was ended half-way leaves this very one
        there = Head.read(directory)
        if (there.seq, there.chain) != (head.seq, head.chain):
            raise LedgerError(
                f"{directory / LEDGER_FILE} is of an older version and holds {head.seq} commits, but {HEAD_FILE} tells "
                f"of {there.seq}: it is an old copy; put the right file back, or `paragenesis recover {directory}` "
                "takes closed rounds from their exports"
            )
    head.write(directory)

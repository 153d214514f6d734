"""The chain of commits and its head: the proof that no acknowledged commit is missing.

DuckDB survives a killed process, but it does not notice that its write-ahead log was deleted, cut short or taken from
another file: it opens, and silently misses what was committed. So every commit carries the hash of the one before, and
the last hash is written, after each commit, into a small file beside the ledger: the head. A ledger that has not come
as far as its head has lost something; one whose commits do not fit together was changed or put in another's place.

The head also names the run that writes, by a number that every opening for writing raises: its epoch. A run that finds
another epoch in the head has been replaced and may not commit any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from paragenesis.engine.ledger.database import leads_out
from paragenesis.engine.ledger.disk import replace_bytes
from paragenesis.errors import LedgerError

HEAD_FILE = "ledger.head"
_COMMITS = "SELECT seq, chain, commit_key, round, kind, n_rows, digest FROM commits ORDER BY seq, commit_key"
_RECOVER = "`paragenesis recover {directory}` rebuilds it: closed rounds whole, the open one as far as it is sound"


@dataclass(frozen=True)
class Head:
    """Where a ledger has come to.

    Attributes:
        seq: The number of its last commit, from 1; 0 before the first.
        chain: The hash of that commit, which holds those of all before it.
        epoch: The run that wrote it; every opening for writing is a run.
    """

    seq: int
    chain: str
    epoch: int = 0

    def write(self, directory: Path) -> None:
        """Put it beside the ledger, whole or not at all, to survive a power failure.

        Raises:
            OSError: The file cannot be written.
        """
        content = asdict(self) | {"check": self._check()}
        replace_bytes(directory / HEAD_FILE, (json.dumps(content) + "\n").encode())

    @classmethod
    def read(cls, directory: Path) -> Head:
        """The head beside a ledger.

        Raises:
            LedgerError: It is absent, or not as it was written.
        """
        path = directory / HEAD_FILE
        if leads_out(path):
            raise LedgerError(
                f"{path} is a link out of the campaign, which is not followed; remove it, then run "
                f"`paragenesis recover {directory}`"
            )
        try:
            content = json.loads(path.read_bytes())
            head = cls(seq=int(content["seq"]), chain=str(content["chain"]), epoch=int(content["epoch"]))
            whole = content["check"] == head._check()
        except FileNotFoundError:
            raise LedgerError(
                f"{path} is absent, so nobody can tell whether commits are missing from the ledger; put it back, or "
                + _RECOVER.format(directory=directory)
            ) from None
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise LedgerError(f"{path} is damaged; " + _RECOVER.format(directory=directory))
        return head

    def _check(self) -> str:
        return hashlib.sha256(f"{self.seq}/{self.chain}/{self.epoch}".encode()).hexdigest()[:16]


def commits_acknowledged(directory: Path) -> int:
    """How many commits the head beside a ledger has seen; 0 where there is no readable head."""
    try:
        return Head.read(directory).seq
    except LedgerError:
        return 0


def genesis(meta: Mapping[str, str]) -> Head:
    """The head of a ledger without commits: the hash of what was said of the campaign when it was created."""
    text = json.dumps(sorted(meta.items()))
    return Head(0, hashlib.sha256(text.encode()).hexdigest())


def following(head: Head, key: str, number: int, kind: str, n_rows: int, digest: str) -> Head:
    """The head after one more commit."""
    text = json.dumps([head.chain, key, number, kind, n_rows, digest])
    return replace(head, seq=head.seq + 1, chain=hashlib.sha256(text.encode()).hexdigest())


def heads(connection: Any, meta: Mapping[str, str]) -> Iterable[Head]:
    """The head after each commit of a ledger, that without commits first.

    Raises:
        LedgerError: The commits do not fit together.
    """
    head = genesis(meta)
    yield head
    for seq, chain, *content in connection.execute(_COMMITS).fetchall():
        head = following(head, *content)
        if (seq, chain) != (head.seq, head.chain):
            raise LedgerError(
                f"commit '{content[0]}' does not follow from those before it: one was changed, removed or put in"
            )
        yield head


def linked(connection: Any, meta: Mapping[str, str]) -> set[str]:
    """Keys of the commits that follow from the one before them as that is stored; the others were changed, or put in.

    A commit whose own hash was changed takes the one after it along, and no more.
    """
    head, keys = genesis(meta), set()
    for seq, chain, *content in connection.execute(_COMMITS).fetchall():
        after = following(head, *content)
        head = Head(seq or 0, chain or "")
        if head == after:
            keys.add(content[0])
    return keys


def check_chain(connection: Any, directory: Path, meta: Mapping[str, str]) -> Head:
    """The head of a ledger, whose commits fit together and are all there.

    A ledger may be ahead of the file: a crash between the two leaves it so, and nothing is lost.

    Raises:
        LedgerError: Commits are missing, changed or of another ledger, or the head cannot be read.
    """
    told, found = Head.read(directory), None
    try:
        for head in heads(connection, meta):
            found = head if head.seq <= told.seq else found
            last = head
    except LedgerError as error:
        raise LedgerError(f"{directory}: {error}; " + _RECOVER.format(directory=directory)) from None
    if found is None or last.seq < told.seq:
        raise LedgerError(
            f"{directory}: {told.seq - last.seq} of {told.seq} acknowledged commits are missing from the ledger; its "
            "write-ahead log was deleted, cut short or replaced, or the file is an old copy; put the right files back, "
            "or " + _RECOVER.format(directory=directory)
        )
    if found.chain != told.chain:
        raise LedgerError(
            f"{directory}: the ledger and {HEAD_FILE} are not of the same campaign; put the right files back, or "
            + _RECOVER.format(directory=directory)
        )
    return replace(last, epoch=told.epoch)


def unchained(connection: Any, meta: Mapping[str, str]) -> list[tuple[str, Head]]:
    """Keys and heads of the commits of an older ledger, in the order in which they were written."""
    head, found = genesis(meta), []
    sql = "SELECT commit_key, round, kind, n_rows, digest FROM commits ORDER BY committed_at, commit_key"
    for row in connection.execute(sql).fetchall():
        head = following(head, *row)
        found.append((row[0], head))
    return found

"""`status.json`: what a campaign is doing, for those who cannot open the ledger while it runs."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from paragenesis.engine.ledger.database import refusal
from paragenesis.engine.ledger.disk import replace_text
from paragenesis.errors import LedgerError

STATUS_FILE = "status.json"


def counts(connection: Any) -> dict[str, Any]:
    """What the ledger has come to: the current round, verdicts, fates of the selected crystals, the last commit."""
    one = connection.execute(
        "SELECT (SELECT max(round) FROM rounds), (SELECT last(state ORDER BY round) FROM rounds), "
        "(SELECT count(*) FROM selections), "
        "(SELECT count(DISTINCT candidate_id) FROM verifications WHERE status = 'verified'), "
        "(SELECT max(committed_at) FROM commits), "
        "(SELECT count(*) FROM selections ANTI JOIN verifications USING (candidate_id)), "
        "(SELECT count(*) FROM (FROM candidates SELECT fault UNION ALL FROM verifications SELECT fault "
        "UNION ALL FROM probe_answers SELECT fault) WHERE fault = 'infrastructure')"
    ).fetchall()[0]
    verdicts = dict(connection.execute("SELECT verdict, count(*) FROM candidates GROUP BY verdict").fetchall())
    return {
        "round": one[0],
        "round_state": one[1],
        "generated": sum(verdicts.values()),
        **{verdict: verdicts.get(verdict, 0) for verdict in ("kept", "rejected", "failed")},
        "selected": one[2],
        "verified": one[3],
        "pending": one[5],
        "lost_to_infrastructure": one[6],
        "last_commit": f"{one[4].isoformat()}Z" if one[4] else None,
    }


def write_status(directory: Path, **content: Any) -> None:
    """Write `status.json` with the process that wrote it.

    Raises:
        LedgerError: The file cannot be written.
    """
    content |= {"pid": os.getpid(), "host": socket.gethostname()}
    try:
        replace_text(directory / STATUS_FILE, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise refusal(error, f"what was committed is safe, but {directory / STATUS_FILE} cannot be written") from None


def read_status(directory: Path | str) -> dict[str, Any]:
    """What `status.json` says; the state is "interrupted" if its writer ended without saying so.

    Raises:
        LedgerError: The file is absent or no JSON.
    """
    path = Path(directory) / STATUS_FILE
    try:
        status: dict[str, Any] = json.loads(path.read_text())
        pid = int(status["pid"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise LedgerError(f"there is no readable {path}; is {directory} the directory of a campaign?") from None
    here = status.get("host") == socket.gethostname()
    if status.get("state") == "running" and here and not _alive(pid):
        status["state"] = "interrupted"
    return status


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it lives and belongs to another user
        return True
    return True

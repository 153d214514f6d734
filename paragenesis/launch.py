"""Run a campaign: specification in, finished ledger and report out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from paragenesis.engine.campaign import Campaign, Progress, ignore
from paragenesis.engine.executor import Executor, InlineExecutor, threads
from paragenesis.engine.interruption import stop_if_asked, stoppable
from paragenesis.engine.ledger import commits_acknowledged
from paragenesis.engine.ledger.database import disk_is_full, refusal
from paragenesis.engine.preflight import Kit, prepare
from paragenesis.engine.report import write_report
from paragenesis.engine.resuming import open_ledger, rounds_done
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import DiskFullError, InputError

ROOM_BYTES = 64 * 2**20  # free space from which a campaign that had none goes on
ROOM_WAIT_S, ROOM_LOOK_S = 1800.0, 10.0  # how long it waits for that, and how often it looks

ExecutorName = Literal["ray", "inline"]


@dataclass(frozen=True)
class Finished:
    """Where a campaign's results are.

    Attributes:
        directory: The campaign's directory, with the ledger and the exports.
        report: The report page.
    """

    directory: Path
    report: Path


def run(
    campaign: CampaignSpec | str | Path,
    directory: str | Path | None = None,
    *,
    executor: ExecutorName | Executor = "ray",
    rounds: int | None = None,
    address: str = "local",
    trust_network: bool = False,
    notify: Callable[[Progress], None] = ignore,
) -> Finished:
    """Run a campaign to its end, or resume it where it stopped.

    Args:
        campaign: A specification, or the path of a TOML file.
        directory: Where its results go; `campaigns/NAME` by default. If it holds the same campaign, that is resumed.
        executor: "ray", "inline" (this process), or an executor of your own, which is left open.
        rounds: Rounds in all, if not as specified.
        address: The Ray cluster: "local" for a private one, "auto" or "host:port" for a running one.
        trust_network: Use a running cluster although it is not authenticated: nobody else can reach it.
        notify: Told of every step.

    Raises:
        InputError: The campaign names something that cannot be used, or the cluster is not authenticated; nothing was
            written.
        PotentialError: A potential fails its known-answer check; nothing was written.
        ExecutionError: A worker could not do its work; run again to resume.
        LedgerError: The ledger is held by another process, or damaged.
        DiskFullError: There was no room to write, and none was made within `ROOM_WAIT_S`; run again to resume.
        Stopped: SIGTERM or SIGINT came, a KeyboardInterrupt; run again to resume.
    """
    if rounds is not None and rounds < 1:
        raise InputError(f"rounds must be at least 1, but {rounds} was given")
    spec = campaign if isinstance(campaign, CampaignSpec) else CampaignSpec.from_toml(campaign)
    folder = Path(directory) if directory is not None else Path("campaigns") / spec.name
    if rounds_done(spec, folder) >= (rounds or spec.rounds):
        return Finished(folder, write_report(folder))
    notify(Progress(0, "check", 0, 1, "checking potentials, hull, objectives and generators"))
    with threads(1):  # what this process computes must not depend on how many cores it has
        kit = prepare(spec)
        notify(Progress(0, "check", 1, 1, "all sound; starting the workers"))
        # Ray puts a handler of its own in the place of ours when it starts
        with stoppable(), _opened(executor, address, trust_network) as hosts, stoppable():
            report = _until_done(kit, folder, hosts, rounds, notify)
    return Finished(folder, report)


def _until_done(
    kit: Kit, folder: Path, hosts: Executor, rounds: int | None, notify: Callable[[Progress], None]
) -> Path:
    """Run what is left of a campaign, waiting for room where the disk is full; its report.

    Raises:
        DiskFullError: It was full for `ROOM_WAIT_S`.
    """
    full_since, stuck_at = 0.0, -1
    while True:
        try:
            return _go_on(kit, folder, hosts, rounds, notify)
        except DiskFullError as error:
            stop_if_asked()
            now, commits = time.monotonic(), commits_acknowledged(folder)
            if commits != stuck_at:
                full_since, stuck_at = now, commits
            if now - full_since > ROOM_WAIT_S:
                raise
            minutes = (full_since + ROOM_WAIT_S - now) / 60
            notify(Progress(0, "pause", 0, 1, f"{error}; waiting for room for another {minutes:.0f} minutes"))
            _wait_for_room(folder, full_since + ROOM_WAIT_S)


def _go_on(kit: Kit, folder: Path, hosts: Executor, rounds: int | None, notify: Callable[[Progress], None]) -> Path:
    """Run what is left of a campaign; its report.

    Raises:
        DiskFullError: There is no room to write.
        LedgerError: A part of the ledger that is needed now cannot be read.
    """
    try:
        with closing(open_ledger(kit, folder)) as ledger:
            Campaign(kit, ledger, hosts, notify).run(rounds)
            return write_report(ledger, folder / "report.html")
    except duckdb.Error as error:
        raise refusal(error, f"the campaign in {folder} stopped; `paragenesis verify` says what is wrong") from None
    except OSError as error:
        if not disk_is_full(error):
            raise
        raise DiskFullError(f"{error.filename or folder} could not be written: the disk is full; make room") from None


def _wait_for_room(folder: Path, deadline: float) -> None:
    """Sleep until there is room to write again, or until the deadline."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    time.sleep(ROOM_LOOK_S)
    while shutil.disk_usage(there).free < ROOM_BYTES and time.monotonic() < deadline:
        time.sleep(ROOM_LOOK_S)


@contextmanager
def _opened(executor: ExecutorName | Executor, address: str, trust_network: bool) -> Iterator[Executor]:
    """The executor to use; one made here is closed here."""
    if not isinstance(executor, str):
        yield executor
    elif executor == "inline":
        with closing(InlineExecutor()) as made:
            yield made
    elif executor == "ray":
        from paragenesis.actors import RayExecutor

        with closing(RayExecutor(address, trust_network=trust_network)) as hosts:
            yield hosts
    else:
        raise InputError(f"there is no executor '{executor}'; choose 'ray' or 'inline'")

"""Run a campaign: specification in, finished ledger and report out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paragenesis.engine.campaign import Campaign, Progress, ignore, open_ledger, rounds_done
from paragenesis.engine.executor import Executor, InlineExecutor, threads
from paragenesis.engine.preflight import prepare
from paragenesis.engine.report import write_report
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import InputError

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
    notify: Callable[[Progress], None] = ignore,
) -> Finished:
    """Run a campaign to its end, or resume it where it stopped.

    Args:
        campaign: A specification, or the path of a TOML file.
        directory: Where its results go; `campaigns/NAME` by default. If it holds the same campaign, that is resumed.
        executor: "ray", "inline" (this process), or an executor of your own, which is left open.
        rounds: Rounds in all, if not as specified.
        address: The Ray cluster: "local" for a private one, "auto" or "host:port" for a running one.
        notify: Told of every step.

    Raises:
        InputError: The campaign names something that cannot be used; nothing was written.
        PotentialError: A potential fails its known-answer check; nothing was written.
        ExecutionError: A worker could not do its work; run again to resume.
        LedgerError: The ledger is held by another process, or damaged.
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
        with closing(open_ledger(kit, folder)) as ledger, _opened(executor, address) as hosts:
            Campaign(kit, ledger, hosts, notify).run(rounds)
            report = write_report(ledger, folder / "report.html")
    return Finished(folder, report)


@contextmanager
def _opened(executor: ExecutorName | Executor, address: str) -> Iterator[Executor]:
    """The executor to use; one made here is closed here."""
    if not isinstance(executor, str):
        yield executor
        return
    with closing(_make(executor, address)) as made:
        yield made


def _make(name: str, address: str) -> Executor:
    if name == "inline":
        return InlineExecutor()
    if name == "ray":
        from paragenesis.actors import RayExecutor

        return RayExecutor(address)
    raise InputError(f"there is no executor '{name}'; choose 'ray' or 'inline'")

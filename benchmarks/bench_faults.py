"""Faults, planted: a process that ends at the N-th step, and files that are damaged.

A campaign is run in children of one process that has loaded everything, so that a run takes a fraction of a second.
Each child may be told to fail at the N-th failpoint that it reaches: killed (SIGKILL), or with a full disk or without
memory there. It notes every commit that was acknowledged to it. Then other children go on until the campaign is done.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from paragenesis.engine import failpoints
from paragenesis.engine.campaign import Campaign
from paragenesis.engine.executor import InlineExecutor
from paragenesis.engine.ledger import Ledger, LedgerReader, digest, recover, verify_ledger
from paragenesis.engine.ledger.schema import tables
from paragenesis.engine.preflight import Kit, prepare
from paragenesis.engine.resuming import open_ledger
from paragenesis.engine.spec import CampaignSpec
from paragenesis.engine.surrogate import ResidualSurrogate
from paragenesis.errors import LedgerError

Closed = tuple[tuple[int, ...], str]  # numbers of the closed rounds, and their digest
KINDS = ("kill", "disk", "memory")
TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 1,
    "rounds": 2,
    "condition": {"allowed_elements": ("Na", "Cl")},
    "generators": [{"use": "paragenesis.testing:LearningRandomGenerator", "n": 6, "chunk": 3}],
    "learn": {"generator": True, "max_hull_distance": 100.0, "min_crystals": 1, "trial": 8, "tolerance": 5.0},
    "screening": {"charge_neutrality": False, "novelty": False, "overlap_factor": 0.4},
    "potentials": ["lennard-jones"],
    "relax": {"fmax": 0.5, "max_steps": 4},
    "hull": {"mixed": True},
    "objectives": ("formation_energy", "density"),
    "triage": {"min_hull_distance": -100.0, "max_std": {}, "max_force": 1000.0},
    "decision": {"q": 2},
    "verification": {"close": {"fraction": 0.5}},
    "probes": [{"use": "potential", "q": 2, "options": {"potential": "lennard-jones", "fmax": 4.0}}],
    "oracle": {"use": "potential", "options": {"potential": "lennard-jones", "fmax": 2.0}},
    "hits": [{"objective": "formation_energy", "at_most": 0.0}],
}


def tiny_kit(**changes: Any) -> Kit:
    """The checked parts of a campaign with a Lennard-Jones potential; loads what every child would load by itself."""
    tables()
    ResidualSurrogate().fit(np.arange(4.0)[:, None], np.arange(4.0)[:, None] ** 2)
    return prepare(CampaignSpec.parse(TINY | changes))


# --- a process that ends at the N-th step ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """How a child ended: its exit code, negative for a signal, and the failpoints that it reached."""

    code: int
    reached: list[str]


class Planted:
    """The hook that fails at one failpoint, and writes down those reached."""

    def __init__(self, at: int | None, kind: str, notes: Path) -> None:
        """Fail at the failpoint number `at`, from 1; never if it is None."""
        self._left, self._kind, self._notes = at, kind, notes

    def __call__(self, place: str) -> None:
        """Called at every failpoint."""
        with self._notes.open("a") as file:
            file.write(f"{place}\n")
        if self._left is None:
            return
        self._left -= 1
        if self._left:
            return
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, "No space left on device") if self._kind == "disk" else MemoryError(place)


def run_child(kit: Kit, directory: Path, at: int | None = None, kind: str = "kill") -> Run:
    """Run or resume a campaign in a child process, which fails at the N-th failpoint."""
    return in_child(partial(campaign, kit, directory), directory, at, kind)


def in_child(work: Callable[[], Any], directory: Path, at: int | None = None, kind: str = "kill") -> Run:
    """Do some work on a directory in a child process, which fails at the N-th failpoint."""
    notes = directory.with_name(f"{directory.name}.reached")
    notes.write_text("")
    child = multiprocessing.get_context("fork").Process(target=ending, args=(work, at, kind, notes))
    child.start()
    child.join()
    return Run(child.exitcode or 0, notes.read_text().splitlines())


def ending(work: Callable[[], Any], at: int | None, kind: str, notes: Path) -> None:
    """What a child does; its exit code is 3 if the work ended with an error."""
    failpoints.hook = Planted(at, kind, notes)
    try:
        work()
    except BaseException:  # noqa: BLE001  it is looked at by the parent
        if at is None:
            traceback.print_exc()
        os._exit(3)
    os._exit(0)


def campaign(kit: Kit, directory: Path) -> None:
    """Run or resume a campaign."""
    note_acknowledged(directory)
    with closing(open_ledger(kit, directory)) as ledger:
        Campaign(kit, ledger, InlineExecutor()).run()


def note_acknowledged(directory: Path) -> None:
    """Write down, for good, each commit whose acknowledgement came back, and whether it was told to be new."""
    commit, file = Ledger.commit, acknowledged_file(directory)

    def noted(self: Ledger, key: str, *rest: Any) -> bool:
        done = commit(self, key, *rest)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{key} {'new' if done else 'known'}\n".encode())
        os.fsync(descriptor)
        os.close(descriptor)
        return done

    Ledger.commit = noted  # type: ignore[method-assign]


def acknowledged_file(directory: Path) -> Path:
    """Where a child writes down the commits that were acknowledged."""
    return directory.with_name(f"{directory.name}.acknowledged")


@dataclass(frozen=True)
class Crash:
    """One crash and what came of it.

    Attributes:
        at: The number of the failpoint.
        place: Its name.
        lost: Commits that were acknowledged and are not there when the campaign is resumed.
        doubled: Commits that were told to be new more than once.
        same: Whether the finished campaign has the digest of the undisturbed one, and a sound ledger.
        resumed: How many runs it took after the crash.
        repeated: Items that were dispatched again.
    """

    at: int
    place: str
    lost: int
    doubled: int
    same: bool
    resumed: int
    repeated: int


def undisturbed(kit: Kit, directory: Path) -> tuple[list[str], str]:
    """The failpoints of a run without a fault, and the digest of its ledger."""
    done = run_child(kit, directory)
    if done.code:
        raise RuntimeError(f"the undisturbed campaign ended with {done.code}")
    return done.reached, digest(directory)


def crash(kit: Kit, directory: Path, at: int, kind: str, places: list[str], expected: str) -> Crash:
    """Fail at a failpoint, resume until the campaign is done, compare."""
    shutil.rmtree(directory, ignore_errors=True)
    acknowledged_file(directory).unlink(missing_ok=True)
    first = run_child(kit, directory, at, kind)
    if first.code == 0 and kind == "kill":
        raise RuntimeError(f"failpoint {at} ({places[at - 1]}) did not end the process")
    lost, again, reached, code = missing(directory), 0, list(first.reached), first.code
    while code and again < 3:
        later = run_child(kit, directory)
        code, again = later.code, again + 1
        reached += later.reached
    same = code == 0 and digest(directory) == expected and verify_ledger(directory) == []
    repeated = dispatched(reached) - dispatched(places)
    return Crash(at, places[at - 1], lost, doubled(directory), same, again, repeated)


def missing(directory: Path) -> int:
    """Acknowledged commits that the ledger does not hold."""
    told = {key for key, _ in acknowledged(directory)}
    if not Ledger.exists(directory):
        return len(told)
    with LedgerReader.open(directory) as ledger:
        kept = set(ledger.query("SELECT commit_key FROM commits").column(0).to_pylist())
    return len(told - kept)


def doubled(directory: Path) -> int:
    """Commits that were told to be new more than once."""
    new = Counter(key for key, told in acknowledged(directory) if told == "new")
    return sum(count - 1 for count in new.values())


def acknowledged(directory: Path) -> list[list[str]]:
    """The acknowledgements of all children: key, and whether it was new."""
    file = acknowledged_file(directory)
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def dispatched(places: list[str]) -> int:
    return sum(place.startswith("before dispatch") for place in places)


# --- files that are damaged -------------------------------------------------------------------------------------------


def truncated(path: Path, rng: random.Random) -> None:
    """Cut a file short."""
    with path.open("r+b") as file:
        file.truncate(rng.randrange(path.stat().st_size))


def flipped(path: Path, rng: random.Random) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def zeroed(path: Path, rng: random.Random) -> None:
    """Fill the end of a file with zeros, as a power failure may."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    content[start:] = bytes(len(content) - start)
    path.write_bytes(content)


def deleted(path: Path, rng: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def replaced(path: Path, rng: random.Random) -> None:
    """Put random bytes in a file's place."""
    path.write_bytes(rng.randbytes(path.stat().st_size))


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    damage.__name__: damage for damage in (truncated, flipped, zeroed, deleted, replaced)
}
FOREIGN = "foreign"  # the sound file of another campaign in its place
DAMAGED_FILES = ("ledger.duckdb", "ledger.duckdb.wal", "ledger.head", "an export", "a manifest")
EVERY = dict.fromkeys(DAMAGED_FILES, (*DAMAGES, FOREIGN))
EVERY_PAIR = tuple(combinations(DAMAGED_FILES, 2))


def victim(directory: Path, name: str, rng: random.Random) -> Path:
    """The file that a damage is done to."""
    if name == "an export":
        return rng.choice(sorted(directory.glob("exports/round=*/*.parquet")))
    if name == "a manifest":
        return rng.choice(sorted(directory.glob("exports/round=*/manifest.json")))
    return directory / name


@dataclass(frozen=True)
class Found:
    """What became of a damaged ledger.

    Attributes:
        outcome: "refused" in a sentence on opening or reading that names the cure, "reported" by `verify`, "harmless":
            nothing is lost; "refused without a cure"; else "silent".
        recovered: Whether `recover` brought every closed round back that was left somewhere, and a sound ledger.
        all_closed: Whether these were all closed rounds.
    """

    outcome: str
    recovered: bool
    all_closed: bool


@dataclass(frozen=True)
class Whole:
    """An undamaged ledger, and what damaged copies of it are held against.

    Attributes:
        directory: Where it is.
        science: The digest of all of it.
        closed: Its closed rounds and their digest; first without the last rounds, at the end with all of them.
        foreign: A ledger of another campaign, left in the same way.
    """

    directory: Path
    science: str
    closed: list[Closed]
    foreign: Path | None = None

    @classmethod
    def of(cls, directory: Path, foreign: Path | None = None) -> Whole:
        """Read it once."""
        with LedgerReader.open(directory) as ledger:
            numbers = ledger.closed_rounds()
            closed = [(tuple(numbers[:n]), digest(ledger, numbers[:n])) for n in range(len(numbers) + 1)]
            return cls(directory, digest(ledger), closed, foreign)

    def copy(self, work: Path) -> None:
        """Put a copy of it in the place of what was there."""
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.directory, work)


def judge(directory: Path, whole: Whole, at_least: int | None = None) -> Found:
    """Open a damaged ledger, then recover it, and compare with the whole one.

    Args:
        directory: The damaged ledger.
        whole: The whole one.
        at_least: How many closed rounds must come back; all of them by default.
    """
    try:
        problems = verify_ledger(directory)
        with LedgerReader.open(directory) as ledger:
            outcome = "reported" if problems else "harmless" if digest(ledger) == whole.science else "silent"
    except LedgerError as error:
        outcome = _refusal(error)
    recover(directory)
    closed = closed_rounds(directory)
    enough = whole.closed[-1:] if at_least is None else whole.closed[at_least:]
    return Found(outcome, verify_ledger(directory) == [] and closed in enough, closed == whole.closed[-1])


def closed_rounds(directory: Path) -> Closed:
    """The closed rounds of a ledger."""
    with LedgerReader.open(directory) as ledger:
        numbers = ledger.closed_rounds()
        return tuple(numbers), digest(ledger, numbers)


def matrix(
    whole: Whole, work: Path, seeds: range, cases: Mapping[str, Iterable[str]] = EVERY
) -> Iterator[tuple[str, str, int, Found]]:
    """Damages of files: the file, the damage, the seed, and what became of it."""
    for name, damage in ((name, damage) for name, damages in cases.items() for damage in damages):
        for seed in seeds if damage not in ("deleted", FOREIGN) else seeds[:1]:
            rng = random.Random(f"{name} {damage} {seed}")
            whole.copy(work)
            path = victim(work, name, rng)
            if damage == FOREIGN:
                assert whole.foreign is not None
                shutil.copy(whole.foreign / path.relative_to(work), path)
            else:
                DAMAGES[damage](path, rng)
            yield name, damage, seed, judge(work, whole)


def pairs(
    whole: Whole, work: Path, seeds: range, cases: Iterable[tuple[str, str]] = EVERY_PAIR
) -> Iterator[tuple[tuple[str, str], tuple[str, str], int, Found]]:
    """Two files damaged at once, each in a random way: the files, the damages, the seed, and what became of it.

    An export and its manifest are of one round. With the database and an export that round may be gone, and with it
    those after it, but none before.
    """
    for names in cases:
        for seed in seeds:
            rng = random.Random(f"{names} {seed}")
            whole.copy(work)
            damages = (rng.choice(list(DAMAGES)), rng.choice(list(DAMAGES)))
            export = victim(work, "an export", rng)
            paths = [
                {"an export": export, "a manifest": export.parent / "manifest.json"}.get(n, work / n) for n in names
            ]
            for path, damage in zip(paths, damages, strict=True):
                DAMAGES[damage](path, rng)
            before = int(export.parent.name.partition("=")[2]) - 1
            nowhere = "ledger.duckdb" in names and ("an export" in names or "a manifest" in names)
            yield names, damages, seed, judge(work, whole, before if nowhere else None)


# --- a recovery that is ended half-way --------------------------------------------------------------------------------


def _spoilt(directory: Path, name: str, damage: str) -> None:
    DAMAGES[damage](victim(directory, name, random.Random(name)), random.Random(name))


RECOVERIES: dict[str, Callable[[Path], None]] = {
    "database replaced": lambda directory: _spoilt(directory, "ledger.duckdb", "replaced"),
    "log deleted": lambda directory: _spoilt(directory, "ledger.duckdb.wal", "deleted"),
    "head deleted": lambda directory: _spoilt(directory, "ledger.head", "deleted"),
    "export damaged": lambda directory: _spoilt(directory, "an export", "flipped"),
}


@dataclass(frozen=True)
class Halfway:
    """What became of a ledger whose recovery was ended half-way.

    Attributes:
        damage: What the recovery was for.
        at: The number of the failpoint.
        place: Its name.
        meanwhile: "refused", with the cure, or "whole", what opening it gave before the next recovery; else "silent" or
            "refused without a cure".
        same: Whether the next recovery brought every closed round back, and a sound ledger.
    """

    damage: str
    at: int
    place: str
    meanwhile: str
    same: bool


def steps_of_recovery(whole: Whole, work: Path, damage: str) -> list[str]:
    """The failpoints of a recovery that nothing ends."""
    whole.copy(work)
    RECOVERIES[damage](work)
    done = in_child(partial(recover, work), work)
    if done.code:
        raise RuntimeError(f"the recovery from '{damage}' ended with {done.code}")
    return done.reached


def crash_recovery(whole: Whole, work: Path, damage: str, at: int, kind: str, times: int = 1) -> Halfway:
    """End a recovery at the N-th failpoint, so many times; recover, and compare with the whole ledger."""
    whole.copy(work)
    RECOVERIES[damage](work)
    for _ in range(times):
        run = in_child(partial(recover, work), work, at, kind)
    meanwhile = _meanwhile(work, whole.closed[-1])
    recover(work)
    same = verify_ledger(work) == [] and closed_rounds(work) == whole.closed[-1]
    return Halfway(damage, at, run.reached[-1], meanwhile, same)


def _meanwhile(work: Path, expected: Closed) -> str:
    """What somebody finds who goes on without another recovery; a new campaign must not begin there."""
    try:
        if not Ledger.exists(work):
            Ledger.create(work, {}).close()
        return "whole" if closed_rounds(work) == expected else "silent"
    except LedgerError as error:
        return _refusal(error)


def _refusal(error: LedgerError) -> str:
    return "refused" if "`paragenesis recover" in str(error) else "refused without a cure"

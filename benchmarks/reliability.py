"""Reliability: what is left after crashes, kills and damage, as the tables of `docs/reliability.md`.

    python benchmarks/reliability.py --task crashes [--stride 1]     # every failpoint, three kinds of fault
    python benchmarks/reliability.py --task kills [--kills 300]      # SIGKILL at random moments, seeded
    python benchmarks/reliability.py --task damage [--seeds 10]      # every file, every damage; pairs of files
    python benchmarks/reliability.py --task recover [--stride 1]     # every step of a recovery, three kinds of fault
    python benchmarks/reliability.py --task cost                     # what durability costs
    python benchmarks/reliability.py --task nemesis [--seeds 140 --first-seed 20]    # workers of Ray, hit at random
    python benchmarks/reliability.py --task fuzz [--fuzz 12]         # twelve times as many examples as the tests try
    python benchmarks/reliability.py --task mutations                # guards taken out, and the tests that notice
    python benchmarks/reliability.py --task all                      # all of them, one after the other

The first five are on a tiny campaign with a Lennard-Jones potential, in this process's children; they need a system
that can fork.

crashes  a child is killed (SIGKILL), or meets a full disk or the end of memory, at the N-th step that changes something
         outside the process; then others resume until the campaign is done. For N = 1, 2, ... to the last step.
kills    a child is killed after a random time, the next one goes on and is killed, and so on until the campaign is
         done, and the next campaign begins.
damage   a ledger as a killed process leaves it, with two closed rounds and one open, is damaged; then opened, verified
         and recovered.
recover  the same ledger is damaged in four ways, and its recovery ends at the N-th step with a fault, for every N; then
         it is recovered once more. Before that nobody may find a ledger there that lacks something in silence.
nemesis, fuzz, mutations  run the project's own tests, see `bench_suite.py`.
cost     commits per second with and without the chain's head, and with and without waiting for the disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import bench_faults as faults
import bench_suite
import numpy as np
from bench_table import markdown, spread, versions

from paragenesis.engine.campaign import Campaign
from paragenesis.engine.executor import InlineExecutor
from paragenesis.engine.ledger import Ledger, LedgerReader, chain, digest, disk, rows, verify_ledger
from paragenesis.engine.resuming import open_ledger

Options = argparse.Namespace


def crashes(options: Options, work: Path) -> dict[str, Any]:
    """A fault at every step."""
    kit = faults.tiny_kit()
    places, expected = faults.undisturbed(kit, work / "whole")
    table, results = [], []
    for kind in options.faults:
        done = [
            faults.crash(kit, work / "c", at, kind, places, expected)
            for at in range(1, len(places) + 1, options.stride)
        ]
        same, lost, doubled = (sum(getattr(one, name) for one in done) for name in ("same", "lost", "doubled"))
        repeated = np.mean([max(one.repeated, 0) for one in done])
        counts = [f"{len(done)} of {len(places)}", f"{same}/{len(done)}", str(lost), str(doubled)]
        table.append([kind, *counts, f"{repeated:.2f}"])
        results += [{"kind": kind, **vars(one)} for one in done]
    head = ["fault", "steps", "same digest, sound ledger", "acknowledged commits lost", "doubled"]
    print(markdown([*head, "dispatches repeated a fault"], table))
    return {"task": "crashes", "results": results}


def kills(options: Options, work: Path) -> dict[str, Any]:
    """SIGKILL at random moments."""
    kit = faults.tiny_kit()
    started = time.monotonic()
    places, expected = faults.undisturbed(kit, work / "whole")
    usual = time.monotonic() - started
    killed, campaigns, same, lost, doubled, waits, repeated = 0, 0, 0, 0, 0, [], []
    while killed < options.kills:
        rng, directory = random.Random(campaigns), work / f"k{campaigns}"
        reached: list[str] = []
        here = 0
        while (run := _killed(kit, directory, rng.uniform(0.0, usual))) is not None:
            here += 1
            reached += run
            lost += faults.missing(directory)
            waits.append(_reopened(directory))
        reached += (directory.with_name(f"{directory.name}.reached")).read_text().splitlines()
        killed, campaigns = killed + here, campaigns + 1
        doubled += faults.doubled(directory)
        same += digest(directory) == expected and verify_ledger(directory) == []
        if here:
            repeated.append((faults.dispatched(reached) - faults.dispatched(places)) / here)
        shutil.rmtree(directory)
    opened = [1000 * wait for wait in waits if wait is not None]
    row = [str(killed), f"{same}/{campaigns}", str(lost), str(doubled), f"{np.mean(repeated):.2f}"]
    row.append(f"{np.median(opened):.0f} / {np.quantile(opened, 0.95):.0f}")
    head = ["kills", "campaigns with the same digest", "acknowledged commits lost", "doubled"]
    print(markdown([*head, "dispatches repeated a kill", "ledger open again, ms, median / 95 %"], [row]))
    return {"task": "kills", "kills": killed, "campaigns": campaigns, "same": same, "lost": lost, "doubled": doubled}


def _killed(kit: Any, directory: Path, after: float) -> list[str] | None:
    """The steps of a child that was killed after some seconds; None if it was done before."""
    notes = directory.with_name(f"{directory.name}.reached")
    notes.write_text("")
    arguments = (partial(faults.campaign, kit, directory), None, "kill", notes)
    child = multiprocessing.get_context("fork").Process(target=faults.ending, args=arguments)
    child.start()
    child.join(after)
    if child.exitcode is None:
        os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    if child.exitcode == 0:
        return None
    if child.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"a resumed campaign ended with {child.exitcode}")
    return notes.read_text().splitlines()


def _reopened(directory: Path) -> float | None:
    """How long it takes to open a ledger after a kill, seconds; None if there is none yet."""
    if not Ledger.exists(directory):
        return None
    started = time.perf_counter()
    LedgerReader.open(directory).close()
    return time.perf_counter() - started


def _left_by_a_kill(work: Path) -> faults.Whole:
    """A ledger as a killed process leaves it, with two closed rounds and one open."""
    for name, seed in (("whole", 1), ("foreign", 2)):
        kit = faults.tiny_kit(rounds=3, seed=seed)
        places, _ = faults.undisturbed(kit, work / f"{name}-finished")
        at = next(i for i, place in enumerate(places, start=1) if place.startswith("before commit 'r003/selection"))
        faults.run_child(kit, work / name, at)
    return faults.Whole.of(work / "whole", work / "foreign")


def damage(options: Options, work: Path) -> dict[str, Any]:
    """Every damage to every file, and to every pair of files."""
    whole, seeds = _left_by_a_kill(work), range(options.seeds)
    found: dict[tuple[str, str], list[faults.Found]] = {}
    for name, kind, seed, result in faults.matrix(whole, work / "c", seeds):
        found.setdefault((name, kind), []).append(result)
        _warn(result, name, kind, seed)
    table = []
    for name in faults.DAMAGED_FILES:
        cells = [_counted(found[name, kind]) for kind in faults.EVERY[name]]
        table.append([name, *cells])
    print(markdown(["file", *faults.DAMAGES, faults.FOREIGN], table))
    both: dict[tuple[str, str], list[faults.Found]] = {}
    for names, kinds, seed, result in faults.pairs(whole, work / "c", seeds):
        both.setdefault(names, []).append(result)
        _warn(result, names, kinds, seed)
    print()
    pairs = [
        [
            " and ".join(names),
            _counted(results),
            f"{sum(one.all_closed for one in results)}/{len(results)}",
            _share(results),
        ]
        for names, results in both.items()
    ]
    print(markdown(["two files", "found", "all closed rounds back", "all that were left back, sound ledger"], pairs))
    every = [one for results in [*found.values(), *both.values()] for one in results]
    silent = sum(one.outcome == "silent" for one in every)
    back = _share(every)
    print(f"\n{len(every)} damaged ledgers: {silent} silent, {back} with all closed rounds that were left, and sound")
    return {"task": "damage", "n": len(every), "silent": silent, "recovered": sum(one.recovered for one in every)}


def _counted(results: Sequence[faults.Found]) -> str:
    return ", ".join(f"{n} {what}" for what, n in sorted(Counter(one.outcome for one in results).items()))


def _share(results: Sequence[faults.Found]) -> str:
    return f"{sum(one.recovered for one in results)}/{len(results)}"


def _warn(result: faults.Found, *case: object) -> None:
    """Name what did not hold, so that it can be tried again."""
    if result.outcome == "silent" or not result.recovered:
        print(f"{case}: {result}", flush=True)


def recover(options: Options, work: Path) -> dict[str, Any]:
    """A fault at every step of a recovery."""
    whole = _left_by_a_kill(work)
    table, results = [], []
    for damaged in faults.RECOVERIES:
        steps = len(faults.steps_of_recovery(whole, work / "c", damaged))
        for kind in options.faults:
            done = [
                faults.crash_recovery(whole, work / "c", damaged, at, kind)
                for at in range(1, steps + 1, options.stride)
            ]
            meanwhile = ", ".join(f"{n} {what}" for what, n in sorted(Counter(one.meanwhile for one in done).items()))
            same = sum(one.same for one in done)
            table.append([damaged, kind, f"{len(done)} of {steps}", meanwhile, f"{same}/{len(done)}"])
            results += [{"kind": kind, **vars(one)} for one in done]
    head = ["recovery from", "fault", "steps tried", "the ledger meanwhile", "all closed rounds back, sound ledger"]
    print(markdown(head, table))
    return {"task": "recover", "results": results}


def cost(options: Options, work: Path) -> dict[str, Any]:
    """What the head and waiting for the disk cost."""
    ways: dict[str, list[float]] = {"as it is": [], "without the head": [], "head without waiting for the disk": []}
    for seed in range(options.seeds):
        for name, times in ways.items():
            times.append(_commits_per_second(work / f"{seed}-{name.replace(' ', '-')}", name))
    base = np.array(ways["as it is"])
    table = [[name, spread(times, 0), spread(np.array(times) / base, 2)] for name, times in ways.items()]
    print(markdown(["commits of 16 crystals", "per second", "as it is = 1"], table))
    share = [_share_of_campaign(work / f"campaign-{seed}") for seed in range(options.seeds)]
    print(f"\nthe head's share of a tiny Lennard-Jones campaign's time: {spread([100 * s for s in share], 1)} %")
    return {"task": "cost", "per_second": ways, "share": share}


@contextmanager
def _changed(place: Any, name: str, instead: Callable[..., Any]) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, instead)
    try:
        yield
    finally:
        setattr(place, name, before)


def _commits_per_second(directory: Path, way: str, n: int = 100) -> float:
    """Commits per second of a chunk's size."""
    nothing = _changed(time, "sleep", time.sleep)
    if way == "without the head":
        nothing = _changed(Ledger, "_write_head", lambda self: None)
    elif way != "as it is":
        nothing = _changed(disk, "sync", lambda path: None)
    with Ledger.create(directory, {"name": "cost"}) as ledger, nothing:
        ledger.open_round(1, "{}")
        started = time.perf_counter()
        for index in range(n):
            ids = [f"c{index}-{i}" for i in range(16)]
            table = rows("candidates", candidate_id=ids, round=1, chunk=index, verdict="failed", stage="s", reason="r")
            ledger.commit(f"r1/c{index}", 1, "chunk", {"candidates": table})
        return n / (time.perf_counter() - started)


def _share_of_campaign(directory: Path) -> float:
    """The share of a campaign's wall time that goes into heads."""
    spent, write = 0.0, chain.Head.write

    def timed(self: chain.Head, where: Path) -> None:
        nonlocal spent
        started = time.perf_counter()
        write(self, where)
        spent += time.perf_counter() - started

    kit = faults.tiny_kit()
    with _changed(chain.Head, "write", timed), closing(open_ledger(kit, directory)) as ledger:
        started = time.perf_counter()
        Campaign(kit, ledger, InlineExecutor()).run()
        return spent / (time.perf_counter() - started)


TASKS: dict[str, Callable[[Options, Path], dict[str, Any]]] = {
    "crashes": crashes,
    "kills": kills,
    "damage": damage,
    "recover": recover,
    "cost": cost,
    "nemesis": bench_suite.nemesis,
    "fuzz": bench_suite.fuzz,
    "mutations": bench_suite.mutations,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*TASKS, "all"], required=True)
    parser.add_argument("--stride", type=int, default=1, help="crashes, recover: only every so many steps")
    parser.add_argument(
        "--faults", nargs="+", choices=faults.KINDS, default=faults.KINDS, help="crashes, recover: which kinds"
    )
    parser.add_argument("--kills", type=int, default=300, help="kills: how many in all")
    parser.add_argument("--seeds", type=int, default=5, help="damage, cost, nemesis: how many of each")
    parser.add_argument("--first-seed", type=int, default=0, help="nemesis: the first of the seeds")
    parser.add_argument("--fuzz", type=float, default=1.0, help="fuzz: how many times as many examples as usual")
    parser.add_argument("--out", type=Path, help="write everything there as JSON")
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()
    results = []
    for task in TASKS if options.task == "all" else [options.task]:
        print(f"\n{task}\n")
        with tempfile.TemporaryDirectory() as folder:
            results.append(TASKS[task](options, Path(folder)))
    print(f"\n{time.monotonic() - started:.0f} s; {versions('duckdb', 'torch')}")
    if options.out is not None:
        options.out.write_text(json.dumps(results if len(results) > 1 else results[0], indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()

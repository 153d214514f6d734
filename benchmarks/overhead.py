"""Engine overhead: what a campaign costs beside its potential, for each candidate, in this process and on Ray.

    python benchmarks/overhead.py [--n 256] [--chunk 32] [--rounds 2] [--seeds 0 1 2] [--executors inline ray:1 ray:2]

A whole campaign with a Lennard-Jones potential, which costs next to nothing, so that what is left is the engine. A
clock around the forward pass of the model says what time was spent there, another around each stage what the stage
took. "Outside models" is the number of workers that host the potential times the campaign's wall time, less the time
in the model: what a GPU would idle. On Ray the stages overlap, so they add up to more than that. Starting Ray,
building the stages on the workers and a first call of each are shown apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench_clock import seconds_by_stage, timed_stage
from bench_table import markdown, spread, versions

from paragenesis.actors import RayExecutor
from paragenesis.engine.campaign import Campaign, Progress
from paragenesis.engine.executor import Executor, InlineExecutor
from paragenesis.engine.ledger import Ledger
from paragenesis.engine.preflight import Kit, prepare
from paragenesis.engine.report import write_report
from paragenesis.engine.resuming import open_ledger
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.spec import CampaignSpec
from paragenesis.engine.stages import ChunkTask, RoundContext

POTENTIAL = "bench_clock:timed_lennard_jones"
ELEMENTS = ("Li", "Na", "K", "Mg", "Ca", "Al", "Ti", "Zn", "O", "S", "F", "Cl")


def specification(generator: str, n: int, chunk: int, rounds: int, seed: int, workers: int) -> CampaignSpec:
    """A campaign in which everything is as usual but the potential, and nothing is held back by triage."""
    plain = {"charge_neutrality": False, "novelty": False, "overlap_factor": 0.4} if generator == "random" else {}
    return CampaignSpec.parse(
        {
            "name": "overhead",
            "seed": seed,
            "rounds": rounds,
            "condition": {"allowed_elements": ELEMENTS, "max_atoms": 12},
            "generators": [{"use": generator, "n": n, "chunk": chunk}],
            "screening": plain,
            "potentials": [POTENTIAL],
            "hull": {"mixed": True},
            "objectives": ("formation_energy", "density", "supply_risk"),
            "triage": {"min_hull_distance": -100.0, "max_std": {}, "max_force": 1000.0},
            "decision": {"q": 8},
            "oracle": {"use": "potential", "options": {"potential": POTENTIAL}},
            "resources": {"potentials": {"workers": workers}},
            "device": "cpu",
        }
    )


@dataclass(frozen=True)
class Measured:
    """One campaign, in seconds.

    Attributes:
        n: Candidates generated.
        n_relaxed: Of these, the ones that were relaxed.
        workers: Processes that host the potential.
        phases: Wall time by phase.
        stages: Time in each stage, and of this in the model, summed over the workers.
        commits: Time in the ledger's commits.
        start: Wall time of starting Ray, and of building and warming the stages.
    """

    n: int
    n_relaxed: int
    workers: int
    phases: dict[str, float]
    stages: dict[str, tuple[float, float]]
    commits: float
    start: tuple[float, float]

    def rows(self) -> Iterator[tuple[str, float]]:
        """What the table has: names, and milliseconds for each candidate."""
        each = 1e3 / self.n
        models = {"fill": self.stages["relax"][1], "verify": self.stages["verify"][1]}
        wall = sum(self.phases.values())
        yield "wall time", wall * each
        yield "in the model, all workers", sum(models.values()) * each
        yield "**outside models**", (self.workers * wall - sum(models.values())) * each
        for phase, seconds in self.phases.items():
            yield f"of this {phase}", (self.workers * seconds - models.get(phase, 0.0)) * each
        for stage in ("generate", "screen", "relax", "assess", "verify"):
            seconds, model = self.stages[stage]
            yield f"in stage {stage}{', around the model' if model else ''}", (seconds - model) * each
        yield "in commits to the ledger", self.commits * each


def measure(spec: CampaignSpec, executor: str) -> Measured:
    """Run a campaign with clocks in it."""
    kit = prepare(spec)
    with tempfile.TemporaryDirectory() as name:
        clocks = Path(name) / "clocks"
        clocks.mkdir()
        kit = replace(
            kit,
            stages=tuple(timed_stage(stage, clocks) for stage in kit.stages),
            verify=timed_stage(kit.verify, clocks),
        )
        started = time.perf_counter()
        with closing(InlineExecutor() if executor == "inline" else RayExecutor()) as hosts:
            connected = time.perf_counter()
            warm_up(kit, hosts)
            warm = time.perf_counter()
            before = seconds_by_stage(clocks)
            with closing(open_ledger(kit, Path(name) / "campaign")) as ledger:
                commits = timed_commits(ledger)
                phases = PhaseClock()
                Campaign(kit, ledger, hosts, phases).run()
                write_report(ledger, Path(name) / "report.html")
                phases.over("report")
                counted = ledger.query("SELECT count(*) AS n, count(steps) AS relaxed FROM candidates").to_pylist()[0]
        after = seconds_by_stage(clocks)
    return Measured(
        n=counted["n"],
        n_relaxed=counted["relaxed"],
        workers=spec.resources.potentials.workers,
        phases=phases.seconds,
        stages={s: (after[s][0] - before[s][0], after[s][1] - before[s][1]) for s in after},
        commits=sum(commits),
        start=(connected - started, warm - connected),
    )


def warm_up(kit: Kit, hosts: Executor) -> None:
    """Have every worker build its stages and call each of them once."""
    entry = kit.spec.generators[0]
    tasks = [
        ChunkTask(round=0, generator=entry.name, index=i, n=4, seed=i)
        for i in range(2 * kit.spec.resources.potentials.workers)
    ]
    context = RoundContext(kit.spec.condition, Seen(kit.spec.screening))
    chunks = [outcome.value for outcome in hosts.stream(kit.stages, tasks, context)]
    for _ in hosts.stream([kit.verify], [chunk.crystals[0] for chunk in chunks], None):
        pass


class PhaseClock:
    """Adds up wall time by phase: what went by before a step was told of belongs to the phase of that step."""

    def __init__(self) -> None:
        """Start the clock."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._since = time.perf_counter()

    def __call__(self, progress: Progress) -> None:
        """Be told of a step."""
        self.over(progress.phase)

    def over(self, phase: str) -> None:
        """Put down the time since the last call."""
        now = time.perf_counter()
        self.seconds[phase] += now - self._since
        self._since = now


def timed_commits(ledger: Ledger) -> list[float]:
    """Put a clock around the ledger's commits; returns the list that the seconds go to."""
    commit, seconds = ledger.commit, list[float]()

    def timed(*arguments: Any) -> bool:
        started = time.perf_counter()
        try:
            return commit(*arguments)
        finally:
            seconds.append(time.perf_counter() - started)

    ledger.commit = timed  # type: ignore[method-assign, assignment]
    return seconds


def report(results: Mapping[str, Sequence[Measured]]) -> str:
    """The table: a row for each part of the time, a column for each executor."""
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for executor, measured in results.items():
        for name, value in (row for one in measured for row in one.rows()):
            cells[name][executor].append(value)
    rows = [[name, *(spread(values[e]) for e in results)] for name, values in cells.items()]
    starts = [[spread(s, 1) for s in zip(*(m.start for m in measured), strict=True)] for measured in results.values()]
    rows.append(["not counted: starting Ray, s", *(s[0] for s in starts)])
    rows.append(["not counted: building the stages, s", *(s[1] for s in starts)])
    return markdown(["ms for each candidate", *results], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=256, help="candidates a round")
    parser.add_argument("--chunk", type=int, default=32, help="candidates in a chunk")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--generator", choices=("substitution", "random"), default="substitution")
    parser.add_argument("--executors", nargs="+", default=["inline", "ray:1", "ray:2"], help="inline, ray:WORKERS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # third parties'
    measure(specification(options.generator, 4, 4, 2, 0, 1), "inline")  # what is imported late is imported now
    results: dict[str, list[Measured]] = {executor: [] for executor in options.executors}
    for seed in options.seeds:
        for executor in options.executors:
            name, _, workers = executor.partition(":")
            spec = specification(options.generator, options.n, options.chunk, options.rounds, seed, int(workers or 1))
            results[executor].append(measure(spec, name))
    print(report(results))
    shapes = "; ".join(
        f"seed {seed}: {m.n} candidates, {m.n_relaxed} relaxed"
        for seed, m in zip(options.seeds, next(iter(results.values())), strict=True)
    )
    print(f"\n{options.generator}, {options.rounds} rounds, chunks of {options.chunk}; {shapes}")
    print(versions("torch", "ray", "duckdb", "pymatgen"))


if __name__ == "__main__":
    main()

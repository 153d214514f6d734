"""How good generators are: valid, unique, novel and stable crystals, judged the same way for every one.

    python benchmarks/generators.py --data ../shared/data --weights ../shared/weights --seeds 0 1 2
        [--arms wyckoff "wyckoff, guided"] [--samples 2000] [--relax 256] [--out table.json]

    --task table      the arms against each other (the default)
    --task round-trip crystal -> Wyckoff tokens -> crystal
    --task obedience  chemical systems, compositions and space groups that a generator was asked for
    --task targets    property ranges, judged by a model of other crystals than the generator saw (--holdout FILE)
    --task prediction structures of compositions that the flow was not trained on, before and after relaxation

The data folder holds mp20_train.csv.gz, mpts52_train.csv.gz and hull_reference.csv.gz, the weights folder a matgl
potential. CHGNet 0.3.0 relaxes (FIRE with cell, fmax 0.1 eV/A, at most 150 steps) and judges; the second potential
judges at the same minima. Both have elemental references fitted on the data. Novelty is judged against all crystals of
both files, "unlisted" is a formula that the hull table does not hold, "valid" means that no two atoms are nearer than
0.6 of the sum of their covalent radii.

Everything is kept in a work file: an interrupted benchmark goes on where it stopped, and arms can be run one by one.
`--halves DIR` writes the data as two tables of different compositions: train a generator on the first and give it as
--holdout; the judge of properties learns from the second.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_arms import ARMS, Arm
from bench_judge import RELAX, SCREENING, Judge, Setting
from bench_table import markdown, spread, versions

from paragenesis.engine.evaluation import Figure, choose
from paragenesis.engine.evaluation.diversity import diversity
from paragenesis.engine.evaluation.evaluate import measured_figures
from paragenesis.engine.evaluation.stability import relaxation_figures, stability_figures
from paragenesis.terminal import silence_third_parties

SECOND = "TensorNet-MatPES-PBE-v2025.1-PES"
ENERGIES = ("metastable S.U.N.", "S.U.N.", "metastable and unlisted", "stable and unlisted", "new template of these")
PLAIN = (
    "returned of those asked for",
    "strictly valid",
    "valid, CDVAE convention",
    "composition valid, SMACT",
    "space group P1",
    "unique",
    "novel",
    "valid, unique and novel",
    "unlisted, valid, unique and novel",
    "new template, valid, unique and novel",
    "relaxation converged",
    "space group kept by relaxation",
    "space group kept or raised",
    "still valid, unique and novel",
)


def judged(judge: Judge, arm: Arm, samples: int, relaxed: int, seed: int) -> dict[str, Any]:
    """All figures of one arm and seed."""
    crystals, made = judge.generated(arm, samples, seed)
    name = f"{arm.name}/{arm.digest}/{samples}/{seed}"
    measures = judge.measured(name, crystals)
    stability = judge.scored(name, crystals, choose(measures.new, relaxed, seed))
    known, n = judge.known, len(crystals)
    figures = [
        Figure(name="returned of those asked for", count=n, n=samples, of="asked for"),
        *measured_figures(measures, known, n),
        *relaxation_figures(stability, measures, known, SCREENING),
        *stability_figures(stability, measures, known, n, judge.hull.name),
    ]
    return {
        "arm": arm.name,
        "seed": seed,
        "samples": n,
        "relaxed": len(stability),
        "crystals_per_second": n / made["seconds"] if made["seconds"] > 0 else None,
        "tally": made["tally"],
        "figures": [figure.record() for figure in figures],
        "diversity": diversity(crystals, measures, seed).record(),
    }


def table(results: Sequence[dict[str, Any]], members: Sequence[str]) -> str:
    """The table: a row for each quantity, a column for each arm; shares in per cent, median over seeds."""
    arms = list(dict.fromkeys(result["arm"] for result in results))
    both = " and ".join(members)
    judges = {members[0]: members[0]}
    if len(members) > 1:
        judges |= {f"all agree: {both}": "all agree", f"mean: {both}": "mean"}
    rows = [[name, *(_cell(results, arm, name) for arm in arms)] for name in PLAIN]
    for scorer, short in judges.items():
        rows += [[f"{name}, {short}", *(_cell(results, arm, name, scorer) for arm in arms)] for name in ENERGIES]
    rows.append(["crystals per CPU second", *(_plain(results, arm, "crystals_per_second", 1) for arm in arms)])
    for name, digits in (("space_groups", 0), ("templates", 0), ("vendi", 0)):
        rows.append([f"diversity, {name}", *(_diverse(results, arm, name, digits) for arm in arms)])
    return markdown(["", *arms], rows)


def _cell(results: Sequence[dict[str, Any]], arm: str, name: str, scorer: str = "") -> str:
    """A share in per cent: median and range over the seeds; of one seed with its 95 % interval."""
    found = [
        figure
        for result in results
        if result["arm"] == arm
        for figure in result["figures"]
        if figure["name"] == name and (not scorer or figure["scorer"] == scorer)
    ]
    if not found:
        return "-"
    if len(found) == 1:
        value, low, high = (100 * found[0][key] for key in ("value", "low", "high"))
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"
    return spread([100 * figure["value"] for figure in found], 1)


def _plain(results: Sequence[dict[str, Any]], arm: str, name: str, digits: int) -> str:
    values = [r[name] for r in results if r["arm"] == arm and r[name] is not None]
    return spread(values, digits) if values else "-"


def _diverse(results: Sequence[dict[str, Any]], arm: str, name: str, digits: int) -> str:
    return spread([r["diversity"][name] for r in results if r["arm"] == arm], digits)


def compare(judge: Judge, arms: Sequence[Arm], options: argparse.Namespace) -> dict[str, Any]:
    """The arms against each other."""
    results = [judged(judge, arm, options.samples, options.relax, seed) for arm in arms for seed in options.seeds]
    ensemble, remarks = judge.scorers
    print(table(results, ensemble.members))
    print(
        f"\nPer cent of the generated crystals, or of the strictly valid, the relaxed, or the metastable and unlisted "
        f"ones where the row says so. {options.samples} crystals and {options.relax} relaxed at random from the valid, "
        f"unique and novel ones (fmax {RELAX.fmax:g} eV/A, at most {RELAX.max_steps} steps) for each of the seeds "
        f"{', '.join(map(str, options.seeds))}; {judge.hull.describe()} {' '.join(remarks)} "
        f"{versions('torch', 'chgnet', 'matgl', 'moyopy', 'pymatgen')}"
    )
    return {"task": "table", "results": results, "hull": judge.hull.describe(), "remarks": list(remarks)}


def main(arguments: Sequence[str] | None = None) -> None:
    from bench_tasks import TASKS, write_halves

    tasks = {"table": compare, **TASKS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the three tables")
    parser.add_argument("--weights", type=Path, help=f"folder that holds {SECOND}")
    parser.add_argument("--potentials", nargs="+", help="potentials by name, instead; the first one relaxes")
    parser.add_argument("--task", choices=sorted(tasks), default="table")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help=f"some of: {', '.join(a.name for a in ARMS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--relax", type=int, default=256)
    parser.add_argument("--wyckoff", type=Path, help="weights, instead of those that ship")
    parser.add_argument("--flow", type=Path, help="weights, instead of those that ship")
    parser.add_argument("--holdout", type=Path, help="wyckoff weights trained on the first half only")
    parser.add_argument("--halves", type=Path, help="write the two halves of the data there, and stop")
    parser.add_argument("--compositions", type=int, default=100, help="held out, for structure prediction")
    parser.add_argument("--tries", type=int, default=20, help="samples for each of them")
    parser.add_argument("--work", type=Path, default=Path("generators.work"), help="folder of the work file")
    parser.add_argument("--out", type=Path, help="write everything there as JSON")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(options.threads)
    if options.halves is not None:
        write_halves(Setting(options.data, options.work, ()), options.halves)
        return
    judge = Judge(Setting(options.data, options.work, tuple(_potentials(parser, options))), _say)
    with warnings.catch_warnings(action="ignore"):  # third parties', about their own code
        result = tasks[options.task](judge, _arms(parser, options), options)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _potentials(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """Names of the potentials."""
    if options.potentials:
        return list(options.potentials)
    if options.weights is None:
        parser.error("give --weights, or --potentials by name")
    return ["chgnet-0.3.0", f"matgl:{(options.weights / SECOND).resolve()}"]


def _arms(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Arm]:
    """The arms asked for, with the weights that were given."""
    named = {arm.name: arm for arm in ARMS}
    unknown = [name for name in options.arms or [] if name not in named]
    if unknown:
        parser.error(f"there is no arm '{unknown[0]}'; there are {', '.join(named)}")
    weights = {use: file for use in ("wyckoff", "flow") if (file := getattr(options, use)) is not None}
    return [named[name].with_weights(weights) for name in options.arms or named]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    silence_third_parties()
    main()

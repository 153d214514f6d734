"""The commands: each takes what was typed and a console, and returns an exit code."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from paragenesis.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from paragenesis.engine.evaluation import Evaluation
    from paragenesis.engine.generators import Condition


def run_campaign(options: argparse.Namespace, console: Console) -> int:
    """Run or resume a campaign."""
    from paragenesis.launch import run
    from paragenesis.terminal import progress

    if options.directory is not None:
        _check_place("--directory", options.directory, folder=True)
    with progress(console) as notify:
        finished = run(
            options.campaign,
            options.directory,
            executor=options.executor,
            rounds=options.rounds,
            address=options.address,
            trust_network=options.trust_network,
            notify=notify,
        )
    show_status(argparse.Namespace(directory=finished.directory), console)
    _say(console, f"report: {finished.report.resolve()}")
    return 0


def show_status(options: argparse.Namespace, console: Console) -> int:
    """Where a campaign stands; works while it runs."""
    from paragenesis.engine.ledger import read_status
    from paragenesis.terminal import show_rows

    status = read_status(_campaign(options.directory))
    if status["state"] == "stopped":
        status["state"] = "not running"
        del status["pid"], status["host"]
    if status.get("last_commit"):
        status["last_commit"] = f"{status['last_commit'][:19].replace('T', ' ')} UTC"
    show_rows(console, [(k.replace("_", " "), v) for k, v in status.items() if v is not None], ("", "campaign"))
    return 0


def make_report(options: argparse.Namespace, console: Console) -> int:
    """Write the report page anew."""
    from paragenesis.engine.report import write_report

    _say(console, f"report: {write_report(_campaign(options.directory)).resolve()}")
    return 0


def run_sql(options: argparse.Namespace, console: Console) -> int:
    """Ask the ledger in SQL; `SHOW TABLES` and `DESCRIBE candidates` tell what there is to ask for."""
    from paragenesis.engine.ledger import read_only_sql
    from paragenesis.terminal import as_csv, show_table

    table = read_only_sql(_campaign(options.directory), options.query)
    if options.format == "csv":
        console.file.write(as_csv(table))
    else:
        show_table(console, table)
    return 0


def export(options: argparse.Namespace, console: Console) -> int:
    """Write crystals to files that other programs read."""
    from paragenesis.engine.ledger import export_crystals

    suffix = "" if options.format == "cif" else ".extxyz"
    directory = _campaign(options.directory)
    out = options.out or directory / f"{options.what}{suffix}"
    count = export_crystals(directory, what=options.what, format=options.format, out=out)
    _say(console, f"{count} crystals written to {out}")
    return 0


def verify(options: argparse.Namespace, console: Console) -> int:
    """Check the invariants of a ledger."""
    from paragenesis.engine.ledger import verify_ledger

    problems = verify_ledger(_campaign(options.directory))
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False)
    if not problems:
        _say(console, "the ledger is sound: every invariant holds")
    return 1 if problems else 0


def recover(options: argparse.Namespace, console: Console) -> int:
    """Rebuild a damaged ledger from its exports and from what is left of its file."""
    from paragenesis.engine.ledger import recover as rebuild
    from paragenesis.engine.ledger import verify_ledger

    directory = options.directory  # its ledger may be gone: the exports may be all that is left
    if not directory.is_dir():
        raise InputError(f"there is no folder '{directory}'; give the directory that `paragenesis run` wrote to")
    recovered = rebuild(directory)
    for problem in recovered.problems:
        _say(console, f"found: {problem}")
    rounds = ", ".join(map(str, recovered.closed)) or "none"
    _say(console, f"closed rounds kept: {rounds}; commits of the open round kept: {recovered.commits}")
    _say(console, f"the old files are in {recovered.aside}; what was lost is computed again by `paragenesis run`")
    problems = verify_ledger(directory)
    for problem in problems:
        _say(console, problem)
    return 1 if problems else 0


def generate(options: argparse.Namespace, console: Console) -> int:
    """Use a generator by itself."""
    from paragenesis.engine.extxyz import write_extxyz
    from paragenesis.engine.generators.learned.job import parse_words
    from paragenesis.engine.plugins import build_generator, try_generator

    if options.number < 1:
        raise InputError(f"-n must be at least 1, but {options.number} was given")
    if options.seed < 0:
        raise InputError(f"--seed must be 0 or more, but {options.seed} was given")
    condition = _condition(options)
    _check_xyz("--out", options.out)
    with console.status("generating"):
        generator = build_generator(options.generator, parse_words(options.option, "--option"), Path())
        crystals = try_generator(options.generator, generator, options.number, condition, options.seed)
    write_extxyz(crystals, options.out)
    _say(console, f"{len(crystals)} crystals written to {options.out}")
    if len(crystals) < options.number:
        _say(console, f"no more than {len(crystals)} distinct candidates were found for this condition")
    return 0


def relax(options: argparse.Namespace, console: Console) -> int:
    """Relax crystals from a file with one potential."""
    from paragenesis.engine.extxyz import write_extxyz
    from paragenesis.engine.potentials import RelaxSettings, load_potential
    from paragenesis.engine.relax_file import notes, relax_all, valid_crystals
    from paragenesis.terminal import show_rows

    symmetry = "free" if options.free else "keep"
    settings = RelaxSettings.parse({"fmax": options.fmax, "max_steps": options.max_steps, "symmetry": symmetry})
    if not options.file.is_file():
        raise InputError(f"there is no file '{options.file}'; give crystals as CIF, extxyz, POSCAR, CSV or Parquet")
    out = options.out or options.file.with_suffix(".relaxed.extxyz")
    _check_xyz("--out", out)
    crystals, invalid = valid_crystals(options.file)
    with console.status(f"relaxing {len(crystals)} crystals with {options.potential}"):
        potential = load_potential(options.potential, device="auto", sha256=options.sha256)
        relaxed, outcomes = relax_all(potential, crystals, settings)
    header = ("crystal", "formula", "energy (eV/atom)", "converged", "steps")
    show_rows(console, [one.row() for one in [*outcomes, *invalid]], header)
    good = [i for i, one in enumerate(outcomes) if not one.error]
    if not good:
        _say(console, "no crystal could be relaxed; nothing was written")
        return 1
    write_extxyz(relaxed[good], out, notes(potential, [outcomes[i] for i in good]))
    _say(console, f"{len(good)} crystals written to {out}")
    if bad := len(outcomes) + len(invalid) - len(good):
        _say(console, f"{bad} could not be relaxed, for the reasons above")
    return 0


def evaluate(options: argparse.Namespace, console: Console) -> int:
    """Say how good generated crystals are: valid, unique, novel, stable, obedient, diverse."""
    from paragenesis.engine.evaluation import EvaluateSettings, evaluate_file, models_from

    settings = EvaluateSettings.parse({name: getattr(options, name) for name in EvaluateSettings.model_fields})
    condition, models = _condition(options), models_from(options.property_model)
    if options.json is not None:
        _check_place("--json", options.json)
    with console.status("evaluating") as shown:
        found = evaluate_file(
            options.file,
            references=options.reference,
            hull=options.hull,
            hull_level=options.hull_level,
            potentials=options.potential,
            condition=condition,
            models=models,
            settings=settings,
            notify=shown.update,
        )
    _show_evaluation(console, found)
    if options.json is not None:
        options.json.write_text(json.dumps(found.record(), indent=1, allow_nan=False) + "\n")
        _say(console, f"figures and a row for each crystal written to {options.json}")
    return 0


def _show_evaluation(console: Console, found: Evaluation) -> None:
    """The figures as tables, and what they depend on."""
    from paragenesis.engine.evaluation.figures import tables
    from paragenesis.terminal import show_rows

    for head, rows in tables(found.figures):
        show_rows(console, rows, head)
    show_rows(console, found.diversity.record().items(), ("diversity of the strictly valid crystals", ""))
    for line in found.lines():
        _say(console, line)


def train(options: argparse.Namespace, console: Console) -> int:
    """Train a learned generator; the same command again goes on with an interrupted training."""
    from paragenesis.engine.generators.learned.data import read_training_set
    from paragenesis.engine.generators.learned.job import TrainingJob
    from paragenesis.terminal import progress

    _check_place("--out", options.out, folder=True)
    job = TrainingJob.from_options(vars(options))
    with console.status("reading the training data"):
        data = read_training_set(options.data, max_atoms=options.max_atoms, licence=options.licence)
    _say(console, data.summary)
    with progress(console) as notify:
        if options.workers == 1:
            path = job.run(data, notify)
        else:
            from paragenesis.actors.training import train_with_ray

            path = train_with_ray(
                job,
                data,
                options.workers,
                notify,
                address=options.address,
                trust_network=options.trust_network,
            )
    _say(console, f"weights: {path}")
    return 0


def doctor(options: argparse.Namespace, console: Console) -> int:
    """What this machine has, who can reach its Ray processes, and whether potentials give the known answers."""
    from paragenesis.doctor import examine
    from paragenesis.terminal import show_rows

    findings = []
    with console.status("looking at this machine") as shown:
        for finding in examine(
            options.potential,
            cluster=not options.no_ray,
            address=options.address,
            trust_network=options.trust_network,
        ):
            shown.update(f"looked at {finding.subject}")
            findings.append(finding)
    show_rows(console, [(f.subject, f.value, "ok" if f.ok else "PROBLEM") for f in findings], ("", "found", ""))
    problems = sum(not f.ok for f in findings)
    _say(console, f"{problems} to put right" if problems else "everything that a campaign needs is here")
    return 1 if problems else 0


# --- what they share -----------------------------------------------------------------------------------


def _say(console: Console, text: str) -> None:
    """Print a line as it is: not wrapped, not coloured, so that a path can be copied."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _campaign(directory: Path) -> Path:
    """The directory, if a campaign was started there.

    Raises:
        InputError: There is none.
    """
    from paragenesis.engine.ledger import Ledger

    if not Ledger.exists(directory) and not Ledger.was_in(directory):
        raise InputError(f"there is no campaign in '{directory}'; give the directory that `paragenesis run` wrote to")
    return directory


def _condition(options: argparse.Namespace) -> Condition:
    """The condition that the options of `_add_condition` name.

    Raises:
        InputError: Its parts contradict each other, or one of them cannot be.
    """
    from paragenesis.engine.generators import Condition, PropertyRange

    named = {name: getattr(options, name, None) for name in Condition.model_fields}
    named["properties"] = [PropertyRange.from_text(text) for text in options.property or ()] or None
    if options.seed_structure is not None:
        sites = [site.strip() for site in (options.fixed_sites or "").split(",") if site.strip()]
        named["seed_structure"] = {"file": options.seed_structure, "fixed": sites}
    elif options.fixed_sites is not None:
        raise InputError("--fixed-sites are sites of a seed structure; give --seed-structure FILE, too")
    return Condition.parse({name: value for name, value in named.items() if value is not None})


def _check_place(option: str, place: Path, *, folder: bool = False) -> None:
    """Refuse a place that cannot be written before hours are spent on what should go there.

    Raises:
        InputError: It is a folder instead of a file or the other way round, or what is above it cannot be written.
    """
    if place.exists() and place.is_dir() != folder:
        raise InputError(f"{option} '{place}' is a {'file; give a folder' if folder else 'folder; give a file'}")
    above = next(path for path in (place, *place.resolve().parents) if path.exists())
    if not os.access(above, os.W_OK) or not (above.is_dir() or above == place):
        raise InputError(f"{option} '{place}' cannot be written: '{above}' does not let it; give another place")


def _check_xyz(option: str, place: Path) -> None:
    """As `_check_place`, for a file of crystals in the one format that keeps everything.

    Raises:
        InputError: So, or the name promises another format.
    """
    _check_place(option, place)
    if place.suffix.lower() not in (".extxyz", ".xyz"):
        raise InputError(f"{option} '{place}' is to be an extxyz file; call it '{place.with_suffix('.extxyz').name}'")

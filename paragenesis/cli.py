"""The command line: `paragenesis COMMAND ...`.

Exit codes: 0 done, 1 a campaign could not go on or a check failed, 2 what was given cannot be used.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paragenesis.errors import InputError, ParagenesisError, PotentialError
from paragenesis.versions import installed_version

if TYPE_CHECKING:
    from rich.console import Console

    from paragenesis.engine.evaluation import Evaluation
    from paragenesis.engine.generators import Condition

Command = Callable[[argparse.Namespace, "Console"], int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code; other packages' warnings are kept off the terminal."""
    from paragenesis.terminal import silence_third_parties

    silence_third_parties()
    try:
        code = run_command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it exits
        code = 1
    sys.exit(code)


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an error that we raise on purpose becomes one line and an exit code."""
    from rich.console import Console

    from paragenesis.terminal import open_console

    options = build_parser().parse_args(arguments)
    options.typed = shlex.join(["paragenesis", *(sys.argv[1:] if arguments is None else arguments)])
    console = open_console()
    command: Command = options.command
    try:
        return command(options, console)
    except ParagenesisError as error:
        said = " ".join(str(error).split())
        Console(stderr=True, soft_wrap=True).print("error:", said, style="red", markup=False, highlight=False)
        return 2 if isinstance(error, InputError | PotentialError) else 1  # another weights file would do
    except KeyboardInterrupt as stopped:
        resume = "; run the same command again to resume" if command in (run_campaign, train) else ""
        Console(stderr=True, soft_wrap=True).print(str(stopped) or f"interrupted{resume}", highlight=False)
        return 128 + int(getattr(stopped, "signal", signal.SIGINT))


# --- commands ------------------------------------------------------------------------------------------


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

    directory = _campaign(options.directory)
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

            path = train_with_ray(job, data, options.workers, notify, address=options.address)
    _say(console, f"weights: {path}")
    return 0


def doctor(options: argparse.Namespace, console: Console) -> int:
    """What this machine has, and whether the potentials that ship give the known answers."""
    from paragenesis.doctor import examine
    from paragenesis.terminal import show_rows

    findings = []
    with console.status("looking at this machine") as shown:
        for finding in examine(options.potential, cluster=not options.no_ray, address=options.address):
            shown.update(f"looked at {finding.subject}")
            findings.append(finding)
    show_rows(console, [(f.subject, f.value, "ok" if f.ok else "PROBLEM") for f in findings], ("", "found", ""))
    problems = sum(not f.ok for f in findings)
    _say(console, f"{problems} to put right" if problems else "everything that a campaign needs is here")
    return 1 if problems else 0


# --- what the commands share ---------------------------------------------------------------------------


def _say(console: Console, text: str) -> None:
    """Print a line as it is: not wrapped, not coloured, so that a path can be copied."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _campaign(directory: Path) -> Path:
    """The directory, if a campaign was started there.

    Raises:
        InputError: There is none.
    """
    from paragenesis.engine.ledger import Ledger

    if not Ledger.exists(directory):
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


# --- the parser ----------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The parser with one sub-parser a command."""
    parser = argparse.ArgumentParser(prog="paragenesis", description="Discover crystals.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {installed_version('paragenesis')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command) -> argparse.ArgumentParser:
        text = (command.__doc__ or "").strip()
        sub = commands.add_parser(name, help=text[:1].lower() + text[1:].rstrip("."), description=text)
        sub.set_defaults(command=command)
        return sub

    _add_campaign_commands(add)
    _add_tools(add)
    return parser


def _add_campaign_commands(add: Any) -> None:
    sub = add("run", run_campaign)
    sub.add_argument("campaign", type=Path, help="the campaign file (TOML)")
    sub.add_argument("--directory", type=Path, help="where the results go (default: campaigns/NAME)")
    sub.add_argument("--executor", choices=("ray", "inline"), default="ray", help="where the stages run")
    sub.add_argument("--rounds", type=int, help="rounds in all, if not as in the file")
    sub.add_argument("--address", default="local", help='Ray cluster: "local", "auto" or host:port')
    for name, command in (("status", show_status), ("report", make_report), ("verify", verify), ("recover", recover)):
        add(name, command).add_argument("directory", type=Path, help="a campaign's directory")
    sub = add("sql", run_sql)
    sub.add_argument("directory", type=Path, help="a campaign's directory")
    sub.add_argument("query", help="one SELECT statement")
    sub.add_argument("--format", choices=("table", "csv"), default="table")
    sub = add("export", export)
    sub.add_argument("directory", type=Path, help="a campaign's directory")
    sub.add_argument("--what", choices=("selected", "verified", "pareto"), default="verified")
    sub.add_argument("--format", choices=("cif", "extxyz"), default="cif")
    sub.add_argument("--out", type=Path, help="a folder for CIF, a file for extxyz")


def _add_tools(add: Any) -> None:
    sub = add("generate", generate)
    named = 'an alias (substitution, wyckoff, flow; default substitution), "package.module:Name" or "file.py:Name"'
    sub.add_argument("--generator", default="substitution", help=named)
    sub.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of it: new_templates=0.45")
    sub.add_argument("-n", "--number", type=int, default=16, help="how many; default 16")
    sub.add_argument("--seed", type=int, default=0, help="the same seed draws the same crystals; default 0")
    sub.add_argument("--out", type=Path, required=True, help="an extxyz file")
    _add_condition(sub)
    sub = add("relax", relax)
    sub.add_argument("file", type=Path, help="crystals: CIF, extxyz, POSCAR, ...")
    sub.add_argument("--potential", default="chgnet-0.3.0")
    sub.add_argument("--sha256", help="expected hash of the weights")
    sub.add_argument("--fmax", type=float, default=0.05, help="tolerance, eV/A")
    sub.add_argument("--max-steps", type=int, default=300)
    sub.add_argument("--free", action="store_true", help="let crystals lose the space group they start with")
    sub.add_argument("--out", type=Path, help="an extxyz file")
    _add_evaluate(add("evaluate", evaluate))
    _add_train(add("train", train))
    sub = add("doctor", doctor)
    sub.add_argument("--potential", action="append", help="also check this one (may be repeated)")
    sub.add_argument("--no-ray", action="store_true", help="do not start or ask a Ray cluster")
    sub.add_argument("--address", default="local", help='Ray cluster: "local", "auto" or host:port')


def _add_evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", type=Path, help="generated crystals: extxyz, CIF, CSV, Parquet, ...")
    sub.add_argument(
        "--reference", type=Path, nargs="+", default=[], help="known crystals (default: the AFLOW prototypes)"
    )
    sub.add_argument("--hull", type=Path, help="table with formula and formation_energy_per_atom (default: embedded)")
    sub.add_argument("--hull-level", default="mp2020-pbe(+u)", help="level of theory of that table")
    sub.add_argument(
        "--potential", action="append", default=[], help="judges stability (may be repeated; the first one relaxes)"
    )
    sub.add_argument("--relax", type=int, help="so many of the valid, unique and novel crystals (default: all)")
    sub.add_argument("--seed", type=int, default=0, help="fixes which ones")
    sub.add_argument("--fmax", type=float, default=0.1, help="tolerance, eV/A")
    sub.add_argument("--max-steps", type=int, default=150)
    sub.add_argument("--symmetry", choices=("free", "keep"), default="free", help="hold crystals to their space group?")
    sub.add_argument("--json", type=Path, help="write the figures, and a row for each crystal, there")
    sub.add_argument(
        "--property-model", action="append", default=[], metavar="PROPERTY=NAME", help="band_gap=file.py:function"
    )
    _add_condition(sub)


def _add_train(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("generator", help='"wyckoff", "flow", "package.module:Name" or "file.py:Name"')
    sub.add_argument(
        "--data", type=Path, nargs="+", required=True, help="CSV, Parquet, extxyz, CIF, or a campaign's directory"
    )
    sub.add_argument("--out", type=Path, required=True, help="a folder for the weights, the log and the state")
    sub.add_argument("--epochs", type=int, help="passes over the data")
    sub.add_argument("--minutes", type=float, help="stop earlier, after the last epoch within this time")
    sub.add_argument("--batch", type=int, help="crystals a step and worker")
    sub.add_argument("--seed", type=int, help="fixes every random choice")
    sub.add_argument("--device", help='"auto", "cpu" or "cuda"')
    sub.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE", help="of the training: ema=0.999")
    sub.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the generator: width=128")
    sub.add_argument("--from", dest="weights", type=Path, help="weights to go on from (.safetensors)")
    sub.add_argument("--max-atoms", type=int, default=20, help="in the primitive cell")
    sub.add_argument("--licence", default="", help="of the data, in words; noted with the weights")
    sub.add_argument("--workers", type=int, default=1, help="processes that train together, by Ray Train")
    sub.add_argument("--address", default="local", help='Ray cluster: "local", "auto" or host:port')


def _add_condition(sub: argparse.ArgumentParser) -> None:
    """The options that say what crystals should be; `_condition` reads them."""
    sub.add_argument("--chemical-system", help="exactly these elements: Mg-Si-O")
    sub.add_argument("--composition", help="exactly this reduced formula: MgSiO3")
    sub.add_argument("--allowed-elements", nargs="+", metavar="EL")
    sub.add_argument("--required-elements", nargs="+", metavar="EL")
    sub.add_argument("--min-atoms", type=int)
    sub.add_argument("--max-atoms", type=int)
    sub.add_argument("--space-group", type=int)
    sub.add_argument("--prototype", help="a template's name")
    sub.add_argument("--charge-neutral", action="store_true", default=None, help="known oxidation states balance")
    sub.add_argument("--seed-structure", type=Path, metavar="FILE", help="a crystal whose geometry is kept")
    sub.add_argument("--fixed-sites", metavar="0,1,...", help="sites of the seed structure that keep their element")
    sub.add_argument(
        "--property",
        action="append",
        metavar="NAME=LOW:HIGH",
        help="a property to aim at: band_gap=1.0:2.0, band_gap=1.0: or energy_above_hull=0.0; may be repeated",
    )
    sub.add_argument("--guidance", type=float, metavar="W", help="how strongly properties are pursued (default 2)")

"""The command line: `paragenesis COMMAND ...`.

Exit codes: 0 done, 1 a campaign could not go on or a check failed, 2 what was given cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from paragenesis.errors import InputError, ParagenesisError

Command = Callable[[argparse.Namespace, Console], int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an error that we raise on purpose becomes one line and an exit code."""
    options = build_parser().parse_args(arguments)
    console = Console()
    command: Command = options.command
    try:
        return command(options, console)
    except ParagenesisError as error:
        Console(stderr=True, soft_wrap=True).print("error:", str(error), style="red", markup=False, highlight=False)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; run the same command again to resume")
        return 130


# --- commands ------------------------------------------------------------------------------------------


def run_campaign(options: argparse.Namespace, console: Console) -> int:
    """Run or resume a campaign."""
    from paragenesis.launch import run
    from paragenesis.terminal import progress

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
    console.print(f"report: {finished.report.resolve()}", soft_wrap=True, highlight=False)
    return 0


def show_status(options: argparse.Namespace, console: Console) -> int:
    """Where a campaign stands; works while it runs."""
    from paragenesis.engine.ledger import read_status
    from paragenesis.terminal import show_rows

    status = read_status(options.directory)
    show_rows(console, [(k.replace("_", " "), v) for k, v in status.items()], ("", "campaign"), "")
    return 0


def make_report(options: argparse.Namespace, console: Console) -> int:
    """Write the report page anew."""
    from paragenesis.engine.report import write_report

    console.print(f"report: {write_report(options.directory).resolve()}", soft_wrap=True, highlight=False)
    return 0


def run_sql(options: argparse.Namespace, console: Console) -> int:
    """Ask the ledger in SQL."""
    from paragenesis.engine.ledger import read_only_sql
    from paragenesis.terminal import as_csv, show_table

    table = read_only_sql(options.directory, options.query)
    if options.format == "csv":
        sys.stdout.write(as_csv(table))
    else:
        show_table(console, table)
    return 0


def export(options: argparse.Namespace, console: Console) -> int:
    """Write crystals to files that other programs read."""
    from paragenesis.engine.ledger import export_crystals

    suffix = "" if options.format == "cif" else ".extxyz"
    out = Path(options.out) if options.out else Path(options.directory) / f"{options.what}{suffix}"
    count = export_crystals(options.directory, what=options.what, format=options.format, out=out)
    console.print(f"{count} crystals written to {out}", soft_wrap=True, highlight=False)
    return 0


def verify(options: argparse.Namespace, console: Console) -> int:
    """Check the invariants of a ledger."""
    from paragenesis.engine.ledger import verify_ledger

    problems = verify_ledger(options.directory)
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False)
    if not problems:
        console.print("the ledger is sound: every invariant holds")
    return 1 if problems else 0


def generate(options: argparse.Namespace, console: Console) -> int:
    """Use a generator by itself."""
    from paragenesis.engine.extxyz import write_extxyz
    from paragenesis.engine.generators import Condition
    from paragenesis.engine.plugins import build_generator

    if options.number < 1:
        raise InputError(f"-n must be at least 1, but {options.number} was given")
    given = {
        name: getattr(options, name) for name in Condition.model_fields if getattr(options, name, None) is not None
    }
    condition = Condition.parse(given, where="condition")
    generator = build_generator(options.generator, {}, Path())
    crystals = generator.generate(options.number, condition, options.seed)
    write_extxyz(crystals, Path(options.out))
    console.print(f"{len(crystals)} crystals written to {options.out}", soft_wrap=True, highlight=False)
    if len(crystals) < options.number:
        console.print(f"only {len(crystals)} distinct candidates exist for this condition", style="yellow")
    return 0


def relax(options: argparse.Namespace, console: Console) -> int:
    """Relax crystals from a file with one potential."""
    from paragenesis.engine.extxyz import write_extxyz
    from paragenesis.engine.potentials import RelaxSettings, judge, load_potential
    from paragenesis.engine.potentials import relax as relax_crystals
    from paragenesis.engine.preflight import pick_device
    from paragenesis.engine.screening.sanitise import sanitise
    from paragenesis.terminal import show_rows

    crystals = sanitise(Path(options.file))
    potential = load_potential(options.potential, device=pick_device("auto"), sha256=options.sha256)
    result = relax_crystals(potential, crystals, RelaxSettings(fmax=options.fmax, max_steps=options.max_steps))
    judged = judge(potential, result.crystals)
    out = Path(options.out) if options.out else Path(options.file).with_suffix(".relaxed.extxyz")
    good = [i for i in range(len(crystals)) if i not in result.errors]
    write_extxyz(result.crystals[good], out)
    rows = [
        (
            crystals.ids[i],
            crystals.formulas[i],
            result.errors.get(i) or judged.energies[i].item(),
            bool(result.converged[i]),
            int(result.steps[i]),
        )
        for i in range(len(crystals))
    ]
    show_rows(console, rows, ("crystal", "formula", f"energy (eV/atom, {potential.name})", "converged", "steps"))
    console.print(f"{len(good)} crystals written to {out}", soft_wrap=True, highlight=False)
    return 0


def doctor(options: argparse.Namespace, console: Console) -> int:
    """What this machine has, and whether the potentials that ship give the known answers."""
    from paragenesis.doctor import examine
    from paragenesis.terminal import show_rows

    findings = examine(options.potential, cluster=not options.no_ray, address=options.address)
    show_rows(console, [(f.subject, f.value, "ok" if f.ok else "PROBLEM") for f in findings], ("", "found", ""))
    return 0 if all(f.ok for f in findings) else 1


# --- the parser ----------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The parser with one sub-parser a command."""
    parser = argparse.ArgumentParser(prog="paragenesis", description="Discover crystals.")
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
    for name, command in (("status", show_status), ("report", make_report), ("verify", verify)):
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
    sub.add_argument("--generator", default="substitution", help='an alias, "package.module:Name" or "file.py:Name"')
    sub.add_argument("-n", "--number", type=int, default=16)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--out", type=Path, required=True, help="an extxyz file")
    sub.add_argument("--chemical-system", help="exactly these elements: Mg-Si-O")
    sub.add_argument("--composition", help="exactly this reduced formula: MgSiO3")
    sub.add_argument("--allowed-elements", nargs="+", metavar="EL")
    sub.add_argument("--required-elements", nargs="+", metavar="EL")
    sub.add_argument("--min-atoms", type=int)
    sub.add_argument("--max-atoms", type=int)
    sub.add_argument("--space-group", type=int)
    sub.add_argument("--prototype", help="a template's name")
    sub = add("relax", relax)
    sub.add_argument("file", type=Path, help="crystals: CIF, extxyz, POSCAR, ...")
    sub.add_argument("--potential", default="chgnet-0.3.0")
    sub.add_argument("--sha256", help="expected hash of the weights")
    sub.add_argument("--fmax", type=float, default=0.05, help="tolerance, eV/A")
    sub.add_argument("--max-steps", type=int, default=300)
    sub.add_argument("--out", type=Path, help="an extxyz file")
    sub = add("doctor", doctor)
    sub.add_argument("--potential", action="append", help="also check this one (may be repeated)")
    sub.add_argument("--no-ray", action="store_true", help="do not start or ask a Ray cluster")
    sub.add_argument("--address", default="local", help='Ray cluster: "local", "auto" or host:port')

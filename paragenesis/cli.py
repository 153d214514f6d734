"""The command line: `paragenesis COMMAND ...`.

Exit codes: 0 done, 1 a campaign could not go on or a check failed, 2 what was given cannot be used.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paragenesis import commands
from paragenesis.errors import InputError, ParagenesisError, PotentialError
from paragenesis.versions import installed_version

if TYPE_CHECKING:
    from rich.console import Console

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
    except (MemoryError, RuntimeError) as error:
        from paragenesis.engine.executor import describe, out_of_memory

        if not out_of_memory(error):
            raise
        said = f"error: out of memory: {' '.join(describe(error).split())}; free some, or compute on the CPU"
        Console(stderr=True, soft_wrap=True).print(said, style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt as stopped:
        resume = "; run the same command again to resume" if command in (commands.run_campaign, commands.train) else ""
        Console(stderr=True, soft_wrap=True).print(str(stopped) or f"interrupted{resume}", highlight=False)
        return 128 + int(getattr(stopped, "signal", signal.SIGINT))


# --- the parser ----------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The parser with one sub-parser a command."""
    parser = argparse.ArgumentParser(prog="paragenesis", description="Discover crystals.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {installed_version('paragenesis')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command) -> argparse.ArgumentParser:
        text = (command.__doc__ or "").strip()
        sub = subparsers.add_parser(name, help=text[:1].lower() + text[1:].rstrip("."), description=text)
        sub.set_defaults(command=command)
        return sub

    _add_campaign_commands(add)
    _add_tools(add)
    return parser


def _add_campaign_commands(add: Any) -> None:
    sub = add("run", commands.run_campaign)
    sub.add_argument("campaign", type=Path, help="the campaign file (TOML)")
    sub.add_argument("--directory", type=Path, help="where the results go (default: campaigns/NAME)")
    sub.add_argument("--executor", choices=("ray", "inline"), default="ray", help="where the stages run")
    sub.add_argument("--rounds", type=int, help="rounds in all, if not as in the file")
    _add_cluster(sub)
    for name, command in (
        ("status", commands.show_status),
        ("report", commands.make_report),
        ("verify", commands.verify),
        ("recover", commands.recover),
    ):
        add(name, command).add_argument("directory", type=Path, help="a campaign's directory")
    sub = add("sql", commands.run_sql)
    sub.add_argument("directory", type=Path, help="a campaign's directory")
    sub.add_argument("query", help="one SELECT statement")
    sub.add_argument("--format", choices=("table", "csv"), default="table")
    sub = add("export", commands.export)
    sub.add_argument("directory", type=Path, help="a campaign's directory")
    sub.add_argument("--what", choices=("selected", "verified", "pareto"), default="verified")
    sub.add_argument("--format", choices=("cif", "extxyz"), default="cif")
    sub.add_argument("--out", type=Path, help="a folder for CIF, a file for extxyz")


def _add_tools(add: Any) -> None:
    sub = add("generate", commands.generate)
    named = 'an alias (substitution, wyckoff, flow; default substitution), "package.module:Name" or "file.py:Name"'
    sub.add_argument("--generator", default="substitution", help=named)
    sub.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of it: new_templates=0.45")
    sub.add_argument("-n", "--number", type=int, default=16, help="how many; default 16")
    sub.add_argument("--seed", type=int, default=0, help="the same seed draws the same crystals; default 0")
    sub.add_argument("--out", type=Path, required=True, help="an extxyz file")
    _add_condition(sub)
    sub = add("relax", commands.relax)
    sub.add_argument("file", type=Path, help="crystals: CIF, extxyz, POSCAR, ...")
    sub.add_argument("--potential", default="chgnet-0.3.0")
    sub.add_argument("--sha256", help="expected hash of the weights")
    sub.add_argument("--fmax", type=float, default=0.05, help="tolerance, eV/A")
    sub.add_argument("--max-steps", type=int, default=300)
    sub.add_argument("--free", action="store_true", help="let crystals lose the space group they start with")
    sub.add_argument("--out", type=Path, help="an extxyz file")
    _add_evaluate(add("evaluate", commands.evaluate))
    _add_train(add("train", commands.train))
    sub = add("doctor", commands.doctor)
    sub.add_argument("--potential", action="append", help="also check this one (may be repeated)")
    sub.add_argument("--no-ray", action="store_true", help="do not start or ask a Ray cluster")
    _add_cluster(sub)


def _add_cluster(sub: argparse.ArgumentParser) -> None:
    """The options that say which Ray cluster is used."""
    sub.add_argument("--address", default="local", help='Ray cluster: "local", "auto" or host:port')
    sub.add_argument(
        "--trust-network", action="store_true", help="use it without authentication: nobody else can reach it"
    )


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
    _add_cluster(sub)


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

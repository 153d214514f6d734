"""What a potential is, and the one table from which they are loaded by name.

A potential is a torch-sim model with a name and a level of theory. Names:

    chgnet-0.3.0, chgnet-0.2.0, chgnet-r2scan     the weights ship with their package
    matgl:PATH or matgl:NAME                      a folder with model.json, model.pt, state.pt; or a name on its hub
    mace:PATH.model                               a pickled MACE model: only with its sha256, or trusted
    lennard-jones                                 for tests
    package.module:function                       your own; called as function(device=...), returns a Potential
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paragenesis.engine.level import Level
from paragenesis.errors import InputError, PotentialError

if TYPE_CHECKING:
    from torch_sim.models.interface import ModelInterface

ALIASES: Mapping[str, tuple[str, str]] = {  # name -> loader, its argument
    "chgnet-0.3.0": ("paragenesis.engine.potentials.chgnet:load", "0.3.0"),
    "chgnet-0.2.0": ("paragenesis.engine.potentials.chgnet:load", "0.2.0"),
    "chgnet-r2scan": ("paragenesis.engine.potentials.chgnet:load", "r2scan"),
    "lennard-jones": ("paragenesis.testing:load_lennard_jones", ""),
    "matgl:": ("paragenesis.engine.potentials.matgl:load", ""),
    "mace:": ("paragenesis.engine.potentials.mace:load", ""),
}


@dataclass(frozen=True, kw_only=True)
class Potential:
    """A machine-learned potential, ready to be evaluated.

    Attributes:
        name: How campaigns and reports call it.
        model: torch-sim model; gives energy (eV), forces (eV/A), stress (eV/A^3), perhaps magmoms (mu_B per atom).
        level: The level of theory of its energies; the functional is the one it was trained to imitate.
        elements: Atomic numbers that it knows; empty if not known.
    """

    name: str
    model: ModelInterface
    level: Level
    elements: frozenset[int] = frozenset()

    def unknown_elements(self, numbers: Sequence[int]) -> list[int]:
        """Those of the atomic numbers that the potential does not know."""
        return sorted(set(numbers) - self.elements) if self.elements else []


def load_potential(
    name: str,
    *,
    device: str = "cpu",
    sha256: str | None = None,
    functional: str | None = None,
    trust: bool = False,
) -> Potential:
    """Load a potential by name (see the module's table).

    Args:
        name: Such as "chgnet-0.3.0" or "matgl:path/to/folder".
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where this process sees one.
        sha256: What the weights must hash to; required for pickled weights unless they are trusted.
        functional: The level that the weights imitate, where they do not say so themselves.
        trust: Load weights that can run code of their makers although their hash is not known.

    Raises:
        InputError: There is no such name, or no such file.
        PotentialError: The weights cannot be loaded, are not the ones asked for, or are not trusted.
    """
    target, arguments = _find(name)
    module, _, function = target.partition(":")
    try:
        loader = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"potential '{name}' cannot be imported: {error}; {_cure(name)}") from error
    options: dict[str, Any] = {"device": pick_device(device)}
    if target in {known for known, _ in ALIASES.values()}:
        options |= {"sha256": sha256, "functional": functional, "trust": trust}
    try:
        inspect.signature(loader).bind(*arguments, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"'{name}' is no loader of a potential: it must accept device=... ({error})") from error
    potential = loader(*arguments, **options)
    if not isinstance(potential, Potential):
        raise InputError(f"'{name}' must return a Potential, but returned {type(potential).__name__}")
    return potential


def pick_device(wanted: str) -> str:
    """The torch device to use: "auto" takes a GPU where this process sees one.

    Raises:
        InputError: A GPU is asked for and there is none.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f'device "{wanted}" was asked for, but torch sees no GPU in this process on {platform.node()} (it is built '
            f"for CUDA {torch.version.cuda or 'none'}, and CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}); install torch for CUDA, mend the driver, or use "
            'device = "cpu" and give workers no gpus'
        )
    return wanted


def located(name: str, directory: Path) -> str:
    """A potential's name with the path in it, if there is one below `directory`, made absolute."""
    scheme, colon, rest = name.partition(":")
    if f"{scheme}:" in ALIASES and colon and (directory / rest).exists():
        return f"{scheme}:{(directory / rest).resolve()}"
    return name


def _find(name: str) -> tuple[str, tuple[str, ...]]:
    """Import path of the loader for a name, and its positional arguments."""
    if name in ALIASES and not name.endswith(":"):
        target, argument = ALIASES[name]
        return target, (argument,) if argument else ()
    scheme, colon, rest = name.partition(":")
    if colon and rest and f"{scheme}:" in ALIASES:
        return ALIASES[f"{scheme}:"][0], (rest,)
    if colon and rest and "/" not in name and rest.isidentifier():
        return name, ()
    raise InputError(f"there is no potential '{name}'; {_cure(name)}")


def _cure(name: str) -> str:
    """The close names, or all of them."""
    close = difflib.get_close_matches(name, list(ALIASES), n=2)
    if close:
        return f"did you mean '{' or '.join(close)}'?"
    return f"known are {', '.join(sorted(ALIASES))} and package.module:function"


def file_sha256(*paths: Path) -> str:
    """sha256 of one file; of several: of the lines "sha256  name", sorted by name, as `sha256sum` prints them."""
    if len(paths) == 1:
        with paths[0].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = "".join(f"{file_sha256(path)}  {path.name}\n" for path in sorted(paths, key=lambda p: p.name))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_weights(path: Path, found: str, expected: str | None, *, trust: bool = True) -> str:
    """Hold the hash of weights against the one expected; returns the hash.

    Args:
        path: Where the weights lie, for the message.
        found: Their sha256.
        expected: What it must be; None: anything, if trusted.
        trust: Accept weights whose hash is not known.

    Raises:
        PotentialError: The hash differs, or it is not known and the weights are not trusted.
    """
    if expected is not None and found != expected.lower():
        raise PotentialError(f"{path} has sha256 {found}, but {expected} was expected; give the right file or hash")
    if expected is None and not trust:
        raise PotentialError(
            f'{path} is pickled and can run code when loaded; give sha256 = "{found}" if you know where it comes from'
        )
    return found

"""Names in a campaign, and the objects they stand for: `file.py:name` or `package.module:name`.

A user's file is loaded under a private module name, so it can shadow nothing. That name cannot be imported on
another machine: whoever sends objects there first registers `user_modules()` with cloudpickle, so that what the file
defines travels by value.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from paragenesis.errors import InputError, ParagenesisError

_USER_PREFIX = "paragenesis_user_"


def path_inside(directory: Path, name: str | Path) -> Path:
    """The path of `name` in a directory, for names that come out of a file and not from the user.

    Raises:
        InputError: It leads out of the directory: by "..", by being absolute, or over a symbolic link.
    """
    path = directory / name
    try:
        inside = path.resolve().is_relative_to(directory.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL, a name too long
        inside = False
    if not inside:
        raise InputError(
            f"{str(name)[:200]!r} leads out of '{directory}', where it belongs; remove the link, or the entry"
        )
    return path


def find_object(kind: str, name: str, directory: Path, aliases: Iterable[str] = ()) -> Any:
    """What `file.py:attribute` (the file relative to `directory`) or `package.module:attribute` names.

    Args:
        kind: What is looked for, for messages: "objective", "generator", ...
        name: The name.
        directory: The campaign's directory.
        aliases: Short names that would have been understood, for messages.

    Raises:
        InputError: Nothing of that name, or the file cannot be loaded.
    """
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        known = sorted(aliases)
        close = difflib.get_close_matches(name, known, n=1)
        cure = f"did you mean '{close[0]}'?" if close else f"built in are {', '.join(known)}"
        raise InputError(f"there is no {kind} '{name}'; {cure} (your own is written 'file.py:name')")
    module = load_user_file(directory / source) if source.endswith(".py") else _import(kind, source, name)
    if not hasattr(module, attribute):
        close = difflib.get_close_matches(attribute, dir(module), n=1)
        raise InputError(f"'{source}' defines no '{attribute}'" + (f"; did you mean '{close[0]}'?" if close else ""))
    return getattr(module, attribute)


def load_user_file(path: Path) -> ModuleType:
    """The module in a user's file, loaded under a name made of a hash of the file's path and content.

    A file is run once as long as it does not change.

    Raises:
        InputError: The file is missing, or an error in it; the message names the line.
    """
    try:
        path = path.resolve()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL, a name too long
        there = False
    if not there:
        raise InputError(f"there is no file '{str(path)[:500]}'; a file is given relative to the campaign's")
    name = _USER_PREFIX + hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"'{path}' cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a file that ends the interpreter is as wrong as one that raises
        sys.modules.pop(name, None)
        raise InputError(_where_it_failed(path, error)) from error
    return module


def user_modules() -> list[ModuleType]:
    """The modules loaded from users' files in this process, to be pickled by value."""
    return [module for name, module in sorted(sys.modules.items()) if name.startswith(_USER_PREFIX)]


def _where_it_failed(path: Path, error: BaseException) -> str:
    """One sentence with the line of the user's file on which it failed."""
    if isinstance(error, SyntaxError):
        return f"'{path}' is no valid Python: line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"'{path}'" + (f", line {lines[-1]}" if lines else "")
    if isinstance(error, ModuleNotFoundError):
        return f"{where}: cannot import '{error.name}'; the file may import installed packages, not its neighbours"
    said = str(error) if isinstance(error, ParagenesisError) else f"{type(error).__name__}: {error}"
    return f"{where}: {said}"


def _import(kind: str, module: str, name: str) -> ModuleType:
    """An installed module by its dotted name."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"{kind} '{name}': there is no module '{error.name}'; install it, or name a file") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"{kind} '{name}': importing '{module}' failed: {type(error).__name__}: {error}") from error

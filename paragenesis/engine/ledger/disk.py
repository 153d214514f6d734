"""Files that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from paragenesis.engine.failpoints import reach


def replace_text(path: Path, text: str) -> None:
    """Put `text` into `path` so that a reader sees the old or the new text, never a part."""
    aside = path.with_name(f".{path.name}.new")
    reach(f"before {path.name} is written")
    aside.unlink(missing_ok=True)  # what a crash left, or a link that was planted
    aside.write_text(text, encoding="utf-8")
    reach(f"before {path.name} is renamed")
    aside.replace(path)
    reach(f"after {path.name} was written")


def replace_bytes(path: Path, data: bytes) -> None:
    """Put `data` into `path`, whole or not at all, and make it survive a power failure."""
    aside = path.with_name(f".{path.name}.new")
    reach(f"before {path.name} is written")
    aside.unlink(missing_ok=True)
    aside.write_bytes(data)
    sync(aside)
    reach(f"before {path.name} is renamed")
    aside.replace(path)
    sync(path.parent)
    reach(f"after {path.name} was written")


def sync(path: Path) -> None:
    """Make a file or a folder's list of names survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

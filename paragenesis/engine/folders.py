"""Temporary folders: each is closed to other users, and locked by the process that made it, as long as that lives.

A killed process leaves its folder behind, but not its lock, which the kernel takes back. So whether a folder is still
in use can be told without trusting process ids, which are used again and differ between containers that share a /tmp.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

OWNER = "owner"  # the file in the folder that is locked


def claim_folder(parent: Path) -> tuple[Path, Callable[[], None]]:
    """A new folder that belongs to this process while it lives, and what removes it.

    What killed processes of the same user left in `parent` is removed first.
    """
    remove_stale(parent)
    folder = Path(tempfile.mkdtemp(prefix=prefix(), dir=parent))
    lock = os.open(folder / "new", os.O_CREAT | os.O_RDWR, 0o600)
    with suppress(OSError):  # a file system that cannot lock: what a killed process leaves there stays
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "new").rename(folder / OWNER)  # not before: it must never be seen without its lock

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)

    return folder, remove


def prefix() -> str:
    """What names of this host's folders begin with: where hosts share a file system, they may not see their locks."""
    return f"pg-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]}-"


def remove_stale(parent: Path) -> None:
    """Remove the folders in `parent` that this user's killed processes left here; all others are left alone."""
    for folder in parent.glob(f"{prefix()}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # no folder of ours, or somebody else is removing it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # its owner lives
            continue
        finally:
            os.close(lock)

"""Temporary folders: kept while their owner lives, removed when it was killed."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from paragenesis.engine.folders import claim_folder, prefix

KILLED = """
import os, signal, sys
from pathlib import Path
from paragenesis.engine.folders import claim_folder
folder, _ = claim_folder(Path(sys.argv[1]))
folder.chmod(0o777)
(folder / "session").mkdir()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder that a killed process left in `tmp_path`."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (folder,) = tmp_path.iterdir()
    return folder


def test_what_a_killed_process_left_is_removed_and_nothing_else(left: Path, tmp_path: Path) -> None:
    in_use, remove = claim_folder(tmp_path)
    assert not left.exists()
    target = tmp_path / "precious"
    (tmp_path / f"{prefix()}unlocked").mkdir()
    (tmp_path / f"{prefix()}file").touch()
    target.mkdir()
    (target / "owner").touch()
    (tmp_path / f"{prefix()}link").symlink_to(target)
    mine, remove_mine = claim_folder(tmp_path)
    kept = {
        in_use,
        mine,
        target,
        tmp_path / f"{prefix()}unlocked",
        tmp_path / f"{prefix()}file",
        tmp_path / f"{prefix()}link",
    }
    assert set(tmp_path.iterdir()) == kept
    assert list(target.iterdir()) == [target / "owner"]
    assert mine.stat().st_mode & 0o777 == 0o700
    remove()
    remove_mine()
    assert set(tmp_path.iterdir()) == kept - {in_use, mine}


def test_folders_of_other_users_are_left_alone(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    _, remove = claim_folder(tmp_path)
    remove()
    assert left.exists()


def test_folders_of_other_hosts_are_left_alone(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may lie in the same place, and their locks may not be seen here."""
    monkeypatch.setattr(socket, "gethostname", lambda: "another.example")
    _, remove = claim_folder(tmp_path)
    remove()
    assert left.exists()


def test_a_file_system_without_locks_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    folder, remove = claim_folder(tmp_path)
    other, _ = claim_folder(tmp_path)
    assert folder.is_dir(), "nobody can tell whether it is in use"
    remove()
    assert list(tmp_path.iterdir()) == [other]

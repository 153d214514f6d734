"""Temporary folders: kept while their owner lives, removed when it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paragenesis.engine.folders import claim_folder

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
    (tmp_path / "pg-unlocked").mkdir()
    (tmp_path / "pg-file").touch()
    target.mkdir()
    (target / "owner").touch()
    (tmp_path / "pg-link").symlink_to(target)
    mine, remove_mine = claim_folder(tmp_path)
    kept = {in_use, mine, target, tmp_path / "pg-unlocked", tmp_path / "pg-file", tmp_path / "pg-link"}
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

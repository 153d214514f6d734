"""What all tests share: the folders with real data and weights, where they exist."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_SHARED = Path(os.environ.get("PARAGENESIS_SHARED", _ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real crystals and hull energies; its tests are skipped where it is absent."""
    folder = _SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set PARAGENESIS_SHARED to a folder with data/ and weights/")
    return folder


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """The folder with trained matgl potentials; its tests are skipped where it is absent."""
    folder = _SHARED / "weights"
    if not folder.is_dir():
        pytest.skip(f"no weights at {folder}; set PARAGENESIS_SHARED to a folder with data/ and weights/")
    return folder

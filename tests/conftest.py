"""What all tests share: the folders with real data and weights, where they exist."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)  # a busy machine must not fail a property
settings.load_profile("steady")
torch.set_num_threads(1)  # crystals are small: more threads only wait for each other

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


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A private local Ray cluster, one for the whole run: starting one takes many seconds."""
    from paragenesis.actors.cluster import connect

    disconnect = connect("local")
    yield
    disconnect()

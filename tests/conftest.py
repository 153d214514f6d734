"""What tests share: real data and weights, a Ray cluster, the benchmarks, a tiny campaign, the command line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import settings

from paragenesis.engine.spec import CampaignSpec

# A busy machine must not fail a property. PARAGENESIS_FUZZ=50 tries fifty times as many examples, other ones each time.
_FUZZ = float(os.environ.get("PARAGENESIS_FUZZ", "1"))
settings.register_profile("steady", deadline=None, derandomize=_FUZZ == 1, max_examples=max(1, int(100 * _FUZZ)))
settings.load_profile("steady")
torch.set_num_threads(1)  # crystals are small: more threads only wait for each other

_ROOT = Path(__file__).parent.parent
_BENCHMARKS = _ROOT / "benchmarks"
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


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A benchmark as a module, imported as it is when run as a script."""
    monkeypatch.syspath_prepend(_BENCHMARKS)
    for file in _BENCHMARKS.glob("*.py"):
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    return importlib.import_module


@pytest.fixture
def table(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[str, list[str]]]:
    """The printed Markdown table: the cells of each row by its first."""

    def read() -> dict[str, list[str]]:
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert len({len(row) for row in rows}) == 1, "a row has another number of cells"
        return {row[0]: row[1:] for row in rows[2:]}

    return read


@pytest.fixture(scope="session")
def tiny() -> Callable[..., CampaignSpec]:
    """Makes the specification of a campaign of a second, on a Lennard-Jones potential; keywords replace its fields."""

    def make(**changes: Any) -> CampaignSpec:
        values: dict[str, Any] = {
            "name": "tiny",
            "seed": 1,
            "rounds": 2,
            "condition": {"allowed_elements": ("Na", "Cl")},
            "generators": [{"use": "random", "n": 12, "chunk": 4}],
            "screening": {"charge_neutrality": False, "novelty": False, "overlap_factor": 0.4},
            "potentials": ["lennard-jones"],
            "relax": {"fmax": 0.2, "max_steps": 25},
            "hull": {"mixed": True},
            "objectives": ("formation_energy", "density"),
            "triage": {"min_hull_distance": -100.0, "max_std": {}, "max_force": 1000.0},
            "decision": {"q": 3},
            "oracle": {"use": "potential", "options": {"potential": "lennard-jones", "fmax": 0.6}},
            "hits": [{"objective": "formation_energy", "at_most": 0.0}],
        }
        return CampaignSpec.parse(values | changes)

    return make


@pytest.fixture(scope="session")
def finished(tiny: Callable[..., CampaignSpec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the tiny campaign when nothing disturbed it; to be read only."""
    from paragenesis.launch import run

    return run(tiny(), tmp_path_factory.mktemp("finished") / "c", executor="inline").directory


class CommandLine:
    """Runs commands as `paragenesis` does."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        from paragenesis.cli import run_command

        self._capsys.readouterr()
        code = run_command([str(word) for word in words])
        return code, *self._capsys.readouterr()

    def refused(self, *words: object) -> str:
        """The one sentence with which something is refused as input."""
        code, _, said = self(*words)
        assert code == 2, said
        assert said.startswith("error: ")
        assert len(said.splitlines()) == 1
        return said


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line."""
    return CommandLine(capsys)

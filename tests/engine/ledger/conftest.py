"""A small ledger of two rounds, as a campaign would write it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.ledger import Ledger, rows, structure_columns

META = {
    "name": "a test",
    "hull": json.dumps({"name": "a test hull"}),
    "objectives": json.dumps(
        [
            {"name": "hardness", "unit": "GPa", "goal": {"kind": "maximize"}},
            {"name": "cost", "unit": "1", "goal": {"kind": "minimize"}},
        ]
    ),
}
LEVEL = "oracle-1/pbe/abc"
Commit = tuple[str, int, str, dict[str, pa.Table]]


def rock_salts(ids: list[str], scale: float = 1.0) -> Crystals:
    """Primitive rock salts MgO with lattice constants of their own."""
    cell = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]) * 4.2 * scale
    n = len(ids)
    return Crystals(
        ids=tuple(ids),
        n_atoms=np.full(n, 2),
        numbers=np.tile([12, 8], n),
        frac=np.tile([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], (n, 1)),
        lattices=np.stack([cell * (1 + 0.01 * i) for i in range(n)]),
        origins=("MgO",) * n,
    )


def chunk(number: int, index: int) -> Commit:
    """Five crystals: three kept and judged, one rejected, one failed."""
    ids = [f"r{number}-c{index}-{i}" for i in range(5)]
    crystals, kept = rock_salts(ids), ids[:3]
    candidates = rows(
        "candidates",
        candidate_id=ids,
        round=number,
        generator="substitution",
        chunk=index,
        origin="MgO",
        formula="MgO",
        n_atoms=2,
        verdict=["kept"] * 3 + ["rejected", "failed"],
        stage=["", "", "", "screen", "relax"],
        reason=["", "", "", "seen before", "it exploded"],
        **structure_columns(crystals),
        **structure_columns(rock_salts(ids, 1.1), "initial_"),
    )
    predictions = rows(
        "predictions",
        candidate_id=kept * 2,
        model="ensemble",
        property=["hardness"] * 3 + ["cost"] * 3,
        mean=[1.0 + index, 2.0 + index, 3.0 + index, 1.0, 2.0, 5.0],
        std=[0.1, 0.2, np.nan, 0.0, 0.0, 0.0],
        note=f"took {np.random.default_rng().random()} s",
    )
    return f"r{number}/c{index}", number, "chunk", {"candidates": candidates, "predictions": predictions}


def decision(number: int) -> list[Commit]:
    """Triage of one, selection of two, verification of one and failure of the other."""
    first, second, third = (f"r{number}-c0-{i}" for i in range(3))
    triage = rows("triage", round=number, candidate_id=[third], reason="too_uncertain", detail="std 9")
    posterior = rows(
        "predictions", candidate_id=[first], model=f"posterior:{number}", property="hardness", mean=1.5, std=0.3
    )
    selections = rows(
        "selections", round=number, candidate_id=[first, second], rank=[1, 2], score=[0.5, 0.4], gain=0.1, why="far"
    )
    cost = np.random.default_rng().random()
    verifications = rows(
        "verifications",
        candidate_id=[first, first, second],
        level_key=LEVEL,
        property=["hardness", "cost", ""],
        round=number,
        status=["verified", "verified", "failed"],
        value=[1.25 * number, 3.0 / number, None],
        error=[None, None, "not converged"],
        cost_seconds=cost,
    )
    structures = rows(
        "verified_structures",
        candidate_id=[first],
        level_key=LEVEL,
        round=number,
        energy=-6.0,
        **structure_columns(rock_salts([first], 1.02)),
    )
    levels = rows("levels", level_key=[LEVEL], level="{}")
    return [
        (f"r{number}/triage", number, "triage", {"triage": triage, "predictions": posterior}),
        (f"r{number}/selection", number, "selection", {"selections": selections}),
        (
            f"r{number}/verification",
            number,
            "verification",
            {"verifications": verifications, "verified_structures": structures, "levels": levels},
        ),
    ]


def fill(directory: Path, *, rounds: int = 2, reverse: bool = False, name: str = "a test") -> Path:
    """Write closed rounds into a new ledger; `reverse` delivers the chunks the other way round."""
    with Ledger.create(directory, META | {"name": name}) as ledger:
        for number in range(1, rounds + 1):
            ledger.open_round(number, "{}")
            chunks = [chunk(number, index) for index in range(2)]
            for commit in (chunks[::-1] if reverse else chunks) + decision(number):
                assert ledger.commit(*commit)
            ledger.close_round(number, {"generated": 10, "hits": 1, "hypervolume": 0.5, "ref_point": [0.0, 1.0]})
    return directory


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger with round 1 open."""
    ledger = Ledger.create(tmp_path / "campaign", META)
    ledger.open_round(1, "{}")
    return ledger


@pytest.fixture(scope="session")
def _filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("ledger") / "filled")


@pytest.fixture
def filled(tmp_path: Path, _filled_once: Path) -> Path:
    """The directory of a ledger with two closed rounds, a copy that may be spoiled."""
    return Path(shutil.copytree(_filled_once, tmp_path / "filled"))


def kill(directory: Path, name: str) -> Path:
    """A copy of a ledger whose writer has two closed rounds, and commits of a third in the write-ahead log."""
    fill(directory, name=name)
    with Ledger.open(directory) as ledger:
        ledger.open_round(3, "{}")
        for index in range(2):
            ledger.commit(*chunk(3, index))
        return Path(shutil.copytree(directory, directory.with_name("killed")))


@pytest.fixture(scope="session")
def _killed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kill(tmp_path_factory.mktemp("ledger") / "running", "a test")


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of another campaign, which is as far; for reading only."""
    return kill(tmp_path_factory.mktemp("foreign") / "running", "another")


@pytest.fixture
def killed(tmp_path: Path, _killed_once: Path) -> Path:
    """What a killed process leaves, see `kill`; a copy."""
    return Path(shutil.copytree(_killed_once, tmp_path / "killed"))


@pytest.fixture
def fill_into() -> Callable[..., Path]:
    """The function that fills a new ledger."""
    return fill


@pytest.fixture
def make_chunk() -> Callable[[int, int], Commit]:
    """The function that makes the arguments of a chunk's commit."""
    return chunk


@pytest.fixture
def make_decision() -> Callable[[int], list[Commit]]:
    """The function that makes the commits of a round's decision."""
    return decision

"""Classic crystals of a few structure types, and a small flow trained on them for a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.flow.trainee import FlowTrainee
from paragenesis.engine.generators.learned.checkpoint import Checkpoint, save_checkpoint
from paragenesis.engine.generators.learned.data import TrainingSet, training_set
from paragenesis.engine.generators.wyckoff.build import to_crystals
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites

RIGHT = (90.0, 90.0, 90.0)
_TINY = {"width": 16, "layers": 2, "heads": 2, "edge": 8, "context": 8, "waves": 2, "validation": 2}


def form(group: int, letters: str, numbers: tuple[int, ...], cell: tuple[float, ...], *free: float) -> WyckoffForm:
    """A form with its sites by letter and its free parameters end to end."""
    sites = tuple(next(i for i, s in enumerate(wyckoff_sites(group)) if s.letter == letter) for letter in letters)
    rest = iter(free)
    parameters = tuple(tuple(next(rest) for _ in wyckoff_sites(group)[site].free) for site in sites)
    return WyckoffForm(group, sites, numbers, cell, parameters)


def forms() -> list[WyckoffForm]:
    """Rocksalt, caesium chloride, zincblende, perovskite, rutile and wurtzite, each with several elements."""
    made = [form(225, "ab", (m, x), (a, a, a, *RIGHT)) for m, x, a in ((11, 17, 5.6), (12, 8, 4.2), (20, 8, 4.8))]
    made += [form(221, "ab", (m, x), (a, a, a, *RIGHT)) for m, x, a in ((55, 17, 4.1), (55, 35, 4.3))]
    made += [form(216, "ac", (m, x), (a, a, a, *RIGHT)) for m, x, a in ((30, 16, 5.4), (31, 33, 5.65), (30, 34, 5.7))]
    made += [
        form(221, "abc", (m, t, 8), (a, a, a, *RIGHT)) for m, t, a in ((20, 22, 3.9), (38, 22, 3.95), (56, 40, 4.2))
    ]
    made += [form(136, "af", (m, 8), (a, a, c, *RIGHT), 0.305) for m, a, c in ((22, 4.6, 2.96), (50, 4.74, 3.19))]
    made += [
        form(186, "bb", (m, x), (a, a, c, 90.0, 90.0, 120.0), 0.0, 0.38)
        for m, x, a, c in ((30, 8, 3.25, 5.2), (31, 7, 3.19, 5.19), (13, 7, 3.11, 4.98))
    ]
    return made


@pytest.fixture(scope="session")
def tiny_flow() -> dict[str, int]:
    """Options of a network that takes no time."""
    return dict(_TINY)


@pytest.fixture(scope="session")
def classic_forms() -> list[WyckoffForm]:
    return forms()


@pytest.fixture(scope="session")
def classics() -> Crystals:
    return to_crystals(forms())


@pytest.fixture(scope="session")
def classic_data(classics: Crystals) -> TrainingSet:
    gaps = np.where(np.arange(len(classics)) % 3 == 0, np.nan, np.linspace(0.0, 5.0, len(classics)))
    return training_set(classics, {"band_gap": gaps}, source="classics", licence="none needed")


@pytest.fixture(scope="session")
def weights(classic_data: TrainingSet, tiny_flow: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny network that has not learnt anything: rules must hold all the same."""
    trainee = FlowTrainee(classic_data, tiny_flow, 0, 8)
    path = tmp_path_factory.mktemp("flow") / "flow.safetensors"
    tensors = {**trainee.model.state_dict(), **trainee.extras()}
    save_checkpoint(path, Checkpoint("flow", trainee.config(), tensors, {}))
    return path

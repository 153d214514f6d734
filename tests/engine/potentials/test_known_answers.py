"""The known-answer check passes sound weights and fails weights that load silently and are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paragenesis.engine.potentials.contract import Potential, load_potential
from paragenesis.engine.potentials.known_answers import known_answer_check
from paragenesis.testing import lennard_jones_potential

FOLDERS = ("TensorNet-MatPES-PBE-v2025.1-PES", "TensorNet-MatPES-r2SCAN-v2025.1-PES")


@pytest.mark.parametrize("name", ["chgnet-0.3.0", "chgnet-0.2.0", "chgnet-r2scan"])
def test_shipped_potentials_pass(name: str) -> None:
    answer = known_answer_check(load_potential(name))
    assert answer.passed, answer.sentence
    assert answer.error < 0.12
    assert answer.n == 17


@pytest.mark.parametrize("folder", FOLDERS)
def test_weights_with_exchanged_atoms_fail_and_repaired_ones_pass(shared_weights: Path, folder: str) -> None:
    potential = load_potential(f"matgl:{shared_weights / folder}")
    sound = known_answer_check(potential)
    assert sound.passed, sound.sentence
    weight = potential.model.potential.model.tensor_embedding.emb2.weight
    half = weight.shape[1] // 2
    with torch.no_grad():
        weight.copy_(torch.cat([weight[:, half:], weight[:, :half]], dim=1).clone())
    as_published = known_answer_check(potential)
    assert not as_published.passed
    assert as_published.error > 3 * sound.error
    assert "do not use these weights" in as_published.sentence


def test_a_potential_that_is_not_trained_fails() -> None:
    level = load_potential("chgnet-0.3.0").level
    pretender = replace(lennard_jones_potential(), name="pretender", level=level)
    assert not known_answer_check(pretender).passed


def test_lennard_jones_claims_nothing_and_passes() -> None:
    answer = known_answer_check(lennard_jones_potential())
    assert answer.passed
    assert answer.n == 0


def test_without_enough_known_elements_there_is_no_verdict() -> None:
    narrow = replace(load_potential("chgnet-0.3.0"), elements=frozenset({1, 6, 8}))
    answer = known_answer_check(narrow)
    assert not answer.passed
    assert "knows the elements of only 0" in answer.sentence


def test_a_potential_that_refuses_common_compounds_fails() -> None:
    class Refusing(torch.nn.Module):
        device, dtype = torch.device("cpu"), torch.float64

        def forward(self, state: object) -> dict[str, torch.Tensor]:
            raise RuntimeError("no")

    sound: Potential = load_potential("chgnet-0.3.0")
    answer = known_answer_check(replace(sound, model=Refusing()))
    assert not answer.passed
    assert answer.n == 0
    assert np.isnan(answer.error)

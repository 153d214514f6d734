"""The crystals of a file, relaxed: each with its outcome, however little memory there is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.potentials import RelaxSettings
from paragenesis.engine.potentials.contract import Potential
from paragenesis.engine.relax_file import relax_all
from paragenesis.testing import RandomGenerator

SETTINGS = RelaxSettings(fmax=0.2, max_steps=5, max_force=1e9)


def crystals() -> Crystals:
    """One of three atoms among smaller ones."""
    two, three = (RandomGenerator().generate(3, Condition(min_atoms=n, max_atoms=n), 1) for n in (2, 3))
    return Crystals.concatenate([two[:2], three[0], two[2]]).with_ids(["a", "b", "large", "c"])


def test_what_does_not_fit_into_memory_fails_alone_and_in_its_place(small_memory: Callable[[int], Potential]) -> None:
    given = crystals()
    relaxed, outcomes = relax_all(small_memory(2), given, SETTINGS)
    assert relaxed.ids == given.ids
    assert [one.id for one in outcomes] == list(given.ids)
    assert [one.error for one in outcomes] == ["", "", "OutOfMemoryError: CUDA out of memory", ""]
    assert relaxed[2] == given[2]
    whole, known = relax_all(small_memory(100), given, SETTINGS)
    for i in (0, 1, 3):
        assert outcomes[i].energy == pytest.approx(known[i].energy)
        np.testing.assert_allclose(relaxed[i].frac, whole[i].frac, atol=1e-9)


def test_what_else_a_potential_raises_is_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def lightning(*_: object) -> None:
        raise RuntimeError("lightning")

    monkeypatch.setattr("paragenesis.engine.potentials.relax", lightning)
    with pytest.raises(RuntimeError, match="lightning"):
        relax_all(None, crystals(), SETTINGS)  # type: ignore[arg-type]

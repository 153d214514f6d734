"""Each part of a condition by itself, and property ranges by whoever knows the property."""

from __future__ import annotations

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.evaluation.fidelity import hard_figures, not_judged, property_figures
from paragenesis.engine.evaluation.known import Known
from paragenesis.engine.evaluation.measures import Measures, measure
from paragenesis.engine.evaluation.stability import Stability
from paragenesis.engine.generators.condition import Condition
from paragenesis.errors import InputError


@pytest.fixture
def measures(mixed: Crystals, known: Known) -> Measures:
    return measure(mixed, known)


def counts(condition: Condition, mixed: Crystals, measures: Measures) -> dict[str, tuple[int, int]]:
    return {f.name: (f.count, f.n) for f in hard_figures(condition, mixed, measures, 7, 0.1)}


def test_parts_are_judged_one_by_one_on_everything_generated(mixed: Crystals, measures: Measures) -> None:
    condition = Condition(required_elements=("Cl", "Na"), space_group=225, max_atoms=3)
    assert counts(condition, mixed, measures) == {
        "obeys max_atoms": (6, 7),  # the supercell has a primitive cell of two atoms; the seventh could not be read
        "obeys required_elements": (3, 7),
        "obeys space_group": (3, 7),
        "obeys every hard part": (2, 7),
    }
    assert counts(Condition(min_atoms=2), mixed, measures) == {"obeys min_atoms": (5, 7)}
    assert counts(Condition(composition="NaCl"), mixed, measures) == {"obeys composition": (3, 7)}
    assert counts(Condition(), mixed, measures) == {}


def test_a_prototype_is_said_not_to_be_judged(mixed: Crystals, measures: Measures) -> None:
    condition = Condition(prototype="Halite", properties=[{"property": "band_gap", "low": 1}])
    assert counts(condition, mixed, measures) == {}
    notes = not_judged(condition, {}, None)
    assert any("prototype" in note for note in notes)
    assert any("band_gap needs a --property-model" in note for note in notes)
    assert not any("band_gap" in note for note in not_judged(condition, {"band_gap": len}, None))


def test_ranges_of_properties_and_of_energies(mixed: Crystals, measures: Measures) -> None:
    ranges = [
        {"property": "band_gap", "low": 1.0, "high": 2.0},
        {"property": "energy_above_hull", "high": 0.05, "low": 0},
    ]
    condition = Condition.parse({"properties": ranges})
    stability = Stability(
        which=np.array([0, 3]),
        crystals=mixed[[0, 3]],
        members=("a",),
        formation_energies=np.zeros((1, 2)),
        distances=np.array([[-0.1, 0.2]]),
        converged=np.ones(2, bool),
        steps=np.ones(2, int),
    )

    def gaps(crystals: Crystals) -> np.ndarray:
        assert len(crystals) == 4  # the valid ones
        return np.array([1.0, np.nan, 2.5, 1.5])

    found = {f.name: f for f in property_figures(condition, mixed, measures, stability, {"band_gap": gaps}, "hull")}
    gap, distance = found["band_gap in 1..2"], found["energy_above_hull in 0..0.05"]
    assert (gap.count, gap.n, gap.relaxed) == (2, 4, False)
    assert (distance.count, distance.n, distance.relaxed, distance.hull) == (1, 2, True, "hull")  # below is on the hull
    assert (found["inside all ranges"].count, found["inside all ranges"].n) == (1, 2)
    alone = property_figures(condition, mixed, measures, None, {"band_gap": gaps}, "hull")
    assert [f.name for f in alone] == ["band_gap in 1..2"]
    with pytest.raises(InputError, match="band_gap gave shape"):
        property_figures(condition, mixed, measures, None, {"band_gap": lambda _: np.zeros(2)}, "hull")

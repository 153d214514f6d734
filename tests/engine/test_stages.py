from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.crystals import Crystals, IntArray, Relaxed
from paragenesis.engine.level import Level
from paragenesis.engine.oracles import Verified
from paragenesis.engine.stages import Verification, Verify, estimate_all, isolate
from paragenesis.objectives import BulkModulus, Density, EnergyAboveHull, MagneticMomentDensity, Minimize, objective
from paragenesis.objectives.contract import Objective
from paragenesis.testing import sample_relaxed


@given(st.integers(0, 40), st.sets(st.integers(0, 39)))
def test_isolate_finds_exactly_the_guilty_rows_and_does_the_rest(n: int, guilty: set[int]) -> None:
    guilty = {g for g in guilty if g < n}

    def work(rows: IntArray) -> list[int]:
        if guilty & set(rows.tolist()):
            raise ValueError("poison")
        return [2 * row for row in rows.tolist()]

    results, errors = isolate(work, n)
    done = {row: value for rows, values in results for row, value in zip(rows.tolist(), values, strict=True)}
    assert set(errors) == guilty
    assert done == {row: 2 * row for row in range(n) if row not in guilty}


@objective(goal=Minimize(), unit="1")
def picky(relaxed: Relaxed) -> np.ndarray:
    """Raises on one crystal, has no finite value for another."""
    if relaxed.crystals.ids[0] in relaxed.crystals.ids and "bad" in relaxed.crystals.ids:
        raise RuntimeError("cannot bear it")
    return np.where(np.array(relaxed.crystals.ids) == "nan", np.nan, 1.0)


def test_a_crystal_without_a_finite_estimate_is_an_error_with_the_objective_named() -> None:
    relaxed = sample_relaxed()
    names = ["bad", "nan", *(f"good{i}" for i in range(len(relaxed) - 2))]
    object.__setattr__(relaxed, "crystals", relaxed.crystals.with_ids(names))
    estimates, errors = estimate_all([picky], relaxed)
    assert errors == {0: "objective 'picky': RuntimeError: cannot bear it", 1: "objective 'picky' gave nan"}
    assert estimates["picky"].mean[2:] == pytest.approx(1.0)


LEVEL = Level(engine="made-up", version="1", functional="none")


@dataclass
class Planted:
    """An oracle that knows its answer already."""

    answer: Verified
    level: Level = LEVEL

    def verify(self, crystals: Crystals) -> Verified:
        return self.answer


def verification(answer: Verified, *objectives: Objective) -> Verification:
    return Verify(lambda: Planted(answer), objectives)(answer.crystals, None)


def judged_by_one() -> Relaxed:
    """Six crystals judged by one member, as an oracle's answer is."""
    relaxed = sample_relaxed()
    tables = ("energies", "formation_energies", "hull_distances", "max_forces", "pressures", "magnetic_moments")
    cut = {name: getattr(relaxed, name)[:1] for name in (*tables, "strain_energies")}
    return replace(relaxed, members=relaxed.members[:1], **cut)


def test_what_the_oracle_says_of_an_objective_goes_before_its_estimate() -> None:
    relaxed, said = judged_by_one(), np.arange(6.0)
    answer = Verified(
        crystals=relaxed.crystals,
        relaxed=relaxed,
        values={"energy_above_hull": said},
        errors={1: "it melted"},
        cost_seconds=np.zeros(6),
    )
    found = verification(answer, EnergyAboveHull(), Density(), BulkModulus())
    kept = [0, 2, 3, 4, 5]
    assert found.errors == {1: "it melted"}
    assert np.isnan(found.values[1]).all()
    np.testing.assert_array_equal(found.values[kept, 0], said[kept])
    np.testing.assert_allclose(found.values[kept, 1], relaxed.crystals.densities[kept])
    np.testing.assert_allclose(found.values[kept, 2], BulkModulus().estimate(relaxed).mean[kept])


def test_a_crystal_without_a_value_for_every_objective_is_not_verified() -> None:
    relaxed = judged_by_one()
    moments, said = relaxed.magnetic_moments.copy(), np.zeros(6)
    moments[0, 3] = said[4] = np.nan
    relaxed = replace(relaxed, magnetic_moments=moments)
    answer = Verified(
        crystals=relaxed.crystals, relaxed=relaxed, values={"energy_above_hull": said}, cost_seconds=np.zeros(6)
    )
    found = verification(answer, EnergyAboveHull(), MagneticMomentDensity())
    assert found.errors == {
        3: "objective 'magnetic_moment_density' gave nan",
        4: "the oracle gave no finite value for every objective",
    }


def test_an_oracle_that_only_looks_up_still_knows_what_follows_from_the_crystals() -> None:
    crystals = sample_relaxed().crystals
    answer = Verified(crystals=crystals, values={"energy_above_hull": np.zeros(6)}, cost_seconds=np.zeros(6))
    found = verification(answer, EnergyAboveHull(), Density())
    np.testing.assert_allclose(found.values[:, 1], crystals.densities)
    assert not found.errors
    assert sorted(verification(answer, BulkModulus()).errors) == [0, 1, 2, 3, 4, 5]


def test_an_oracle_that_fails_on_all_has_no_values() -> None:
    crystals = sample_relaxed().crystals[:2]
    found = verification(Verified(crystals=crystals, errors={0: "no", 1: "no"}, cost_seconds=np.zeros(2)), Density())
    assert np.isnan(found.values).all()
    assert found.errors == {0: "no", 1: "no"}

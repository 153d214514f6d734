"""Consensus, subsets and failures: what is said of relaxed crystals and what it means per generated crystal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.evaluation.known import Known
from paragenesis.engine.evaluation.measures import measure
from paragenesis.engine.evaluation.scorers import load_scorers
from paragenesis.engine.evaluation.stability import (
    Stability,
    _order,
    choose,
    joined,
    relax_and_score,
    relaxation_figures,
    stability_figures,
)
from paragenesis.engine.hull import Hull
from paragenesis.engine.potentials.contract import Potential
from paragenesis.engine.potentials.ensemble import Ensemble
from paragenesis.engine.potentials.relax import RelaxSettings
from paragenesis.engine.screening.settings import ScreeningSettings


def made(crystals: Crystals, which: list[int], distances: list[list[float]]) -> Stability:
    """Two potentials' hull distances of some crystals that relaxation left as they were."""
    table = np.array(distances)
    return Stability(
        which=np.array(which),
        crystals=crystals[which],
        members=("a", "b")[: len(table)],
        formation_energies=table - 1,
        distances=table,
        converged=np.ones(len(which), dtype=bool),
        steps=np.ones(len(which), dtype=int),
    )


def test_all_must_agree_and_the_mean_needs_all() -> None:
    crystals = Crystals.empty()
    distances = [[-0.02, 0.05, 0.0, np.nan], [0.01, 0.2, -0.3, -1.0]]
    said = Stability(
        which=np.arange(4),
        crystals=crystals,
        members=("a", "b"),
        formation_energies=np.array(distances),
        distances=np.array(distances),
        converged=np.ones(4, bool),
        steps=np.ones(4, int),
    ).verdicts()
    assert list(said) == ["a", "b", "all agree: a and b", "mean: a and b"]
    assert said["all agree: a and b"][:3].tolist() == [0.01, 0.2, 0.0]
    assert said["mean: a and b"][:3] == pytest.approx([-0.005, 0.125, -0.15])
    assert np.isnan(said["all agree: a and b"][3])
    assert np.isnan(said["mean: a and b"][3])


def test_a_random_part_is_drawn_by_the_seed_alone() -> None:
    mask = np.array([True, False] * 50)
    part = choose(mask, 10, 3)
    assert len(part) == 10
    assert mask[part].all()
    assert part.tolist() == sorted(part.tolist()) == choose(mask, 10, 3).tolist()
    assert part.tolist() != choose(mask, 10, 4).tolist()
    assert len(choose(mask, None, 0)) == len(choose(mask, 99, 0)) == 50


def test_shares_of_the_relaxed_become_shares_of_the_generated(mixed: Crystals, known: Known) -> None:
    measures = measure(mixed, known)  # NaCl and CsCl are new, of six
    both = {f.name: f for f in stability_figures(made(mixed, [0, 3], [[-0.2, 0.05]]), measures, known, 10, "the hull")}
    assert (both["stable (0 eV/atom)"].count, both["stable (0 eV/atom)"].n) == (1, 2)
    assert (both["metastable S.U.N."].count, both["metastable S.U.N."].n) == (
        2,
        10,
    )  # all were relaxed: plainly counted
    assert both["S.U.N."].value == pytest.approx(0.1)
    assert both["metastable and unlisted"].value == pytest.approx(0.1)  # NaCl is in the table
    assert both["stable and unlisted"].count == 0
    assert (both["new template of these"].count, both["new template of these"].n) == (1, 1)
    assert both["below -0.1 eV/atom, a warning"].count == 1
    for figure in both.values():
        assert (figure.scorer, figure.hull, figure.reference, figure.relaxed) == ("a", "the hull", "the known", True)
    one = {f.name: f for f in stability_figures(made(mixed, [3], [[0.05]]), measures, known, 10, "the hull")}
    assert one["metastable S.U.N."].times == (2, 10)
    assert one["metastable S.U.N."].value == pytest.approx(0.2)


def test_relaxation_may_raise_symmetry_break_it_or_find_something_known(mixed: Crystals, known: Known) -> None:
    measures = measure(mixed, known)
    flat = made(mixed, [0, 3], [[0.0, np.nan]])
    figures = {f.name: f for f in relaxation_figures(flat, measures, known, ScreeningSettings())}
    assert figures["space group kept by relaxation"].count == 1  # the other failed
    assert figures["still valid, unique and novel"].count == 1
    turned = Stability(**{**vars(flat), "crystals": mixed[[2, 3]], "formation_energies": np.zeros((1, 2))})
    figures = {f.name: f for f in relaxation_figures(turned, measures, known, ScreeningSettings())}
    assert figures["still valid, unique and novel"].count == 1  # NaCl became KCl, which is known
    same = Stability(**{**vars(turned), "crystals": mixed[[3, 3]]})
    figures = {f.name: f for f in relaxation_figures(same, measures, known, ScreeningSettings())}
    assert figures["still valid, unique and novel"].count == 1
    assert figures["space group kept by relaxation"].count == 1
    assert figures["space group kept or raised"].count == 1  # Fm-3m became Pm-3m: same order, another group


def test_orders_of_point_groups() -> None:
    from pymatgen.symmetry.groups import SpaceGroup

    for number in range(1, 231):
        group = SpaceGroup.from_int_number(number)
        assert _order(number) == len({op.rotation_matrix.tobytes() for op in group.symmetry_ops}), number
    assert _order(0) == 0


def test_parts_relaxed_one_by_one_are_the_whole(mixed: Crystals) -> None:
    hull = Hull.embedded()
    ensemble, remarks = load_scorers(["lennard-jones"], hull, device="cpu")
    settings = RelaxSettings(fmax=0.2, max_steps=20)
    whole = relax_and_score(ensemble, mixed, np.array([0, 2, 3]), settings)
    parts = [relax_and_score(ensemble, mixed, np.array([i]), settings) for i in (0, 2, 3)]
    again = joined(parts)
    assert again.which.tolist() == whole.which.tolist() == [0, 2, 3]
    assert again.crystals.ids == whole.crystals.ids == ("nacl", "kcl", "cscl")
    np.testing.assert_allclose(again.distances, whole.distances, atol=1e-9)
    assert np.isfinite(whole.distances).all()
    assert "lennard-jones: elemental references" in remarks[0]
    assert "Mixed levels" in remarks[0]
    assert len(relax_and_score(ensemble, mixed, np.zeros(0, dtype=int), settings)) == 0


def test_what_does_not_fit_into_memory_keeps_its_place(
    mixed: Crystals, small_memory: Callable[[int], Potential]
) -> None:
    ensemble, _ = load_scorers(["lennard-jones"], Hull.embedded(), device="cpu")
    settings, which = RelaxSettings(fmax=0.2, max_steps=20), np.array([0, 1, 2])
    whole = relax_and_score(ensemble, mixed, which, settings)
    found = relax_and_score(Ensemble([small_memory(2)], ensemble.references, ensemble.hull), mixed, which, settings)
    assert found.which.tolist() == [0, 1, 2]
    assert found.crystals.ids == whole.crystals.ids
    assert found.errors == {1: "OutOfMemoryError: CUDA out of memory"}
    assert np.isnan(found.distances[0, 1])
    np.testing.assert_allclose(found.distances[:, [0, 2]], whole.distances[:, [0, 2]], atol=1e-9)


def test_a_crystal_that_fails_keeps_its_place(mixed: Crystals) -> None:
    ensemble, _ = load_scorers(["lennard-jones"], Hull.embedded(), device="cpu")
    limits = RelaxSettings(fmax=0.05, max_steps=30, max_force=0.5)
    found = relax_and_score(ensemble, mixed, np.array([4, 0]), limits)
    assert np.isnan(found.distances[0, 0])
    assert np.isfinite(found.distances[0, 1])
    assert "force" in found.errors[0]
    assert found.crystals.ids == ("clash", "nacl")

"""Triage: each reason planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from paragenesis.engine.acquisition.triage import Evidence, TriageSettings, member_spread, triage
from paragenesis.errors import InputError
from paragenesis.objectives.goals import Maximize, Minimize, Range, Target


def evidence(n: int = 12, **changes: object) -> Evidence:
    """Plausible candidates near the hull, two members with an offset of 0.3 eV/atom between them."""
    energies = np.linspace(-2.0, -1.0, n)
    hull = np.full((2, n), 0.05)
    fields: dict[str, object] = {
        "names": ("energy_above_hull", "mass_density"),
        "goals": (Minimize(), Range(low=2.0, high=3.0)),
        "mean": np.tile([0.05, 2.5], (n, 1)),
        "std": np.tile([0.03, 0.1], (n, 1)),
        "formation_energies": np.stack([energies, energies + 0.3]),
        "hull_distances": hull,
        "max_forces": np.full((2, n), 0.2),
    }
    return Evidence(**{**fields, **changes})  # type: ignore[arg-type]


def with_value(table: object, where: object, value: float) -> np.ndarray:
    out = np.array(table, dtype=float)
    out[where] = value  # type: ignore[index]
    return out


def test_sound_candidates_pass_whatever_the_offset_of_the_members() -> None:
    assert triage(evidence()) == []


def test_far_below_the_hull_is_implausible() -> None:
    (only,) = triage(evidence(hull_distances=with_value(evidence().hull_distances, (slice(None), 3), -0.25)))
    assert (only.index, only.reason) == (3, "implausible")
    assert "-0.250" in only.detail


@pytest.mark.parametrize(
    ("second", "distance", "words"),
    [
        (-0.25, 0.1, ""),  # all say so, and one like it is verified
        (-0.25, 0.3, "nearest verified crystal is 0.30 away"),
        (-0.25, np.inf, "nothing like it is verified"),
        (-0.02, 0.1, "a member puts it at -0.020"),
        (np.nan, 0.1, ""),  # the other member has no answer
    ],
)
def test_far_below_the_hull_is_believed_where_nothing_says_otherwise(
    second: float, distance: float, words: str
) -> None:
    hull = with_value(evidence().hull_distances, (0, 3), -0.25)
    hull[1, 3] = second
    found = triage(evidence(hull_distances=hull, distances=np.full(12, distance)))
    assert [t.reason for t in found] == (["implausible"] if words else [])
    assert all(words in t.detail for t in found)


def test_members_that_part_on_energy_disagree() -> None:
    energies = evidence().formation_energies
    assert energies is not None
    (only,) = triage(evidence(formation_energies=with_value(energies, (1, 4), energies[1, 4] + 0.2)))
    assert (only.index, only.reason) == (4, "disagreement")
    assert "0.200" in only.detail


def test_a_member_that_sees_forces_disagrees() -> None:
    (only,) = triage(evidence(max_forces=with_value(evidence().max_forces, (1, 2), 3.5)))
    assert (only.index, only.reason) == (2, "disagreement")
    assert "3.50" in only.detail


def test_a_member_that_refused_is_no_disagreement() -> None:
    refused = {
        name: with_value(getattr(evidence(), name), (1, 5), np.nan)
        for name in ("formation_energies", "hull_distances", "max_forces")
    }
    assert triage(evidence(**refused)) == []


def test_wide_intervals_are_too_uncertain() -> None:
    (only,) = triage(evidence(std=with_value(evidence().std, (7, 0), 0.5)))
    assert (only.index, only.reason) == (7, "too_uncertain")
    assert "0.5" in only.detail


def test_on_target_only_at_the_optimistic_end_is_false_confidence() -> None:
    mean, std = with_value(evidence().mean, (6, 0), 0.24), with_value(evidence().std, (6, 0), 0.12)
    (only,) = triage(evidence(mean=mean, std=std))
    assert (only.index, only.reason) == (6, "false_confidence")
    assert "<= 0.1" in only.detail
    # just beyond the target, well known, or with a fair chance: all of these deserve a look
    for value, deviation in ((0.13, 0.03), (0.12, 0.15), (0.6, 0.05)):
        near = with_value(evidence().mean, (6, 0), value), with_value(evidence().std, (6, 0), deviation)
        assert triage(evidence(mean=near[0], std=near[1])) == []


@pytest.mark.parametrize(
    ("goal", "bound", "value"),
    [(Maximize(), 3.0, 1.7), (Target(value=4.0), 1.0, 1.7), (Range(low=3.0, high=5.0), 0, 1.7)],
)
def test_false_confidence_knows_every_goal(goal: Maximize, bound: float, value: float) -> None:
    judged = Evidence(names=("x",), goals=(goal,), mean=np.array([[value], [3.5]]), std=np.full((2, 1), 1.2))
    limits = TriageSettings(on_target={"x": bound} if bound else {})
    assert [(t.index, t.reason) for t in triage(judged, limits)] == [(0, "false_confidence")]


def test_what_cannot_reach_the_front_is_hopeless() -> None:
    mean = np.array([[0.0, 1.0], [0.0, 3.0], [-0.5, -0.5], [0.0, 0.0]])
    judged = Evidence(
        names=("x", "y"),
        goals=(Maximize(), Maximize()),
        mean=mean,
        std=np.array([[0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [1.0, 0.1]]),
        observed=np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 0.0], [np.nan, 9.0]]),
    )
    found = triage(judged)
    assert [(t.index, t.reason) for t in found] == [(0, "hopeless"), (2, "hopeless")]  # 1 and 3 may still reach it
    assert "3 standard deviations" in found[0].detail
    assert [t.index for t in triage(judged, TriageSettings(hope=20.0))] == []
    assert triage(replace(judged, calibrated=False)) == []  # intervals that were never tested rule nothing out


def test_what_cannot_meet_a_range_is_hopeless() -> None:
    judged = Evidence(
        names=("gap", "density"),
        goals=(Range(low=1.0, high=2.0), Range(high=6.0)),
        mean=np.array([[1.5, 5.0], [3.0, 5.0], [1.5, 6.5], [1.5, 6.5]]),
        std=np.array([[0.1, 0.0], [0.2, 0.0], [0.1, 0.0], [0.1, 0.3]]),
    )
    found = {t.index: t for t in triage(judged)}
    assert [(i, t.reason) for i, t in found.items()] == [(1, "hopeless"), (2, "hopeless")]
    assert "gap 3 +- 0.2 does not meet 1 to 2" in found[1].detail
    assert "<= 6" in found[2].detail


def test_the_first_reason_is_stored_once() -> None:
    both = evidence(
        hull_distances=with_value(evidence().hull_distances, (slice(None), 3), -0.25),
        std=with_value(evidence().std, (3, 0), 0.5),
    )
    assert [t.reason for t in triage(both)] == ["implausible"]


def test_a_few_candidates_cannot_show_an_offset() -> None:
    table = np.array([[-1.0, -2.0], [-0.7, -1.7]])
    assert member_spread(table) == pytest.approx([0.3, 0.3])
    assert member_spread(np.tile(table, 5)) == pytest.approx(np.zeros(10), abs=1e-12)


def test_without_members_and_without_candidates() -> None:
    assert triage(evidence(formation_energies=None, hull_distances=None, max_forces=None)) == []
    empty = evidence(
        0, formation_energies=np.zeros((2, 0)), hull_distances=np.zeros((2, 0)), max_forces=np.zeros((2, 0))
    )
    assert triage(empty) == []


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match="max_forces"):
        evidence(max_forces=np.zeros((2, 3)))
    with pytest.raises(InputError, match="goals"):
        evidence(goals=(Minimize(),))


def test_of_a_hit_it_is_not_asked_to_be_better_than_another() -> None:
    judged = Evidence(
        names=("energy_above_hull", "gap"),
        goals=(Minimize(), Maximize()),
        mean=np.array([[0.03, 1.0], [0.2, 9.0], [0.06, 1.0]]),
        std=np.array([[0.005, 0.1], [0.01, 0.1], [0.01, 0.1]]),
        observed=np.array([[0.3, 5.0]]),
        hits=((0, Range(high=0.05)),),
    )
    [found] = [t for t in triage(judged) if t.reason == "hopeless"]
    assert found.index == 1
    assert "energy_above_hull 0.2 +- 0.01 does not meet <= 0.05 within 3 standard deviations" in found.detail
    others = [t.index for t in triage(replace(judged, hits=None)) if t.reason == "hopeless"]
    assert others == [0, 2], "without hits one must improve on what is verified"

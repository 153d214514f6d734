from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.crystals import Crystals, IntArray, Relaxed
from paragenesis.engine.asking import Verification, Verify
from paragenesis.engine.attempts import Outcome
from paragenesis.engine.estimates import estimate_all, isolate
from paragenesis.engine.executor import InlineExecutor
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.level import Level
from paragenesis.engine.oracles import Verified
from paragenesis.engine.plugins import build_generator
from paragenesis.engine.stages import Chunk, ChunkTask, Generate
from paragenesis.engine.verdict import KEPT, Verdict
from paragenesis.errors import InputError
from paragenesis.objectives import BulkModulus, Density, EnergyAboveHull, MagneticMomentDensity, Minimize, objective
from paragenesis.objectives.contract import Estimate, Objective
from paragenesis.testing import RandomGenerator, sample_relaxed


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


class Untrustworthy:
    """An oracle that does what it is told."""

    level = LEVEL

    def __init__(self, do: Callable[[Crystals], Any]) -> None:
        self.do = do

    def verify(self, crystals: Crystals) -> Any:
        return self.do(crystals)


def raises(_: Crystals) -> None:
    raise RuntimeError("the license server is down")


def said(crystals: Crystals, **parts: Any) -> Verified:
    values = {"density": np.ones(len(crystals))}
    return Verified(**({"crystals": crystals, "values": values, "cost_seconds": np.ones(len(crystals))} | parts))


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (raises, "RuntimeError: the license server is down"),
        (lambda crystals: None, "returned a NoneType"),
        (lambda crystals: said(crystals.with_ids(["other"])), "other crystals"),
        (lambda crystals: said(crystals, values={"density": np.ones(3)}), "has shape"),
        (lambda crystals: said(crystals, values={"density": np.array(["heavy"])}), "could not convert"),
        (lambda crystals: said(crystals, values={"density": np.array([np.nan])}), "no finite value"),
        (lambda crystals: said(crystals, values={"density": np.array([np.inf])}), "no finite value"),
        (lambda crystals: said(crystals, values={"density": np.array([1.7e308])}), "no finite value"),
        (lambda crystals: said(crystals, errors={0: ""}), "no reason"),
        (lambda crystals: said(replace(crystals, frac=crystals.frac * np.nan)), "not finite"),
    ],
)
def test_whatever_an_oracle_does_is_an_answer_with_the_reason(do: Callable[[Crystals], Any], reason: str) -> None:
    crystal = sample_relaxed().crystals[0]
    found = Verify(lambda: Untrustworthy(do), [Density()])(crystal, None)
    assert reason in found.errors[0]
    assert not np.isfinite(found.values).any()
    assert found.verified.crystals.ids == crystal.ids


def test_costs_and_noise_that_cannot_be_are_unknown() -> None:
    crystal = sample_relaxed().crystals[0]
    for odd in (np.nan, np.inf, -1.0):
        answer = partial(said, cost_seconds=np.array([odd]), noise={"density": np.array([odd])})
        found = Verify(lambda do=answer: Untrustworthy(do), [Density()])(crystal, None)  # type: ignore[misc]
        assert not found.errors
        assert np.isnan([found.verified.cost_seconds[0], found.noise[0, 0]]).all()


@pytest.mark.parametrize("error", [MemoryError, torch.AcceleratorError])
def test_an_oracle_out_of_memory_or_gpu_is_left_to_another_attempt(error: type[Exception]) -> None:
    def full(_: Crystals) -> None:
        raise error("lost")

    with pytest.raises(error):
        Verify(lambda: Untrustworthy(full), [Density()])(sample_relaxed().crystals[0], None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda n: [1.0] * n, "returned a list, not an Estimate"),
        (lambda n: None, "returned a NoneType"),
        (lambda n: Estimate(np.ones(n + 1), np.ones(n + 1)), "values for 1 crystals"),
        (lambda n: Estimate(np.ones((n, 1)), np.ones((n, 1))), "shape n"),
        (lambda n: Estimate(np.array(["much"] * n), np.ones(n)), "could not convert"),
        (lambda n: Estimate(np.full(n, np.inf), np.ones(n)), "gave inf"),
        (lambda n: Estimate(np.full(n, np.nan), np.ones(n)), "gave nan"),
        (lambda n: Estimate(np.full(n, -1.7e308), np.ones(n)), "gave -1.7e"),
        (lambda n: Estimate(np.ones(n), np.full(n, np.inf)), "standard deviation of inf"),
        (lambda n: Estimate(np.ones(n), np.full(n, -1.0)), "standard deviation of -1.0"),
    ],
)
def test_whatever_an_objective_returns_no_crystal_keeps_what_is_no_estimate(
    answer: Callable[[int], Any], reason: str
) -> None:
    @dataclass(frozen=True)
    class Odd:
        name: str = "odd"
        unit: str = "1"
        goal: Minimize = field(default_factory=Minimize)
        needs: frozenset[Any] = frozenset()

        def estimate(self, relaxed: Relaxed) -> Any:
            return answer(len(relaxed))

    _, errors = estimate_all([Odd()], sample_relaxed())
    assert sorted(errors) == list(range(6))
    assert all("'odd'" in error and reason in error for error in errors.values())


def test_a_spread_that_is_unknown_is_allowed() -> None:
    unknown = objective(goal=Minimize(), unit="1", name="unknown")(lambda r: (np.ones(len(r)), np.full(len(r), np.nan)))
    assert not estimate_all([unknown], sample_relaxed())[1]


# --- chunks that are split ------------------------------------------------------------------------------------------


def judged_chunk() -> Chunk:
    """Six crystals, relaxed and estimated; one is rejected, one was never relaxed."""
    relaxed = sample_relaxed()
    n = len(relaxed)
    task = ChunkTask(round=1, generator="made", index=0, n=n, seed=0)
    verdicts = [KEPT] * n
    verdicts[1], verdicts[4] = Verdict("rejected", "screen", "known: as x"), Verdict("failed", "relax", "it blew up")
    kept = [0, 1, 2, 3, 5]
    return Chunk(
        task=task,
        crystals=relaxed.crystals,
        verdicts=tuple(verdicts),
        keys=tuple(f"key{i}" for i in range(n)),
        space_groups=np.arange(n),
        relaxed=relaxed[kept],
        refusals=tuple(("member", relaxed.crystals.ids[i], "no") for i in (0, 5)),
        estimates={"density": Estimate(np.arange(5.0), np.ones(5))},
    )


def same(one: Chunk, other: Chunk) -> bool:
    """Whether two chunks hold the same; the order of refusals means nothing."""
    assert one.relaxed is not None
    assert other.relaxed is not None
    for one_field in fields(Relaxed):
        a, b = getattr(one.relaxed, one_field.name), getattr(other.relaxed, one_field.name)
        if not (np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b):
            return False
    for name, estimate in one.estimates.items():
        np.testing.assert_array_equal(estimate.mean, other.estimates[name].mean)
        np.testing.assert_array_equal(estimate.std, other.estimates[name].std)
    return (
        one.crystals == other.crystals
        and (one.verdicts, one.keys, set(one.refusals)) == (other.verdicts, other.keys, set(other.refusals))
        and one.space_groups.tolist() == other.space_groups.tolist()
        and one.estimates.keys() == other.estimates.keys()
    )


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_chunk_is_whole_again_however_it_was_split(cuts: list[bool]) -> None:
    chunk = judged_chunk()
    open_parts, parts = [chunk], []
    for cut in cuts:
        if not open_parts:
            break
        part = open_parts.pop(0)
        if cut and len(part.halves()) == 2:
            open_parts[:0] = part.halves()
        else:
            parts.append(part)
    assert same(chunk.joined([*parts, *open_parts]), chunk)
    assert [i for half in chunk.halves() for i in half.crystals.ids] == [chunk.crystals.ids[i] for i in chunk.alive]


def test_who_failed_alone_stays_in_its_place_without_an_estimate() -> None:
    chunk = replace(judged_chunk(), estimates={})
    first, second = chunk.halves()
    guilty = first.part([1]).failed(Outcome(stage="assess", error="ValueError: no"))
    good = replace(second, estimates={"density": Estimate(np.array([7.0, 8.0]), np.zeros(2))})
    joined = chunk.joined([guilty, good])
    assert joined.verdicts[2] == Verdict("failed", "assess", "ValueError: no")
    assert joined.verdicts[1] == chunk.verdicts[1]
    np.testing.assert_array_equal(joined.estimates["density"].mean, [np.nan, np.nan, np.nan, 7.0, 8.0])


class Poisonous:
    """A stand-in for a screen or an ensemble that raises where one crystal takes part, and notes with whom it works."""

    def __init__(self, poison: str, inner: Any) -> None:
        self.poison, self.inner = poison, inner

    def screen(self, crystals: Crystals, *others: Any, **more: Any) -> Any:
        self.check(crystals)
        return self.inner.screen(crystals, *others, **more)

    def relax_and_judge(self, crystals: Crystals, *others: Any) -> Any:
        self.check(crystals)
        return self.inner.relax_and_judge(crystals, *others)

    def check(self, crystals: Crystals) -> None:
        if any(self.poison in one for one in crystals.ids):
            raise RuntimeError("poison")


@pytest.mark.parametrize("where", ["screen", "relax", "assess"])
def test_each_stage_goes_on_without_the_crystal_it_cannot_bear(where: str, route: Callable[..., Any]) -> None:
    clean = route(None, "")
    ids = [clean.crystals.ids[i] for i in clean.alive]
    poison = ids[len(ids) // 2]
    found = route(where, poison)
    at = clean.crystals.ids.index(poison)
    attempts = found.verdicts[at].attempts
    assert found.verdicts[at] == Verdict("failed", where, "RuntimeError: poison", attempts=attempts)
    assert 2 <= attempts <= 1 + math.ceil(math.log2(len(clean.crystals))), "with all, then with half of them, ..."
    assert len(ids) > 2
    assert set(clean.alive) - {at} <= set(found.alive), "where it is gone, a twin of it may stay"
    row = {c: i for i, c in enumerate(found.relaxed.crystals.ids)}
    for i, candidate in enumerate(clean.relaxed.crystals.ids):
        if candidate != poison:
            one, other = found.relaxed.crystals[row[candidate]], clean.relaxed.crystals[i]
            np.testing.assert_allclose(one.frac, other.frac, atol=1e-9)
            mean = found.estimates["density"].mean[row[candidate]], clean.estimates["density"].mean[i]
            np.testing.assert_allclose(*mean)


@pytest.fixture
def route(tiny: Callable[..., Any]) -> Callable[..., Any]:
    """Takes a chunk through all stages of the tiny campaign; one of them raises where a crystal takes part."""
    from paragenesis.engine.preflight import prepare
    from paragenesis.engine.screening.novelty import Seen
    from paragenesis.engine.stages import RoundContext

    kit = prepare(tiny())

    def go(where: str | None, poison: str) -> Any:
        stages = [
            replace(spec, arguments=(partial(_poisoned, spec.arguments[0], poison), *spec.arguments[1:]))
            if spec.name == where
            else spec
            for spec in kit.stages
        ]
        context = RoundContext(Condition(allowed_elements=("Na", "Cl")), Seen(kit.spec.screening))
        task = ChunkTask(round=1, generator="random", index=0, n=40, seed=3)
        with InlineExecutor() as executor:
            [outcome] = executor.stream(stages, [task], context)
        return outcome.value

    return go


def _poisoned(build: Callable[[], Any], poison: str) -> Poisonous:
    return Poisonous(poison, build())


class Heavy(RandomGenerator):
    """A generator whose weights are not there."""

    def load(self) -> None:
        raise InputError("there are no weights")


def test_a_generator_is_loaded_before_its_first_crystals() -> None:
    with pytest.raises(InputError, match="no weights"):
        Generate({"random": RandomGenerator, "heavy": Heavy})
    wyckoff = partial(build_generator, "wyckoff", {"weights": "absent.safetensors"}, Path())
    with pytest.raises(InputError, match=r"absent\.safetensors"):
        Generate({"wyckoff": wyckoff})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_generator_that_was_given_a_gpu_and_sees_none_does_not_begin() -> None:
    with pytest.raises(InputError, match="torch sees no GPU"):
        Generate({"random": RandomGenerator}, on_gpu=True)

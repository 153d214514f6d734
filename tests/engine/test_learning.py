"""Generators learn from what was found and are not allowed to become worse; a resumed campaign knows what they know."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paragenesis.testing
from paragenesis.crystals import Crystals
from paragenesis.engine.executor import InlineExecutor
from paragenesis.engine.folders import prefix
from paragenesis.engine.generators.contract import LearningGenerator, check_generator
from paragenesis.engine.learning import Taught, Trial, Weights, objection
from paragenesis.engine.ledger import Ledger, LedgerReader, digest, verify_ledger
from paragenesis.engine.planning import lesson
from paragenesis.engine.preflight import prepare
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import InputError, LedgerError
from paragenesis.launch import run
from paragenesis.testing import LearningRandomGenerator

MakeSpec = Callable[..., CampaignSpec]
NAME = "learningrandomgenerator"
LEARN = {"generator": True, "max_hull_distance": 50.0, "min_crystals": 2, "trial": 24, "tolerance": 3.0}


@pytest.fixture
def school(tiny: MakeSpec) -> MakeSpec:
    """Makes the specification of a campaign with a generator that learns."""

    def make(**changes: Any) -> CampaignSpec:
        generators = [{"use": "paragenesis.testing:LearningRandomGenerator", "n": 16, "chunk": 4}]
        return tiny(**({"generators": generators, "learn": LEARN, "decision": {"q": 2}} | changes))

    return make


@pytest.fixture(scope="module")
def _done_once() -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(school: MakeSpec, tmp_path_factory: pytest.TempPathFactory, _done_once: dict[str, Path]) -> Path:
    """The directory of a finished campaign that learnt, to be read only."""
    if "whole" not in _done_once:
        _done_once["whole"] = tmp_path_factory.mktemp("learning") / "whole"
        run(school(), _done_once["whole"], executor="inline")
    return _done_once["whole"]


@pytest.fixture
def plain(school: MakeSpec, tmp_path_factory: pytest.TempPathFactory, _done_once: dict[str, Path]) -> Path:
    """The directory of the same campaign without learning, to be read only."""
    if "plain" not in _done_once:
        _done_once["plain"] = tmp_path_factory.mktemp("learning") / "plain"
        run(school(learn={"generator": False}), _done_once["plain"], executor="inline")
    return _done_once["plain"]


def query(directory: Path, sql: str) -> list[dict[str, Any]]:
    with LedgerReader.open(directory) as ledger:
        rows: list[dict[str, Any]] = ledger.query(sql).to_pylist()
    return rows


def origins(directory: Path, number: int) -> list[dict[str, Any]]:
    return query(
        directory, f"SELECT numbers, initial_frac FROM candidates WHERE round = {number} ORDER BY candidate_id"
    )


# --- the guard -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((120, 118, 100), (121, 117, 101), ""),
        ((120, 118, 100), (100, 98, 90), "validity fell from 120/128 = 93.8% to 100/128 = 78.1%"),
        ((120, 118, 100), (120, 60, 50), "uniqueness fell from 118/120"),
        ((120, 118, 100), (120, 118, 60), "novelty fell from 100/118"),
        ((128, 128, 128), (127, 127, 127), ""),
        ((128, 128, 128), (120, 120, 120), "validity fell"),
        ((0, 0, 0), (0, 0, 0), "no valid crystal"),
        ((0, 0, 0), (5, 5, 5), ""),
    ],
)
def test_new_weights_may_lose_no_more_than_the_sampling_error(
    before: tuple[int, int, int], after: tuple[int, int, int], said: str
) -> None:
    found = objection(Trial(128, *before), Trial(128, *after), tolerance=1.0)
    assert said in found
    assert bool(said) == bool(found)


def test_the_tolerance_counts_standard_errors() -> None:
    before, after = Trial(128, 100, 100, 100), Trial(128, 90, 90, 90)
    assert objection(before, after, 1.0)
    assert not objection(before, after, 2.0)


# --- the generator ---------------------------------------------------------------------------------------------------


def test_the_fake_keeps_the_contract(tmp_path: Path) -> None:
    from paragenesis.engine.generators.condition import Condition

    generator = LearningRandomGenerator()
    assert isinstance(generator, LearningGenerator)
    assert check_generator(generator, Condition(allowed_elements=("Na", "Cl"))) == []
    made = generator.generate(8, Condition(chemical_system="Na"), 1)
    taught = generator.with_weights(generator.learn(made, {}, out=tmp_path / "w", seed=1))
    numbers = taught.generate(200, Condition(allowed_elements=("Na", "Cl")), 2).numbers
    assert (numbers == 11).mean() > 0.8, "it learnt that there is sodium"


def test_weights_are_loaded_when_they_change_and_not_before(tmp_path: Path) -> None:
    loaded: list[str] = []

    class Counting(LearningRandomGenerator):
        def with_weights(self, weights: Path) -> LearningRandomGenerator:
            loaded.append(weights.stem)
            return super().with_weights(weights)

    taught = Taught({"g": Counting})
    one, two = (
        Weights.of(LearningRandomGenerator().learn(crystals(z), {}, out=tmp_path / "w", seed=0).read_bytes())
        for z in (11, 17)
    )
    own = taught.get("g")
    first = taught.get("g", one)
    assert taught.get("g", one) is first
    assert first is not own
    taught.get("g", two)
    assert loaded == [one.sha256, two.sha256]
    assert taught.get("g") is own


def test_weights_that_a_killed_worker_left_are_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    weights = Weights.of(LearningRandomGenerator().learn(crystals(11), {}, out=tmp_path / "w", seed=0).read_bytes())
    (tmp_path / "w").unlink()
    left = tmp_path / f"{prefix()}left"
    left.mkdir()
    (left / "owner").touch()  # nobody locks it any more
    (left / f"{weights.sha256}.safetensors").write_bytes(weights.data)
    taught = Taught({"g": LearningRandomGenerator})
    taught.get("g", weights)
    [mine] = tmp_path.iterdir()
    assert mine != left
    del taught
    assert list(tmp_path.iterdir()) == []


def crystals(z: int) -> Crystals:
    return Crystals(
        ids=("a",), n_atoms=np.array([1]), numbers=np.array([z]), frac=np.zeros((1, 3)), lattices=np.eye(3)[None] * 3
    )


# --- campaigns -------------------------------------------------------------------------------------------------------


def test_what_is_learnt_is_kept_recorded_and_used(whole: Path, plain: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(whole, tmp_path / "copy"))
    [row] = query(directory, "SELECT * FROM learning")
    assert (row["round"], row["generator"], row["outcome"]) == (2, NAME, "accepted")
    assert row["asked"] == 24
    assert row["valid_after"] >= row["unique_after"] >= row["novel_after"] > 0
    file = directory / "weights" / f"r002-{NAME}.safetensors"
    assert row["weights"] == f"weights/{file.name}"
    assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert origins(directory, 1) == origins(plain, 1)
    assert origins(directory, 2) != origins(plain, 2)
    assert query(plain, "SELECT 1 FROM learning") == []
    assert verify_ledger(directory) == []
    file.write_bytes(b"else")
    assert any("weights" in problem and "changed" in problem for problem in verify_ledger(directory))


def test_a_campaign_that_is_extended_learns_as_one_that_was_longer_from_the_start(
    school: MakeSpec, whole: Path, tmp_path: Path
) -> None:
    extended = Path(shutil.copytree(whole, tmp_path / "extended"))
    run(school(rounds=3), extended, executor="inline")
    run(school(rounds=3), tmp_path / "long", executor="inline")
    assert digest(extended) == digest(tmp_path / "long")
    outcomes = query(extended, "SELECT round, outcome FROM learning ORDER BY round")
    assert [o["round"] for o in outcomes] == [2, 3], "nothing is learnt after the last round"


class KilledWhileLearning(InlineExecutor):
    """Stops when a lesson is given, before or after the generator has learnt."""

    def __init__(self, after: bool) -> None:
        super().__init__()
        self.after = after

    def stream(self, stages: Any, items: Any, context: Any) -> Any:
        lesson_now = [stage.name for stage in stages] == ["learn"]
        if lesson_now and not self.after:
            raise KeyboardInterrupt
        yield from super().stream(stages, items, context)
        if lesson_now:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [False, True])
def test_a_campaign_killed_while_it_learns_resumes_to_the_same_ledger(
    school: MakeSpec, whole: Path, tmp_path: Path, after: bool
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(school(), tmp_path / "broken", executor=KilledWhileLearning(after))
    assert query(tmp_path / "broken", "SELECT 1 FROM learning") == []
    run(school(), tmp_path / "broken", executor="inline")
    assert digest(tmp_path / "broken") == digest(whole)


def test_a_campaign_killed_between_the_weights_and_their_commit_resumes(
    school: MakeSpec, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Ledger.commit

    def dying(self: Ledger, key: str, number: int, kind: str, tables: Any) -> bool:
        if kind == "learning":
            raise KeyboardInterrupt
        return commit(self, key, number, kind, tables)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", dying)
        with pytest.raises(KeyboardInterrupt):
            run(school(), tmp_path / "broken", executor="inline")
    assert (tmp_path / "broken" / "weights" / f"r002-{NAME}.safetensors").is_file()
    run(school(), tmp_path / "broken", executor="inline")
    assert digest(tmp_path / "broken") == digest(whole)


def interrupt_in_round_two(spec: CampaignSpec, directory: Path) -> Path:
    """A campaign that stopped after the first chunk that was made with learnt weights; the file of these."""

    class Interrupted(InlineExecutor):
        def stream(self, stages: Any, items: Any, context: Any) -> Any:
            for outcome in super().stream(stages, items, context):
                yield outcome
                if getattr(context, "weights", None) and len(stages) > 1:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, directory, executor=Interrupted())
    [file] = (directory / "weights").iterdir()
    return file


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"other")])
def test_weights_that_are_lost_or_changed_are_learnt_again(
    school: MakeSpec, whole: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    file = interrupt_in_round_two(school(), tmp_path / "broken")
    weights = file.read_bytes()
    spoil(file)
    run(school(), tmp_path / "broken", executor="inline")
    assert file.read_bytes() == weights
    assert digest(tmp_path / "broken") == digest(whole)


def test_weights_that_come_out_otherwise_are_an_error(
    school: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in_round_two(school(), tmp_path).unlink()

    def learn(self: Any, crystals: Crystals, labels: Any, *, out: Path, seed: int) -> Path:
        out.write_bytes(b"not what it was")
        return out

    monkeypatch.setattr(LearningRandomGenerator, "learn", learn)
    monkeypatch.setattr(LearningRandomGenerator, "with_weights", lambda self, _: self)
    with pytest.raises(LedgerError, match=r"r002-.*lost or changed, and learning them again gave others; put the file"):
        run(school(), tmp_path, executor="inline")


class Spoilt(LearningRandomGenerator):
    """Forgets what a crystal is as soon as it has learnt."""

    def generate(self, n: int, condition: Any, seed: int) -> Crystals:
        made = super().generate(n, condition, seed)
        return made if self._weights.max() == 1.0 else replace(made, frac=np.zeros_like(made.frac))


class Parrot(LearningRandomGenerator):
    """Makes nothing but rock salt as soon as it has learnt."""

    def generate(self, n: int, condition: Any, seed: int) -> Crystals:
        if self._weights.max() == 1.0:
            return super().generate(n, condition, seed)
        salt = Crystals(
            ids=("0",),
            n_atoms=np.array([2]),
            numbers=np.array([11, 17]),
            frac=np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]),
            lattices=2.82 * (np.ones((1, 3, 3)) - np.eye(3)),
            origins=("rock salt",),
        )
        return salt[[0] * n].with_ids([str(i) for i in range(n)])


class Stubborn(LearningRandomGenerator):
    """Cannot be taught."""

    def learn(self, crystals: Crystals, labels: Mapping[str, Any], *, out: Path, seed: int) -> Path:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("pupil", "outcome", "said"),
    [
        (Spoilt, "refused", "validity fell from"),
        (Parrot, "refused", "uniqueness fell from"),
        (Stubborn, "failed", "RuntimeError: not today"),
    ],
)
def test_what_would_do_harm_is_refused_recorded_and_deleted(
    school: MakeSpec,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pupil: type[LearningRandomGenerator],
    outcome: str,
    said: str,
) -> None:
    monkeypatch.setattr(paragenesis.testing, "LearningRandomGenerator", pupil)
    run(school(learn={**LEARN, "tolerance": 1.0}), tmp_path / "taught", executor="inline")
    [row] = query(tmp_path / "taught", "SELECT * FROM learning")
    assert row["outcome"] == outcome
    assert said in (row["reason"] or row["error"])
    assert (row["weights"], row["sha256"]) == (None, None)
    if outcome == "refused":
        assert row["valid_before"] > 0
        assert row["unique_after"] < row["unique_before"]
    assert not (tmp_path / "taught" / "weights").exists()
    assert origins(tmp_path / "taught", 2) == origins(plain, 2), "the old weights are used"


def test_too_little_to_learn_from_is_said(school: MakeSpec, tmp_path: Path) -> None:
    run(school(learn={**LEARN, "min_crystals": 1000}), tmp_path, executor="inline")
    [row] = query(tmp_path, "SELECT outcome, reason, crystals FROM learning")
    assert row["outcome"] == "skipped"
    assert row["reason"] == f"{row['crystals']} good crystals are fewer than learn.min_crystals = 1000"


def test_a_campaign_in_which_nobody_can_learn_is_refused(tiny: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"learn\.generator = true, but random cannot learn"):
        run(tiny(learn=LEARN), tmp_path / "c", executor="inline")
    assert not (tmp_path / "c").exists()


# --- lessons ---------------------------------------------------------------------------------------------------------


def test_a_lesson_holds_good_crystals_and_what_the_oracle_said_of_them(school: MakeSpec, tmp_path: Path) -> None:
    spec = school(rounds=1, objectives=("energy_above_hull", "density"), hits=[])
    run(spec, tmp_path, executor="inline")
    kit = prepare(spec)
    with LedgerReader.open(tmp_path) as ledger:
        every = lesson(ledger, kit, 2, NAME)
        assert len(lesson(ledger, kit, 1, NAME).crystals) == 0, "nothing was known before the first round"
        values = ledger.query(
            "SELECT candidate_id AS id, value FROM verifications WHERE property = 'energy_above_hull'"
        ).to_pylist()
        relaxed = {
            row["id"]: row
            for row in ledger.query("SELECT candidate_id AS id, lattice, frac FROM verified_structures").to_pylist()
        }
        final = ledger.crystals("verdict = 'kept'")
    assert values
    labels = dict(zip(every.crystals.ids, every.labels["energy_above_hull"], strict=True))
    assert set(every.labels) == {"energy_above_hull", "formation_energy_per_atom"}
    for row in values:
        assert labels[row["id"]] == row["value"], "the oracle's value replaces the ensemble's"
        place = every.crystals.ids.index(row["id"])
        assert every.crystals.lattices[place].reshape(-1).tolist() == relaxed[row["id"]]["lattice"]
    assert set(relaxed) < set(final.ids) == set(every.crystals.ids)
    distances = every.labels["energy_above_hull"]
    middle = float(np.median(distances))
    upper = kit.spec.model_copy(update={"learn": kit.spec.learn.model_copy(update={"max_hull_distance": middle})})
    lower = kit.spec.model_copy(update={"triage": kit.spec.triage.model_copy(update={"min_hull_distance": middle})})
    with LedgerReader.open(tmp_path) as ledger:
        low = lesson(ledger, replace(kit, spec=upper), 2, NAME).labels["energy_above_hull"]
        high = lesson(ledger, replace(kit, spec=lower), 2, NAME).labels["energy_above_hull"]
    assert sorted(low) == sorted(d for d in distances if d <= middle)
    assert sorted(high) == sorted(d for d in distances if d >= middle), "what lies too deep is extrapolation"


def test_a_lesson_given_once_more_holds_nothing_that_came_later(school: MakeSpec, tmp_path: Path) -> None:
    """Weights whose file is lost are learnt again in later rounds, when more crystals of the first are verified."""
    generators = [{"use": "paragenesis.testing:LearningRandomGenerator", "n": 24, "chunk": 24}]
    spec = school(rounds=1, generators=generators, decision={"q": 4, "strategy": "random"})
    run(spec, tmp_path, executor="inline")
    kit = prepare(spec)

    def given() -> tuple[Any, ...]:
        with LedgerReader.open(tmp_path) as ledger:
            now = lesson(ledger, kit, 2, NAME)
        return now.crystals.ids, now.crystals.lattices.tolist(), {k: v.tolist() for k, v in now.labels.items()}

    before = given()
    run(spec.model_copy(update={"rounds": 3}), tmp_path, executor="inline")
    late = "SELECT 1 FROM verifications v JOIN candidates c USING (candidate_id) WHERE c.round = 1 AND v.round > 1"
    assert query(tmp_path, late), "a crystal of the first round was verified later"
    assert given() == before


def test_a_hit_is_good_whatever_its_distance(school: MakeSpec, tmp_path: Path) -> None:
    spec = school(rounds=1, learn={**LEARN, "max_hull_distance": -1000.0}, hits=[{"objective": "density"}])
    run(spec, tmp_path, executor="inline")
    with LedgerReader.open(tmp_path) as ledger:
        hits = lesson(ledger, prepare(spec), 2, NAME).crystals.ids
        verified = ledger.query("SELECT DISTINCT candidate_id AS id FROM verifications WHERE status = 'verified'")
    assert sorted(hits) == sorted(verified.column("id").to_pylist())
    assert hits


def test_the_weights_travel_with_the_round(school: MakeSpec, tmp_path: Path) -> None:
    """No worker needs the campaign's directory."""
    contexts: list[dict[str, str]] = []

    class Watching(InlineExecutor):
        def stream(self, stages: Any, items: Any, context: Any) -> Any:
            if len(stages) > 1:
                contexts.append({name: weights.sha256 for name, weights in context.weights.items()})
            yield from super().stream(stages, items, context)

    run(school(), tmp_path, executor=Watching())
    [row] = query(tmp_path, "SELECT sha256 FROM learning")
    assert contexts == [{}, {NAME: row["sha256"]}]

"""Users' objectives: found, overridden, sent to other processes; and every way in which loading fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from paragenesis.errors import InputError
from paragenesis.naming import load_user_file, user_modules
from paragenesis.objectives import Minimize, Range, build_objective, check_objective, sample_relaxed

EXAMPLES = Path(__file__).parents[2] / "examples"

SOURCE = """
import numpy as np
from paragenesis.objectives import Estimate, Maximize, Minimize, objective
from paragenesis.settings import Settings

FACTOR = 3.0

def helper(values):
    return FACTOR * values

@objective(goal=Maximize(), unit="g/cm3")
def heavy(relaxed):
    return helper(relaxed.crystals.densities)

class Scaled:
    unit, goal, needs = "g/cm3", Minimize(), frozenset()

    def __init__(self, scale=1.0):
        self.name, self.scale = "scaled", scale

    def estimate(self, relaxed):
        mean = helper(relaxed.crystals.densities) * self.scale
        return Estimate(mean, np.zeros_like(mean))

class Configured(Settings):
    name: str = "configured"
    unit: str = "1"
    goal: Minimize = Minimize()
    needs: frozenset = frozenset()
    value: float = 1.0

    def estimate(self, relaxed):
        return Estimate(np.full(len(relaxed), self.value), np.zeros(len(relaxed)))

instance = Scaled(2.0)
number = 3
def plain(relaxed):
    return relaxed.crystals.densities
"""


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


def test_functions_instances_and_classes_are_objectives(campaign: Path) -> None:
    relaxed = sample_relaxed()
    densities = relaxed.crystals.densities
    for use, options, factor in [
        ("mine.py:heavy", {}, 3.0),
        ("mine.py:instance", {}, 6.0),
        ("mine.py:Scaled", {}, 3.0),
        ("mine.py:Scaled", {"scale": 5.0}, 15.0),
    ]:
        built = build_objective(use, options, campaign)
        np.testing.assert_allclose(built.estimate(relaxed).mean, factor * densities)
        assert check_objective(built) == []
    configured = build_objective("mine.py:Configured", {"value": 4.0}, campaign)
    assert (configured.estimate(relaxed).mean == 4.0).all()


def test_goal_and_name_of_any_objective_can_be_overridden(campaign: Path) -> None:
    options = {"goal": {"kind": "range", "low": 1.0, "high": 2.0}, "name": "mid"}
    for use in ("mine.py:heavy", "mine.py:instance", "mine.py:Scaled"):
        built = build_objective(use, options, campaign)
        assert (built.name, built.goal, built.unit) == ("mid", Range(low=1.0, high=2.0), "g/cm3")
        assert check_objective(built) == []
    assert build_objective("mine.py:heavy", {"goal": "minimize"}, campaign).name == "heavy"


def test_an_installed_module_is_found() -> None:
    built = build_objective("paragenesis.objectives:Density", {"goal": "minimize"}, Path("/nowhere"))
    assert built.goal == Minimize()


def test_the_example_is_ready_for_a_campaign() -> None:
    built = build_objective("custom_objective.py:specific_stiffness", {}, EXAMPLES)
    assert check_objective(built) == []
    relaxed = sample_relaxed()
    modulus = build_objective("bulk_modulus", {}, Path()).estimate(relaxed)
    np.testing.assert_allclose(built.estimate(relaxed).std, modulus.std / relaxed.crystals.densities)


def test_the_example_runs_as_a_script() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "custom_objective.py"], capture_output=True, text=True, cwd=EXAMPLES.parent,
        env={"PYTHONPATH": str(EXAMPLES.parent)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "specific_stiffness is ready" in done.stdout


@pytest.mark.parametrize(
    ("use", "options", "words"),
    [
        ("missing.py:heavy", {}, "there is no file '.*missing.py'"),
        ("mine.py:hevy", {}, "'mine.py' defines no 'hevy'; did you mean 'heavy'"),
        ("mine.py:number", {}, r"\(of type int\) is no objective: it lacks name"),
        ("mine.py:plain", {}, "plain function; decorate it with @objective"),
        ("mine.py:heavy", {"scale": 2.0}, "takes no options beside goal and name, but got scale"),
        ("mine.py:Scaled", {"scal": 2.0}, "cannot be made from the options"),
        ("mine.py:Configured", {"valu": 2.0}, "did you mean 'value'"),
        ("mine.py:heavy", {"goal": "up"}, "kinds maximize"),
        ("mine.py:heavy", {"name": "not a name"}, "'not a name'"),
        ("mine.py:", {}, "there is no objective 'mine.py:'"),
        ("syntax.py:x", {}, "no valid Python: line 2"),
        ("broken.py:x", {}, "broken.py', line 3: ZeroDivisionError"),
        ("neighbour.py:x", {}, "line 1: cannot import 'no_such_neighbour'"),
        ("no_such_package.module:x", {}, "there is no module 'no_such_package'"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(
    campaign: Path, use: str, options: dict[str, object], words: str
) -> None:
    (campaign / "syntax.py").write_text("x = 1\ndef broken(:\n")
    (campaign / "broken.py").write_text("a = 0\n\nx = 1 / a\n")
    (campaign / "neighbour.py").write_text("import no_such_neighbour\n")
    with pytest.raises(InputError, match=words) as caught:
        build_objective(use, options, campaign)
    assert "\n" not in str(caught.value)


def test_a_file_that_failed_leaves_no_module_behind(campaign: Path) -> None:
    (campaign / "broken.py").write_text("x = 1 / 0\n")
    before = len(user_modules())
    with pytest.raises(InputError):
        build_objective("broken.py:x", {}, campaign)
    assert len(user_modules()) == before


def test_a_file_runs_once_until_it_changes(campaign: Path) -> None:
    first = load_user_file(campaign / "mine.py")
    assert load_user_file(campaign / "mine.py") is first
    (campaign / "mine.py").write_text(SOURCE.replace("FACTOR = 3.0", "FACTOR = 4.0"))
    assert load_user_file(campaign / "mine.py").FACTOR == 4.0


def test_a_users_file_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("from paragenesis.objectives import Density\nx = Density()\n")
    build_objective("numpy.py:x", {}, tmp_path)
    assert sys.modules["numpy"] is np


@pytest.mark.parametrize("use", ["mine.py:heavy", "mine.py:instance", "mine.py:Configured"])
def test_users_objects_reach_a_process_that_lacks_the_file(campaign: Path, use: str) -> None:
    built = build_objective(use, {"goal": "maximize"}, campaign)
    for module in user_modules():
        cloudpickle.register_pickle_by_value(module)
    try:
        (campaign / "objective.pickle").write_bytes(cloudpickle.dumps((built, sample_relaxed())))
    finally:
        for module in user_modules():
            cloudpickle.unregister_pickle_by_value(module)
    (campaign / "mine.py").unlink()
    code = "import pickle, sys; o, r = pickle.load(open(sys.argv[1], 'rb')); print(repr(o.estimate(r).mean.sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(campaign / "objective.pickle")],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(EXAMPLES.parent)}, cwd=campaign,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = built.estimate(sample_relaxed()).mean.sum()
    assert float(done.stdout.strip().removeprefix("np.float64(").removesuffix(")")) == pytest.approx(expected)

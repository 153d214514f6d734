"""Generators and oracles from names: the table, users' classes with their settings, and every way it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paragenesis.engine.generators import Condition
from paragenesis.engine.hull import Hull
from paragenesis.engine.plugins import ALIASES, build_generator, build_oracle, try_generator
from paragenesis.errors import InputError, PotentialError

SOURCE = """
from paragenesis.crystals import Crystals
from paragenesis.engine.level import Level
from paragenesis.errors import PotentialError
from paragenesis.settings import Settings
from paragenesis.testing import RandomGenerator

class ToolSettings(Settings):
    factor: float = 1.0

class Configured(RandomGenerator):
    def __init__(self, settings: ToolSettings | None = None):
        super().__init__()
        self.factor = (settings or ToolSettings()).factor

class Plain(RandomGenerator):
    def __init__(self, factor, directory):
        super().__init__()
        self.factor, self.directory = factor, directory

class Placed:
    level = Level(engine="mine", version="1", functional="mine")
    def __init__(self, device, hull, needs):
        self.given = (device, hull, needs)
    def verify(self, crystals):
        raise NotImplementedError

class Unlucky:
    def __init__(self):
        raise PotentialError("weights are damaged")

class Empty(RandomGenerator):
    def generate(self, n, condition, seed):
        return super().generate(1, condition, seed)[[]]

class Wrong(RandomGenerator):
    def generate(self, n, condition, seed):
        return ["NaCl"] * n

class Raising(RandomGenerator):
    def generate(self, n, condition, seed):
        return {}["NaCl"]

ready = RandomGenerator()
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


def generator(use: str, options: dict[str, Any], folder: Path) -> Any:
    return build_generator(use, options, folder)


def oracle(use: str, options: dict[str, Any], folder: Path) -> Any:
    return build_oracle(use, options, folder, hull=Hull.embedded(), device="cpu", needs=frozenset({"strain"}))


@pytest.mark.parametrize("name", ALIASES["generator"])
def test_every_short_name_of_a_generator_makes_one(name: str, folder: Path) -> None:
    assert len(try_generator(name, generator(name, {}, folder), 2, Condition(chemical_system="Mg-O"), 1)) == 2


def test_an_alias_an_import_path_and_a_users_file_are_all_names(folder: Path) -> None:
    assert type(generator("random", {"spacing": 3.0}, folder)).__name__ == "RandomGenerator"
    assert generator("paragenesis.testing:RandomGenerator", {"spacing": 3.0}, folder).settings.spacing == 3.0
    assert generator("mine.py:Configured", {"factor": 2.0}, folder).factor == 2.0
    assert generator("mine.py:ready", {}, folder) is generator("mine.py:ready", {}, folder)


def test_a_class_gets_its_options_and_those_surroundings_that_it_names(folder: Path) -> None:
    plain = generator("mine.py:Plain", {"factor": 2.0}, folder)
    assert (plain.factor, plain.directory) == (2.0, folder)
    device, hull, needs = oracle("mine.py:Placed", {}, folder).given
    assert (device, type(hull), needs) == ("cpu", Hull, {"strain"})


@pytest.mark.parametrize(
    ("use", "options", "said"),
    [
        ("randm", {}, "no generator 'randm'; did you mean 'random'"),
        ("mine.py:number", {}, "'mine.py:number' is no generator: it needs generate"),
        ("mine.py:Placed", {}, "cannot be made from the options"),
        ("mine.py:ready", {"spacing": 1.0}, "is an object and takes no options, but got spacing"),
        ("mine.py:Plain", {"factr": 1.0}, "has no option 'factr'; it takes factor$"),
        ("mine.py:Plain", {"factor": 1.0, "directory": "."}, "has no option 'directory'; it takes factor$"),
        ("mine.py:Plain", {}, "cannot be made from the options {}: TypeError: .*'factor'"),
        ("mine.py:Configured", {"factr": 1.0}, "'mine.py:Configured': unknown key 'factr'; did you mean 'factor'"),
        ("random", {"spacing": "wide"}, "generator 'random': 'spacing'"),
    ],
)
def test_a_generator_that_cannot_be_built_is_one_sentence(
    folder: Path, use: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        generator(use, options, folder)


def test_what_is_no_oracle_is_refused_and_an_error_of_ours_stays_what_it_is(folder: Path) -> None:
    with pytest.raises(InputError, match=r"'mine\.py:ready' is no oracle: it needs verify"):
        oracle("mine.py:ready", {}, folder)
    with pytest.raises(InputError, match="no oracle 'substitution'; built in are potential, table"):
        oracle("substitution", {}, folder)
    with pytest.raises(PotentialError, match="weights are damaged"):
        oracle("mine.py:Unlucky", {}, folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Empty", "has no candidate for this condition; widen it"),
        ("Wrong", "returned list instead of Crystals"),
        ("Raising", "raised KeyError: 'NaCl'"),
    ],
)
def test_a_generator_at_fault_is_named(folder: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"generator 'x' {said}"):
        try_generator("x", generator(f"mine.py:{name}", {}, folder), 2, Condition(), 1)

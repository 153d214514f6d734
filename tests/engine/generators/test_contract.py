"""The check for plug-in authors finds every way to break the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.generators.condition import PARTS, Condition, PropertyRange
from paragenesis.engine.generators.contract import (
    _PROBES,
    Generator,
    LearningGenerator,
    check_generator,
    refuse_unhonoured,
)
from paragenesis.errors import InputError

CONDITION = Condition(chemical_system="Mg-O")


@dataclass
class Salt:
    """Rocksalt MgO at random lengths: honours a chemical system that it happens to have."""

    honours: frozenset[str] = frozenset({"chemical_system"})

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        refuse_unhonoured("salt", self.honours, condition)
        return self.make(n, np.random.default_rng(seed))

    def make(self, n: int, rng: np.random.Generator) -> Crystals:
        return Crystals(
            ids=tuple(str(i) for i in range(n)),
            n_atoms=np.full(n, 2),
            numbers=np.tile([12, 8], n),
            frac=np.tile([[0.0, 0, 0], [0.5, 0.5, 0.5]], (n, 1)),
            lattices=np.eye(3) * rng.uniform(2.8, 3.2, size=(n, 1, 1)),
            origins=("by hand",) * n,
        )


class Unseeded(Salt):
    def make(self, n: int, rng: np.random.Generator) -> Crystals:
        return super().make(n, np.random.default_rng())


class TooMany(Salt):
    def make(self, n: int, rng: np.random.Generator) -> Crystals:
        return super().make(n + 1, rng)


class WrongChemistry(Salt):
    def make(self, n: int, rng: np.random.Generator) -> Crystals:
        made = super().make(n, rng)
        return replace(made, numbers=np.where(made.numbers == 12, 20, made.numbers))


class Obliging(Salt):
    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        return self.make(n, np.random.default_rng(seed))


class Raising(Salt):
    def make(self, n: int, rng: np.random.Generator) -> Crystals:
        raise KeyError("lost")


class Nameless(Salt):
    def make(self, n: int, rng: np.random.Generator) -> Crystals:
        made = super().make(n, rng)
        return replace(made, ids=tuple(f"mine-{i}" for i in made.ids), origins=("",) * n)


class Wishful(Salt):
    """Claims to aim at properties, whatever their names."""

    honours: frozenset[str] = frozenset({"chemical_system", "properties"})

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        refuse_unhonoured("salt", self.honours, condition)
        return self.make(n, np.random.default_rng(seed))


class Informed(Wishful):
    """Knows one property."""

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        if any(wish.property != "band_gap" for wish in condition.properties):
            raise InputError("only band_gap is known; drop the other property")
        return super().generate(n, condition, seed)


class Careless(Wishful):
    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        for wish in condition.properties:
            {"band_gap": 0}[wish.property]
        return super().generate(n, condition, seed)


class Learner(Salt):
    def learn(self, crystals: Crystals, labels: Mapping[str, FloatArray], *, out: Path, seed: int) -> Path:
        return out

    def with_weights(self, weights: Path) -> Generator:
        return self


class NotFinite(Salt):
    def make(self, n: int, rng: np.random.Generator) -> Crystals:
        made = super().make(n, rng)
        return replace(made, lattices=made.lattices * np.nan)


class Silent(Salt):
    def make(self, n: int, rng: np.random.Generator) -> Crystals:
        return Crystals.empty()


def test_a_good_generator_passes() -> None:
    assert isinstance(Salt(), Generator)
    assert check_generator(Salt(), CONDITION) == []


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        (Unseeded(), "the same seed gave different crystals"),
        (TooMany(), "asked for 8 crystals, it returned 9"),
        (TooMany(), "asked for 1 crystal, it returned 2"),
        (WrongChemistry(), "crystal 0 (CaO) disobeys the condition: elements Ca, O, not Mg, O"),
        (Obliging(), "space_group is not honoured, yet a condition on it was accepted"),
        (Raising(), "raised KeyError"),
        (Nameless(), "ids must be"),
        (Nameless(), "an origin is empty"),
        (NotFinite(), "not finite"),
        (Silent(), "returned no crystal"),
        (Salt(frozenset({"chemical_system", "colour"})), "honours names colour"),
        (Obliging(), "charge_neutral is not honoured, yet"),
        (Obliging(), "seed_structure is not honoured, yet"),
        (Obliging(), "properties is not honoured, yet"),
        (Wishful(Wishful.honours), "a property that it cannot know was accepted; raise InputError"),
        (Careless(Wishful.honours), "a property that it cannot know raised KeyError instead of InputError"),
        (Salt(frozenset({"chemical_system", "guidance"})), "honours names guidance"),
        (Salt(["chemical_system"]), "no frozenset"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_generator_is_found_out(generator: Salt, words: str) -> None:
    assert any(words in problem for problem in check_generator(generator, CONDITION))


def test_a_generator_that_knows_its_properties_passes() -> None:
    generator = Informed(Wishful.honours)
    wish = PropertyRange(property="band_gap", low=1.0)
    assert check_generator(generator, Condition(chemical_system="Mg-O", properties=(wish,), guidance=1.0)) == []


def test_every_part_has_a_probe_that_json_brings_back() -> None:
    assert set(_PROBES) == PARTS
    for part, condition in _PROBES.items():
        assert condition.parts() == {part}
        assert Condition.model_validate_json(condition.model_dump_json()) == condition


def test_a_generator_that_learns_is_told_by_its_methods() -> None:
    assert isinstance(Learner(), LearningGenerator)
    assert not isinstance(Salt(), LearningGenerator)


def test_unhonoured_parts_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="cannot honour prototype, space_group"):
        refuse_unhonoured("salt", frozenset({"chemical_system"}), Condition(space_group=225, prototype="B1"))

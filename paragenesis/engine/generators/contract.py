"""What a generator is, and the check that plug-in authors run on theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.generators.condition import PARTS, Condition, PropertyRange
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.errors import InputError


@runtime_checkable
class Generator(Protocol):
    """Where candidates come from. Any object with this attribute and one method will do.

    It may have a method `load()` beside them, without arguments, which is called on the worker before the first
    crystals: what it raises stops the campaign, while what `generate` raises fails the crystals that it was asked for.
    """

    @property
    def honours(self) -> frozenset[str]:
        """Names of the parts of a `Condition` that every crystal will obey."""
        ...

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        """Up to n distinct crystals that obey the condition, named "0", "1", ...; all randomness from `seed`.

        Fewer than n come only where fewer exist. `origins` say in words how each was made.

        Raises:
            InputError: A part of the condition is not honoured, or no crystal can obey it.
        """
        ...


@runtime_checkable
class LearningGenerator(Generator, Protocol):
    """A generator that can be taught by crystals."""

    def learn(self, crystals: Crystals, labels: Mapping[str, FloatArray], *, out: Path, seed: int) -> Path:
        """Fine-tune on these crystals; this generator stays as it is.

        Args:
            crystals: `n` crystals to learn from.
            labels: Properties by name, shape `n` each, NaN where unknown.
            out: Where the new weights go, a safetensors checkpoint.
            seed: Fixes every random choice.

        Returns:
            The checkpoint that was written.
        """
        ...

    def with_weights(self, weights: Path) -> Generator:
        """The same generator with the weights of a checkpoint that `learn` wrote.

        Raises:
            InputError: The file is no checkpoint of this kind of generator.
        """
        ...


_UNKNOWN_PROPERTY = "a property that nothing was trained on"
_ROCKSALT = SeedStructure(
    numbers=(12, 8),
    frac=((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)),
    lattice=((0.0, 2.1, 2.1), (2.1, 0.0, 2.1), (2.1, 2.1, 0.0)),
    fixed=(1,),
)

# One value a part, to see whether a generator refuses what it does not honour.
_PROBES = {
    "allowed_elements": Condition(allowed_elements=("Mg", "O")),
    "required_elements": Condition(required_elements=("O",)),
    "chemical_system": Condition(chemical_system="Mg-O"),
    "composition": Condition(composition="MgO"),
    "min_atoms": Condition(min_atoms=2),
    "max_atoms": Condition(max_atoms=12),
    "space_group": Condition(space_group=225),
    "prototype": Condition(prototype="Perovskite"),
    "charge_neutral": Condition(charge_neutral=True),
    "seed_structure": Condition(seed_structure=_ROCKSALT),
    "properties": Condition(properties=(PropertyRange(property=_UNKNOWN_PROPERTY, low=0.0),)),
}


def refuse_unhonoured(name: str, honours: frozenset[str], condition: Condition) -> None:
    """Refuse a condition with parts that a generator does not honour.

    Raises:
        InputError: A part is set that is not among `honours`.
    """
    unhonoured = sorted(condition.parts() - honours)
    if unhonoured:
        raise InputError(
            f"the generator '{name}' cannot honour {', '.join(unhonoured)} (it honours "
            f"{', '.join(sorted(honours)) or 'nothing'}); drop that part of the condition or choose another generator"
        )


def check_generator(generator: Generator, condition: Condition, n: int = 8) -> list[str]:
    """What is wrong with a generator, one sentence each; an empty list means that it keeps the contract.

    Args:
        generator: The generator to judge.
        condition: A condition that it should be able to obey.
        n: How many crystals to ask for.
    """
    honours = getattr(generator, "honours", None)
    if not isinstance(honours, frozenset):
        return ["honours is missing or no frozenset; give it the names of the condition's parts that are obeyed"]
    unknown = sorted(honours - PARTS)
    problems = (
        [f"honours names {', '.join(unknown)}, but a condition has {', '.join(sorted(PARTS))}"] if unknown else []
    )
    try:
        first = generator.generate(n, condition, 7)
        again = generator.generate(n, condition, 7)
        one = generator.generate(1, condition, 7)
    except Exception as error:  # noqa: BLE001  whatever a plug-in raises is what its author wants to hear of
        return [*problems, f"generate(n={n}, seed=7) raised {type(error).__name__}: {error}"]
    if not isinstance(first, Crystals):
        return [*problems, f"generate returned {type(first).__name__}; return Crystals"]
    if first != again:
        problems.append("the same seed gave different crystals; take all randomness from np.random.default_rng(seed)")
    if len(one) > 1:
        problems.append(f"asked for 1 crystal, it returned {len(one)}; return at most n")
    return problems + _batch_problems(first, condition, n) + _refusal_problems(generator, honours)


def _batch_problems(crystals: Crystals, condition: Condition, n: int) -> list[str]:
    """What is wrong with one answer of a generator."""
    problems = []
    if not len(crystals):
        problems.append("it returned no crystal; raise InputError saying why none can obey the condition")
    if len(crystals) > n:
        problems.append(f"asked for {n} crystals, it returned {len(crystals)}; return at most n")
    if crystals.ids != tuple(str(i) for i in range(len(crystals))):
        problems.append('ids must be "0", "1", ... in order')
    if not all(crystals.origins):
        problems.append("an origin is empty; say in words how each crystal was made")
    finite = np.isfinite(crystals.frac).all() and np.isfinite(crystals.lattices).all()
    if not finite or (crystals.volumes < 1e-3).any():
        return [*problems, "a crystal has numbers that are not finite or a cell without volume"]
    for index, violation in enumerate(condition.violations(crystals)):
        if violation:
            problems.append(f"crystal {index} ({crystals.formulas[index]}) disobeys the condition: {violation}")
    return problems


def _refusal_problems(generator: Generator, honours: frozenset[str]) -> list[str]:
    """Parts that the generator neither honours nor refuses, and whether it takes any name for a property's."""
    problems = []
    for part in sorted(PARTS - honours):
        outcome = _refusal(generator, _PROBES[part])
        if outcome == "accepted":
            problems.append(f"{part} is not honoured, yet a condition on it was accepted; use refuse_unhonoured")
        elif outcome:
            problems.append(f"a condition on {part} raised {outcome} instead of InputError")
    if "properties" in honours:
        outcome = _refusal(generator, _PROBES["properties"])
        if outcome == "accepted":
            problems.append("a property that it cannot know was accepted; raise InputError naming those it knows")
        elif outcome:
            problems.append(f"a property that it cannot know raised {outcome} instead of InputError")
    return problems


def _refusal(generator: Generator, condition: Condition) -> str:
    """How a condition was not refused: "accepted", or the name of an error that is no InputError; "" if it was."""
    try:
        generator.generate(1, condition, 7)
    except InputError:
        return ""
    except Exception as error:  # noqa: BLE001  see check_generator
        return type(error).__name__
    return "accepted"

"""The one table of short names for generators and oracles, and how a name in a campaign becomes one.

A campaign names a plug-in by an alias from `ALIASES`, as "package.module:Name", or as "file.py:Name" in a file
beside the campaign. The class is built as `Name(settings, ...)`: `settings` is parsed by the `Settings` class that
the parameter is annotated with, and of `directory` and,
for oracles, `hull`, `device`, `needs` and `references` it is handed those it names.
Objectives have their own table, in `paragenesis.objectives`. What `paragenesis train` can train stands under
"trainee": classes made as `Name(data, options, seed, batch, weights)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from paragenesis.crystals import Crystals
from paragenesis.engine.executor import describe
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.contract import Generator
from paragenesis.engine.oracles.contract import Oracle
from paragenesis.errors import InputError, ParagenesisError
from paragenesis.naming import find_object
from paragenesis.settings import Settings

if TYPE_CHECKING:
    from paragenesis.engine.generators.learned.data import TrainingSet
    from paragenesis.engine.generators.learned.settings import Trainee

ALIASES: Mapping[str, Mapping[str, str]] = {
    "generator": {
        "flow": "paragenesis.engine.generators.flow.generator:Flow",
        "substitution": "paragenesis.engine.generators.substitution:Substitution",
        "wyckoff": "paragenesis.engine.generators.wyckoff.generator:Wyckoff",
        "random": "paragenesis.testing:RandomGenerator",
    },
    "oracle": {
        "potential": "paragenesis.engine.oracles.potential:PotentialOracle",
        "table": "paragenesis.engine.oracles.table:TableOracle",
    },
    "trainee": {
        "flow": "paragenesis.engine.generators.flow.trainee:FlowTrainee",
        "wyckoff": "paragenesis.engine.generators.wyckoff.trainee:WyckoffTrainee",
    },
}


def build_generator(use: str, options: Mapping[str, Any], directory: Path) -> Generator:
    """A generator from its name and settings.

    Raises:
        InputError: There is no such generator, or its settings do not fit.
    """
    generator = _build("generator", use, options, {"directory": directory})
    if not isinstance(generator, Generator):
        raise InputError(f"'{use}' is no generator: it needs generate(n, condition, seed) and honours")
    return generator


def try_generator(use: str, generator: Generator, n: int, condition: Condition, seed: int) -> Crystals:
    """Crystals from a generator that has not been tried with this condition.

    Raises:
        InputError: A part of the condition is not honoured, no crystal can obey it, or the generator is at fault.
    """
    try:
        crystals = generator.generate(n, condition, seed)
    except ParagenesisError:
        raise
    except Exception as error:
        raise InputError(f"generator '{use}' raised {describe(error)}; run check_generator on it") from error
    if not isinstance(crystals, Crystals):
        raise InputError(f"generator '{use}' returned {type(crystals).__name__} instead of Crystals; correct it")
    if not len(crystals):
        raise InputError(f"generator '{use}' has no candidate for this condition; widen it")
    return crystals


def build_oracle(use: str, options: Mapping[str, Any], directory: Path, **surroundings: Any) -> Oracle:
    """An oracle from its name and settings; `surroundings` are what its constructor may ask for beside them.

    Raises:
        InputError: There is no such oracle, or its settings do not fit.
    """
    oracle = _build("oracle", use, options, {"directory": directory, **surroundings})
    if not isinstance(oracle, Oracle):
        raise InputError(f"'{use}' is no oracle: it needs verify(crystals) and level")
    return oracle


def trainee_class(use: str, directory: Path) -> Any:
    """What makes the trainee of a generator that is named.

    Raises:
        InputError: There is no such generator, or it cannot be trained.
    """
    aliases = ALIASES["trainee"]
    found = find_object("trainable generator", aliases.get(use, use), directory, aliases)
    if not callable(found):
        raise InputError(f"'{use}' is no trainee: it needs to be a class made as Name(data, options, seed, batch)")
    return found


def build_trainee(
    use: str,
    data: TrainingSet,
    options: Mapping[str, Any],
    seed: int,
    batch: int,
    weights: Path | None = None,
    directory: Path | None = None,
) -> Trainee:
    """What the training loop needs of a generator, ready to learn from data.

    Args:
        use: "wyckoff", "flow", "package.module:Name" or "file.py:Name".
        data: Crystals and labels.
        options: The generator's own, as plain values.
        seed: Fixes every random choice.
        batch: Crystals a step.
        weights: A checkpoint to go on from.
        directory: Where "file.py" is looked for; here by default.

    Raises:
        InputError: There is no such generator, or options, data or weights do not fit.
    """
    make = trainee_class(use, directory or Path())
    try:
        trainee: Trainee = make(data, options, seed, batch, weights)
    except ParagenesisError:
        raise
    except Exception as error:
        raise InputError(f"the trainee '{use}' cannot be made: {describe(error)}") from error
    lacking = [part for part in _TRAINEE_PARTS if not hasattr(trainee, part)]
    if lacking:
        raise InputError(f"'{use}' is no trainee: it has no {', '.join(lacking)}")
    return trainee


_TRAINEE_PARTS = ("kind", "model", "batches", "loss", "validation", "config")


def _build(kind: str, use: str, options: Mapping[str, Any], surroundings: Mapping[str, Any]) -> Any:
    """An instance of the class that a name stands for."""
    aliases = ALIASES[kind]
    found = find_object(kind, aliases.get(use, use), surroundings["directory"], aliases)
    if not inspect.isclass(found):
        if options:
            raise InputError(f"{kind} '{use}' is an object and takes no options, but got {', '.join(options)}")
        return found
    make: Any = found
    parameters = inspect.signature(make).parameters
    given = {name: value for name, value in surroundings.items() if name in parameters}
    settings = _settings_class(make)
    known = [name for name in parameters if name not in surroundings]
    if settings is None and (unknown := sorted(set(options) - set(known))):
        raise InputError(f"{kind} '{use}' has no option '{unknown[0]}'; it takes {', '.join(known) or 'none'}")
    try:
        if settings is not None:
            return make(settings.parse(options, where=f"{kind} '{use}'"), **given)
        return make(**options, **given)
    except ParagenesisError:
        raise
    except Exception as error:
        raise InputError(
            f"{kind} '{use}' cannot be made from the options {dict(options)}: {describe(error)}"
        ) from error


def _settings_class(found: Any) -> type[Settings] | None:
    """The settings class in the annotation of a constructor's parameter `settings`, if it has one."""
    annotation = inspect.get_annotations(found.__init__).get("settings")
    if isinstance(annotation, str):  # the other annotations may name what is only imported for type checkers
        holder = type("Holder", (), {"__annotations__": {"settings": annotation}})
        annotation = get_type_hints(holder, globalns=found.__init__.__globals__)["settings"]
    choices = (annotation, *get_args(annotation))
    return next((c for c in choices if isinstance(c, type) and issubclass(c, Settings)), None)

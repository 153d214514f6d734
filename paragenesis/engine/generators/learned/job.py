"""A training as it is asked for: which generator, with what settings, where to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paragenesis.engine.generators.learned.data import TrainingSet
from paragenesis.engine.generators.learned.run import Notify, ignore
from paragenesis.engine.generators.learned.settings import TrainSettings
from paragenesis.engine.generators.learned.training import data_card, train
from paragenesis.engine.ledger.disk import sha256_of
from paragenesis.engine.plugins import build_trainee, trainee_class
from paragenesis.errors import InputError


@dataclass(frozen=True)
class TrainingJob:
    """What is trained, and how; can be sent to another process.

    Attributes:
        generator: "wyckoff", "flow", "package.module:Name" or "file.py:Name".
        out: The folder for state, log and checkpoint.
        settings: Of the training loop.
        options: Of the generator.
        weights: A checkpoint to go on from, or None.
        command: What was typed, for the card.
        directory: Where a "file.py" is looked for.
    """

    generator: str
    out: Path
    settings: TrainSettings
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    command: str = ""
    directory: Path = field(default_factory=Path)

    @classmethod
    def parse(
        cls, generator: str, out: Path, given: Mapping[str, Any], directory: Path | None = None, **rest: Any
    ) -> TrainingJob:
        """A job whose settings are those that suit the generator, where nothing else is given.

        Args:
            generator: Its name.
            out: The folder for what comes of it.
            given: Values of `TrainSettings`.
            directory: Where a "file.py" is looked for; here by default.
            rest: Further attributes.

        Raises:
            InputError: There is no such generator, a setting does not fit, or the weights are not there.
        """
        place = (directory or Path()).resolve()
        suited: Mapping[str, Any] = getattr(trainee_class(generator, place), "defaults", {})
        settings = TrainSettings.parse({**suited, **given}, where="settings of the training")
        weights = rest.get("weights")
        if weights is not None and not Path(weights).is_file():
            raise InputError(f"there are no weights '{weights}'; give a .safetensors file to go on from")
        rest["weights"] = None if weights is None else Path(weights).resolve()
        return cls(generator, out.resolve(), settings, directory=place, **rest)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> TrainingJob:
        """A job from what `paragenesis train` was given.

        Raises:
            InputError: As for `parse`, or a KEY=VALUE has no "=".
        """
        given = {n: v for n, v in options.items() if n in TrainSettings.model_fields and v is not None}
        return cls.parse(
            options["generator"],
            options["out"],
            given | parse_words(options["setting"], "--setting"),
            options=parse_words(options["option"], "--option"),
            weights=options["weights"],
            command=options["typed"],
        )

    def run(self, data: TrainingSet, notify: Notify = ignore) -> Path:
        """Train; the checkpoint. Processes of a team all call this.

        Raises:
            InputError: Generator, options, data or weights do not fit.
            ExecutionError: The loss is not finite.
        """
        settings = self.settings
        trainee = build_trainee(
            self.generator, data, self.options, settings.seed, settings.batch, self.weights, self.directory
        )
        card = {"data": data_card(data), "options": dict(self.options), "command": self.command}
        if self.weights is not None:
            card["started_from"] = sha256_of(self.weights)
        return train(trainee, settings, self.out, notify, card=card)


def parse_words(words: Sequence[str], option: str) -> dict[str, Any]:
    """Values from words like "width=128"; a value is JSON where it can be read as such, else text.

    Args:
        words: What was typed.
        option: With which option, for the message.

    Raises:
        InputError: A word has no "=".
    """
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise InputError(f"{option} '{word}' should read like width=128")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values

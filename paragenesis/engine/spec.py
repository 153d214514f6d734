"""The specification of a campaign: everything that decides what it will do, as frozen settings.

It is read from a TOML file or written in Python, stored in the ledger, and compared when a campaign is resumed.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from paragenesis.engine.acquisition.select import DecisionSettings
from paragenesis.engine.acquisition.triage import TriageSettings
from paragenesis.engine.aims import AimSettings
from paragenesis.engine.budget import BudgetSettings, allocate
from paragenesis.engine.executor import Resources
from paragenesis.engine.failures import FailureSettings
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.engine.learning import LearnSettings
from paragenesis.engine.ledger.disk import sha256_of
from paragenesis.engine.potentials.contract import located
from paragenesis.engine.potentials.relax import RelaxSettings
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.engine.surrogate import SurrogateSettings
from paragenesis.errors import InputError
from paragenesis.objectives.contract import Objective
from paragenesis.objectives.goals import Range
from paragenesis.settings import Settings

NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")


class GeneratorEntry(Settings):
    """One generator's part in every round.

    Attributes:
        use: Which one: an alias ("substitution"), "package.module:Name" or "file.py:Name".
        n: Crystals it makes in the first round, and in the others unless `budget` says otherwise; a share of
            `budget.candidates` where that is given.
        chunk: Crystals made, relaxed and committed together.
        options: Its own settings.
    """

    use: str = "substitution"
    n: int | None = Field(default=None, ge=1)
    chunk: int = Field(default=16, ge=1)
    options: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """A short name for ids: the alias, or what stands after the colon."""
        return re.sub(r"[^a-z0-9]+", "-", self.use.rsplit(":", 1)[-1].lower()).strip("-")


class PotentialEntry(Settings):
    """A member of the ensemble, or an oracle.

    Attributes:
        name: "chgnet-0.3.0", "matgl:FOLDER", "mace:FILE", ...
        sha256: Expected hash of the weights; needed for pickled weights from elsewhere.
        functional: The level the weights were trained to imitate, where they do not say so themselves.
        reference_data: Crystals with known formation energies to fit elemental references on, for weights
            whose references do not ship with the package.
    """

    name: str
    sha256: str | None = None
    functional: str | None = None
    reference_data: str | None = None

    def located(self, directory: Path) -> Self:
        """The entry with relative paths taken from `directory`, so that a worker finds them, too."""
        data = None if self.reference_data is None else str((directory / self.reference_data).resolve())
        return self.model_copy(update={"name": located(self.name, directory), "reference_data": data})

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class HullEntry(Settings):
    """The hull that stability is measured against.

    Attributes:
        reference: "embedded", or a CSV/Parquet file with formula and formation_energy_per_atom.
        functional: The level of theory of the file's energies.
        mixed: Allow potentials and oracles that imitate another level than the hull's; the report says so.
    """

    reference: str = "embedded"
    functional: str | None = None
    mixed: bool = False


class OracleEntry(Settings):
    """What verifies the selected crystals.

    Attributes:
        use: "potential", "table", "package.module:Name" or "file.py:Name".
        options: Its own settings.
    """

    use: str = "potential"
    options: dict[str, Any] = {}


class ProbeEntry(OracleEntry):
    """A cheaper oracle, which is asked before the campaign's own, about more crystals.

    What it says of a crystal teaches the surrogate what the oracle will say, as far as the two prove to agree.

    Attributes:
        q: How many crystals it is asked about in a round.
    """

    q: int = Field(default=16, ge=1)


class CloseRule(Settings):
    """When a round closes although some of its selected crystals have no answer yet; what comes first counts.

    At least one of them must have been answered, so that what is pending never outgrows a round by much.

    Attributes:
        fraction: The share of the round's crystals that must be answered, verified or failed.
        seconds: How long after the verification began; after a resume it begins anew.
    """

    fraction: float | None = Field(default=None, gt=0.0, le=1.0)
    seconds: float | None = Field(default=None, gt=0.0)

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.fraction is None and self.seconds is None:
            raise ValueError("it is empty; give fraction = 0.8, seconds = 3600, or both")
        return self


class VerificationSettings(Settings):
    """When the rounds close, while the oracle is still at work.

    A crystal without an answer by then is pending: its verification goes on, its answer is written in the round in
    which it comes, and the last round collects what is left. When answers come decides which round knows of them, so
    only with "all" does the same seed always give the same ledger; the others are repeated from the ledger alone.

    Attributes:
        close: "all": when every selected crystal has an answer; or a rule such as { fraction = 0.8 }.
        collect_seconds: How long the last round waits for what is pending; until all is there by default.
    """

    close: Literal["all"] | CloseRule = "all"
    collect_seconds: float | None = Field(default=None, ge=0.0)

    @field_validator("close", mode="before")
    @classmethod
    def _all_or_a_rule(cls, value: Any) -> Any:
        if value == "all" or isinstance(value, CloseRule):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f'{value!r} does not say when; give "all", {{ fraction = 0.8 }} or {{ seconds = 3600 }}')
        try:
            return CloseRule.parse(value)
        except InputError as error:
            raise ValueError(str(error)) from None


class HitRule(Settings):
    """A verified crystal is a hit if this objective's value lies within the bounds; all rules must hold."""

    objective: str
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value is within the bounds; NaN never is."""
        low = self.at_least if self.at_least is not None else float("-inf")
        high = self.at_most if self.at_most is not None else float("inf")
        return low <= value <= high

    @property
    def interval(self) -> Range | None:
        """Where the value must lie; None if anywhere."""
        if self.at_least is None and self.at_most is None:
            return None
        return Range(low=self.at_least, high=self.at_most)


class ResourceEntries(Settings):
    """What the workers of each host may use; has no influence on the results.

    Attributes:
        generate: For generators, screens and objectives.
        potentials: For the ensemble, and for the oracle unless that has workers of its own.
        oracle: Workers for the oracle alone, so that slow verifications hold up no relaxation of the rounds after.
    """

    generate: Resources = Resources()
    potentials: Resources = Resources(workers=0)
    oracle: Resources | None = None


class CampaignSpec(Settings):
    """A whole campaign.

    Attributes:
        name: Lower-case letters, digits, '-' and '_'.
        seed: Fixes every random choice.
        rounds: Rounds to run; may be raised later.
        condition: What every generated crystal must obey.
        budget: How a round's candidates are shared among the generators.
        aims: How the rounds follow the Pareto front.
        learn: What generators learn from the rounds.
        objectives: What is wanted: aliases, tables with `use`, or objects (in Python).
        potentials: The ensemble; the first member relaxes.
        probes: Cheaper oracles, the one most like the campaign's own first; the last is asked first.
        verification: When a round closes, while the oracle is still at work.
        failures: How much of a round may fail before the campaign stops.
    """

    name: str
    seed: int = Field(default=0, ge=0)
    rounds: int = Field(default=2, ge=1)
    condition: Condition = Condition()
    budget: BudgetSettings = BudgetSettings()
    aims: AimSettings = AimSettings()
    learn: LearnSettings = LearnSettings()
    generators: tuple[GeneratorEntry, ...] = Field(min_length=1)
    screening: ScreeningSettings = ScreeningSettings()
    potentials: tuple[PotentialEntry, ...] = Field(min_length=1)
    relax: RelaxSettings = RelaxSettings()
    hull: HullEntry = HullEntry()
    objectives: tuple[Any, ...] = Field(min_length=1)
    surrogate: SurrogateSettings = SurrogateSettings()
    triage: TriageSettings = TriageSettings()
    decision: DecisionSettings = DecisionSettings()
    oracle: OracleEntry = OracleEntry()
    probes: tuple[ProbeEntry, ...] = ()
    verification: VerificationSettings = VerificationSettings()
    hits: tuple[HitRule, ...] = ()
    failures: FailureSettings = FailureSettings()
    device: str = "auto"
    resources: ResourceEntries = ResourceEntries()
    directory: Path = Field(default=Path(), exclude=True)  # what relative paths in the specification start from

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a campaign file; relative paths in it start from its folder.

        Raises:
            InputError: The file is missing, is not TOML, or holds something unusable; the message names the field.
        """
        path = Path(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(f"no campaign file at '{path}'; give the path of a TOML file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the campaign file '{path}' cannot be read: {error}") from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # numbers of 5,000 digits and nests of brackets are no TOML errors
            raise InputError(f"'{path}' is not valid TOML: {error}") from None
        return cls.parse({**values, "directory": path.resolve().parent}, where=path.name)

    @model_validator(mode="before")
    @classmethod
    def _seed_beside_it(cls, values: Any) -> Any:
        """The values with the path of the condition's seed structure taken from the campaign's folder."""
        condition = values.get("condition") if isinstance(values, Mapping) else None
        if not isinstance(condition, Mapping) or "seed_structure" not in condition:
            return values
        seed = SeedStructure.located(condition["seed_structure"], Path(values.get("directory", Path())))
        return {**values, "condition": {**condition, "seed_structure": seed}}

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not NAME.match(name):
            raise ValueError(
                f"'{name}' cannot be a name; use up to 64 lower-case letters, digits, '-' and '_', not first '-' or '_'"
            )
        return name

    @field_validator("generators")
    @classmethod
    def _numbered(cls, entries: tuple[GeneratorEntry, ...], info: ValidationInfo) -> tuple[GeneratorEntry, ...]:
        budget = info.data.get("budget")  # absent where it was refused itself
        total = budget.candidates if budget is not None else None
        missing = [i for i, entry in enumerate(entries) if entry.n is None]
        if missing and total is None:
            raise ValueError(f"'generators.{missing[0]}.n' is missing; add it, or give budget.candidates")
        if missing and len(missing) < len(entries):
            raise ValueError("some have n, some not; give n to all as shares of the first round, or to none")
        if total is not None and total < len(entries):
            raise ValueError(f"budget.candidates = {total} is not one for each generator; give at least {len(entries)}")
        return entries

    @field_validator("objectives")
    @classmethod
    def _usable_objectives(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        for entry in entries:
            named = isinstance(entry, str) or (isinstance(entry, Mapping) and isinstance(entry.get("use"), str))
            if not named and not isinstance(entry, Objective):
                raise ValueError(f'{entry!r} is no objective; give an alias, a table with use = "...", or an Objective')
        return entries

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [g.name for g in self.generators]
        if len(set(names)) < len(names):
            raise ValueError(f"two generators share a name: {', '.join(names)}; join their numbers in one entry")
        members = [p.name for p in self.potentials]
        if len(set(members)) < len(members):
            raise ValueError(f"a potential is named twice: {', '.join(members)}")
        return self

    @property
    def first_round(self) -> list[int]:
        """How many crystals each generator makes in the first round."""
        wanted = [entry.n or 1 for entry in self.generators]
        return wanted if self.budget.candidates is None else allocate(self.budget.candidates, wanted)

    def identity(self) -> dict[str, Any]:
        """What must not change when the campaign is resumed, as plain values.

        The number of rounds may be raised, resources and limits of failures may differ; files that it names count by
        their content.
        """
        plain = self.model_dump(mode="json", exclude={"rounds", "resources", "failures", "device", "objectives"})
        plain["objectives"] = [_plain_objective(entry) for entry in self.objectives]
        return {**plain, "files": dict(sorted(self._files(plain)))}

    def changed_from(self, started: Mapping[str, Any]) -> list[str]:
        """Names of the fields that are not as in the identity that a campaign was started with.

        A field that is younger than the campaign counts only where it is not at its default.
        """
        given = self.model_dump(mode="json", exclude_defaults=True, exclude={"objectives"})
        now = as_old_as(started, self.identity(), given)
        decision = started.get("decision")
        if isinstance(decision, Mapping) and decision.get("strategy") == "ehvi_dpp" and not self.decision.strategy:
            now["decision"]["strategy"] = "ehvi_dpp"  # what the default was called when it was one for all goals
        return changed_fields(started, now)

    def _files(self, value: Any) -> Iterator[tuple[str, str]]:
        """Name and sha256 of every file beside the campaign that its plain values name ("file.py:name", too)."""
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for part in value:
                yield from self._files(part)
        elif isinstance(value, str) and value:
            for name in {value, value.rsplit(":", 1)[0], value.split(":", 1)[-1]}:
                file = self.directory / name
                if len(os.fsencode(name)) < 256 and file.is_file():
                    yield name, sha256_of(file)


def _plain_objective(entry: Any) -> dict[str, Any]:
    if isinstance(entry, Objective):
        return {"use": "object", "name": entry.name, "unit": entry.unit, "goal": entry.goal.model_dump()}
    return {"use": entry} if isinstance(entry, str) else dict(entry)


def as_old_as(old: Any, new: Any, given: Any) -> Any:
    """Nested plain values `new` without the fields that are younger than `old` and at their defaults.

    Args:
        old: Values as they were stored, perhaps by an older version.
        new: All values now.
        given: Those of them that are not at their defaults.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        given = given if isinstance(given, dict) else {}
        return {k: as_old_as(old.get(k), v, given.get(k)) for k, v in new.items() if k in old or k in given}
    if isinstance(old, list) and isinstance(new, list) and isinstance(given, list) and len(old) == len(new):
        return [as_old_as(*parts) for parts in zip(old, new, given, strict=True)]
    return new


def changed_fields(old: Any, new: Any, path: str = "") -> list[str]:
    """Names of the fields in which two nested plain values differ, such as "relax.fmax"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [c for k in keys for c in changed_fields(old.get(k), new.get(k), f"{path}.{k}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [c for i, (a, b) in enumerate(zip(old, new, strict=True)) for c in changed_fields(a, b, f"{path}.{i}")]
    return [] if old == new else [path]

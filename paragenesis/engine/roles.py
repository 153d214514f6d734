"""What part each generator plays in a campaign: whether it honours the condition, follows the front, and learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paragenesis.engine.aims import at_least
from paragenesis.engine.generators.condition import PropertyRange
from paragenesis.engine.generators.contract import Generator, LearningGenerator
from paragenesis.engine.plugins import try_generator
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import InputError
from paragenesis.objectives.contract import Objective
from paragenesis.objectives.goals import Goal


def check_generators(spec: CampaignSpec, generators: Mapping[str, Generator]) -> None:
    """One crystal from each generator shows that it honours the condition and has candidates at all."""
    for name, generator in generators.items():
        refused = sorted(spec.condition.parts() - generator.honours)
        if refused:
            instead = " (aims.follow asks only those that can)" if refused == ["properties"] else ""
            raise InputError(
                f"generator '{name}' cannot honour condition.{refused[0]}; drop it or use another generator{instead}"
            )
        try_generator(name, generator, 1, spec.condition, spec.seed)


def learners_of(spec: CampaignSpec, generators: Mapping[str, Generator]) -> tuple[str, ...]:
    """Names of the generators that are fine-tuned on what the campaign finds."""
    able = tuple(name for name, generator in generators.items() if isinstance(generator, LearningGenerator))
    if spec.learn.generator and not able:
        raise InputError(
            f"learn.generator = true, but {', '.join(generators)} cannot learn; use a generator that can, or drop it"
        )
    return able if spec.learn.generator else ()


def followed_by(
    spec: CampaignSpec, objectives: Sequence[Objective], generators: Mapping[str, Generator]
) -> dict[str, dict[int, str]]:
    """Which properties each generator is asked for as the front moves, by the index of their objective.

    What the condition itself asks for stays as it is. An objective that only shares its name with a property is passed
    over by a generator that does not know it; a property named in `aims.properties` must be known to one.
    """
    names = [o.name for o in objectives]
    for name in spec.aims.properties:
        if name not in names:
            raise InputError(
                f"aims.properties: '{name}' is no objective of this campaign; there are {', '.join(names)}"
            )
    if spec.aims.follow == "none":
        return {}
    own = {wish.property for wish in spec.condition.properties}
    wanted = {i: p for i, name in enumerate(names) if (p := spec.aims.property_of(name)) and p not in own}
    for name in wanted.values():
        if list(wanted.values()).count(name) > 1:
            raise InputError(f"two objectives mean the property '{name}'; correct aims.properties")
    refusals = {
        (generator, i): _refusal(generator, generators[generator], spec, objectives[i].goal, wanted[i])
        for generator in generators
        for i in wanted
        if "properties" in generators[generator].honours
    }
    for name in spec.aims.properties:
        said = [refusal for (_, i), refusal in refusals.items() if names[i] == name]
        if wanted.get(names.index(name)) and all(said):
            raise InputError(
                f"aims.properties.{name} = '{spec.aims.properties[name]}' is known to no generator of this campaign"
                + (f": {said[0]}" if said else "; use one that honours properties, or drop it")
            )
    return {g: {i: wanted[i] for i in wanted if refusals.get((g, i), "no") == ""} for g in generators}


def roles(
    spec: CampaignSpec, objectives: Sequence[Objective], learners: Sequence[str], followed: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What the ledger keeps of the generators' parts in the campaign."""
    return [
        {
            "name": entry.name,
            "learns": entry.name in learners,
            "follows": {objectives[i].name: wanted for i, wanted in followed.get(entry.name, {}).items()},
        }
        for entry in spec.generators
    ]


def _refusal(name: str, generator: Generator, spec: CampaignSpec, goal: Goal, wanted: str) -> str:
    """Why a generator refuses to be asked for a property; "" if it does not."""
    low, high = at_least(goal, 0.0)
    wishes = (*spec.condition.properties, PropertyRange(property=wanted, low=low, high=high))
    try:
        try_generator(name, generator, 1, spec.condition.model_copy(update={"properties": wishes}), spec.seed)
    except InputError as error:
        if error.__cause__ is not None:  # it is at fault, and does not merely refuse
            raise
        return str(error)
    return ""

"""Before a campaign starts: build and check everything its specification names.

Whatever can be wrong with a campaign is found here, before anything is written: unknown weights, a potential that
fails its known-answer check, a hull of another level of theory, an objective that raises, a condition that no
generator honours. What passes is a `Kit`: the checked parts, and the stages built from them.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.acquisition.select import reference_utilities
from paragenesis.engine.asking import Verify
from paragenesis.engine.executor import Resources, StageSpec
from paragenesis.engine.formulation import Formulation, wants_hits
from paragenesis.engine.hull import Hull, check_pairing
from paragenesis.engine.learning import Learn
from paragenesis.engine.level import Level
from paragenesis.engine.oracles.contract import Oracle, estimated_costs
from paragenesis.engine.oracles.potential import PotentialOracle
from paragenesis.engine.plugins import build_generator, build_oracle
from paragenesis.engine.potentials.contract import Potential, load_potential
from paragenesis.engine.potentials.ensemble import Ensemble
from paragenesis.engine.potentials.known_answers import known_answer_check
from paragenesis.engine.references import ElementReferences, references_for
from paragenesis.engine.roles import check_generators, followed_by, learners_of, roles
from paragenesis.engine.screening.screen import Screen
from paragenesis.engine.spec import CampaignSpec, HitRule, OracleEntry, PotentialEntry
from paragenesis.engine.stages import GENERATE, Assess, Generate, Relax, Screening
from paragenesis.errors import InputError, PotentialError
from paragenesis.objectives import build_objective, check_objective, sample_relaxed
from paragenesis.objectives.contract import Need, Objective
from paragenesis.objectives.goals import Range
from paragenesis.versions import installed_version

REPORTED_PACKAGES = ("paragenesis", "torch", "torch-sim-atomistic", "chgnet", "pymatgen", "botorch", "duckdb", "numpy")


@dataclass(frozen=True)
class Probe:
    """A cheaper oracle: its level of theory, and the stage that asks it."""

    level: Level
    stage: StageSpec


@dataclass(frozen=True, kw_only=True)
class Kit:
    """The checked parts of a campaign.

    Attributes:
        spec: The specification it was made from.
        objectives: The objectives, in the order of the specification.
        members: Names of the potentials of the ensemble.
        stages: Generate, Screening, Relax, Assess.
        verify: The stage that asks the oracle.
        probes: Cheaper oracles, from level 1 on.
        learn: The stage that fine-tunes generators.
        learners: Names of the generators that are fine-tuned.
        followed: By generator, the properties it is asked for as the front moves, by the index of their objective.
        level: The oracle's level of theory.
        costs: What the oracle expects the verification of crystals to cost; None where no budget asks for it.
        meta: What the ledger keeps of it, as JSON texts by name.
    """

    spec: CampaignSpec
    objectives: tuple[Objective, ...]
    members: tuple[str, ...]
    stages: tuple[StageSpec, ...]
    verify: StageSpec
    probes: tuple[Probe, ...]
    learn: StageSpec
    learners: tuple[str, ...]
    followed: Mapping[str, Mapping[int, str]]
    level: Level
    costs: Callable[[Crystals], FloatArray] | None
    meta: Mapping[str, str]


def prepare(spec: CampaignSpec) -> Kit:
    """Build and check everything a specification names.

    Raises:
        InputError: Something the user named cannot be used.
        PotentialError: A potential fails its known-answer check.
    """
    objectives = load_objectives(spec)
    generators = {
        entry.name: partial(build_generator, entry.use, entry.options, spec.directory) for entry in spec.generators
    }
    built = {name: build() for name, build in generators.items()}
    check_generators(spec, built)
    learners, followed = learners_of(spec, built), followed_by(spec, objectives, built)
    hull = _hull(spec)
    entries = [entry.located(spec.directory) for entry in spec.potentials]
    potentials = [_checked_potential(entry, spec.device) for entry in entries]
    references = [
        references_for(potential, entry.reference_data) for potential, entry in zip(potentials, entries, strict=True)
    ]
    pairings = [check_pairing(p.level, hull, spec.hull.mixed) for p in potentials]
    needs: frozenset[Need] = frozenset().union(*(o.needs for o in objectives))
    heavy = _heavy(spec)
    make_oracle, oracle = _oracle(spec, spec.oracle, hull, needs, spec.resources.oracle or heavy)
    probes = [(f"probe-{i}", *_oracle(spec, entry, hull, needs, heavy)) for i, entry in enumerate(spec.probes, start=1)]
    _check_levels_differ([oracle.level, *(probe.level for _, _, probe in probes)])
    reference_utilities(spec.decision, [o.goal for o in objectives])
    formulation(spec, objectives)
    pairings += [check_pairing(one.level, hull, spec.hull.mixed) for one in (oracle, *(p for _, _, p in probes))]
    screen = partial(Screen, spec.screening.located(spec.directory))
    pupils = {name: generators[name] for name in learners}
    return Kit(
        spec=spec,
        objectives=objectives,
        members=tuple(p.name for p in potentials),
        stages=_stages(spec, entries, generators, objectives, references, hull, needs),
        verify=StageSpec("verify", Verify, (make_oracle, objectives), "potentials", heavy),
        probes=tuple(
            Probe(one.level, StageSpec(name, Verify, (make, objectives), "potentials", heavy))
            for name, make, one in probes
        ),
        learn=StageSpec("learn", Learn, (pupils, screen), "generate", spec.resources.generate),
        learners=learners,
        followed=followed,
        level=oracle.level,
        costs=None if spec.decision.budget is None else partial(estimated_costs, oracle),
        meta=_meta(spec, objectives, potentials, references, hull, [p for p in pairings if p], oracle)
        | _probes_meta(spec, [one for _, _, one in probes])
        | {"generators": json.dumps(roles(spec, objectives, learners, followed), sort_keys=True)},
    )


def load_objectives(spec: CampaignSpec) -> tuple[Objective, ...]:
    """The objectives of a specification, each checked on sample crystals.

    Raises:
        InputError: One cannot be found, breaks the contract, raises, or shares its name with another.
    """
    elements = spec.condition.exact_elements or spec.condition.allowed_elements
    sample = sample_relaxed(elements) if elements else sample_relaxed()
    objectives = []
    for entry in spec.objectives:
        if isinstance(entry, Objective):
            objective = entry
        else:
            options = {"use": entry} if isinstance(entry, str) else dict(entry)
            objective = build_objective(options.pop("use"), options, spec.directory)
        problems = check_objective(objective, sample)
        if problems:
            raise InputError(f"objective '{objective.name}' cannot be used: {problems[0]}")
        objectives.append(objective)
    names = [o.name for o in objectives]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two objectives are called '{name}'; give one of them another name")
    for rule in spec.hits:
        if rule.objective not in names:
            raise InputError(f"hits: '{rule.objective}' is no objective of this campaign; there are {', '.join(names)}")
    return tuple(objectives)


def hit_rules(spec: CampaignSpec, objectives: Sequence[Objective]) -> tuple[HitRule, ...]:
    """What makes a hit: the campaign's rules or, where it asks for hits without any, its ranges."""
    if spec.hits or not wants_hits(spec.decision.strategy, [o.goal for o in objectives]):
        return spec.hits
    ranges = [(o.name, o.goal) for o in objectives if isinstance(o.goal, Range)]
    return tuple(HitRule(objective=name, at_least=goal.low, at_most=goal.high) for name, goal in ranges)


def formulation(spec: CampaignSpec, objectives: Sequence[Objective]) -> Formulation:
    """What a campaign trades and what it must have.

    Raises:
        InputError: Its strategy asks for hits, but nothing says what a hit is.
    """
    names = [o.name for o in objectives]
    rules = hit_rules(spec, objectives)
    hits = [(names.index(rule.objective), interval) for rule in rules if (interval := rule.interval) is not None]
    return Formulation.of([o.goal for o in objectives], spec.decision.strategy, hits)


def build_ensemble(
    entries: Sequence[PotentialEntry], references: Sequence[ElementReferences], hull: Hull, device: str
) -> Ensemble:
    """Load the members of an ensemble; runs on the worker that will use them."""
    return Ensemble(potentials=[_load(entry, device) for entry in entries], references=references, hull=hull)


def _load(entry: PotentialEntry, device: str) -> Potential:
    return load_potential(entry.name, device=device, sha256=entry.sha256, functional=entry.functional)


def _oracle(
    spec: CampaignSpec, entry: OracleEntry, hull: Hull, needs: frozenset[Need], resources: Resources
) -> tuple[Callable[[], Oracle], Oracle]:
    """An oracle, and how its workers build it; a potential must pass its known-answer check."""
    make = partial(build_oracle, entry.use, entry.options, spec.directory, hull=hull, needs=needs)
    oracle = make(device=spec.device)
    make = partial(make, device=_worker_device(spec, resources))
    if isinstance(oracle, PotentialOracle):
        _check_known_answers(oracle.potential)
        make = partial(make, references=oracle.references)  # so that no worker computes them again
    return make, oracle


def _check_levels_differ(levels: Sequence[Level]) -> None:
    """Refuse two oracles of one level of theory: nothing could be learnt from one about the other.

    Raises:
        InputError: So.
    """
    for i, level in enumerate(levels[1:], start=1):
        if level.key in (other.key for other in levels[:i]):
            raise InputError(
                f"probes.{i - 1} answers at the level of theory {level.key}, like the oracle or a probe before it; "
                "leave it out, or give it another potential, table or setting"
            )


def _checked_potential(entry: PotentialEntry, device: str) -> Potential:
    potential = _load(entry, device)
    _check_known_answers(potential)
    return potential


def _check_known_answers(potential: Potential) -> None:
    answer = known_answer_check(potential)
    if not answer.passed:
        raise PotentialError(answer.sentence)


def _hull(spec: CampaignSpec) -> Hull:
    if spec.hull.reference == "embedded":
        return Hull.embedded()
    if spec.hull.functional is None:
        raise InputError("hull.functional is missing; name the level of theory of the file's energies")
    return Hull.from_file(spec.directory / spec.hull.reference, functional=spec.hull.functional)


def _stages(
    spec: CampaignSpec,
    entries: Sequence[PotentialEntry],
    generators: Mapping[str, Any],
    objectives: tuple[Objective, ...],
    references: Sequence[ElementReferences],
    hull: Hull,
    needs: frozenset[Need],
) -> tuple[StageSpec, ...]:
    screen = partial(Screen, spec.screening.located(spec.directory))
    light, heavy = spec.resources.generate, _heavy(spec)
    device = _worker_device(spec, heavy)
    make = partial(Generate, on_gpu=light.gpus > 0 and spec.device != "cpu")
    ensemble = partial(build_ensemble, tuple(entries), tuple(references), hull, device)
    return (
        StageSpec(GENERATE, make, (generators,), "generate", light),
        StageSpec("screen", Screening, (screen,), "generate", light),
        StageSpec("relax", Relax, (ensemble, spec.relax, needs), "potentials", heavy),
        StageSpec("assess", Assess, (screen, objectives), "generate", light),
    )


def _worker_device(spec: CampaignSpec, resources: Resources) -> str:
    """What workers compute on: who was given a GPU and cannot see it stops the campaign, and does not take the CPU."""
    return "cuda" if spec.device == "auto" and resources.gpus > 0 else spec.device


def _heavy(spec: CampaignSpec) -> Resources:
    """The resources of the workers that hold potentials; each gets a GPU where there are some and none was named."""
    import torch

    given = spec.resources.potentials
    if given.gpus == 0 and spec.device != "cpu" and torch.cuda.is_available():
        return given.model_copy(update={"gpus": 1.0})
    return given


def _meta(
    spec: CampaignSpec,
    objectives: Sequence[Objective],
    potentials: Sequence[Potential],
    references: Sequence[ElementReferences],
    hull: Hull,
    pairings: Sequence[str],
    oracle: Oracle,
) -> dict[str, str]:
    """What the ledger keeps of a campaign's parts."""
    members = [
        {
            "name": p.name,
            "level_key": p.level.key,
            "level": p.level.model_dump(mode="json"),
            "references": {"mae": r.mae, "bias": r.bias, "n_held_out": r.n_held_out, "source": r.source},
        }
        for p, r in zip(potentials, references, strict=True)
    ]
    system = spec.condition.chemical_system
    coverage = [hull.coverage(system).sentence] if system else []
    parts = {
        "spec": spec.identity(),
        "objectives": [{"name": o.name, "unit": o.unit, "goal": o.goal.model_dump()} for o in objectives],
        "hits": [rule.model_dump() for rule in hit_rules(spec, objectives)],
        "hull": {
            "name": hull.name,
            "functional": hull.functional,
            "description": hull.describe(),
            "coverage": coverage,
            "mixed": spec.hull.mixed,
            "pairing": list(pairings),
        },
        "members": members,
        "oracle": {
            "name": spec.oracle.use,
            "level_key": oracle.level.key,
            "level": oracle.level.model_dump(mode="json"),
        },
        "versions": {"python": platform.python_version(), **{p: installed_version(p) for p in REPORTED_PACKAGES}},
    }
    texts = {name: json.dumps(value, sort_keys=True) for name, value in parts.items()}
    return {"name": spec.name, "seed": str(spec.seed), **texts}


def _probes_meta(spec: CampaignSpec, probes: Sequence[Oracle]) -> dict[str, str]:
    """What the ledger keeps of cheaper oracles; nothing where there are none."""
    entries = [
        {"name": entry.use, "q": entry.q, "level_key": one.level.key, "level": one.level.model_dump(mode="json")}
        for entry, one in zip(spec.probes, probes, strict=True)
    ]
    return {"probes": json.dumps(entries, sort_keys=True)} if entries else {}

"""Fidelity: do crystals that were made for a condition obey it?

Hard parts are judged one by one on every crystal that was generated; one that could not be read obeys nothing.
Property ranges need someone who says what the property is: the potentials for energies, else a model that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from paragenesis.crystals import BoolArray, Crystals, FloatArray
from paragenesis.engine.estimates import isolate
from paragenesis.engine.evaluation.figures import GENERATED, RELAXED, VALID, Figure
from paragenesis.engine.evaluation.measures import Measures
from paragenesis.engine.evaluation.stability import Stability
from paragenesis.engine.generators.condition import Condition, PropertyRange
from paragenesis.engine.screening.fingerprint import parts_of
from paragenesis.errors import InputError

PropertyModel = Callable[[Crystals], FloatArray]  # n valid crystals -> values, shape `n`; NaN where it has none

ANY_SIZE = 1_000_000  # atoms: one part is judged at a time, and a part that is not set must not speak
_SOFT = frozenset({"properties", "guidance"})
_UNSEEN = frozenset({"prototype"})  # a matter of the generator's library; a crystal does not tell
_ENERGIES = {"energy_above_hull": "distances", "formation_energy_per_atom": "formation_energies"}


def hard_figures(condition: Condition, crystals: Crystals, measures: Measures, n: int, symprec: float) -> list[Figure]:
    """The share of all n generated crystals that obeys each hard part of a condition, and all of them."""
    every = np.ones(len(crystals), dtype=np.bool_)
    figures = []
    for part in sorted(condition.parts() - _SOFT - _UNSEEN):
        obeyed = _obeyed(part, condition, crystals, measures, symprec)
        every &= obeyed
        figures.append(Figure(name=f"obeys {part}", count=int(obeyed.sum()), n=n, of=GENERATED))
    if len(figures) > 1:
        figures.append(Figure(name="obeys every hard part", count=int(every.sum()), n=n, of=GENERATED))
    return figures


def not_judged(condition: Condition, models: Mapping[str, PropertyModel], stability: Stability | None) -> list[str]:
    """What of a condition nobody can judge here, in sentences."""
    notes = [f"Whether crystals obey {part} is not judged." for part in sorted(condition.parts() & _UNSEEN)]
    for wanted in condition.properties:
        if wanted.property in _ENERGIES and stability is None and wanted.property not in models:
            notes.append(f"{wanted.property} needs a --potential to be judged.")
        elif wanted.property not in _ENERGIES and wanted.property not in models:
            notes.append(f"{wanted.property} needs a --property-model to be judged.")
    return notes


def property_figures(
    condition: Condition,
    crystals: Crystals,
    measures: Measures,
    stability: Stability | None,
    models: Mapping[str, PropertyModel],
    hull: str,
) -> list[Figure]:
    """The share inside each property range that can be judged, and inside all of them.

    Energies are judged on the relaxed crystals and by each potential, other properties on all strictly valid crystals
    as generated; ranges together on the crystals for which all are known.

    Raises:
        InputError: A model does not give one value a crystal.
    """
    valid = measures.strict
    told = {name: _asked(name, model, crystals, valid) for name, model in models.items()}
    figures = []
    judged: dict[str, dict[str, BoolArray]] = {}  # property -> scorer ("" for a model) -> inside
    for wanted in condition.properties:
        if wanted.property in told:
            inside = _inside(wanted, told[wanted.property])
            judged[wanted.property] = {"": inside}
            figures.append(_figure(wanted, inside, valid, "property model", "", False))
        elif wanted.property in _ENERGIES and stability is not None:
            table = getattr(stability, _ENERGIES[wanted.property])
            judged[wanted.property] = {}
            for member, values in zip(stability.members, table, strict=True):
                inside = np.zeros(len(crystals), dtype=np.bool_)
                inside[stability.which] = _inside(wanted, values)
                judged[wanted.property][member] = inside
                figures.append(_figure(wanted, inside, _mask(stability, len(crystals)), member, hull, True))
    if len(judged) == len(condition.properties) > 1:
        figures += _together(judged, valid, stability, hull)
    return figures


def _together(
    judged: Mapping[str, Mapping[str, BoolArray]], valid: BoolArray, stability: Stability | None, hull: str
) -> list[Figure]:
    """The share inside all ranges; once for each potential where energies take part."""
    members = sorted({scorer for by in judged.values() for scorer in by} - {""})
    among = valid if stability is None or not members else _mask(stability, len(valid))
    figures = []
    for member in members or [""]:
        inside = np.logical_and.reduce([by[member] if member in by else by[""] for by in judged.values()])
        whole = Figure(
            name="inside all ranges",
            count=int((inside & among).sum()),
            n=int(among.sum()),
            of=RELAXED if members else VALID,
            scorer=member or "property model",
            hull=hull if members else "",
            relaxed=bool(members),
        )
        figures.append(whole)
    return figures


def _figure(
    wanted: PropertyRange, inside: BoolArray, among: BoolArray, scorer: str, hull: str, relaxed: bool
) -> Figure:
    low = "" if wanted.low is None else f"{wanted.low:g}"
    high = "" if wanted.high is None else f"{wanted.high:g}"
    plain = Figure(
        name=f"{wanted.property} in {low}..{high}",
        count=int((inside & among).sum()),
        n=int(among.sum()),
        of=RELAXED if relaxed else VALID,
        scorer=scorer,
    )
    return replace(plain, hull=hull if wanted.property == "energy_above_hull" else "", relaxed=relaxed)


def _inside(wanted: PropertyRange, values: FloatArray) -> BoolArray:
    """Whether values lie in a range, its ends included; NaN does not."""
    if wanted.property == "energy_above_hull":
        values = np.maximum(values, 0.0)  # what lies below the known hull would be on it
    low = -np.inf if wanted.low is None else wanted.low
    high = np.inf if wanted.high is None else wanted.high
    return np.asarray((values >= low) & (values <= high))


def _mask(stability: Stability, n: int) -> BoolArray:
    """Which of n crystals were relaxed."""
    mask = np.zeros(n, dtype=np.bool_)
    mask[stability.which] = True
    return mask


def _asked(name: str, model: PropertyModel, crystals: Crystals, valid: BoolArray) -> FloatArray:
    """What a model says of the valid crystals, shape `n`; NaN for the others."""
    values = np.full(len(crystals), np.nan)
    answer = np.asarray(model(crystals[valid]), dtype=np.float64)
    if answer.shape != (int(valid.sum()),):
        raise InputError(f"the property model of {name} gave shape {answer.shape} for {int(valid.sum())} crystals")
    values[valid] = answer
    return values


def _obeyed(part: str, condition: Condition, crystals: Crystals, measures: Measures, symprec: float) -> BoolArray:
    """Whether each crystal obeys one part of a condition, shape `n`."""
    if part in ("min_atoms", "max_atoms"):
        atoms = np.array(
            [parts_of(k)[1] if k else int(a) for k, a in zip(measures.keys, crystals.n_atoms, strict=True)], dtype=int
        )
        return np.asarray(atoms >= condition.min_atoms if part == "min_atoms" else atoms <= condition.max_atoms)
    alone = Condition().model_copy(update={"max_atoms": ANY_SIZE, part: getattr(condition, part)})
    obeyed = np.zeros(len(crystals), dtype=np.bool_)
    answers, _ = isolate(lambda rows: alone.violations(crystals[rows], symprec), len(crystals))
    for rows, violations in answers:  # a crystal so broken that it cannot be judged obeys nothing
        obeyed[rows] = [not violation for violation in violations]
    return obeyed

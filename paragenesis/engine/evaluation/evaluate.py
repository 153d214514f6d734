"""Evaluating a set of generated crystals: from a sample to figures, each with all that it depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from paragenesis.crystals import BoolArray
from paragenesis.engine.evaluation.diversity import Diversity, diversity
from paragenesis.engine.evaluation.fidelity import PropertyModel, hard_figures, not_judged, property_figures
from paragenesis.engine.evaluation.figures import GENERATED, VALID, Figure
from paragenesis.engine.evaluation.known import Known
from paragenesis.engine.evaluation.measures import Measures, measure
from paragenesis.engine.evaluation.read import Sample
from paragenesis.engine.evaluation.stability import (
    Stability,
    choose,
    relax_and_score,
    relaxation_figures,
    stability_figures,
)
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.hull import Hull
from paragenesis.engine.potentials.relax import RelaxSettings
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.settings import Settings
from paragenesis.versions import installed_version

if TYPE_CHECKING:
    from paragenesis.engine.potentials.ensemble import Ensemble

INTERVAL = "95 %: Wilson for a share, for a product of two shares their limits combined in quadrature"


class EvaluateSettings(Settings):
    """How to evaluate.

    Attributes:
        relax: How many of the valid, unique and novel crystals are relaxed, drawn at random; None for all.
        seed: Fixes which ones.
        fmax: Tolerance of the relaxation, eV/A.
        max_steps: After so many steps a crystal is judged as it is.
        symmetry: "free" lets relaxation break the space group, so that it can be told whether it is kept; "keep" does
            not.
    """

    relax: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    fmax: float = Field(default=0.1, gt=0)
    max_steps: int = Field(default=150, ge=0)
    symmetry: Literal["free", "keep"] = "free"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that was found out.

    Attributes:
        sample: The crystals.
        known: What novelty was judged against.
        settings: How they were evaluated.
        screening: Tolerances of symmetry and comparison.
        figures: Shares, in the order in which they are shown.
        diversity: Kinds of crystals among the strictly valid ones.
        measures: What is true of each readable crystal.
        stability: What the potentials say; None where there were none.
        hull: The hull in words.
        notes: What a reader must know, in sentences.
    """

    sample: Sample
    known: Known
    settings: EvaluateSettings
    screening: ScreeningSettings
    figures: tuple[Figure, ...]
    diversity: Diversity
    measures: Measures
    stability: Stability | None
    hull: str
    notes: tuple[str, ...]

    def figure(self, name: str, scorer: str = "") -> Figure:
        """The figure of a name, and of a scorer where several have one of that name."""
        return next(f for f in self.figures if f.name == name and (not scorer or f.scorer == scorer))

    def lines(self) -> list[str]:
        """What the figures depend on, in sentences."""
        relaxed = "not relaxed"
        if self.stability is not None:
            s = self.settings
            relaxed = (
                f"{len(self.stability)} of {int(self.measures.new.sum())} valid, unique and novel crystals relaxed "
                f"(fmax {s.fmax:g} eV/A, at most {s.max_steps} steps, symmetry {s.symmetry}, seed {s.seed})"
            )
        return [
            f"{self.sample.name}: {len(self.sample)} crystals, {relaxed}; intervals {INTERVAL}.",
            f"Novelty against {self.known.name}; unlisted: formula not in {self.known.table}.",
            *([f"Hull: {self.hull}"] if self.hull else []),
            *self.notes,
        ]

    def record(self) -> dict[str, Any]:
        """The evaluation as plain JSON: the figures, and a row for each crystal."""
        return {
            "file": self.sample.name,
            "n": len(self.sample),
            "paragenesis": installed_version("paragenesis"),
            "settings": self.settings.model_dump(),
            "screening": self.screening.model_dump(),
            "hull": self.hull,
            "reference": self.known.name,
            "listed_in": self.known.table,
            "interval": INTERVAL,
            "notes": list(self.notes),
            "figures": [figure.record() for figure in self.figures],
            "diversity": self.diversity.record(),
            "crystals": self._crystals(),
            "unreadable": [{"id": name, "reason": reason} for name, reason in self.sample.unreadable],
        }

    def _crystals(self) -> list[dict[str, Any]]:
        """A row for each readable crystal."""
        m, crystals = self.measures, self.sample.crystals
        rows: list[dict[str, Any]] = [
            {
                "id": crystals.ids[i],
                "formula": m.formulas[i],
                "atoms": int(crystals.n_atoms[i]),
                "invalid": m.reasons[i],
                "smact": bool(m.smact[i]),
                "chemistry": bool(m.chemistry[i]),
                "space_group": int(m.space_groups[i]),
                "template": m.templates[i],
                "same_as": crystals.ids[m.first[i]] if m.first[i] not in (-1, i) else "",
                "known_as": m.twins[i],
                "unlisted": bool(m.unlisted[i]),
            }
            for i in range(len(crystals))
        ]
        if self.stability is not None:
            for row, index in enumerate(self.stability.which.tolist()):
                rows[index] |= _energies(self.stability, row)
        return rows


def evaluate(
    sample: Sample,
    known: Known,
    *,
    ensemble: Ensemble | None = None,
    hull: Hull | None = None,
    remarks: Sequence[str] = (),
    condition: Condition | None = None,
    models: Mapping[str, PropertyModel] | None = None,
    settings: EvaluateSettings | None = None,
    screening: ScreeningSettings | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Evaluate a sample.

    Args:
        sample: The crystals.
        known: What novelty is judged against.
        ensemble: The potentials with references and hull; without them nothing is said of stability.
        hull: The ensemble's hull.
        remarks: What a reader must know of their energies, in sentences (see `load_scorers`).
        condition: What the crystals were asked to be.
        models: Who says what a property is, by the property's name.
        settings: How many to relax, and how.
        screening: Tolerances of symmetry and comparison.
        notify: Told what is being done.

    Raises:
        InputError: A property model does not do its part.
    """
    settings, screening = settings or EvaluateSettings(), screening or ScreeningSettings()
    condition, models, n = condition or Condition(), models or {}, len(sample)
    measures = measure(sample.crystals, known, screening, notify)
    figures = list(measured_figures(measures, known, n))
    notes = [*known.notes, *remarks]
    stability = None
    if ensemble is not None and hull is not None:
        which = choose(measures.new, settings.relax, settings.seed)
        notify(f"relaxing {len(which)} crystals")
        limits = RelaxSettings(fmax=settings.fmax, max_steps=settings.max_steps, symmetry=settings.symmetry)
        stability = relax_and_score(ensemble, sample.crystals, which, limits, notify)
        figures += relaxation_figures(stability, measures, known, screening)
        figures += stability_figures(stability, measures, known, n, hull.name)
        notes += _refused(stability)
    notify("fidelity and diversity")
    figures += hard_figures(condition, sample.crystals, measures, n, screening.symprec)
    named = "" if hull is None else hull.name
    figures += property_figures(condition, sample.crystals, measures, stability, models, named)
    return Evaluation(
        sample=sample,
        known=known,
        settings=settings,
        screening=screening,
        figures=tuple(figures),
        diversity=diversity(sample.crystals, measures, settings.seed),
        measures=measures,
        stability=stability,
        hull="" if hull is None else hull.describe(),
        notes=(*notes, *not_judged(condition, models, stability)),
    )


def measured_figures(measures: Measures, known: Known, n: int) -> list[Figure]:
    """Shares that need no energies, of n generated crystals of which `measures` knows the readable ones."""
    strict = measures.strict
    valid = int(strict.sum())

    def generated(name: str, mask: BoolArray, reference: str = "", hull: str = "") -> Figure:
        return Figure(name=name, count=int(mask.sum()), n=n, of=GENERATED, reference=reference, hull=hull)

    def of_valid(name: str, mask: BoolArray, reference: str = "") -> Figure:
        return Figure(name=name, count=int((mask & strict).sum()), n=valid, of=VALID, reference=reference)

    figures = [
        generated("readable", np.ones(len(measures), dtype=np.bool_)),
        generated("strictly valid", strict),
        generated("valid, CDVAE convention", measures.cdvae),
        generated("composition valid, SMACT", measures.smact),
        generated("composition valid, screening's rule", measures.chemistry),
        of_valid("unique", measures.unique),
        of_valid("novel", measures.novel, known.name),
        generated("valid, unique and novel", measures.new, known.name),
        generated("unlisted, valid, unique and novel", measures.new & measures.unlisted, known.name, known.table),
        of_valid("space group P1", measures.space_groups == 1),
    ]
    if known.templates is not None:
        new = measures.new & measures.new_template
        figures.append(generated("new template, valid, unique and novel", new, known.name))
    return figures


def _refused(stability: Stability) -> list[str]:
    """How many relaxations or judgements failed."""
    if not stability.errors:
        return []
    first = next(iter(stability.errors.values()))
    return [f"{len(stability.errors)} of {len(stability)} crystals failed and count as not stable; the first: {first}"]


def _energies(stability: Stability, row: int) -> dict[str, Any]:
    """What the potentials say of one relaxed crystal."""
    members = stability.members
    return {
        "energy_above_hull": {m: _number(stability.distances[i, row]) for i, m in enumerate(members)},
        "formation_energy_per_atom": {m: _number(stability.formation_energies[i, row]) for i, m in enumerate(members)},
        "converged": bool(stability.converged[row]),
        "steps": int(stability.steps[row]),
        "error": stability.errors.get(row, ""),
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

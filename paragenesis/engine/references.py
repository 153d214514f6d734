"""Elemental references: the zero of each potential's formation energies.

Independently trained potentials have different zero points, so formation energies are taken against references of
the *same* potential. The prior are the elemental crystals of `ase.collections.dcdft` (Lejaeghere et al., Crit. Rev.
Solid State Mater. Sci. 39, 1, 2014), relaxed with the potential. They are biased: some are not the ground state, and a
potential's error for an element is not its error in compounds. A ridge fit on compounds with known formation energies
pulls the references where these compounds want them; its error and bias are measured on held-out compounds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.level import MP2020
from paragenesis.engine.tables import covering_sample, read_known_crystals
from paragenesis.errors import InputError
from paragenesis.settings import Settings

if TYPE_CHECKING:
    from torch_sim.models.interface import ModelInterface

    from paragenesis.engine.potentials.contract import Potential

_MOST_Z = 118


class ReferenceSettings(Settings):
    """How elemental references are fitted.

    Attributes:
        ridge: Strength of the pull towards the elemental crystals; the weight of one compound with atomic fraction
            sqrt(ridge) of the element.
        folds: Parts of the compounds that are held out in turn.
        least: Compounds an element without elemental crystal must occur in; with fewer it gets no reference.
        most: Compounds taken from a user's file.
        seed: Fixes which compounds are taken and held out.
    """

    ridge: float = Field(default=0.03, gt=0.0)
    folds: int = Field(default=10, ge=2)
    least: int = Field(default=5, ge=1)
    most: int = Field(default=1_000, ge=20)
    seed: int = 0


@dataclass(frozen=True)
class ElementReferences:
    """Energies of the elements on one potential's scale.

    Attributes:
        values: Energy of each element, eV/atom, by symbol.
        mae: Mean absolute error of formation energies of held-out compounds, eV/atom; NaN if not measured.
        bias: Their mean error (potential minus known), eV/atom; NaN if not measured.
        n_held_out: How many compounds `mae` and `bias` were measured on.
        source: Where the values come from, in words, for the report.
    """

    values: Mapping[str, float]
    mae: float
    bias: float
    n_held_out: int
    source: str

    @property
    def key(self) -> str:
        """A short name that changes with any value; part of the level of theory."""
        text = json.dumps({symbol: round(value, 6) for symbol, value in sorted(self.values.items())})
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def formation_energies(self, crystals: Crystals, energies: FloatArray) -> FloatArray:
        """Formation energies, eV/atom, shape `n`; NaN where an element has no reference.

        Args:
            crystals: The n crystals.
            energies: Their energies with the same potential, eV/atom, shape `n`.
        """
        from ase.data import atomic_numbers

        table = np.full(_MOST_Z + 1, np.nan)
        for symbol, value in self.values.items():
            table[atomic_numbers[symbol]] = value
        fractions = _fractions(crystals)
        unknown = (fractions[:, np.isnan(table)] > 0.0).any(axis=1)
        return np.where(unknown, np.nan, energies - fractions @ np.nan_to_num(table))


def references_for(
    potential: Potential, structures_file: str | Path | None = None, settings: ReferenceSettings | None = None
) -> ElementReferences:
    """The best elemental references there are for a potential.

    Those fitted on the user's own crystals if a file is given, else those that ship with the package for these very
    weights, else the bare elemental crystals, whose bias the source says.

    Args:
        potential: The potential.
        structures_file: CSV, CSV.gz or Parquet with columns `cif` and `formation_energy_per_atom` (eV/atom).
        settings: How to fit on that file.

    Raises:
        InputError: The file cannot be used.
    """
    if structures_file is not None:
        settings = settings or ReferenceSettings()
        known = read_known_crystals([Path(structures_file)])
        which = covering_sample(known.amounts, settings.most, settings.seed)
        return fit_references(
            potential,
            known.crystals(which),
            known.formation_energies[which],
            data=Path(structures_file).name,
            settings=settings,
        )
    shipped = shipped_references().get(potential.level.weights)
    if shipped is None and potential.model not in _PRIORS:
        _PRIORS[potential.model] = prior_references(potential)
    return shipped or _PRIORS[potential.model]


# what takes seconds is done once a loaded model; weak, so that a model can be unloaded
_PRIORS: WeakKeyDictionary[ModelInterface, ElementReferences] = WeakKeyDictionary()


@cache
def shipped_references() -> Mapping[str, ElementReferences]:
    """The references that ship with the package, by sha256 of the weights they belong to."""
    text = resources.files("paragenesis.engine").joinpath("data/references.json").read_text("utf-8")
    return {
        sha256: ElementReferences(
            values=entry["values"],
            mae=entry["mae"],
            bias=entry["bias"],
            n_held_out=entry["n_held_out"],
            source=entry["source"],
        )
        for sha256, entry in json.loads(text).items()
    }


def fit_references(
    potential: Potential,
    structures: Crystals,
    formation_energies: FloatArray,
    *,
    data: str,
    settings: ReferenceSettings | None = None,
) -> ElementReferences:
    """Fit elemental references on crystals with known formation energies.

    Args:
        potential: The potential whose energies need a zero.
        structures: The n crystals, at the geometry that the known energies belong to.
        formation_energies: Known formation energies, eV/atom, shape `n`.
        data: What the crystals are, for the source.
        settings: How to fit.

    Raises:
        InputError: Too few crystals can be judged for a fit.
    """
    return fit_from_energies(
        potential,
        structures,
        judged_energies(potential, structures),
        formation_energies,
        data=data,
        settings=settings or ReferenceSettings(),
        prior=element_energies(potential),
    )


def fit_from_energies(
    potential: Potential,
    structures: Crystals,
    energies: FloatArray,
    formation_energies: FloatArray,
    *,
    data: str,
    settings: ReferenceSettings,
    prior: Mapping[str, float],
) -> ElementReferences:
    """Fit elemental references when the energies with the potential are at hand.

    Args:
        potential: The potential, for the source.
        structures: The n crystals.
        energies: Their energies with the potential, eV/atom, shape `n`; NaN where it refused.
        formation_energies: Known formation energies, eV/atom, shape `n`.
        data: What the crystals are, for the source.
        settings: How to fit.
        prior: Energies of the elemental crystals with the potential, eV/atom by symbol.

    Raises:
        InputError: Too few crystals have an energy.
    """
    usable = np.isfinite(energies) & np.isfinite(formation_energies)
    if usable.sum() < 2 * settings.folds:
        raise InputError(
            f"{data}: {potential.name} can judge {usable.sum()} of {len(structures)} crystals, but a fit needs at "
            f"least {2 * settings.folds}; give more crystals"
        )
    fractions, offsets = _fractions(structures)[usable], (energies - formation_energies)[usable]
    errors = held_out_errors(fractions, offsets, prior, settings)
    source = f"fitted on {usable.sum():,} crystals of {data}"
    if potential.level.functional != MP2020:
        source += (
            f"; {potential.name} imitates {potential.level.functional}, so where the crystals' energies are of another "
            "level the references absorb the mean difference of each element"
        )
    return ElementReferences(
        values=ridge_fit(fractions, offsets, prior, settings),
        mae=float(np.abs(errors).mean()) if len(errors) else np.nan,
        bias=float(errors.mean()) if len(errors) else np.nan,
        n_held_out=len(errors),
        source=source,
    )


def prior_references(potential: Potential) -> ElementReferences:
    """The bare elemental crystals as references, with the bias they have on the known-answer compounds."""
    from paragenesis.engine.potentials.known_answers import known_compounds

    values = element_energies(potential)
    bare = ElementReferences(values, np.nan, np.nan, 0, "")
    compounds, known = known_compounds()
    errors = bare.formation_energies(compounds, judged_energies(potential, compounds)) - known
    errors = errors[np.isfinite(errors)]
    source = f"{len(values)} bare elemental crystals, not fitted"
    if not len(errors):
        return replace(bare, source=f"{source}; the potential refuses every compound their bias could be measured on")
    mae, bias = float(np.abs(errors).mean()), float(errors.mean())
    source += f"; on {len(errors)} common compounds their bias is {bias:+.3f} and their error {mae:.3f} eV/atom"
    return ElementReferences(values, mae, bias, len(errors), f"{source}: fit them on crystals with known energies")


def element_energies(potential: Potential) -> dict[str, float]:
    """Energies of the 71 elemental crystals of `ase.collections.dcdft` relaxed with a potential, eV/atom by symbol.

    Elements that the potential refuses are left out. There is no lanthanide but Lu, and no actinide.
    """
    from ase.collections import dcdft

    from paragenesis.engine.potentials.relax import RelaxSettings, relax

    crystals = Crystals.from_atoms([dcdft[symbol] for symbol in dcdft.names], ids=dcdft.names)
    relaxed = relax(potential, crystals, RelaxSettings()).crystals
    energies = judged_energies(potential, relaxed)
    return {s: float(e) for s, e in zip(relaxed.ids, energies, strict=True) if np.isfinite(e)}


def ridge_fit(
    fractions: FloatArray, offsets: FloatArray, prior: Mapping[str, float], settings: ReferenceSettings
) -> dict[str, float]:
    """Elemental references mu that minimise sum_i (offset_i - x_i . mu)^2 + ridge * sum_j (mu_j - prior_j)^2.

    Elements without prior carry no penalty; those in fewer than `settings.least` crystals get no reference, and their
    crystals are left out.

    Args:
        fractions: Atomic fractions by atomic number, `n x 119`.
        offsets: Energies minus known formation energies, eV/atom, shape `n`.
        prior: Energies of elemental crystals, eV/atom by symbol.
        settings: The ridge, and the least number of crystals.

    Returns:
        References by symbol, eV/atom; an element that only the prior knows keeps it.
    """
    from ase.data import atomic_numbers, chemical_symbols

    start = np.full(_MOST_Z + 1, np.nan)
    for symbol, energy in prior.items():
        start[atomic_numbers[symbol]] = energy
    seen = (fractions > 0.0).sum(axis=0)
    fitted = (seen > 0) & (np.isfinite(start) | (seen >= settings.least))
    rows = ~(fractions[:, ~fitted] > 0.0).any(axis=1)
    with_prior = fitted & np.isfinite(start)
    pull = np.sqrt(settings.ridge) * np.eye(_MOST_Z + 1)[with_prior]
    design = np.vstack([fractions[rows], pull])[:, fitted]
    target = np.concatenate([offsets[rows], np.sqrt(settings.ridge) * start[with_prior]])
    start[fitted] = np.linalg.lstsq(design, target, rcond=None)[0]
    return {chemical_symbols[z]: float(start[z]) for z in np.flatnonzero(np.isfinite(start))}


def held_out_errors(
    fractions: FloatArray, offsets: FloatArray, prior: Mapping[str, float], settings: ReferenceSettings
) -> FloatArray:
    """Errors of formation energies of crystals held out of the fit in turn, eV/atom (k-fold cross-validation).

    Arguments as for `ridge_fit`. Crystals with an element that the others do not teach are left out.
    """
    from ase.data import atomic_numbers

    fold = np.random.default_rng(settings.seed).permutation(len(offsets)) % settings.folds
    errors = np.full(len(offsets), np.nan)
    for k in range(settings.folds):
        held = fold == k
        table = np.full(_MOST_Z + 1, np.nan)
        for symbol, value in ridge_fit(fractions[~held], offsets[~held], prior, settings).items():
            table[atomic_numbers[symbol]] = value
        unknown = (fractions[held][:, np.isnan(table)] > 0.0).any(axis=1)
        errors[held] = np.where(unknown, np.nan, offsets[held] - fractions[held] @ np.nan_to_num(table))
    return np.asarray(errors[np.isfinite(errors)])


def _fractions(crystals: Crystals) -> FloatArray:
    """Atomic fractions by atomic number, `n x 119`."""
    fractions = np.zeros((len(crystals), _MOST_Z + 1))
    np.add.at(fractions, (crystals.batch, crystals.numbers), 1.0)
    return np.asarray(fractions / np.maximum(crystals.n_atoms, 1)[:, None])


def judged_energies(potential: Potential, crystals: Crystals) -> FloatArray:
    """Energies of crystals with a potential at their geometry, eV/atom, shape `n`; NaN where it refuses."""
    from paragenesis.engine.potentials.judge import judge

    return judge(potential, crystals).energies

"""What can be said of generated crystals without any energy: validity, uniqueness, novelty, symmetry."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from paragenesis.crystals import BoolArray, Crystals, IntArray
from paragenesis.engine.estimates import isolate
from paragenesis.engine.evaluation.known import Known, wyckoff_templates
from paragenesis.engine.screening.chemistry import ReducedComposition, chemistry_reason, composition_of, formula_text
from paragenesis.engine.screening.fingerprint import fingerprints
from paragenesis.engine.screening.neighbours import pair_distances
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.engine.screening.validity import invalid_reasons

CDVAE_DISTANCE, CDVAE_VOLUME = 0.5, 0.1  # angstrom, A^3: "structural validity" of Xie et al., ICLR 2022 (CDVAE)
_ANY_VOLUME = {"min_volume_per_atom": 0.1, "max_volume_per_atom": 1e9}  # strict validity is about distances alone


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is true of each of n crystals; whatever needs a valid crystal is false for the others.

    Attributes:
        formulas: Reduced formulas, "" where an atomic number is of no element, `n` of them.
        reasons: Why a crystal is not strictly valid, or "", `n` of them.
        strict: No two atoms nearer than 0.6 of the sum of their covalent radii (Cordero), shape `n`.
        cdvae: No two atoms nearer than 0.5 A and a cell above 0.1 A^3, shape `n`.
        smact: Composition valid by SMACT with its defaults, alloys included, shape `n`.
        chemistry: Composition valid by the rule that campaigns screen with, shape `n`.
        keys: Fingerprint keys, "" where not strictly valid, `n` of them.
        space_groups: International numbers, 0 where not strictly valid or not found, shape `n`.
        unique: Strictly valid and the first of its kind, shape `n`.
        novel: Strictly valid and not known, shape `n`.
        first: Index of the first crystal of its kind, its own where it is that; -1 where not strictly valid, shape `n`.
        twins: The known crystal that it is, or "", `n` of them.
        unlisted: Formula not in the hull's table, shape `n`.
        templates: Wyckoff templates, "" where not strictly valid or not found, `n` of them.
        new_template: A template that no known crystal has; nowhere where templates are not known, shape `n`.
    """

    formulas: tuple[str, ...]
    reasons: tuple[str, ...]
    strict: BoolArray
    cdvae: BoolArray
    smact: BoolArray
    chemistry: BoolArray
    keys: tuple[str, ...]
    space_groups: IntArray
    unique: BoolArray
    novel: BoolArray
    first: IntArray
    twins: tuple[str, ...]
    unlisted: BoolArray
    templates: tuple[str, ...]
    new_template: BoolArray

    def __len__(self) -> int:
        """How many crystals there are."""
        return len(self.reasons)

    @property
    def new(self) -> BoolArray:
        """Strictly valid, unique and novel ("V.U.N."), shape `n`."""
        both: BoolArray = self.unique & self.novel
        return both


def measure(
    crystals: Crystals,
    known: Known,
    settings: ScreeningSettings | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Measures:
    """Measure n crystals, in any state.

    Args:
        crystals: The crystals as they were generated.
        known: What they are held against.
        settings: Tolerances of symmetry and comparison.
        notify: Told what is being done.
    """
    settings = settings or ScreeningSettings()
    notify(f"validity of {len(crystals)} crystals")
    reasons = strict_reasons(crystals, settings)
    strict = np.array([not reason for reason in reasons], dtype=np.bool_)
    real = _real_elements(crystals)
    compositions = [composition_of(crystals, i) if real[i] else () for i in range(len(crystals))]
    formulas = iter(_formulas(crystals[real]))
    keys, groups = _keys(crystals, strict, settings)
    notify("uniqueness")
    first = _first_of_kind(crystals, keys, settings)
    own = first == np.arange(len(crystals))
    notify(f"novelty against {known.name}")
    twins = [_match(known, crystals[i], keys[i]) if own[i] else "" for i in range(len(crystals))]
    valid_twins = [twins[i] if i >= 0 else "" for i in first]  # a duplicate is as novel as the first of its kind
    notify("Wyckoff templates")
    templates, new_template = _templates(crystals, strict, known, settings)
    return Measures(
        formulas=tuple(next(formulas) if one else "" for one in real),
        reasons=tuple(reasons),
        strict=strict,
        cdvae=cdvae_valid(crystals),
        smact=np.array([bool(c) and _smact(c) for c in compositions], dtype=np.bool_),
        chemistry=np.array([bool(c) and not chemistry_reason(c) for c in compositions], dtype=np.bool_),
        keys=tuple(keys),
        space_groups=groups,
        unique=own,
        novel=np.array([i >= 0 and not twin for i, twin in zip(first, valid_twins, strict=True)], dtype=np.bool_),
        twins=tuple(valid_twins),
        first=first,
        unlisted=np.array([bool(c) and formula_text(c) not in known.formulas for c in compositions], dtype=np.bool_),
        templates=tuple(templates),
        new_template=new_template,
    )


# --- validity --------------------------------------------------------------------------------------------------------


def strict_reasons(crystals: Crystals, settings: ScreeningSettings) -> list[str]:
    """Why each crystal is not strictly valid, or "": not finite, no cell, or atoms too close (`overlap_factor`)."""
    loose = settings.model_copy(update={"charge_neutrality": False, **_ANY_VOLUME})
    reasons = [""] * len(crystals)
    answers, errors = isolate(lambda rows: invalid_reasons(crystals[rows], loose), len(crystals))
    for rows, found in answers:
        for row, reason in zip(rows.tolist(), found, strict=True):
            reasons[row] = reason
    for row, error in errors.items():
        reasons[row] = f"lattice: {error}"  # too distorted for its shortest vectors to be found
    return reasons


def cdvae_valid(crystals: Crystals) -> BoolArray:
    """Structural validity as in the CDVAE paper, shape `n`; an atom's own images do not count there."""
    valid = np.zeros(len(crystals), dtype=np.bool_)
    alive = np.flatnonzero(
        [
            np.isfinite(crystals.lattices[i]).all() and np.isfinite(crystals.frac[crystals.atoms_of(i)]).all()
            for i in range(len(crystals))
        ]
    )
    alive = alive[(crystals.volumes[alive] >= CDVAE_VOLUME) & (crystals.n_atoms[alive] > 0)]
    answers, _ = isolate(lambda rows: _nearest_other(crystals[alive[rows]]), len(alive))
    for rows, nearest in answers:  # a cell that cannot be reduced is left as not valid
        valid[alive[rows]] = nearest >= CDVAE_DISTANCE
    return valid


def _nearest_other(crystals: Crystals) -> np.ndarray:
    """Shortest distance between two different atoms of each crystal, angstrom, shape `n`; infinite for one atom."""
    nearest = np.full(len(crystals), np.inf)
    for pairs in pair_distances(crystals):
        others = pairs.distances[:, pairs.i != pairs.j]
        nearest[pairs.crystals] = others.min(axis=1, initial=np.inf)
    return nearest


def _real_elements(crystals: Crystals) -> BoolArray:
    """Whether all atoms of a crystal are of real elements, shape `n`."""
    from ase.data import chemical_symbols

    wrong = (crystals.numbers < 1) | (crystals.numbers >= len(chemical_symbols))
    none: BoolArray = (np.bincount(crystals.batch[wrong], minlength=len(crystals)) == 0) & (crystals.n_atoms > 0)
    return none


def _formulas(crystals: Crystals) -> tuple[str, ...]:
    """Reduced formulas, `n` of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")  # noble gases
        return crystals.formulas


@lru_cache(maxsize=100_000)
def _smact(composition: ReducedComposition) -> bool:
    """SMACT's validity of a composition, with its defaults: Pauling test, alloys count as valid."""
    from smact.screening import smact_validity

    return bool(smact_validity(formula_text(composition)))


# --- identity --------------------------------------------------------------------------------------------------------


def _keys(crystals: Crystals, strict: BoolArray, settings: ScreeningSettings) -> tuple[list[str], IntArray]:
    """Fingerprint keys and space groups of the strictly valid crystals, "" and 0 for the others."""
    keys, groups = [""] * len(crystals), np.zeros(len(crystals), dtype=np.int64)
    which = np.flatnonzero(strict)
    found = fingerprints(crystals[which], settings.symprec)
    for row, index in enumerate(which.tolist()):
        keys[index], groups[index] = found.keys[row], found.space_groups[row]
    return keys, groups


def _first_of_kind(crystals: Crystals, keys: list[str], settings: ScreeningSettings) -> IntArray:
    """Index of the first crystal that is the same as each, -1 for those without key, shape `n`."""
    seen, first = Seen(settings), np.full(len(keys), -1, dtype=np.int64)
    for i, key in enumerate(keys):
        if key:
            twin = seen.match(crystals[i], key)
            first[i] = i if twin is None else int(twin)
            if twin is None:
                seen.add(crystals[i].with_ids([str(i)]), [key])
    return first


def _match(known: Known, crystal: Crystals, key: str) -> str:
    """Which known crystal a crystal is, or ""."""
    for one in known.crystals:
        if (twin := one.match(crystal, key)) is not None:
            return f"{twin} in {one.name}"
    return ""


def _templates(
    crystals: Crystals, strict: BoolArray, known: Known, settings: ScreeningSettings
) -> tuple[list[str], BoolArray]:
    """Wyckoff templates of the strictly valid crystals, "" for the others, and whether they are new."""
    templates, new = [""] * len(crystals), np.zeros(len(crystals), dtype=np.bool_)
    which = np.flatnonzero(strict)
    found = wyckoff_templates(crystals[which], settings.symprec)
    held = known.templates.holds(found, crystals[which]) if known.templates is not None else np.ones(len(found), bool)
    for row, index in enumerate(which.tolist()):
        templates[index] = found[row]
        new[index] = bool(found[row]) and not held[row]
    return templates, new

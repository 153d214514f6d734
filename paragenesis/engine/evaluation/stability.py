"""Stability: what relaxation and energies say of the valid, unique and novel crystals."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import BoolArray, Crystals, FloatArray, IntArray
from paragenesis.engine.estimates import isolate
from paragenesis.engine.evaluation.figures import RELAXED, Figure, per_generated
from paragenesis.engine.evaluation.known import Known
from paragenesis.engine.evaluation.measures import Measures
from paragenesis.engine.executor import out_of_memory
from paragenesis.engine.metrics import METASTABLE, STABLE
from paragenesis.engine.potentials.relax import RelaxSettings
from paragenesis.engine.screening.fingerprint import fingerprints
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.engine.screening.validity import invalid_reasons

if TYPE_CHECKING:
    from paragenesis.engine.potentials.ensemble import Ensemble

ALARM = -0.1  # eV/atom; so far below a good hull lies no undiscovered compound, but what a potential has not seen
_AT_ONCE = 64  # crystals relaxed between two reports of progress
# First space group of each run of equal point group order, and that order (International Tables A).
_FIRST = (1, 2, 10, 16, 47, 75, 83, 123, 143, 147, 162, 168, 175, 191, 195, 200, 221)
_ORDER = (1, 2, 4, 4, 8, 4, 8, 16, 3, 6, 12, 6, 12, 24, 12, 24, 48)


@dataclass(frozen=True, kw_only=True)
class Stability:
    """What m potentials say of k crystals that were relaxed; NaN where one failed or was refused.

    Attributes:
        which: Indices of these crystals among all that were generated, shape `k`.
        crystals: Their relaxed geometries; as generated where relaxation failed.
        members: Names of the potentials; the first one relaxed, the others judged its minima.
        formation_energies: eV/atom, shape `m x k`.
        distances: Energies above the hull, eV/atom, shape `m x k`.
        converged: Whether relaxation reached its tolerance, shape `k`.
        steps: Steps taken, shape `k`.
        errors: What went wrong, by index in `which`.
    """

    which: IntArray
    crystals: Crystals
    members: tuple[str, ...]
    formation_energies: FloatArray
    distances: FloatArray
    converged: BoolArray
    steps: IntArray
    errors: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many crystals were relaxed."""
        return len(self.which)

    def verdicts(self) -> dict[str, FloatArray]:
        """Hull distances by who says so, eV/atom, shape `k` each: every potential, and their consensus two ways.

        All agree that a crystal lies below a cut-off where the largest distance does. In the mean each potential's bias
        has been removed by its own elemental references.
        """
        said = dict(zip(self.members, self.distances, strict=True))
        if len(self.members) > 1:
            names = " and ".join(self.members)
            said[f"all agree: {names}"] = self.distances.max(axis=0, initial=-np.inf)
            said[f"mean: {names}"] = self.distances.mean(axis=0)
        return said


def choose(candidates: BoolArray, n: int | None, seed: int) -> IntArray:
    """Indices of n of the candidates at random, of all of them without n or where there are fewer; ascending."""
    indices = np.flatnonzero(candidates)
    if n is None or n >= len(indices):
        return np.asarray(indices, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).permutation(indices)[:n]).astype(np.int64)


def relax_and_score(
    ensemble: Ensemble,
    crystals: Crystals,
    which: IntArray,
    settings: RelaxSettings,
    notify: Callable[[str], None] = lambda _: None,
) -> Stability:
    """Relax some of n crystals with the first potential, judge them with all."""
    parts = []
    for first in range(0, len(which), _AT_ONCE):
        notify(f"relaxing with {ensemble.members[0]}: {first} of {len(which)}")
        parts.append(_score(ensemble, crystals, which[first : first + _AT_ONCE], settings))
    return joined(parts) if parts else _scored(ensemble, crystals, which, settings)


def joined(parts: Sequence[Stability]) -> Stability:
    """Several parts, at least one, as one."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    return Stability(
        which=np.concatenate([part.which for part in parts]),
        crystals=Crystals.concatenate([part.crystals for part in parts]),
        members=parts[0].members,
        formation_energies=np.concatenate([part.formation_energies for part in parts], axis=1),
        distances=np.concatenate([part.distances for part in parts], axis=1),
        converged=np.concatenate([part.converged for part in parts]),
        steps=np.concatenate([part.steps for part in parts]),
        errors={int(s) + i: e for s, part in zip(starts, parts, strict=False) for i, e in part.errors.items()},
    )


def _score(ensemble: Ensemble, crystals: Crystals, which: IntArray, settings: RelaxSettings) -> Stability:
    """Relax and judge crystals all at once; where memory does not suffice for that, in parts."""

    def together(rows: IntArray) -> Stability:
        return _scored(ensemble, crystals, which[rows], settings)

    parts, faults = isolate(together, len(which), but=lambda error: not out_of_memory(error))
    parts += [(np.array([i]), _unscored(ensemble, crystals, which[[i]], fault)) for i, fault in faults.items()]
    return joined([part for _, part in sorted(parts, key=lambda pair: int(pair[0][0]))])


def _scored(ensemble: Ensemble, crystals: Crystals, which: IntArray, settings: RelaxSettings) -> Stability:
    """Relax and judge crystals all at once."""
    some = crystals[which].with_ids([str(i) for i in range(len(which))])
    relaxed, failed, refusals = ensemble.relax_and_judge(some, settings)
    done = np.array([int(name) for name in relaxed.crystals.ids], dtype=np.int64)
    table = np.full((2, len(ensemble.members), len(which)), np.nan)
    table[0][:, done], table[1][:, done] = relaxed.formation_energies, relaxed.hull_distances
    converged, steps = np.zeros(len(which), dtype=np.bool_), np.zeros(len(which), dtype=np.int64)
    converged[done], steps[done] = relaxed.converged, relaxed.steps
    place = {index: row for row, index in enumerate(done.tolist())}
    ends = [relaxed.crystals[place[i]] if i in place else some[i] for i in range(len(which))]
    errors = {int(refusal.id): f"{refusal.member}: {refusal.error}" for refusal in refusals} | failed
    return Stability(
        which=which,
        crystals=Crystals.concatenate(ends).with_ids([crystals.ids[i] for i in which]),
        members=ensemble.members,
        formation_energies=table[0],
        distances=table[1],
        converged=converged,
        steps=steps,
        errors=errors,
    )


# --- figures ---------------------------------------------------------------------------------------------------------


def _unscored(ensemble: Ensemble, crystals: Crystals, which: IntArray, error: str) -> Stability:
    """What is known of a crystal that nothing could be said of."""
    nothing = np.full((len(ensemble.members), 1), np.nan)
    return Stability(
        which=which,
        crystals=crystals[which],
        members=ensemble.members,
        formation_energies=nothing,
        distances=nothing,
        converged=np.zeros(1, dtype=np.bool_),
        steps=np.zeros(1, dtype=np.int64),
        errors={0: error},
    )


def stability_figures(stability: Stability, measures: Measures, known: Known, n: int, hull: str) -> list[Figure]:
    """Shares of the relaxed crystals, and what they mean for all n that were generated; by potential and consensus."""
    new = (int(measures.new.sum()), n)
    unlisted, template = measures.unlisted[stability.which], measures.new_template[stability.which]
    figures = []
    for scorer, distances in stability.verdicts().items():
        asked = Figure(
            name="", count=0, n=len(stability), of=RELAXED, scorer=scorer, hull=hull, reference=known.name, relaxed=True
        )
        stable, metastable = distances <= STABLE, distances <= METASTABLE
        rows = [
            _counted(asked, f"stable ({STABLE:g} eV/atom)", stable),
            _counted(asked, f"metastable ({METASTABLE:g} eV/atom)", metastable),
            _counted(asked, f"below {ALARM:g} eV/atom, a warning", distances < ALARM),
            per_generated(_counted(asked, "S.U.N.", stable), new),
            per_generated(_counted(asked, "metastable S.U.N.", metastable), new),
            per_generated(_counted(asked, "stable and unlisted", stable & unlisted), new),
            per_generated(_counted(asked, "metastable and unlisted", metastable & unlisted), new),
        ]
        if known.templates is not None:
            both = metastable & unlisted
            of_those = replace(asked, n=int(both.sum()), of="metastable and unlisted")
            rows.append(_counted(of_those, "new template of these", both & template))
        figures += rows
    return figures


def relaxation_figures(
    stability: Stability, measures: Measures, known: Known, settings: ScreeningSettings
) -> list[Figure]:
    """What relaxation did: converged, space group kept, still valid, unique and novel."""
    before = measures.space_groups[stability.which]
    after = fingerprints(stability.crystals, settings.symprec)
    failed = np.isnan(stability.formation_energies[0])
    groups = np.where(failed, 0, after.space_groups)
    kept = groups == before
    raised = np.array([_order(a) > _order(b) for a, b in zip(groups.tolist(), before.tolist(), strict=True)], bool)
    asked = Figure(
        name="", count=0, n=len(stability), of=RELAXED, scorer=stability.members[0], reference=known.name, relaxed=True
    )
    still = ~failed & _still_new(stability.crystals, after.keys, known, settings)
    plain = replace(asked, reference="")
    return [
        _counted(plain, "relaxation converged", stability.converged),
        _counted(plain, "space group kept by relaxation", kept),
        _counted(plain, "space group kept or raised", kept | raised),
        _counted(asked, "still valid, unique and novel", still),
    ]


def _counted(figure: Figure, name: str, mask: BoolArray) -> Figure:
    return replace(figure, name=name, count=int(mask.sum()))


def _order(group: int) -> int:
    """Order of the point group of a space group; 0 for none."""
    return _ORDER[bisect_right(_FIRST, group) - 1] if group else 0


def _still_new(crystals: Crystals, keys: Sequence[str], known: Known, settings: ScreeningSettings) -> BoolArray:
    """Whether relaxed crystals are strictly valid, the first of their kind and not known, shape `k`."""
    loose = settings.model_copy(update={"charge_neutrality": False, "max_volume_per_atom": 1e9})
    reasons = invalid_reasons(crystals, loose)
    seen, new = Seen(settings), np.zeros(len(crystals), dtype=np.bool_)
    for i, key in enumerate(keys):
        crystal = crystals[i]
        if reasons[i] or seen.match(crystal, key) is not None:
            continue
        seen.add(crystal, [key])
        new[i] = all(one.match(crystal, key) is None for one in known.crystals)
    return new

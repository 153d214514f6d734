"""What a round is going to do, from what the ledger holds of the rounds before.

How many crystals each generator makes (`budget`), what its chunks aim at (`aims`), and which crystals it learns from
(`learning`). Everything here reads; the campaign commits the plan before it acts on it, so that a round that was
interrupted goes on with the plan it began with.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.acquisition.pareto import pareto_front
from paragenesis.engine.aims import Front, aim
from paragenesis.engine.budget import Yield, allocate, round_yields, shares
from paragenesis.engine.generators.condition import PropertyRange
from paragenesis.engine.learning import Lesson, Weights
from paragenesis.engine.ledger import LedgerReader
from paragenesis.engine.lookup import (
    KEPT,
    is_hit,
    predicted,
    prediction,
    utilities,
    verified_before,
    verified_in,
    verified_values,
)
from paragenesis.engine.preflight import Kit
from paragenesis.engine.stages import ChunkTask
from paragenesis.errors import LedgerError
from paragenesis.naming import path_inside
from paragenesis.objectives.contract import member_estimate

# What the members of the ensemble say of every crystal, and what data to learn from call it.
_ALWAYS_KNOWN = {"energy_above_hull": "energy_above_hull", "formation_energy": "formation_energy_per_atom"}


def plan_round(ledger: LedgerReader, kit: Kit, number: int) -> list[ChunkTask]:
    """The chunks of a round: how many crystals each generator makes, and what each chunk aims at."""
    spec = kit.spec
    parts = allocate(sum(spec.first_round), next_shares(ledger, kit, number))
    tasks = [
        _task(kit, number, entry.name, index, min(entry.chunk, part - start))
        for entry, part in zip(spec.generators, parts, strict=True)
        for index, start in enumerate(range(0, part, entry.chunk))
    ]
    front = _front(ledger, kit, number)
    anchors = front.anchors()
    if not anchors:
        return tasks
    goals, turn, aimed = [o.goal for o in kit.objectives], 0, []
    for task in tasks:
        properties = kit.followed.get(task.generator)
        if properties:
            anchor, turn = anchors[turn % len(anchors)], turn + 1
            task = replace(task, aim=aim(front, anchor, goals, properties, spec.aims.step))
        aimed.append(task)
    return aimed


def planned(ledger: LedgerReader, kit: Kit, number: int) -> list[ChunkTask]:
    """The chunks of a round as they were committed, in the order of the generators."""
    rows = ledger.query("SELECT generator, chunk, n, aim FROM chunks WHERE round = ?", (number,)).to_pylist()
    order = [entry.name for entry in kit.spec.generators]
    rows.sort(key=lambda row: (order.index(row["generator"]), row["chunk"]))
    return [
        replace(
            _task(kit, number, row["generator"], row["chunk"], row["n"]),
            aim=tuple(PropertyRange.model_validate(one) for one in json.loads(row["aim"] or "[]")),
        )
        for row in rows
    ]


def _task(kit: Kit, number: int, generator: str, index: int, n: int) -> ChunkTask:
    """A chunk; its seed follows from what it is."""
    return ChunkTask(round=number, generator=generator, index=index, n=n, seed=_seed(kit, number, generator, index))


def _seed(kit: Kit, number: int, name: str, index: int) -> int:
    sequence = np.random.SeedSequence([kit.spec.seed, number, zlib.crc32(name.encode()), index])
    return int(sequence.generate_state(1)[0])


# --- shares ----------------------------------------------------------------------------------------------------------


def yields(ledger: LedgerReader, kit: Kit, number: int) -> list[Yield]:
    """What each generator gave in a round."""
    verified = verified_in(ledger, kit, f"round = {int(number)}")
    hits = {c: is_hit(kit, values) for c, values in zip(verified.crystals.ids, verified.values, strict=True)}
    names = [entry.name for entry in kit.spec.generators]
    return round_yields(ledger, number, names, hits, kit.spec.relax.max_steps)


def next_shares(ledger: LedgerReader, kit: Kit, number: int) -> FloatArray:
    """The share of each generator in a round, by what came of the rounds before it."""
    history = [yields(ledger, kit, before) for before in range(1, number)] if len(kit.spec.generators) > 1 else []
    return shares(history, kit.spec.first_round, kit.spec.budget)


# --- aims ------------------------------------------------------------------------------------------------------------


def _front(ledger: LedgerReader, kit: Kit, number: int) -> Front:
    """The verified Pareto front of the rounds before, in utilities; empty where no generator follows it."""
    m = len(kit.objectives)
    if not any(kit.followed.values()):
        return Front(np.zeros((0, m)), np.zeros(m))
    found = utilities(kit.objectives, verified_before(ledger, kit, number).values)
    points = np.unique(found[pareto_front(found)], axis=0)
    if not len(points):
        return Front(points, np.zeros(m))
    everything = utilities(kit.objectives, predicted(ledger, kit, f"{KEPT} AND round < {int(number)}", "ensemble")[0])
    pool = np.array(
        [np.std(column[np.isfinite(column)]) if np.isfinite(column).any() else 0 for column in everything.T]
    )
    extent = np.ptp(points, axis=0)
    return Front(points, np.where(extent > 0, extent, pool))


# --- lessons ---------------------------------------------------------------------------------------------------------


def lesson(ledger: LedgerReader, kit: Kit, number: int, generator: str) -> Lesson:
    """What a generator is to learn before a round: the good crystals of the rounds before, best knowledge first.

    Good are the hits, and the kept crystals from `triage.min_hull_distance` (what lies deeper is extrapolation) to
    `learn.max_hull_distance` above the hull. Where the oracle has spoken, its values and its geometry count.
    """
    then = f"round < {int(number)}"  # what came later must not change a lesson that is given once more
    before = f"{KEPT} AND {then}"
    values = verified_values(ledger, kit, before, then)
    crystals, labels = _verified_geometry(ledger, kit, before, then), _labels(ledger, kit, before, values)
    distance = labels["energy_above_hull"]
    low, high = kit.spec.triage.min_hull_distance, kit.spec.learn.max_hull_distance
    good = ((distance >= low) & (distance <= high)) | np.array([is_hit(kit, row) for row in values], dtype=np.bool_)
    return Lesson(
        generator=generator,
        crystals=crystals[good],
        labels={name: column[good] for name, column in sorted(labels.items())},
        seed=_seed(kit, number, f"lesson {generator}", 0),
        trial=kit.spec.learn.trial,
    )


def weights_in_use(ledger: LedgerReader, number: int, learn_again: Callable[[int, str], Weights]) -> dict[str, Weights]:
    """What the generators have learnt for a round or before it, by their names; the others have their own weights.

    Args:
        ledger: The campaign's ledger.
        number: The round.
        learn_again: Gives a lesson of a round once more, for weights whose file is lost or changed.

    Raises:
        LedgerError: A file is lost or changed, and learning again gives other weights.
    """
    found = ledger.query(
        "SELECT generator, round, weights, sha256 FROM learning WHERE outcome = 'accepted' AND round <= ? "
        "QUALIFY row_number() OVER (PARTITION BY generator ORDER BY round DESC) = 1 ORDER BY generator",
        (number,),
    )
    use = {}
    for row in found.to_pylist():
        path = path_inside(ledger.directory, row["weights"])  # the ledger may come from somebody else
        weights = Weights.read(path)
        if weights is None or weights.sha256 != row["sha256"]:
            weights = learn_again(row["round"], row["generator"])
            if weights.sha256 != row["sha256"]:
                raise LedgerError(
                    f"the weights {path} are lost or changed, and learning them again gave others; put the file with "
                    f"the sha256 {row['sha256']} back"
                )
            weights.write(path)
        use[row["generator"]] = weights
    return use


def _verified_geometry(ledger: LedgerReader, kit: Kit, which: str, then: str) -> Crystals:
    """Candidates that match a condition, sorted by id, as the oracle relaxed them where it did by then."""
    crystals = ledger.crystals(which)
    table = ledger.query(
        "SELECT candidate_id AS id, numbers, frac, lattice FROM verified_structures "
        f"WHERE level_key = ? AND {then} "
        f"AND candidate_id IN (SELECT candidate_id FROM candidates WHERE {which}) ORDER BY id",
        (kit.level.key,),
    )
    both = Crystals.concatenate([crystals, ledger.structures(table, finite=True)])
    last = {candidate: place for place, candidate in enumerate(both.ids)}
    return replace(both[[last[candidate] for candidate in crystals.ids]], origins=crystals.origins)


def _labels(ledger: LedgerReader, kit: Kit, which: str, verified: FloatArray) -> dict[str, FloatArray]:
    """What is known of candidates by property: verified, else expected by the ensemble; NaN where nothing is."""
    labels = {
        name: member_estimate(np.stack([prediction(ledger, which, member, column)[0] for member in kit.members])).mean
        for column, name in _ALWAYS_KNOWN.items()
    }
    expected = predicted(ledger, kit, which, "ensemble")[0]
    known = np.where(np.isfinite(verified), verified, expected)
    for index, objective in enumerate(kit.objectives):
        name = kit.spec.aims.property_of(objective.name)
        if name is not None:
            labels[name] = known[:, index]
    return labels

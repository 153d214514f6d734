"""A round's decision and its measures, from what the ledger holds.

The pool is every kept crystal that was never selected, of all rounds. The oracle's answers of earlier rounds teach
the surrogate; triage holds back what is not worth a verification; the rest is scored and a diverse batch selected.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, IntArray
from paragenesis.engine.acquisition.pareto import hypervolume, infer_reference_point
from paragenesis.engine.acquisition.select import Selection, reference_utilities, select_batch
from paragenesis.engine.acquisition.triage import Evidence, Triaged, triage
from paragenesis.engine.descriptors import describe
from paragenesis.engine.ledger import LedgerReader
from paragenesis.engine.metrics import calibration
from paragenesis.engine.preflight import Kit, formulation
from paragenesis.engine.surrogate import ResidualSurrogate
from paragenesis.engine.verification import foretold, known_before, pending_before, verified_where
from paragenesis.objectives.contract import Objective

# conditions on `candidates`
POOL = "verdict = 'kept' AND candidate_id NOT IN (SELECT candidate_id FROM selections)"
KEPT = "verdict = 'kept'"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is verified in a round, and why.

    Attributes:
        ids: The pool's candidate ids, `N` of them.
        mean: Posterior means in the objectives' units, shape `N x m`.
        std: Posterior standard deviations, shape `N x m`.
        triaged: What triage held back; their `index` is a row of the pool.
        chosen: Rows of the pool that were selected, best first.
        known: Ids of what was verified or pending, as the selection counts them.
        selection: Their scores and reasons; its own indices count what triage let through.
    """

    ids: Sequence[str]
    mean: FloatArray
    std: FloatArray
    triaged: Sequence[Triaged]
    chosen: IntArray
    known: Sequence[str]
    selection: Selection


@dataclass(frozen=True)
class Labelled:
    """k verified crystals.

    Attributes:
        crystals: Their geometries as the ensemble relaxed them.
        values: The oracle's values, shape `k x m`; NaN where there is none.
        mean: The ensemble's means, shape `k x m`.
        std: The ensemble's standard deviations, shape `k x m`.
    """

    crystals: Crystals
    values: FloatArray
    mean: FloatArray
    std: FloatArray


def posterior_model(number: int) -> str:
    """The name under which the surrogate's predictions of a round stand in the ledger."""
    return f"posterior:{number}"


def decide_round(ledger: LedgerReader, kit: Kit, number: int) -> Decision:
    """Choose the batch of a round; the same ledger always gives the same batch."""
    pool = ledger.crystals(POOL)
    prior_mean, prior_std = predicted(ledger, kit, POOL, "ensemble")
    labelled = verified_before(ledger, kit, number)
    X, X_labelled = describe(pool), describe(labelled.crystals)
    surrogate = ResidualSurrogate(kit.spec.surrogate)
    if len(pool) and len(labelled.crystals):
        surrogate.fit(X_labelled, labelled.values - labelled.mean, prior_std=labelled.std, pool=X)
    mean, std = surrogate.predict(X, prior_mean, prior_std) if len(pool) else (prior_mean, prior_std)
    held = triage(_evidence(ledger, kit, mean, std, labelled), kit.spec.triage)
    open_rows = np.setdiff1d(np.arange(len(pool)), [t.index for t in held])
    problem = formulation(kit.spec, kit.objectives)
    waiting = ledger.crystals(_among(pending_before(ledger, kit, number)))
    utility_mean, utility_std = problem.moments(mean[open_rows], std[open_rows])
    likely = problem.probability(mean[open_rows], std[open_rows])
    hits = kit.spec.decision.strategy == "hits"
    selection = select_batch(
        X[open_rows],
        utility_mean,
        utility_std,
        observed=problem.observed(labelled.values),
        given=X_labelled,
        pending=_expected(ledger, kit, waiting, surrogate),
        hit_probability=likely if hits else None,
        feasible=None if hits else likely,
        cost=None if kit.costs is None else kit.costs(pool[open_rows]),
        settings=kit.spec.decision,
        reference_point=reference_point(ledger, kit),
        seed=int(np.random.SeedSequence([kit.spec.seed, number]).generate_state(1)[0]),
    )
    chosen = open_rows[selection.indices]
    known = (*labelled.crystals.ids, *waiting.ids)
    return Decision(ids=pool.ids, mean=mean, std=std, triaged=held, chosen=chosen, known=known, selection=selection)


def measure_round(ledger: LedgerReader, kit: Kit, number: int) -> dict[str, Any]:
    """What is said of a round when it closes: hits, hypervolume, reference point, calibration."""
    before = verified_before(ledger, kit, number)
    so_far = verified_before(ledger, kit, number + 1)
    new = verified_in(ledger, kit, f"round = {int(number)}")
    problem = formulation(kit.spec, kit.objectives)
    observed = problem.observed(so_far.values)
    reference = reference_point(ledger, kit)
    if reference is None and np.isfinite(observed).all(1).any():
        everything, std = predicted(ledger, kit, KEPT, "ensemble")
        reference = infer_reference_point(observed, problem.moments(everything, np.zeros_like(std))[0])
    names = [o.name for o in kit.objectives]
    expected, std = foretold(ledger, kit, verified_where(f"round = {int(number)}"))
    reports = {
        name: _plain(asdict(calibration(new.values[:, j], expected[:, j], std[:, j]))) for j, name in enumerate(names)
    }
    return {
        "hits": sum(is_hit(kit, values) for values in new.values),
        "hypervolume": None if reference is None else hypervolume(observed, reference),
        "ref_point": None if reference is None else reference.tolist(),
        "calibration": json.dumps({"objectives": reports, "learnt_from": len(before.crystals)}, sort_keys=True),
    }


def is_hit(kit: Kit, values: FloatArray) -> bool:
    """Whether verified values, shape `m`, obey every hit rule; without rules nothing is a hit."""
    names = [o.name for o in kit.objectives]
    rules = kit.spec.hits
    return bool(rules) and all(rule.holds(float(values[names.index(rule.objective)])) for rule in rules)


def utilities(objectives: Sequence[Objective], values: FloatArray) -> FloatArray:
    """Utilities of exact values, shape `n x m`."""
    columns = [o.goal.utility(values[:, j]) for j, o in enumerate(objectives)]
    return np.stack(columns, axis=1)


def reference_point(ledger: LedgerReader, kit: Kit) -> FloatArray | None:
    """The campaign's reference point in utilities: as specified, or as inferred when its first round closed."""
    given = reference_utilities(kit.spec.decision, [o.goal for o in kit.objectives])
    if given is not None:
        return given[list(formulation(kit.spec, kit.objectives).along)]
    stored = ledger.query("SELECT ref_point FROM rounds WHERE ref_point IS NOT NULL ORDER BY round LIMIT 1")
    if not stored.num_rows:
        return None
    point: FloatArray = np.array(stored.column("ref_point")[0].as_py(), dtype=np.float64)
    return point


def verified_before(ledger: LedgerReader, kit: Kit, number: int) -> Labelled:
    """What the oracle had said before the decision of round `number`."""
    return verified_in(ledger, kit, known_before(number))


def verified_in(ledger: LedgerReader, kit: Kit, rounds: str) -> Labelled:
    """What the oracle said in some rounds, with what the ensemble had said of the same crystals."""
    which = verified_where(rounds)
    mean, std = predicted(ledger, kit, which, "ensemble")
    return Labelled(ledger.crystals(which), verified_values(ledger, kit, which), mean, std)


def verified_values(ledger: LedgerReader, kit: Kit, which: str) -> FloatArray:
    """The oracle's values of every objective, for candidates that match a condition, shape `N x m`; NaN where none."""
    columns = []
    for objective in kit.objectives:
        found = ledger.query(
            f"WITH pool AS (SELECT candidate_id FROM candidates WHERE {which}) "
            "SELECT v.value FROM pool LEFT JOIN verifications v ON v.candidate_id = pool.candidate_id "
            "AND v.level_key = ? AND v.property = ? ORDER BY pool.candidate_id",
            (kit.level.key, objective.name),
        )
        columns.append(_floats(found, "value"))
    return np.stack(columns, axis=1)


def predicted(ledger: LedgerReader, kit: Kit, which: str, model: str) -> tuple[FloatArray, FloatArray]:
    """What a model predicts of every objective, for candidates that match a condition: mean and std, shape `N x m`."""
    tables = [prediction(ledger, which, model, objective.name) for objective in kit.objectives]
    return np.stack([t[0] for t in tables], axis=1), np.stack([t[1] for t in tables], axis=1)


def prediction(ledger: LedgerReader, which: str, model: str, name: str) -> tuple[FloatArray, FloatArray]:
    """Mean and std of one property in the order of the candidates, shape `N` each; NaN where there is none."""
    found = ledger.query(
        f"WITH pool AS (SELECT candidate_id FROM candidates WHERE {which}) "
        "SELECT p.mean, p.std FROM pool LEFT JOIN predictions p ON p.candidate_id = pool.candidate_id "
        "AND p.model = ? AND p.property = ? ORDER BY pool.candidate_id",
        (model, name),
    )
    return _floats(found, "mean"), _floats(found, "std")


def _evidence(ledger: LedgerReader, kit: Kit, mean: FloatArray, std: FloatArray, labelled: Labelled) -> Evidence:
    """What triage needs to know of the pool."""

    def table(name: str) -> FloatArray:
        return np.stack([prediction(ledger, POOL, member, name)[0] for member in kit.members])

    return Evidence(
        names=[o.name for o in kit.objectives],
        goals=[o.goal for o in kit.objectives],
        mean=mean,
        std=std,
        formation_energies=table("formation_energy"),
        hull_distances=table("energy_above_hull"),
        max_forces=table("max_force"),
        observed=utilities(kit.objectives, labelled.values),
        calibrated=len(labelled.crystals) >= kit.spec.surrogate.min_calibration,
    )


def _expected(
    ledger: LedgerReader, kit: Kit, waiting: Crystals, surrogate: ResidualSurrogate
) -> tuple[FloatArray, FloatArray] | None:
    """Descriptors and expected utilities of what is being verified, `p x d` and `p x axes`; None if nothing is."""
    if not len(waiting):
        return None
    X = describe(waiting)
    mean, std = surrogate.predict(X, *predicted(ledger, kit, _among(waiting.ids), "ensemble"))
    return X, formulation(kit.spec, kit.objectives).moments(mean, std)[0]


def _among(ids: Sequence[str]) -> str:
    """A condition on `candidates`: one of some."""
    listed = ", ".join("'" + one.replace("'", "''") + "'" for one in ids)
    return f"candidate_id IN ({listed})" if ids else "false"


def _floats(table: Any, name: str) -> FloatArray:
    """A column of numbers; NULL becomes NaN."""
    return np.asarray(table.column(name).to_numpy(zero_copy_only=False), dtype=np.float64).reshape(-1)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, which JSON lacks."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}

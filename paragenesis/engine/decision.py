"""A round's decisions and its measures, from what the ledger holds.

The pool is every kept crystal that was never selected, of all rounds. What oracles answered teaches the surrogate, at
several levels of theory where there are cheaper oracles; triage holds back what is not worth a verification; the rest
is scored and a diverse batch selected. The batch for a cheaper oracle is chosen the same way, by what is expected of
the oracle itself: it is there to find out more about the crystals that may be worth the dear verification.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, IntArray
from paragenesis.engine.acquisition.features import FeatureSpace, nearest_distance
from paragenesis.engine.acquisition.hypervolume import MOST_OBJECTIVES
from paragenesis.engine.acquisition.pareto import hypervolume, infer_reference_point
from paragenesis.engine.acquisition.select import DecisionSettings, Selection, reference_utilities, select_batch
from paragenesis.engine.acquisition.triage import Evidence, Triaged, triage
from paragenesis.engine.descriptors import describe
from paragenesis.engine.ledger import LedgerReader
from paragenesis.engine.lookup import (
    KEPT,
    POOL,
    Labelled,
    is_hit,
    predicted,
    prediction,
    probed_before,
    utilities,
    verified_before,
    verified_in,
)
from paragenesis.engine.metrics import calibration
from paragenesis.engine.preflight import Kit, formulation
from paragenesis.engine.surrogate import Calibration, ResidualSurrogate
from paragenesis.engine.surrogate.residual import NOT_LEARNT
from paragenesis.engine.verification import foretold, pending_where, verified_where

# what a cheaper oracle can clear up is no reason not to ask it
_DOUBTS = frozenset({"too_uncertain", "false_confidence"})


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is verified in a round, or probed, and why.

    Attributes:
        ids: The pool's candidate ids, `N` of them.
        mean: Posterior means in the objectives' units, shape `N x m`.
        std: Posterior standard deviations, shape `N x m`.
        triaged: What triage held back; their `index` is a row of the pool.
        chosen: Rows of the pool that were selected, best first.
        known: Ids of what was verified, probed or pending, as the selection counts them.
        selection: Their scores and reasons; its own indices count what triage let through.
        calibration: How the intervals of each objective were made.
    """

    ids: Sequence[str]
    mean: FloatArray
    std: FloatArray
    triaged: Sequence[Triaged]
    chosen: IntArray
    known: Sequence[str]
    selection: Selection
    calibration: Sequence[Calibration]


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a decision is made from.

    Attributes:
        crystals: The pool, N crystals.
        X: Their descriptors, shape `N x d`.
        mean: Posterior means, shape `N x m`.
        std: Posterior standard deviations, shape `N x m`.
        labelled: What the oracle has said.
        waiting: What was selected before and has no answer yet.
        expected: Posterior means and standard deviations of the waiting ones, shape `p x m` each.
        surrogate: What that comes from; None if nothing was verified or probed, or the pool is empty.
        believed: What the oracle has said, shape `k x m`; where it told its noise, what is expected of it.
    """

    crystals: Crystals
    X: FloatArray
    mean: FloatArray
    std: FloatArray
    labelled: Labelled
    waiting: Crystals
    expected: tuple[FloatArray, FloatArray]
    surrogate: ResidualSurrogate | None
    believed: FloatArray


def posterior_model(number: int) -> str:
    """The name under which the surrogate's predictions of a round stand in the ledger."""
    return f"posterior:{number}"


def decide_round(ledger: LedgerReader, kit: Kit, number: int) -> Decision:
    """Choose the batch of a round; the same ledger always gives the same batch."""
    view = _outlook(ledger, kit, number, 0, POOL)
    held = triage(_evidence(ledger, kit, POOL, view), kit.spec.triage)
    given, seed = view.labelled.crystals, [kit.spec.seed, number]
    return _choose(ledger, kit, view, held, given, kit.spec.decision, kit.costs, seed)


def decide_probe(ledger: LedgerReader, kit: Kit, number: int, fidelity: int) -> Decision:
    """Choose what a cheaper oracle is asked about in a round: what it, or one more like the oracle, was not yet."""
    asked = f"SELECT candidate_id FROM probes WHERE fidelity <= {int(fidelity)}"
    pool = f"{POOL} AND candidate_id NOT IN ({asked})"
    view = _outlook(ledger, kit, number, fidelity, pool)
    held = [t for t in triage(_evidence(ledger, kit, pool, view), kit.spec.triage) if t.reason not in _DOUBTS]
    settings = kit.spec.decision.model_copy(update={"q": kit.spec.probes[fidelity - 1].q, "budget": None})
    known = Crystals.concatenate([view.labelled.crystals, ledger.crystals(f"candidate_id IN ({asked})")])
    return _choose(ledger, kit, view, held, known, settings, None, [kit.spec.seed, number, fidelity])


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
    told = foretold(ledger, kit, verified_where(f"round = {int(number)}"))
    reports = {
        name: calibration(
            new.values[:, j], told.mean[:, j], told.std[:, j], kit.spec.surrogate.level, told.half_widths[:, j]
        )
        for j, name in enumerate(names)
    }
    return {
        "hits": sum(is_hit(kit, values) for values in new.values),
        # of more objectives its exact value takes minutes with a few hundred crystals, and the choice does not use it
        "hypervolume": None
        if reference is None or len(reference) > MOST_OBJECTIVES
        else hypervolume(observed, reference),
        "ref_point": None if reference is None else reference.tolist(),
        "calibration": json.dumps(
            {
                "objectives": {name: _plain(asdict(report)) for name, report in reports.items()},
                "intervals": _intervals(ledger, number),
                "learnt_from": len(before.crystals),
            },
            sort_keys=True,
        ),
    }


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


# --- steps -------------------------------------------------------------------------------------------------------


def _outlook(ledger: LedgerReader, kit: Kit, number: int, fidelity: int, which: str) -> Outlook:
    """What is expected of the pool by what was known when a round came to ask an oracle; 0 is the campaign's own."""
    pool, labelled = ledger.crystals(which), verified_before(ledger, kit, number)
    probed = probed_before(ledger, kit, number, fidelity)
    X = describe(pool)
    surrogate = ResidualSurrogate(kit.spec.surrogate)
    taught = len(pool) > 0 and len(labelled.values) + len(probed.values) > 0
    if taught:
        surrogate.fit(
            np.vstack([describe(labelled.crystals), describe(probed.crystals)]),
            np.vstack([labelled.values - labelled.mean, probed.values - probed.mean]),
            noise_std=_noise(labelled, probed),
            prior_std=np.vstack([labelled.std, probed.std]),
            pool=X,
            fidelity=np.concatenate([np.zeros(len(labelled.values), dtype=np.int64), probed.fidelity]),
        )
    prior = predicted(ledger, kit, which, "ensemble")
    mean, std = surrogate.predict(X, *prior) if len(pool) else prior
    pending = pending_where(kit, number)
    waiting, prior = ledger.crystals(pending), predicted(ledger, kit, pending, "ensemble")
    expected = surrogate.predict(describe(waiting), *prior) if len(waiting) else prior
    return Outlook(
        crystals=pool,
        X=X,
        mean=mean,
        std=std,
        labelled=labelled,
        waiting=waiting,
        expected=expected,
        surrogate=surrogate if taught else None,
        believed=_believed(surrogate, labelled) if taught else labelled.values,
    )


def _noise(labelled: Labelled, probed: Labelled) -> FloatArray:
    """Standard deviations of the answers, shape `k x m`, of the objectives of which the oracle always tells its own.

    What cheaper oracles do not tell is 0: the surrogate learns it in any case.
    """
    known = np.isfinite(labelled.noise).all(0) & (len(labelled.noise) > 0)
    both = np.vstack([labelled.noise, np.nan_to_num(probed.noise)])
    return np.where(known, both, np.nan)


def _believed(surrogate: ResidualSurrogate, labelled: Labelled) -> FloatArray:
    """Verified values, shape `k x m`; where the oracle told its noise, what is expected of them."""
    if not len(labelled.values):
        return labelled.values
    noise = np.where(np.isfinite(labelled.noise).all(0), labelled.noise, np.nan)
    return surrogate.believed(labelled.values, noise, describe(labelled.crystals), labelled.mean)


def _choose(
    ledger: LedgerReader,
    kit: Kit,
    view: Outlook,
    held: Sequence[Triaged],
    given: Crystals,
    settings: DecisionSettings,
    costs: Callable[[Crystals], FloatArray] | None,
    seed: Sequence[int],
) -> Decision:
    """A batch from what triage let through, unlike what is `given` or waited for."""
    rows = np.setdiff1d(np.arange(len(view.crystals)), [t.index for t in held])
    problem = formulation(kit.spec, kit.objectives)
    utility_mean, utility_std = problem.moments(view.mean[rows], view.std[rows])
    likely = problem.probability(view.mean[rows], view.std[rows])
    surrogate, waiting = view.surrogate, describe(view.waiting)
    pending = (waiting, problem.moments(*view.expected)[0]) if len(waiting) else None

    def correlation(at: IntArray) -> FloatArray:
        assert surrogate is not None
        X, mean = np.vstack([view.X[rows], waiting]), np.vstack([view.mean[rows], view.expected[0]])
        return problem.correlation(mean[at], surrogate.correlation(X[at]))

    selection = select_batch(
        view.X[rows],
        utility_mean,
        utility_std,
        observed=problem.observed(view.believed),
        given=describe(given),
        pending=pending,
        hit_probability=likely if problem.hits else None,
        feasible=None if problem.hits else likely,
        cost=None if costs is None else costs(view.crystals[rows]),
        correlation=None if surrogate is None else correlation,
        ceiling=problem.ceiling,
        settings=settings,
        reference_point=reference_point(ledger, kit),
        seed=int(np.random.SeedSequence(seed).generate_state(1)[0]),
    )
    return Decision(
        ids=view.crystals.ids,
        mean=view.mean,
        std=view.std,
        triaged=held,
        chosen=rows[selection.indices],
        known=(*given.ids, *view.waiting.ids),
        selection=selection,
        calibration=[Calibration.none(kit.spec.surrogate.level, NOT_LEARNT)] * view.mean.shape[1]
        if surrogate is None
        else surrogate.calibration,
    )


def _evidence(ledger: LedgerReader, kit: Kit, which: str, view: Outlook) -> Evidence:
    """What triage needs to know of the pool."""

    def table(name: str) -> FloatArray:
        return np.stack([prediction(ledger, which, member, name)[0] for member in kit.members])

    problem = formulation(kit.spec, kit.objectives)
    answered = np.isfinite(view.labelled.values).any(1)
    verified = describe(view.labelled.crystals)[answered]
    space = FeatureSpace(np.vstack([view.X, verified]))
    return Evidence(
        names=[o.name for o in kit.objectives],
        goals=[o.goal for o in kit.objectives],
        mean=view.mean,
        std=view.std,
        formation_energies=table("formation_energy"),
        hull_distances=table("energy_above_hull"),
        max_forces=table("max_force"),
        observed=utilities(kit.objectives, view.believed),
        distances=nearest_distance(space(view.X), space(verified)),
        hits=problem.within if problem.hits else None,
        calibrated=len(view.labelled.crystals) >= kit.spec.surrogate.min_calibration,
    )


def _intervals(ledger: LedgerReader, number: int) -> dict[str, str]:
    """By objective how the intervals of a round's decision were made; nothing where it chose nothing."""
    sql = "SELECT DISTINCT property, note FROM predictions WHERE model = ? AND note IS NOT NULL ORDER BY ALL"
    return {row["property"]: row["note"] for row in ledger.query(sql, (posterior_model(number),)).to_pylist()}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, which JSON lacks."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}

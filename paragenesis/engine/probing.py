"""Probing: cheaper oracles are asked first, about more crystals, so that the dear one is asked about the right ones.

In every round each cheaper oracle, the cheapest first, gets a batch of the pool. What it says of a crystal is no
verification: it stands in `probe_answers`, at its own level of theory, and only teaches the surrogate what the
campaign's oracle may say, as far as the two have agreed where both were asked.
"""

from __future__ import annotations

from collections.abc import Callable

from paragenesis.engine.asking import Verification
from paragenesis.engine.decision import decide_probe
from paragenesis.engine.executor import Executor
from paragenesis.engine.failures import check_answers
from paragenesis.engine.ledger import Ledger
from paragenesis.engine.preflight import Kit
from paragenesis.engine.records import probe_answer_tables, probe_tables


def probe_round(
    ledger: Ledger, kit: Kit, executor: Executor, number: int, tell: Callable[[int, int, str], None]
) -> None:
    """Commit what every cheaper oracle is asked about in a round, and what it says.

    Args:
        ledger: The campaign's ledger.
        kit: Its parts.
        executor: What runs the oracles.
        number: The round.
        tell: Told how many crystals are done, of how many, and what happened last.

    Raises:
        ExecutionError: Nearly all that one of them was asked in this round failed.
    """
    for fidelity in range(len(kit.probes), 0, -1):
        key = f"r{number:03d}/probe/{fidelity}"
        if key not in ledger.committed(number, "probe"):
            decision = decide_probe(ledger, kit, number, fidelity)
            ledger.commit(key, number, "probe", probe_tables(number, decision, fidelity))
        _ask(ledger, kit, executor, number, fidelity, tell)


def _ask(
    ledger: Ledger, kit: Kit, executor: Executor, number: int, fidelity: int, tell: Callable[[int, int, str], None]
) -> None:
    """Commit the answers of one cheaper oracle that are not there yet, in the order of their ranks."""
    probe, names = kit.probes[fidelity - 1], [o.name for o in kit.objectives]
    chosen = "SELECT candidate_id FROM probes WHERE round = ? AND fidelity = ?"
    ids = ledger.query(f"{chosen} ORDER BY rank", (number, fidelity)).column("candidate_id").to_pylist()
    committed = ledger.committed(number, "probe")
    todo = [one for one in ids if f"r{number:03d}/probe/{fidelity}/{one}" not in committed]
    done = len(ids) - len(todo)
    tell(done, len(ids), f"asking a cheaper oracle ({probe.level.key})")
    crystals = ledger.crystals(f"candidate_id IN ({chosen})", (number, fidelity))
    where = {candidate: i for i, candidate in enumerate(crystals.ids)}
    items = [crystals[where[candidate]] for candidate in todo]
    outcomes = executor.stream([probe.stage], items, None)
    new = []
    for candidate, item, outcome in zip(todo, items, outcomes, strict=True):
        answer = Verification.of(outcome, item, len(names))
        tables = probe_answer_tables(number, answer, probe.level, names, fidelity)
        ledger.commit(f"r{number:03d}/probe/{fidelity}/{candidate}", number, "probe", tables)
        done += 1
        new.append(answer.errors.get(0, ""))
        tell(done, len(ids), answer.words(names))
    sql = (
        "SELECT coalesce(any_value(a.error), '') AS error FROM probe_answers a "
        "JOIN probes p USING (candidate_id, fidelity) WHERE p.round = ? AND p.fidelity = ? GROUP BY a.candidate_id"
    )
    errors = ledger.query(sql, (number, fidelity)).column("error").to_pylist()
    check_answers(kit.spec.failures, errors, new, f"the cheaper oracle {fidelity} in round {number}")

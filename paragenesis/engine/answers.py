"""The oracle's answers: every selected crystal is verified, in its round or later, and what is said is committed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from paragenesis.engine.asking import Verification
from paragenesis.engine.executor import Executor, Outcome
from paragenesis.engine.failures import FailedAnswers, check_answers
from paragenesis.engine.ledger import Ledger
from paragenesis.engine.preflight import Kit
from paragenesis.engine.records import verification_tables
from paragenesis.engine.verification import Asked, UnderWay, patience

Tell = Callable[[int, int, str], None]  # how many of the round's crystals are done, of how many, and what happened


class Answers:
    """What the oracle answers to a campaign.

    Where rounds close with all their answers, crystals are verified in the order of their ranks. Where a verification
    may outlast its round, answers are committed as they come, whatever round they belong to.
    """

    def __init__(self, kit: Kit, ledger: Ledger, executor: Executor) -> None:
        """Start with nothing under way.

        Args:
            kit: The campaign's parts.
            ledger: Says what was selected; the answers are written there.
            executor: What runs the stage that asks the oracle.
        """
        self._kit, self._ledger, self._executor = kit, ledger, executor
        self._names = [o.name for o in kit.objectives]
        self._outlasting = kit.spec.verification.close != "all"
        workers = kit.spec.resources.oracle
        self._ask = kit.verify if workers is None else replace(kit.verify, host="oracle", resources=workers)
        self._failed = FailedAnswers(kit.spec.failures)
        self._new: dict[int, list[str]] = {}  # by round, since the start: why there is no value, or ""
        self._under_way = UnderWay(ledger, executor, self._ask)

    def send_pending(self) -> None:
        """Ask about what earlier rounds chose and is not answered; after a resume nothing of it is under way."""
        if self._outlasting:
            self._under_way.send()

    def take_late(self, number: int) -> None:
        """Commit the answers to earlier rounds that are there by now; the decision to come knows of them.

        Raises:
            ExecutionError: Too many verifications failed.
        """
        while (taken := self._under_way.take(0)) is not None:
            said = self._write(number, *taken, before_decision=True)
            self._ledger.report_activity(f"round {number}, a late answer to round {taken[0].round}: {said}")

    def verify(self, number: int, tell: Tell, *, last: bool) -> None:
        """Commit answers until a round may close.

        Args:
            number: The round.
            tell: Told of every answer.
            last: It waits for the answers that earlier rounds did not wait for.

        Raises:
            ExecutionError: Too many verifications failed.
        """
        if not self._outlasting:
            self._verify_all(number, tell)
        elif self._ledger.committed(number, "yield"):
            return  # it has begun to close: what comes now belongs to the next round
        else:
            self._verify_until(number, tell, last)
        self._check(number)

    def close(self) -> None:
        """Give up what is under way; a resumed campaign asks again."""
        self._under_way.close()

    def _verify_all(self, number: int, tell: Tell) -> None:
        """Commit the answer for every selected crystal, in the order of their ranks."""
        ids = self._selected(number)
        committed = self._ledger.committed(number, "verification")
        todo = [i for i in ids if _key(number, i) not in committed]
        done = len(ids) - len(todo)
        tell(done, len(ids), self._asking)
        crystals = self._ledger.crystals(
            "candidate_id IN (SELECT candidate_id FROM selections WHERE round = ?)", (number,)
        )
        where = {candidate: i for i, candidate in enumerate(crystals.ids)}
        items = [crystals[where[candidate]] for candidate in todo]
        for candidate, outcome in zip(todo, self._executor.stream([self._ask], items, None), strict=True):
            said = self._write(number, Asked(number, candidate), outcome)
            done += 1
            tell(done, len(ids), said)

    def _verify_until(self, number: int, tell: Tell, last: bool) -> None:
        """Commit answers as they come, of this and of earlier rounds, until the round may close."""
        began, ids = time.monotonic(), self._selected(number)
        answered = self._ledger.query(
            "SELECT s.candidate_id FROM selections s SEMI JOIN verifications USING (candidate_id) WHERE s.round = ?",
            (number,),
        ).num_rows
        self._under_way.send()
        tell(answered, len(ids), self._asking)
        wait: float | None = None
        while True:
            if wait != 0:  # in the end, what is there already is taken without waiting
                wait = patience(
                    self._kit.spec.verification,
                    chosen=len(ids),
                    answered=answered,
                    under_way=len(self._under_way),
                    seconds=time.monotonic() - began,
                    last=last,
                )
            taken = self._under_way.take(wait)
            if taken is not None:
                said = self._write(number, *taken)
                answered += taken[0].round == number
                tell(answered, len(ids), said)
            elif wait == 0:
                break
        if len(self._under_way):
            tell(answered, len(ids), f"{len(self._under_way)} verifications are pending")

    @property
    def _asking(self) -> str:
        return f"asking the oracle ({self._kit.level.key})"

    def _selected(self, number: int) -> list[str]:
        """Ids of a round's batch, best first."""
        selected = self._ledger.query("SELECT candidate_id FROM selections WHERE round = ? ORDER BY rank", (number,))
        ids: list[str] = selected.column("candidate_id").to_pylist()
        return ids

    def _write(self, number: int, asked: Asked, outcome: Outcome, *, before_decision: bool = False) -> str:
        """Commit an answer in the round in which it came; the answer in words.

        Raises:
            ExecutionError: Too many verifications failed.
        """
        crystal = self._ledger.crystals("candidate_id = ?", (asked.candidate,))
        answer = Verification.of(outcome, crystal, len(self._names))
        self._failed.add(answer.errors.get(0, ""))
        self._new.setdefault(asked.round, []).append(answer.errors.get(0, ""))
        tables = verification_tables(number, answer, self._kit.level, self._names, before_decision=before_decision)
        self._ledger.commit(_key(asked.round, asked.candidate), number, "verification", tables)
        return answer.words(self._names)

    def _check(self, number: int) -> None:
        """Stop where nearly nothing of a round could be verified.

        Raises:
            ExecutionError: So.
        """
        sql = (
            "SELECT coalesce(any_value(v.error), '') AS error FROM verifications v JOIN selections s "
            "USING (candidate_id) WHERE s.round = ? GROUP BY v.candidate_id"
        )
        errors = self._ledger.query(sql, (number,)).column("error").to_pylist()
        check_answers(self._kit.spec.failures, errors, self._new.pop(number, []), f"the oracle in round {number}")


def _key(number: int, candidate: str) -> str:
    return f"r{number:03d}/verify/{candidate}"

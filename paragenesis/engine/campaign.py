"""The campaign: the loop that discovers crystals. The one file to read first.

For every round:

    learn    generators are fine-tuned on what was found, where the campaign asks for it
    plan     who makes how many crystals, and what they aim at, by what came of the rounds before
    fill     generate -> screen -> relax -> assess, chunk by chunk, each committed to the ledger
    probe    cheaper oracles, where there are some, are asked about the best of the pool
    decide   triage, surrogate, hypervolume score, DPP: the batch worth verifying
    verify   the oracle judges the batch at its own level of theory; its answers may come in later rounds
    close    count, measure, export; the next round learns from what the ledger holds

Every step reads what it needs from the ledger and writes what it found there, under a key that says what it is. So a
campaign that was killed at any instant goes on where it stopped: what was committed is not done again, what was not
is done again with the same result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from paragenesis.engine.answers import Answers
from paragenesis.engine.decision import Decision, decide_round, measure_round
from paragenesis.engine.executor import Executor, Outcome
from paragenesis.engine.failures import Failures
from paragenesis.engine.learning import FOLDER, Grade, Learnt, Lesson, Weights
from paragenesis.engine.ledger import Ledger
from paragenesis.engine.planning import lesson, next_shares, plan_round, planned, weights_in_use, yields
from paragenesis.engine.preflight import Kit
from paragenesis.engine.probing import probe_round
from paragenesis.engine.records import (
    chunk_tables,
    decision_tables,
    learning_tables,
    plan_tables,
    unmade_tables,
    yield_tables,
)
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.spec import CampaignSpec, as_old_as
from paragenesis.engine.stages import GENERATE, Chunk, ChunkTask, RoundContext
from paragenesis.engine.verdict import KEPT, Verdict
from paragenesis.errors import ExecutionError


@dataclass(frozen=True)
class Progress:
    """What a campaign is doing now.

    Attributes:
        round: The round, from 1.
        phase: "learn", "fill", "probe", "decide", "verify" or "close".
        done: How many crystals of this phase are done.
        total: How many there are.
        text: What happened last, in words.
    """

    round: int
    phase: str
    done: int
    total: int
    text: str


def ignore(_: Progress) -> None:
    """Take no notice of progress."""


class Campaign:
    """A campaign on its ledger."""

    def __init__(
        self, kit: Kit, ledger: Ledger, executor: Executor, notify: Callable[[Progress], None] = ignore
    ) -> None:
        """Put the parts together.

        Args:
            kit: The checked parts.
            ledger: Where everything is written; the campaign is its one writer.
            executor: What runs the stages.
            notify: Told of every step.
        """
        self.kit = kit
        self.ledger = ledger
        self._executor = executor
        self._notify = notify
        self._answers = Answers(kit, ledger, executor)

    @property
    def spec(self) -> CampaignSpec:
        """The specification."""
        return self.kit.spec

    def run(self, rounds: int | None = None) -> None:
        """Run all rounds that are not closed yet; the last one collects every verification that is under way.

        Args:
            rounds: How many rounds in all; the specification's number by default.
        """
        closed, last = set(self.ledger.closed_rounds()), rounds or self.spec.rounds
        try:
            for number in range(1, last + 1):
                if number not in closed:
                    self.run_round(number, last=number == last)
        finally:
            self._answers.close()
        said = f"finished: {len(self.ledger.closed_rounds())} rounds are closed"
        if left := self.ledger.status().get("pending"):
            said += f"; {left} verifications were not waited for, and are asked for again by more rounds"
        self.ledger.report_activity(said)

    def run_round(self, number: int, *, last: bool = False) -> None:
        """Run one round from where it stands to its close.

        Args:
            number: The round.
            last: It waits for the answers that earlier rounds did not wait for.
        """
        self.ledger.open_round(number, self._condition(number))
        self._answers.send_pending()
        self._learn(number)
        self._fill(number)
        probe_round(self.ledger, self.kit, self._executor, number, partial(self._tell, number, "probe"))
        self._decide(number)
        self._answers.verify(number, partial(self._tell, number, "verify"), last=last)
        self._close(number)

    def _condition(self, number: int) -> str:
        """The round's condition as JSON; as it was opened, if that says the same in the words of an older version."""
        condition = self.spec.condition
        now, given = condition.model_dump(mode="json"), condition.model_dump(mode="json", exclude_defaults=True)
        stored = self.ledger.query("SELECT condition FROM rounds WHERE round = ?", (number,)).column(0).to_pylist()
        same = [text for text in stored if (old := json.loads(text)) == as_old_as(old, now, given)]
        return same[0] if same else condition.model_dump_json()

    # --- learn -----------------------------------------------------------------------------------------------------

    def _learn(self, number: int) -> None:
        """Commit what the generators learn from the rounds before, and whether it is used from now on.

        It comes before a round and not after one, so that nothing is learnt for a round that never comes.
        """
        committed = self.ledger.committed(number, "learning")
        for name in self.kit.learners if number > 1 else ():
            key, file = f"r{number:03d}/learning/{name}", f"{FOLDER}/r{number:03d}-{name}.safetensors"
            if key in committed:
                continue
            what, least = lesson(self.ledger, self.kit, number, name), self.spec.learn.min_crystals
            found = f"{len(what.crystals)} good crystals"
            self._tell(number, "learn", 0, 1, f"{name} is to learn from {found}")
            if len(what.crystals) < least:
                grade = Grade("skipped", f"{found} are fewer than learn.min_crystals = {least}")
            else:
                grade = Grade.of(self._teach(number, what, self._weights(number - 1)), self.spec.learn)
            if grade.outcome == "accepted" and grade.learnt is not None:
                grade.learnt.weights.write(self.ledger.directory / file)
            self.ledger.commit(key, number, "learning", learning_tables(number, what, grade, file))
            self._tell(number, "learn", 1, 1, f"{name}: {grade.words}")

    def _teach(self, number: int, what: Lesson, weights: Mapping[str, Weights]) -> Outcome:
        """Send a lesson to the stage that gives it."""
        context = RoundContext(self.spec.condition, self._seen("round < ?", number), weights)
        [outcome] = self._executor.stream([self.kit.learn], [what], context)
        return outcome

    def _weights(self, number: int) -> dict[str, Weights]:
        """What the generators have learnt for a round, by name."""

        def learn_again(taught_for: int, name: str) -> Weights:
            what = replace(lesson(self.ledger, self.kit, taught_for, name), trial=0)
            learnt: Learnt = _result(self._teach(taught_for, what, {}), f"the lesson of '{name}'")
            return learnt.weights

        return weights_in_use(self.ledger, number, learn_again)

    # --- fill ------------------------------------------------------------------------------------------------------

    def _fill(self, number: int) -> None:
        """Commit every chunk of the round, in order.

        Where a generator makes none, all crystals that it was asked for have failed.

        Raises:
            ExecutionError: Another stage failed on a whole chunk, or too many crystals failed.
        """
        tasks = self._plan(number)
        committed = self.ledger.committed(number, "chunk")
        todo = [task for task in tasks if task.key not in committed]
        done, total = sum(t.n for t in tasks) - sum(t.n for t in todo), sum(t.n for t in tasks)
        self._tell(number, "fill", done, total, "generating, screening and relaxing")
        known = self._seen("round <= ?", number)
        weights = self._weights(number) if todo else {}
        context = RoundContext(self.spec.condition, self._seen("round < ?", number), weights)
        failures = Failures.of(self.ledger, self.spec.failures, number)
        outcomes = self._executor.stream(self.kit.stages, todo, context)
        for task, outcome in zip(todo, outcomes, strict=True):
            if outcome.stage == GENERATE and not outcome.ok:
                verdicts = (outcome.verdict,) * task.n
                tables = unmade_tables(task, verdicts[0])
            else:
                chunk = _unique(_result(outcome, task.key), known)
                verdicts, tables = chunk.verdicts, chunk_tables(chunk)
            failures.add(verdicts, last=task is todo[-1])
            self.ledger.commit(task.key, number, "chunk", tables)
            done += task.n
            said = f"{verdicts.count(KEPT)} of {len(verdicts)} kept" if outcome.ok else outcome.reason
            self._tell(number, "fill", done, total, f"{said} ({task.key})")
            self._answers.take_late(number)

    def _plan(self, number: int) -> list[ChunkTask]:
        """The round's chunks, as they were committed when the round began."""
        if not self.ledger.committed(number, "plan"):
            tasks = plan_round(self.ledger, self.kit, number)
            self.ledger.commit(f"r{number:03d}/plan", number, "plan", plan_tables(tasks))
        return planned(self.ledger, self.kit, number)

    def _seen(self, which: str, number: int) -> Seen:
        """The kept crystals of some rounds."""
        seen = Seen(self.spec.screening)
        crystals = self.ledger.crystals(f"verdict = 'kept' AND {which}", (number,))
        keys = self.ledger.query(
            f"SELECT key FROM candidates WHERE verdict = 'kept' AND {which} ORDER BY candidate_id", (number,)
        )
        seen.add(crystals, keys.column("key").to_pylist())
        return seen

    # --- decide ----------------------------------------------------------------------------------------------------

    def _decide(self, number: int) -> None:
        """Commit what is verified this round, and why."""
        if self.ledger.committed(number, "selection"):
            return
        self._answers.take_late(number)
        self._tell(number, "decide", 0, self.spec.decision.q, "fitting the surrogate and choosing the batch")
        decision = decide_round(self.ledger, self.kit, number)
        tables = decision_tables(number, decision, [o.name for o in self.kit.objectives])
        self.ledger.commit(f"r{number:03d}/selection", number, "selection", tables)
        self._tell(number, "decide", len(decision.chosen), self.spec.decision.q, _said(decision))

    # --- close -----------------------------------------------------------------------------------------------------

    def _close(self, number: int) -> None:
        """Measure the round and its generators, close it and export it."""
        gave, shares = yields(self.ledger, self.kit, number), next_shares(self.ledger, self.kit, number + 1)
        self.ledger.commit(f"r{number:03d}/yield", number, "yield", yield_tables(number, gave, shares))
        summary = measure_round(self.ledger, self.kit, number)
        self.ledger.close_round(number, summary)
        self._tell(number, "close", 1, 1, f"round {number} closed, hits: {summary['hits']}")

    def _tell(self, number: int, phase: str, done: int, total: int, text: str) -> None:
        self.ledger.report_activity(f"round {number}, {phase}: {text}")
        self._notify(Progress(number, phase, done, total, text))


def _unique(chunk: Chunk, known: Seen) -> Chunk:
    """The chunk without crystals that relaxed into one that is known; the others become known.

    Chunks are relaxed independently of each other, so only here, in the order of the chunks, can a crystal be
    compared with all that came before it.
    """
    rulings: dict[int, Verdict] = {}
    if chunk.relaxed is None:
        return chunk
    row = {candidate: i for i, candidate in enumerate(chunk.relaxed.crystals.ids)}
    for index in chunk.alive:
        crystal = chunk.relaxed.crystals[row[chunk.crystals.ids[index]]]
        twin = known.match(crystal, chunk.keys[index])
        if twin is None:
            known.add(crystal, [chunk.keys[index]])
        else:
            rulings[index] = Verdict("rejected", "uniqueness", f"duplicate: relaxed into {twin}")
    return chunk.ruled(rulings)


def _result(outcome: Outcome, what: str) -> Any:
    """The result of an outcome.

    Raises:
        ExecutionError: A stage failed on the whole item.
    """
    if not outcome.ok:
        raise ExecutionError(
            f"stage '{outcome.stage}' failed on {what}: {outcome.reason}; run the campaign again to resume it"
        )
    return outcome.value


def _said(decision: Decision) -> str:
    """The decision in words."""
    held = len(decision.triaged)
    return f"{len(decision.chosen)} of {len(decision.ids)} selected, {held} held back by triage"

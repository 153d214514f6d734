"""Whatever is delivered, lost, refused, crashed or replaced, and in whatever order: the ledger is what a dict says."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from paragenesis.engine import failpoints
from paragenesis.engine.ledger import Ledger, chain, digest, verify_ledger
from paragenesis.errors import LedgerError

CHUNKS = st.integers(0, 3)


class Campaign(RuleBasedStateMachine):
    """A campaign's writer, against a model of plain Python."""

    make_chunk: Any  # set by the test: the arguments of a chunk's commit
    make_decision: Any

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="stateful-"))
        self.copies = 0
        self.ledger = Ledger.create(self.folder / "0", {"name": "stateful"})
        self.committed: dict[int, set[str]] = {}
        self.closed: list[int] = []
        self.decided: set[int] = set()
        self.open_round()

    @property
    def number(self) -> int:
        return max(self.committed)

    def open_round(self) -> None:
        number = len(self.closed) + 1
        self.ledger.open_round(number, "{}")
        self.committed.setdefault(number, set())

    # --- what a campaign does ---

    @rule(index=CHUNKS)
    def deliver(self, index: int) -> None:
        commit = self.make_chunk(self.number, index)
        new = commit[0] not in self.committed[self.number]
        assert self.ledger.commit(*commit) is new, "the first time counts, the second does not"
        self.committed[self.number].add(commit[0])

    @rule(index=CHUNKS, back=st.integers(1, 3))
    def deliver_late(self, index: int, back: int) -> None:
        number = self.number - back
        if number < 1:
            return
        commit = self.make_chunk(number, index)
        if commit[0] in self.committed[number]:
            assert self.ledger.commit(*commit) is False
        else:
            with pytest.raises(LedgerError, match=f"round {number} is closed"):
                self.ledger.commit(*commit)

    @rule(index=CHUNKS)
    def deliver_other_content(self, index: int) -> None:
        key, number, kind, _ = self.make_chunk(self.number, index)
        _, _, _, other = self.make_chunk(self.number, index + 10)
        if key in self.committed[number]:
            with pytest.raises(LedgerError, match="other content"):
                self.ledger.commit(key, number, kind, other)

    @rule(index=CHUNKS)
    def deliver_what_does_not_fit(self, index: int) -> None:
        key, number, kind, tables = self.make_chunk(self.number, index)
        predictions = tables["predictions"].set_column(0, "candidate_id", [["ghost"] * len(tables["predictions"])])
        with pytest.raises(LedgerError):
            self.ledger.commit(f"{key}/bad", number, kind, {"predictions": predictions})

    @precondition(lambda self: f"r{self.number}/c0" in self.committed[self.number])
    @rule()
    def decide(self) -> None:
        for commit in self.make_decision(self.number):
            self.ledger.commit(*commit)
            self.committed[self.number].add(commit[0])
        self.decided.add(self.number)

    @rule()
    def close(self) -> None:
        number = self.number
        self.ledger.close_round(number, {"hits": 0})
        self.committed[number].add(f"close-{number}")
        self.closed.append(number)
        self.open_round()

    # --- what happens to it ---

    @rule()
    def end_and_go_on(self) -> None:
        directory = self.ledger.directory
        self.ledger.close()
        self.ledger = Ledger.open(directory)

    @rule()
    def crash(self) -> None:
        """Go on with the files as a killed process leaves them."""
        self.copies += 1
        left = self.folder / str(self.copies)
        shutil.copytree(self.ledger.directory, left)
        self.ledger.close()
        self.ledger = Ledger.open(left)

    @rule(index=CHUNKS)
    def lose(self, index: int) -> None:
        """A delivery is lost with the process that was about to commit it."""
        commit = self.make_chunk(self.number, index)
        failpoints.hook = self._die_before_commits
        try:
            assert self.ledger.commit(*commit) is False, "known already: nothing was about to be committed"
            assert commit[0] in self.committed[self.number]
        except KeyboardInterrupt:
            assert commit[0] not in self.committed[self.number]
        finally:
            failpoints.hook = None
        self.crash()

    @staticmethod
    def _die_before_commits(place: str) -> None:
        if place.startswith("before commit"):
            raise KeyboardInterrupt

    @rule(index=CHUNKS)
    def crash_between_commit_and_head(self, index: int) -> None:
        commit, write = self.make_chunk(self.number, index), chain.Head.write
        chain.Head.write = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
        try:
            self.ledger.commit(*commit)
        except KeyboardInterrupt:
            pass
        finally:
            chain.Head.write = write  # type: ignore[method-assign]
        self.committed[self.number].add(commit[0])
        self.crash()

    @rule(index=CHUNKS)
    def another_run_takes_over(self, index: int) -> None:
        head = chain.Head.read(self.ledger.directory)
        chain.Head(head.seq, head.chain, head.epoch + 1).write(self.ledger.directory)
        commit = self.make_chunk(self.number, index)
        if commit[0] in self.committed[self.number]:
            assert self.ledger.commit(*commit) is False, "nothing is written, so nothing is refused"
        else:
            with pytest.raises(LedgerError, match="has taken over"):
                self.ledger.commit(*commit)
        self.end_and_go_on()

    # --- what always holds ---

    @invariant()
    def it_holds_what_was_acknowledged_once(self) -> None:
        keys = self.ledger.query("SELECT commit_key, round FROM commits").to_pylist()
        assert sorted(row["commit_key"] for row in keys) == sorted(k for of in self.committed.values() for k in of)
        assert all(row["commit_key"] in self.committed[row["round"]] for row in keys)
        chunks = sum("/c" in key for of in self.committed.values() for key in of)
        [counted] = self.ledger.query(
            "SELECT (SELECT count(*) FROM candidates) AS candidates, (SELECT count(*) FROM selections) AS chosen"
        ).to_pylist()
        assert counted == {"candidates": 5 * chunks, "chosen": 2 * len(self.decided)}
        assert self.ledger.closed_rounds() == self.closed

    @invariant()
    def the_head_is_that_of_the_chain(self) -> None:
        *_, last = chain.heads(self.ledger.connection, self.ledger.meta())
        told = chain.Head.read(self.ledger.directory)
        assert (told.seq, told.chain) == (last.seq, last.chain)

    def teardown(self) -> None:
        before, directory = digest(self.ledger), self.ledger.directory
        self.ledger.close()
        assert verify_ledger(directory) == []
        assert digest(directory) == before
        shutil.rmtree(self.folder, ignore_errors=True)


def test_the_ledger_is_what_a_dict_says(make_chunk, make_decision):
    class Machine(Campaign):
        pass

    Machine.make_chunk, Machine.make_decision = staticmethod(make_chunk), staticmethod(make_decision)
    examples = max(1, int(5 * float(os.environ.get("PARAGENESIS_FUZZ", "1"))))
    run_state_machine_as_test(Machine, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None))

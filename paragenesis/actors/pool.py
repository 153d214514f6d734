"""The books of one group of workers: who there is, what each is doing and since when, and what waits for a worker.

Ray's own restarts and retries are off, because they hide how often something was tried, run what had not begun again
and out of order, and never end a call that hangs. Instead a worker whose process died, or whose call has outlasted its
lease, is replaced by a new one. A worker does its errands one after the other, so only the first can have killed it:
that one is reported as lost, the others go back to those that wait.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayError, RayTaskError, TaskCancelledError

from paragenesis.actors.cluster import cluster_summary
from paragenesis.actors.policy import START_ATTEMPTS, TASKS_AHEAD_PER_WORKER, awaited, how_lost, in_vain, not_up
from paragenesis.actors.worker import Worker
from paragenesis.engine.attempts import Loss
from paragenesis.engine.executor import Outcome, Resources, StageSpec, describe
from paragenesis.errors import ExecutionError, ParagenesisError

START_TIMEOUT_S = 600.0  # importing the model libraries on a cold network file system takes minutes
PATIENCE_S = 60.0  # after which the user is told that a new worker is waited for

_LOG = logging.getLogger(__name__)


def new_worker(resources: Resources) -> Any:
    """The actor of a new worker, which comes up on whatever node has room for it."""
    actor = ray.remote(Worker).options(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0, max_task_retries=0
    )
    return actor.remote()


@dataclass(eq=False)
class Order:
    """A call that somebody wants made; which worker makes it does not matter.

    Attributes:
        spec: The stage.
        shared: Its specification in the object store, in a list.
        item: What it is called with: a value, or the reference of one.
        context: The stream's context in the object store, in a list.
        done: Told what became of it, with the reference of the value; None if `item` was lost with a node.
        dropped: Nobody wants it any more.
    """

    spec: StageSpec
    shared: list[ray.ObjectRef[StageSpec]]
    item: Any
    context: list[ray.ObjectRef[Any]]
    done: Callable[[Outcome | None], None]
    dropped: bool = False


@dataclass(eq=False)
class _Errand:
    """What a worker was asked to do: to start, to build a stage, or to carry out an order."""

    what: str
    limit: float
    status: ray.ObjectRef[Any]
    value: ray.ObjectRef[Any] | None = None
    order: Order | None = None


@dataclass(eq=False)
class _Hand:
    """A worker with its errands, the first of which it has been at since `since` or later."""

    actor: Any
    replaces: bool
    up: bool = False
    since: float = field(default_factory=time.monotonic)
    errands: deque[_Errand] = field(default_factory=deque)
    built: dict[str, ray.ObjectRef[StageSpec]] = field(default_factory=dict)

    @property
    def orders(self) -> int:
        """How many orders it has."""
        return sum(errand.order is not None for errand in self.errands)

    def add(self, errand: _Errand) -> None:
        """One errand more."""
        if not self.errands:
            self.since = time.monotonic()
        self.errands.append(errand)

    def take(self, order: Order) -> None:
        """Carry out an order; its stage is built first, so that its lease is for the call alone."""
        name, shared = order.spec.name, order.shared
        if self.built.get(name) != shared[0]:
            limit = max(START_TIMEOUT_S, order.spec.resources.lease)
            self.add(_Errand(f"building stage '{name}'", limit, self.actor.build.remote(name, shared)))
            self.built[name] = shared[0]
        called = self.actor.call.options(num_returns=2)
        status, value = called.remote(name, shared, order.item, order.context)
        self.add(_Errand(f"stage '{name}'", order.spec.resources.lease, status, value, order))

    def end_first(self) -> _Errand:
        """Strike the first errand off; the next one begins now at the latest."""
        self.since = time.monotonic()
        return self.errands.popleft()


class WorkerPool:
    """Starts the workers of one host, hands out what is to be done, and replaces who is lost."""

    def __init__(self, host: str, resources: Resources, workers: int) -> None:
        """Start the workers; they come up in the background."""
        self.host = host
        self._resources = resources
        self._waiting: deque[Order] = deque()
        self._deaths: Counter[str] = Counter()  # in a row, at what no item is to blame for
        self._told = False  # that a new worker is waited for
        self._hands = [self._hire(replaces=False) for _ in range(workers)]

    def __len__(self) -> int:
        """How many workers there are."""
        return len(self._hands)

    @property
    def demand(self) -> dict[str, float]:
        """What all workers together ask of the cluster."""
        return {"CPU": float(self._resources.cpus * len(self)), "GPU": self._resources.gpus * len(self)}

    def submit(self, order: Order) -> None:
        """Have an order carried out as soon as there is a worker for it."""
        self._waiting.append(order)
        self._hand_out()

    def drop(self, order: Order) -> None:
        """Forget an order; a call that has begun goes on, and nobody hears of it."""
        order.dropped = True
        for errand in (errand for hand in self._hands for errand in hand.errands if errand.order is order):
            ray.cancel(errand.status)

    def watched(self) -> list[ray.ObjectRef[Any]]:
        """References, each ready when a worker is done with what it is at."""
        return [hand.errands[0].status for hand in self._hands if hand.errands]

    def advance(self) -> None:
        """Report what is done, replace workers that are lost, and hand out what waits.

        Raises:
            ParagenesisError: A worker says that it cannot do its work.
            ExecutionError: Workers do not come up, or die again and again without an item to blame.
        """
        for place in range(len(self._hands)):
            self._collect(place)
        self._hand_out()

    def close(self) -> None:
        """Stop the workers at once."""
        for hand in self._hands:
            ray.kill(hand.actor)
        self._hands.clear()

    def _hire(self, *, replaces: bool) -> _Hand:
        """A new worker, which is to say when it is up."""
        hand = _Hand(new_worker(self._resources), replaces)
        hand.add(_Errand("starting", START_TIMEOUT_S, hand.actor.start.remote()))
        return hand

    def _hand_out(self) -> None:
        """Give what waits to the workers with the least to do, each only a little ahead."""
        while self._waiting:
            free = [hand for hand in self._hands if hand.orders < TASKS_AHEAD_PER_WORKER]
            if not free:
                return
            order = self._waiting.popleft()
            if not order.dropped:
                min(free, key=lambda hand: hand.orders).take(order)

    def _collect(self, place: int) -> None:
        """Report what a worker has done, up to what it is at."""
        hand = self._hands[place]
        while hand.errands:
            errand = hand.errands[0]
            done, _ = ray.wait([errand.status], timeout=0, fetch_local=False)
            if not done:
                self._look_after(place)
                return
            try:
                said = ray.get(errand.status)
            except RayTaskError as error:
                hand.end_first()
                self._raised(errand, error)
            except TaskCancelledError:
                hand.end_first()
            except ObjectLostError:
                hand.end_first()
                self._report(errand, None)
            except RayError as error:  # its process, or its machine, is gone
                self._replace(place, "memory" if isinstance(error, OutOfMemoryError) else "died", describe(error))
                return
            else:
                hand.end_first()
                self._told = self._told and hand.up  # the next one that is waited for is told of again
                hand.up = True
                self._deaths.pop(errand.what, None)
                if errand.order is not None:
                    self._report(errand, Outcome(errand.value if said.ok else None, said.stage, said.error, said.lost))

    def _look_after(self, place: int) -> None:
        """Replace a worker that was at its errand for too long; say so if a new one is waited for.

        Raises:
            ExecutionError: New workers do not come up.
        """
        hand = self._hands[place]
        waited, limit = time.monotonic() - hand.since, hand.errands[0].limit
        if waited > limit:
            self._replace(place, "hung", f"it was still at it after {limit:g} s")
        elif waited > PATIENCE_S and not hand.up and not self._told:
            self._told = True
            _LOG.warning(awaited(self.host, self._resources, PATIENCE_S, cluster_summary()))

    def _raised(self, errand: _Errand, error: RayTaskError) -> None:
        """Find out why a worker did not do an errand: what it was given is gone, or there is nothing to be done.

        Raises:
            ParagenesisError: The worker itself says why.
            ExecutionError: It raised something else.
        """
        if isinstance(error.cause, ObjectLostError) and errand.order is not None:
            self._report(errand, None)
        elif isinstance(error.cause, ParagenesisError):
            raise error.cause from error
        else:
            raise ExecutionError(
                f"a worker of host '{self.host}' could not do its work ({errand.what}): {describe(error)}"
            ) from error

    def _replace(self, place: int, lost: Loss, why: str) -> None:
        """Put a new worker in the place of one that is lost, and report or repeat what it was to do.

        Raises:
            ExecutionError: Too many were lost without an item to blame.
        """
        hand = self._hands[place]
        ray.kill(hand.actor)
        first, *others = hand.errands
        self._waiting.extendleft(errand.order for errand in reversed(others) if errand.order is not None)
        self._hands[place] = self._hire(replaces=True)
        if first.order is not None:
            self._report(first, Outcome(None, first.order.spec.name, how_lost(lost), lost))
            return
        self._deaths[first.what] += 1
        never_up = not hand.up and lost == "hung"
        if self._deaths[first.what] < START_ATTEMPTS and (hand.replaces or not never_up):
            return
        del self._deaths[first.what]
        if never_up:
            raise ExecutionError(not_up(self.host, self._resources, len(self), START_TIMEOUT_S, cluster_summary()))
        raise ExecutionError(in_vain(self.host, first.what, why))

    def _report(self, errand: _Errand, outcome: Outcome | None) -> None:
        """Tell whoever wants to know what became of an order."""
        if errand.order is not None and not errand.order.dropped:
            errand.order.done(outcome)

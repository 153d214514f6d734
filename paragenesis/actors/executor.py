"""The Ray executor: stages hosted by actors, items handed from actor to actor.

Each item is on a journey of its own (`journey.py`) through the workers of each host (`pool.py`); here they are moved
on, whenever somebody waits for an outcome. At most a window of items is under way. The outcomes of a stream come back
in the order of the items, which makes a campaign with Ray commit exactly what the in-process executor commits; those
of a queue as they are done, whatever is streamed meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import ray
from ray import cloudpickle
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError

from paragenesis.actors.cluster import connect
from paragenesis.actors.journey import Journey, Route
from paragenesis.actors.policy import check_room, hosts_of, left_over, worker_count
from paragenesis.actors.pool import WorkerPool
from paragenesis.engine.executor import Outcome, StageSpec, describe
from paragenesis.errors import ExecutionError
from paragenesis.naming import user_modules

POLL_SECONDS = 1.0  # how often leases are looked at; what is done is heard of at once


class RayExecutor:
    """Hosts stages on a Ray cluster: a local one of its own, or the one it is told to use.

    Nothing is moved on behind the caller's back: while nobody waits for an outcome, workers finish what they were
    given (two items each) and then idle, and a worker that hangs or dies is found out when somebody waits again. That
    makes a lease longer, never shorter. A campaign does not wait while it commits (milliseconds), fits its surrogate
    and chooses a batch (seconds to minutes), with only the oracle's items under way; a campaign whose oracle takes
    less time for an item than that leaves it idle meanwhile.
    """

    def __init__(self, address: str = "local", *, trust_network: bool = False) -> None:
        """Connect to a cluster.

        Args:
            address: "local" starts a cluster on this machine and ends it on `close`; "auto" or "host:port" joins
                a running one. A cluster this process already uses is used as it is.
            trust_network: Use a cluster that is not authenticated: nobody else reaches it.

        Raises:
            InputError: The cluster, or this side of it, is not authenticated, and the network is not trusted.
            ExecutionError: No cluster could be started or reached.
        """
        self._disconnect = connect(address, trust_network=trust_network)
        self._fixed = address == "local"
        self._pools: dict[str, WorkerPool] = {}
        self._specs: dict[str, tuple[StageSpec, ray.ObjectRef[StageSpec]]] = {}

    def stream(self, stages: Sequence[StageSpec], items: Iterable[Any], context: Any) -> Iterator[Outcome]:
        """Outcomes in the order of the items.

        Raises:
            ParagenesisError: A stage cannot be built.
            ExecutionError: Workers cannot be placed or started, or die without an item to blame.
        """
        route = self._route(stages, context)
        flying: deque[Journey] = deque()
        try:
            for item in items:
                if len(flying) >= route.limit:
                    yield self._land(flying)
                with in_words():
                    flying.append(Journey(route, item))
            while flying:
                yield self._land(flying)
        finally:
            for journey in flying:  # the consumer left early: what is under way will not be asked for
                journey.abandon()

    def queue(self, stages: Sequence[StageSpec], context: Any) -> RayQueue:
        """A queue whose items are worked on while others are streamed.

        Raises:
            ExecutionError: Workers cannot be placed or started.
        """
        return RayQueue(self, self._route(stages, context))

    def advance(self, seconds: float) -> None:
        """Move on whatever is under way, after waiting at most so long for something to be done.

        Raises:
            ParagenesisError: A stage cannot be built.
            ExecutionError: Workers cannot be started, or die without an item to blame.
        """
        watched = [reference for pool in self._pools.values() for reference in pool.watched()]
        with in_words():
            if watched:
                ray.wait(watched, num_returns=1, timeout=min(seconds, POLL_SECONDS), fetch_local=False)
            for pool in self._pools.values():
                pool.advance()

    def close(self) -> None:
        """Stop the workers and leave the cluster, ending it if it was started here."""
        try:
            for pool in self._pools.values():
                pool.close()
        finally:
            self._pools.clear()
            self._specs.clear()
            self._disconnect()

    def __enter__(self) -> Self:
        """The executor itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close on leaving."""
        self.close()

    def _land(self, flying: deque[Journey]) -> Outcome:
        """Wait for the outcome of the first journey, which then is over."""
        while (outcome := flying[0].outcome) is None:
            self.advance(POLL_SECONDS)
        flying.popleft()
        return outcome

    def _route(self, stages: Sequence[StageSpec], context: Any) -> Route:
        """The way through stages, with their workers on their way up."""
        with in_words():
            self._open(stages)
            shared = {spec.name: [self._share(spec)] for spec in stages}
            return Route(stages, dict(self._pools), shared, [ray.put(context)])

    def _open(self, stages: Sequence[StageSpec]) -> None:
        """Start the workers of hosts that are not there yet."""
        for host, resources in hosts_of(stages).items():
            if host in self._pools:
                continue
            cluster = ray.cluster_resources()
            workers = worker_count(resources, cluster)
            if self._fixed:  # a running cluster may still grow
                check_room(host, resources, workers, left_over(cluster, [p.demand for p in self._pools.values()]))
            self._pools[host] = WorkerPool(host, resources, workers)

    def _share(self, spec: StageSpec) -> ray.ObjectRef[StageSpec]:
        """The reference of a specification, put into the object store once."""
        kept = self._specs.get(spec.name)
        if kept is None or kept[0] is not spec:
            for module in user_modules():  # a user's file need not exist on the worker's machine
                cloudpickle.register_pickle_by_value(module)
            kept = self._specs[spec.name] = (spec, ray.put(spec))
        return kept[1]


@contextmanager
def in_words() -> Iterator[None]:
    """Ray's own errors as the project's.

    Raises:
        ExecutionError: Ray cannot go on.
    """
    try:
        yield
    except RayError as error:
        cure = "mend the cluster"
        if isinstance(error, (ObjectStoreFullError, OutOfDiskError)):
            cure = "give its nodes more --object-store-memory, or more room on the disk that it spills to"
        raise ExecutionError(
            f"Ray cannot go on: {describe(error)}; {cure}, and run the campaign again to resume it"
        ) from error


class RayQueue:
    """Items under way on the workers, whose outcomes are taken as they come."""

    def __init__(self, executor: RayExecutor, route: Route) -> None:
        """Start empty."""
        self._executor, self._route = executor, route
        self._waiting: deque[tuple[str, Any]] = deque()
        self._flying: dict[str, Journey] = {}

    def put(self, name: str, item: Any) -> None:
        """Send an item on its way as soon as there is a worker for it."""
        self._waiting.append((name, item))
        self._launch()

    def take(self, timeout: float | None = None) -> tuple[str, Outcome] | None:
        """Name and outcome of an item that is done; None if there is none within so many seconds.

        Raises:
            ParagenesisError: A stage cannot be built.
            ExecutionError: Workers cannot be started, or die without an item to blame.
        """
        end = None if timeout is None else time.monotonic() + timeout
        wait = 0.0  # first, what is done already
        while self._flying:
            self._executor.advance(wait)
            for name, journey in self._flying.items():
                if journey.outcome is not None:
                    del self._flying[name]
                    self._launch()
                    return name, journey.outcome
            wait = POLL_SECONDS if end is None else min(POLL_SECONDS, end - time.monotonic())
            if wait <= 0:
                break
        return None

    def close(self) -> None:
        """Give up what is under way."""
        self._waiting.clear()
        for journey in self._flying.values():
            journey.abandon()
        self._flying.clear()

    def _launch(self) -> None:
        """Keep the workers busy, each with one item more, so that items go to whoever is done first."""
        while self._waiting and len(self._flying) < self._route.limit:
            name, item = self._waiting.popleft()
            with in_words():
                self._flying[name] = Journey(self._route, item)

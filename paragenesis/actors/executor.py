"""The Ray executor: stages hosted by actors, items handed from actor to actor.

For every item the whole chain of calls is queued at once, each taking the reference of the one before: what a stage
makes goes straight to the next stage's process, and the driver only ever fetches the last result. At most a window
of items is in flight. The outcomes of a stream come back in the order of the items, which makes a campaign with Ray
commit exactly what the in-process executor commits; those of a queue as they are done, whatever is streamed meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError

from paragenesis.actors.cluster import connect
from paragenesis.actors.policy import check_room, hosts_of, left_over, window, worker_count
from paragenesis.actors.pool import WorkerPool
from paragenesis.engine.executor import Outcome, StageSpec, describe
from paragenesis.errors import ExecutionError, ParagenesisError
from paragenesis.naming import user_modules


class RayExecutor:
    """Hosts stages on a Ray cluster: a local one of its own, or the one it is told to use."""

    def __init__(self, address: str = "local") -> None:
        """Connect to a cluster.

        Args:
            address: "local" starts a cluster on this machine and ends it on `close`; "auto" or "host:port" joins
                a running one. A cluster this process already uses is used as it is.
        """
        self._disconnect = connect(address)
        self._fixed = address == "local"
        self._pools: dict[str, WorkerPool] = {}
        self._specs: dict[str, tuple[StageSpec, ray.ObjectRef[StageSpec]]] = {}

    def stream(self, stages: Sequence[StageSpec], items: Iterable[Any], context: Any) -> Iterator[Outcome]:
        """Outcomes in the order of the items.

        Raises:
            ExecutionError: Workers cannot be placed or started, or keep dying.
        """
        route = self._route(stages, context)
        flying: deque[_Chain] = deque()
        try:
            for item in items:
                if len(flying) >= route.limit:
                    yield route.land(flying.popleft())
                flying.append(route.launch(item))
            while flying:
                yield route.land(flying.popleft())
        finally:
            for chain in flying:  # the consumer left early: what is queued will not be asked for
                route.abandon(chain)

    def queue(self, stages: Sequence[StageSpec], context: Any) -> RayQueue:
        """A queue whose items are worked on while others are streamed.

        Raises:
            ExecutionError: Workers cannot be placed or started.
        """
        return RayQueue(self._route(stages, context))

    def close(self) -> None:
        """Stop the workers and leave the cluster, ending it if it was started here."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        self._specs.clear()
        self._disconnect()

    def __enter__(self) -> Self:
        """The executor itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close on leaving."""
        self.close()

    def _route(self, stages: Sequence[StageSpec], context: Any) -> _Route:
        """The way through stages, with their workers up."""
        self._open(stages)
        specs = [(spec.name, [self._share(spec)]) for spec in stages]
        return _Route(specs, [self._pools[spec.host] for spec in stages], [ray.put(context)])

    def _open(self, stages: Sequence[StageSpec]) -> None:
        """Start the workers of hosts that are not there yet."""
        started = []
        for host, resources in hosts_of(stages).items():
            if host in self._pools:
                continue
            cluster = ray.cluster_resources()
            workers = worker_count(resources, cluster)
            if self._fixed:  # a running cluster may still grow
                check_room(host, resources, workers, left_over(cluster, [p.demand for p in self._pools.values()]))
            self._pools[host] = WorkerPool(host, resources, workers)
            started.append(self._pools[host])
        for pool in started:
            pool.wait()

    def _share(self, spec: StageSpec) -> ray.ObjectRef[StageSpec]:
        """The reference of a specification, put into the object store once."""
        kept = self._specs.get(spec.name)
        if kept is None or kept[0] is not spec:
            for module in user_modules():  # a user's file need not exist on the worker's machine
                cloudpickle.register_pickle_by_value(module)
            kept = self._specs[spec.name] = (spec, ray.put(spec))
        return kept[1]


class RayQueue:
    """Items under way on the workers, whose outcomes are taken as they come."""

    def __init__(self, route: _Route) -> None:
        """Start empty."""
        self._route = route
        self._waiting: deque[tuple[str, Any]] = deque()
        self._flying: dict[str, _Chain] = {}

    def put(self, name: str, item: Any) -> None:
        """Send an item on its way as soon as there is a worker for it."""
        self._waiting.append((name, item))
        self._launch()

    def take(self, timeout: float | None = None) -> tuple[str, Outcome] | None:
        """Name and outcome of an item that is done; None if there is none within so many seconds.

        Raises:
            ExecutionError: A worker cannot do its work, or keeps dying.
        """
        ends = {chain[-1]: name for name, chain in self._flying.items()}
        done, _ = ray.wait(list(ends), num_returns=1, timeout=timeout) if ends else ([], [])
        if not done:
            return None
        name = ends[done[0]]
        outcome = self._route.land(self._flying.pop(name))
        self._launch()
        return name, outcome

    def close(self) -> None:
        """Give up what is under way."""
        self._waiting.clear()
        for chain in self._flying.values():
            self._route.abandon(chain)
        self._flying.clear()

    def _launch(self) -> None:
        """Keep the workers busy, each with one item more, so that items go to whoever is done first."""
        while self._waiting and len(self._flying) < self._route.limit:
            name, item = self._waiting.popleft()
            self._flying[name] = self._route.launch(item)


_Chain = list["ray.ObjectRef[Outcome]"]


@dataclass(frozen=True)
class _Route:
    """The way of items through stages: each stage's name and specification, its workers, and the context."""

    specs: Sequence[tuple[str, list[Any]]]
    pools: Sequence[WorkerPool]
    context: list[Any]

    @property
    def limit(self) -> int:
        """How many items may be in flight at once."""
        return window([len(pool) for pool in self.pools])

    def launch(self, item: Any) -> _Chain:
        """Queue an item's calls through all stages; each waits for the one before, none passes through this process."""
        chain: _Chain = []
        for (name, spec), pool in zip(self.specs, self.pools, strict=True):
            chain.append(pool.submit(name, spec, chain[-1] if chain else Outcome(value=item), self.context))
        return chain

    def land(self, chain: _Chain) -> Outcome:
        """Fetch the last result of a chain and close its books."""
        try:
            outcome: Outcome = ray.get(chain[-1])
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, ParagenesisError) else None
            raise cause or ExecutionError(f"a worker could not do its work: {describe(error)}") from error
        except RayActorError as error:
            raise ExecutionError(
                f"a worker died again and again ({describe(error)}); run the campaign again to resume it"
            ) from error
        finally:
            for reference, pool in zip(chain, self.pools, strict=True):
                pool.settle(reference)
        return outcome

    def abandon(self, chain: _Chain) -> None:
        """Cancel what is queued of a chain."""
        for reference, pool in zip(chain, self.pools, strict=True):
            ray.cancel(reference)
            pool.settle(reference)

"""The books of one group of workers: who there is and how much each has to do."""

from __future__ import annotations

from typing import Any

import ray

from paragenesis.actors.worker import Worker
from paragenesis.engine.executor import Outcome, Resources
from paragenesis.errors import ExecutionError

START_TIMEOUT_S = 600  # importing the model libraries on a cold network file system takes minutes


class WorkerPool:
    """Starts the workers of one host and hands each call to the one with the least to do."""

    def __init__(self, host: str, resources: Resources, workers: int) -> None:
        """Start the workers; they come up in the background."""
        actor = ray.remote(Worker).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=-1,  # stages keep no state that matters: a new process can take over
            max_task_retries=2,  # work is keyed and deterministic, so running it twice is harmless
            # An actor otherwise starts its calls in the order of submission: one that waits for another host's result
            # would keep all behind it waiting, and no two items would ever overlap.
            allow_out_of_order_execution=True,
        )
        self.host = host
        self._resources = resources
        self._workers = [actor.remote() for _ in range(workers)]
        self._load = [0] * workers
        self._holder: dict[ray.ObjectRef[Any], int] = {}

    def __len__(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    @property
    def demand(self) -> dict[str, float]:
        """What all workers together ask of the cluster."""
        return {"CPU": float(self._resources.cpus * len(self)), "GPU": self._resources.gpus * len(self)}

    def wait(self) -> None:
        """Wait until every worker is up.

        Raises:
            ExecutionError: One did not come up in time.
        """
        ready, missing = ray.wait(
            [w.ready.remote() for w in self._workers], num_returns=len(self), timeout=START_TIMEOUT_S
        )
        if missing:
            raise ExecutionError(
                f"{len(missing)} of {len(self)} workers of host '{self.host}' were not up after {START_TIMEOUT_S} s: "
                f"each needs {self._resources.cpus} CPU and {self._resources.gpus:g} GPU, and the cluster has "
                f"{ray.available_resources().get('CPU', 0):g} and {ray.available_resources().get('GPU', 0):g} free; "
                f"lower resources.{self.host} or start a larger cluster"
            )
        ray.get(ready)

    def submit(self, *arguments: Any) -> ray.ObjectRef[Outcome]:
        """Queue one `Worker.call` on the worker with the least to do; an item may be the reference of an outcome."""
        self._settle_finished()
        index = min(range(len(self)), key=self._load.__getitem__)
        reference: ray.ObjectRef[Outcome] = self._workers[index].call.remote(*arguments)
        self._load[index] += 1
        self._holder[reference] = index
        return reference

    def settle(self, reference: ray.ObjectRef[Outcome]) -> None:
        """Note that a call has ended; once is enough."""
        index = self._holder.pop(reference, None)
        if index is not None:
            self._load[index] -= 1

    def _settle_finished(self) -> None:
        """Note every call that has ended but whose result nobody has fetched yet."""
        if self._holder:
            done, _ = ray.wait(list(self._holder), num_returns=len(self._holder), timeout=0, fetch_local=False)
            for reference in done:
                self.settle(reference)

    def close(self) -> None:
        """Stop the workers at once."""
        for worker in self._workers:
            ray.kill(worker)

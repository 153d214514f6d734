"""What runs inside a Ray actor: a host of stages, nothing more."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import Any

import ray

from paragenesis.engine.executor import BrokenDevice, Host, Outcome, StageSpec, threads

ANSWERS_LEAVE_S = 1.0  # the answer to the call before may still be on its way, and would be lost with the process


class Worker:
    """Hosts stages in one process; wrapped by `ray.remote` in `pool.py`."""

    def __init__(self) -> None:
        """Start empty."""
        self._host = Host()
        self._specs: dict[str, tuple[ray.ObjectRef[Any], StageSpec]] = {}
        self._context: tuple[ray.ObjectRef[Any], Any] | None = None

    def start(self) -> bool:
        """Answer, which shows that the process is up, with what every call needs imported."""
        with threads(1):
            return True

    def build(self, name: str, spec: list[ray.ObjectRef[Any]]) -> bool:
        """Build a stage, which loads its weights.

        Raises:
            ExecutionError: It cannot be built.
        """
        made = self._spec(name, spec[0])
        with threads(made.resources.cpus):
            self._host.stage(made)
        return True

    def call(
        self, name: str, spec: list[ray.ObjectRef[Any]], item: Any, context: list[ray.ObjectRef[Any]]
    ) -> tuple[Outcome, Any]:
        """Send one item through one stage; what became of it without its value, and the value.

        Specification and context come as references inside lists, so that Ray does not copy them at every call (a
        hull alone may be large): each is fetched once.
        """
        try:
            outcome = self._host.call(self._spec(name, spec[0]), item, self._shared(context[0]))
        except BrokenDevice as error:
            print(error, file=sys.stderr, flush=True)
            time.sleep(ANSWERS_LEAVE_S)
            os._exit(1)  # another process may have more luck: the call is lost, and this worker is replaced
        return replace(outcome, value=None), outcome.value

    def _spec(self, name: str, reference: ray.ObjectRef[Any]) -> StageSpec:
        if name not in self._specs or self._specs[name][0] != reference:
            self._specs[name] = (reference, ray.get(reference))
        return self._specs[name][1]

    def _shared(self, reference: ray.ObjectRef[Any]) -> Any:
        if self._context is None or self._context[0] != reference:
            self._context = (reference, ray.get(reference))
        return self._context[1]

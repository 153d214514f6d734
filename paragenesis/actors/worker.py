"""What runs inside a Ray actor: a host of stages, nothing more."""

from __future__ import annotations

from typing import Any

import ray

from paragenesis.engine.executor import Host, Outcome, StageSpec


class Worker:
    """Hosts stages in one process; wrapped by `ray.remote` in `pool.py`."""

    def __init__(self) -> None:
        """Start empty; stages are built when first called."""
        self._host = Host()
        self._specs: dict[str, tuple[ray.ObjectRef[Any], StageSpec]] = {}
        self._context: tuple[ray.ObjectRef[Any], Any] | None = None

    def call(
        self, name: str, spec: list[ray.ObjectRef[Any]], before: Outcome, context: list[ray.ObjectRef[Any]]
    ) -> Outcome:
        """Send one item through one stage.

        Specification and context come as references inside lists, so that Ray does not copy them at every call (a
        hull alone may be large): each is fetched once.
        """
        return self._host.call(self._spec(name, spec[0]), before, self._shared(context[0]))

    def ready(self) -> bool:
        """Answer, which shows that the process is up."""
        return True

    def _spec(self, name: str, reference: ray.ObjectRef[Any]) -> StageSpec:
        if name not in self._specs or self._specs[name][0] != reference:
            self._specs[name] = (reference, ray.get(reference))
        return self._specs[name][1]

    def _shared(self, reference: ray.ObjectRef[Any]) -> Any:
        if self._context is None or self._context[0] != reference:
            self._context = (reference, ray.get(reference))
        return self._context[1]

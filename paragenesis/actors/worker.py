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
        self._specs: dict[str, StageSpec] = {}
        self._context: tuple[ray.ObjectRef[Any], Any] | None = None

    def call(self, spec: StageSpec, before: Outcome, context: list[ray.ObjectRef[Any]]) -> Outcome:
        """Send one item through one stage.

        The context comes as a reference inside a list, so that Ray does not copy it at every call: it is fetched
        once for each stream.
        """
        return self._host.call(spec, before, self._fetch(context[0]))

    def ready(self) -> bool:
        """Answer, which shows that the process is up."""
        return True

    def _fetch(self, reference: ray.ObjectRef[Any]) -> Any:
        if self._context is None or self._context[0] != reference:
            self._context = (reference, ray.get(reference))
        return self._context[1]

"""An item's way through the stages: one call at a time, each taking the reference of what the one before made.

What a stage makes goes straight from one worker to the next; this process only hears whether all went well. Only where
a chunk must be split does it fetch the chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ObjectLostError

from paragenesis.actors.policy import how_lost, window
from paragenesis.actors.pool import Order, WorkerPool
from paragenesis.engine.attempts import Call, travel
from paragenesis.engine.executor import Outcome, StageSpec


@dataclass(frozen=True)
class Route:
    """The way of items through stages.

    Attributes:
        stages: The stages.
        pools: Their workers, by host.
        shared: Their specifications in the object store, each in a list, by name.
        context: The context in the object store, in a list.
    """

    stages: Sequence[StageSpec]
    pools: Mapping[str, WorkerPool]
    shared: Mapping[str, list[ray.ObjectRef[StageSpec]]]
    context: list[ray.ObjectRef[Any]]

    @property
    def limit(self) -> int:
        """How many items may be under way at once."""
        return window([len(self.pools[spec.host]) for spec in self.stages])


class Journey:
    """One item under way."""

    def __init__(self, route: Route, item: Any) -> None:
        """Set out."""
        self._route, self._item = route, item
        self._departures = 0
        self._order: Order | None = None
        self.outcome: Outcome | None = None
        self._set_out()

    def abandon(self) -> None:
        """Give up what is under way; the outcome will not be asked for."""
        if self._order is not None:
            self._route.pools[self._order.spec.host].drop(self._order)
            self._order = None

    def _set_out(self) -> None:
        """Begin at the first stage."""
        self._departures += 1
        self._calls = travel(self._route.stages, self._item, _fetch)
        self._go_on(None)

    def _hear(self, answer: Outcome | None) -> None:
        """Go on with what became of a call; None if what it was given is gone."""
        self._order = None
        if answer is None:
            self._begin_again()
        else:
            self._go_on(answer)

    def _go_on(self, answer: Any) -> None:
        """Send the next call on its way, or arrive."""
        try:
            self._send(self._calls.send(answer))
        except StopIteration as end:
            self._arrive(end.value)
        except ObjectLostError:
            self._begin_again()

    def _send(self, call: Call) -> None:
        shared = self._route.shared[call.spec.name]
        self._order = Order(call.spec, shared, call.item, self._route.context, self._hear)
        self._route.pools[call.spec.host].submit(self._order)

    def _arrive(self, outcome: Outcome) -> None:
        """Fetch what the last stage made."""
        try:
            self.outcome = Outcome(_fetch(outcome.value), outcome.stage, outcome.error, outcome.lost, outcome.attempts)
        except ObjectLostError:
            self._begin_again()

    def _begin_again(self) -> None:
        """Do all again, because something was lost with a machine; it comes out the same."""
        last = self._route.stages[-1]
        if self._departures < last.resources.attempts:
            self._set_out()
        else:
            self.outcome = Outcome(None, last.name, how_lost("died"), "died", self._departures)


def _fetch(value: Any) -> Any:
    """The value that a call was given or returned."""
    return ray.get(value) if isinstance(value, ray.ObjectRef) else value

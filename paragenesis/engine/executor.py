"""Executors: how items are streamed through stages.

A stage is a plain class: built once on its worker from a few frozen arguments, kept there, and called as
`stage(item, context)`; the context is shared by all items of a stream. An executor hosts stages and streams items
through them, keeps a bounded number in flight, and returns the outcomes **in the order of the items**. Items that may
outlast a round go through a queue instead, which gives each outcome as it comes. How often something is tried, and how
what breaks a stage is split until the guilty crystal stands alone, is decided in `attempts`, for all executors alike.
This file has the contracts and the in-process executor; Ray's stands in `paragenesis.actors`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from pydantic import Field

from paragenesis.engine.attempts import Outcome as Outcome
from paragenesis.engine.attempts import travel
from paragenesis.engine.failpoints import reach
from paragenesis.errors import ExecutionError, ParagenesisError
from paragenesis.settings import Settings

Stage = Callable[[Any, Any], Any]


class Resources(Settings):
    """What the workers of one host may use.

    Attributes:
        workers: How many copies run at once; 0 means as many as there are CPUs or, where gpus is set, GPUs for.
        cpus: CPU threads for each worker.
        gpus: GPUs for each worker; may be a fraction.
        lease: Seconds that one call may take before its worker is killed.
        attempts: How often a call is tried whose worker dies, hangs or runs out of memory.
    """

    workers: int = Field(default=1, ge=0)
    cpus: int = Field(default=1, ge=1)
    gpus: float = Field(default=0.0, ge=0.0)
    lease: float = Field(default=3600.0, gt=0.0)
    attempts: int = Field(default=3, ge=1)


@dataclass(frozen=True)
class StageSpec:
    """How to build a stage: `build(*arguments)` on its worker, once.

    Attributes:
        name: The stage's name, for messages and progress.
        build: The stage's class, or another callable that returns a stage.
        arguments: What it is built from; must be picklable.
        host: The group of workers it lives in. Stages that share a host share processes (and a GPU).
        resources: What the workers of that host may use.
    """

    name: str
    build: Callable[..., Stage]
    arguments: tuple[Any, ...]
    host: str
    resources: Resources = field(default_factory=Resources)


class Executor(Protocol):
    """Streams items through stages and, when closed, gives its workers back."""

    def stream(self, stages: Sequence[StageSpec], items: Iterable[Any], context: Any) -> Iterator[Outcome]:
        """Outcomes in the order of the items."""
        ...

    def close(self) -> None:
        """Give all workers back."""
        ...


class Queue(Protocol):
    """Items under way through some stages, whose outcomes are taken as they come, in any order."""

    def put(self, name: str, item: Any) -> None:
        """Send an item on its way, under a name that no other item under way has."""
        ...

    def take(self, timeout: float | None = None) -> tuple[str, Outcome] | None:
        """Name and outcome of an item that is done; None if nothing is under way, or none is done in time.

        Args:
            timeout: How many seconds to wait; 0 only looks, None waits as long as it takes.
        """
        ...

    def close(self) -> None:
        """Give up what is under way."""
        ...


@runtime_checkable
class Queueing(Protocol):
    """What an executor may have beside `stream`: queues that work on while other items are streamed."""

    def queue(self, stages: Sequence[StageSpec], context: Any) -> Queue:
        """A queue through stages."""
        ...


def open_queue(executor: Executor, stages: Sequence[StageSpec], context: Any) -> Queue:
    """The executor's queue through stages; for one that has none, a queue that works only while it is waited for."""
    if isinstance(executor, Queueing):
        return executor.queue(stages, context)
    return OneByOne(executor, stages, context)


class OneByOne:
    """A queue on any executor: streams one item when an outcome is waited for, first come, first served."""

    def __init__(self, executor: Executor, stages: Sequence[StageSpec], context: Any) -> None:
        """Start empty."""
        self._executor, self._stages, self._context = executor, stages, context
        self._waiting: deque[tuple[str, Any]] = deque()

    def put(self, name: str, item: Any) -> None:
        """Keep an item until its turn."""
        self._waiting.append((name, item))

    def take(self, timeout: float | None = None) -> tuple[str, Outcome] | None:
        """The first item's outcome, however long it takes; None if nothing waits, or with a timeout of 0."""
        if timeout == 0 or not self._waiting:
            return None
        name, item = self._waiting.popleft()
        [outcome] = self._executor.stream(self._stages, [item], self._context)
        return name, outcome

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()


class BrokenDevice(ExecutionError):
    """An accelerator failed, and its process with it."""


class Host:
    """Holds built stages in one process and calls them; every executor's worker is one."""

    def __init__(self) -> None:
        """Start empty; a stage is built at its first call and kept."""
        self._built: dict[str, tuple[StageSpec, Stage]] = {}

    def call(self, spec: StageSpec, item: Any, context: Any) -> Outcome:
        """Send one item through one stage.

        Raises:
            ExecutionError: The stage cannot be built, which no retry mends.
            BrokenDevice: The accelerator serves this process no more; only another process can go on.
        """
        with threads(spec.resources.cpus):
            stage = self.stage(spec)
            try:
                return Outcome(value=stage(item, context))
            except Exception as error:  # whatever a plug-in raises is a recorded failure of its item
                if device_is_broken(error):
                    raise BrokenDevice(
                        f"stage '{spec.name}' broke the accelerator for its whole process ({describe(error)}); run the "
                        "same command again to resume, with Ray if it happens again: there it costs a worker"
                    ) from error
                return Outcome(stage=spec.name, error=describe(error), lost="memory" if out_of_memory(error) else "")

    def stage(self, spec: StageSpec) -> Stage:
        """The stage of a specification, built if it is not there yet; it takes the place of another of that name."""
        kept = self._built.get(spec.name)
        if kept is None or kept[0] is not spec:
            self._built.pop(spec.name, None)  # frees the memory of the old one first
            try:
                kept = self._built[spec.name] = (spec, spec.build(*spec.arguments))
            except ParagenesisError:
                raise
            except Exception as error:
                raise ExecutionError(f"stage '{spec.name}' could not start: {describe(error)}") from error
        return kept[1]


class InlineExecutor:
    """Runs every stage in this process, one item after the other.

    It survives what a stage raises, but a stage that hangs or kills its process hangs or kills the campaign: for
    objectives and oracles that may do so, use Ray.
    """

    def __init__(self) -> None:
        """Start without stages."""
        self._host = Host()

    def stream(self, stages: Sequence[StageSpec], items: Iterable[Any], context: Any) -> Iterator[Outcome]:
        """Outcomes in the order of the items."""
        for item in items:
            yield self._through(stages, item, context)

    def close(self) -> None:
        """Forget the stages."""
        self._host = Host()

    def _through(self, stages: Sequence[StageSpec], item: Any, context: Any) -> Outcome:
        """What becomes of an item."""
        calls = travel(stages, item, lambda value: value)
        answer: Any = None
        while True:
            try:
                call = calls.send(answer)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            reach(f"before dispatch of {call.spec.name}")
            try:
                answer = self._host.call(call.spec, call.item, context)
            except SystemExit as error:  # where each worker is a process, that one ends; here it would be the campaign
                answer = Outcome(stage=call.spec.name, error=describe(error), lost="died")
            reach(f"after {call.spec.name}")

    def __enter__(self) -> Self:
        """The executor itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close on leaving."""
        self.close()


def describe(error: BaseException) -> str:
    """An error as one line: its type and its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in this process or on a GPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # what torch says of the CPU's


def device_is_broken(error: BaseException) -> bool:
    """Whether an error says that an accelerator failed: its process gets nothing but errors from it afterwards."""
    import torch

    return isinstance(error, torch.AcceleratorError)


def machine_failed(error: BaseException) -> bool:
    """Whether an error says nothing about a crystal: memory ran out, or the accelerator failed."""
    return out_of_memory(error) or device_is_broken(error)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` threads in BLAS and torch, then restore.

    Sums of floats depend on how they are split over threads, so a stage must use the same number wherever it runs.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(limits=count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

"""Executors: how items are streamed through stages.

A stage is a plain class: built once on its worker from a small frozen config, kept there, and called with one item
at a time. An executor hosts stages and streams items through them, keeping at most a bounded number in flight and
returning the outcomes **in the order of the items**. This file has the contract and the in-process executor; Ray's
stands in `paragenesis.actors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from pydantic import Field

from paragenesis.errors import ExecutionError
from paragenesis.settings import Settings


class Resources(Settings):
    """What the workers of one stage may use.

    Attributes:
        workers: How many copies of the stage run at once.
        cpus: CPU threads for each worker.
        gpus: GPUs for each worker; may be a fraction.
    """

    workers: int = Field(default=1, ge=1)
    cpus: int = Field(default=1, ge=1)
    gpus: float = Field(default=0.0, ge=0.0)


@dataclass(frozen=True)
class StageSpec:
    """How to build a stage: `build(*arguments)` on the worker, once.

    Attributes:
        name: The stage's name, for messages and progress.
        build: The stage's class (or another callable that returns the callable stage).
        arguments: What it is built from; must be picklable.
        resources: What its workers may use.
    """

    name: str
    build: Callable[..., Callable[[Any], Any]]
    arguments: tuple[Any, ...] = ()
    resources: Resources = Resources()


@dataclass(frozen=True)
class Outcome:
    """What became of an item: the last stage's result, or the stage and error that ended it."""

    value: Any = None
    stage: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether every stage returned."""
        return not self.error


class Executor(Protocol):
    """Streams items through stages; a context manager that gives its workers back."""

    def stream(self, stages: Sequence[StageSpec], items: Iterable[Any]) -> Iterator[Outcome]:
        """Outcomes in the order of the items."""
        ...

    def close(self) -> None:
        """Give all workers back."""
        ...


class InlineExecutor:
    """Runs every stage in this process, one item after the other."""

    def __init__(self) -> None:
        """Start without stages; each is built when first needed and kept."""
        self._built: dict[str, tuple[StageSpec, Callable[[Any], Any]]] = {}

    def stream(self, stages: Sequence[StageSpec], items: Iterable[Any]) -> Iterator[Outcome]:
        """Outcomes in the order of the items."""
        hosted = [(spec, self._host(spec)) for spec in stages]
        for item in items:
            yield _run(hosted, item)

    def close(self) -> None:
        """Forget the stages."""
        self._built.clear()

    def __enter__(self) -> Self:
        """The executor itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close on leaving."""
        self.close()

    def _host(self, spec: StageSpec) -> Callable[[Any], Any]:
        kept = self._built.get(spec.name)
        if kept is None or kept[0] is not spec:
            with threads(spec.resources.cpus):
                kept = (spec, build_stage(spec))
            self._built[spec.name] = kept
        return kept[1]


def build_stage(spec: StageSpec) -> Callable[[Any], Any]:
    """Build a stage, naming it if that fails."""
    try:
        return spec.build(*spec.arguments)
    except Exception as error:
        raise ExecutionError(f"stage '{spec.name}' could not start: {describe(error)}") from error


def _run(hosted: Sequence[tuple[StageSpec, Callable[[Any], Any]]], item: Any) -> Outcome:
    for spec, stage in hosted:
        try:
            with threads(spec.resources.cpus):
                item = stage(item)
        except Exception as error:  # noqa: BLE001  whatever a plug-in raises is a recorded failure of its item
            return Outcome(stage=spec.name, error=describe(error))
    return Outcome(value=item)


def describe(error: BaseException) -> str:
    """An error as one line: its type and its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


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

"""Decisions of the Ray executor, as pure functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paragenesis.engine.attempts import Loss
from paragenesis.engine.executor import Resources, StageSpec
from paragenesis.errors import ExecutionError, InputError

TASKS_AHEAD_PER_WORKER = 2  # one running, one waiting: a worker never idles, and little is lost if it dies
START_ATTEMPTS = 3  # of workers that die while they start or build a stage; no item is to blame for that


def hosts_of(stages: Sequence[StageSpec]) -> dict[str, Resources]:
    """The hosts that stages live in, with their resources.

    Raises:
        InputError: Two stages of one host ask for different resources.
    """
    hosts: dict[str, Resources] = {}
    for spec in stages:
        if hosts.setdefault(spec.host, spec.resources) != spec.resources:
            raise InputError(f"stage '{spec.name}' asks for other resources than the rest of host '{spec.host}'")
    return hosts


def worker_count(wanted: Resources, cluster: Mapping[str, float]) -> int:
    """How many workers a host gets; 0 in `wanted` means as many as the cluster has room for, at least one."""
    if wanted.workers:
        return wanted.workers
    by_cpus = int((cluster.get("CPU", 1.0) - 1) / wanted.cpus)  # one CPU stays for the light stages
    return max(1, min(by_cpus, _by_gpus(wanted.gpus, cluster.get("GPU", 0.0))) if wanted.gpus else by_cpus)


def _by_gpus(each: float, gpus: float) -> int:
    """How many workers whole GPUs have room for: a fraction never spans two of them."""
    return int(gpus) * int(1 / each + 1e-9) if each < 1 else int(gpus / each)


def left_over(cluster: Mapping[str, float], demands: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What a cluster has beside the demands of groups of workers.

    Not what Ray calls available: that lags behind when workers have just been stopped.
    """
    return {name: have - sum(d.get(name, 0.0) for d in demands) for name, have in cluster.items()}


def check_room(host: str, wanted: Resources, workers: int, free: Mapping[str, float]) -> None:
    """Refuse at once what could never be placed: Ray itself would wait for it forever, in silence.

    Raises:
        ExecutionError: The cluster lacks CPUs or GPUs for the host's workers.
    """
    for name, each in (("CPU", float(wanted.cpus)), ("GPU", wanted.gpus)):
        need, have = workers * each, free.get(name, 0.0)
        if need > have + 1e-9:
            raise ExecutionError(
                f"host '{host}' needs {need:g} {name} for {workers} worker(s), but {have:g} are free in the cluster; "
                f"lower resources.{host}.workers, .cpus or .gpus, or start a larger cluster"
            )


def window(workers: Sequence[int]) -> int:
    """How many items may be in flight at once, from the number of workers of each host."""
    return TASKS_AHEAD_PER_WORKER * max(workers, default=1) + 1


def how_lost(lost: Loss) -> str:
    """How a call was lost, in words."""
    return {"died": "its worker died", "hung": "its worker hung", "memory": "its worker ran out of memory"}[lost]


def needs(host: str, wanted: Resources, cluster: str) -> str:
    """What each worker needs, what the cluster has, and what to do if that is too little."""
    return (
        f"each needs {wanted.cpus} CPU and {wanted.gpus:g} GPU, and the cluster has {cluster}; if that is too little, "
        f"start another node, or lower resources.{host}.workers, .cpus or .gpus"
    )


def awaited(host: str, wanted: Resources, seconds: float, cluster: str) -> str:
    """What to say while a new worker is waited for."""
    return f"a new worker of host '{host}' is not up after {seconds:g} s and waited for: {needs(host, wanted, cluster)}"


def not_up(host: str, wanted: Resources, workers: int, seconds: float, cluster: str) -> str:
    """What to say when a worker was never up."""
    return (
        f"the {workers} worker(s) of host '{host}' were not all up after {seconds:g} s: "
        f"{needs(host, wanted, cluster)}; then run the campaign again to resume it"
    )


def in_vain(host: str, what: str, why: str) -> str:
    """What to say when workers are lost again and again before they begin to work."""
    return (
        f"workers of host '{host}' were lost {START_ATTEMPTS} times while {what} ({why}); "
        "mend that, and run the campaign again to resume it"
    )

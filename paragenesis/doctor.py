"""What this machine has: versions, GPUs, Ray, and whether the potentials give the known answers."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from paragenesis.engine.executor import describe

PACKAGES = (
    "paragenesis",
    "torch",
    "torch-sim-atomistic",
    "chgnet",
    "matgl",
    "mace-torch",
    "e3nn",
    "pymatgen",
    "botorch",
    "gpytorch",
    "ray",
    "duckdb",
)
SHIPPED = ("chgnet-0.3.0", "chgnet-0.2.0", "chgnet-r2scan")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    value: str
    ok: bool = True


def examine(potentials: Sequence[str] | None, *, cluster: bool, address: str) -> list[Finding]:
    """Look at everything that a campaign needs.

    Args:
        potentials: Potentials to check besides those that ship with CHGNet.
        cluster: Whether to start or ask a Ray cluster.
        address: The cluster to ask.
    """
    findings = [*_machine(), *(_package(name) for name in PACKAGES), *_gpus()]
    for name in (*SHIPPED, *(potentials or ())):
        findings.append(_tried(f"known answers of {name}", lambda name=name: _known_answers(name)))  # type: ignore[misc]
    if cluster:
        findings.append(_tried("Ray cluster", lambda: _ray(address)))
    return findings


def _machine() -> list[Finding]:
    usage = shutil.disk_usage(Path.cwd())
    writable = os.access(Path.cwd(), os.W_OK)
    return [
        Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("CPU cores", str(os.cpu_count())),
        Finding("disk here", f"{usage.free / 2**30:.0f} GiB free{'' if writable else ', not writable'}", writable),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed; run pip install -c constraints.txt paragenesis", ok=False)


def _gpus() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        return [Finding("GPUs", "none; everything runs on the CPU")]
    return [
        Finding(f"GPU {i}", f"{p.name}, {p.total_memory / 2**30:.0f} GiB")
        for i, p in enumerate(torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    ]


def _tried(subject: str, look: Callable[[], Finding]) -> Finding:
    """A finding, or the error that stood in its way as one: a doctor reports whatever is wrong and goes on."""
    try:
        return look()
    except Exception as error:  # noqa: BLE001
        return Finding(subject, describe(error), ok=False)


def _known_answers(name: str) -> Finding:
    from paragenesis.engine.potentials import known_answer_check, load_potential

    potential = load_potential(name)
    answer = known_answer_check(potential)
    weights = f"; weights sha256 {potential.level.weights[:12]}" if potential.level.weights else ""
    return Finding(f"known answers of {name}", answer.sentence + weights, answer.passed)


def _ray(address: str) -> Finding:
    from paragenesis.actors import cluster_summary

    return Finding("Ray cluster", cluster_summary(address))

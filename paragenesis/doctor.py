"""What this machine has: versions, GPUs, Ray, and whether the potentials give the known answers."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from paragenesis.engine.executor import describe
from paragenesis.versions import MISSING, installed_version

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
NVIDIA_DEVICE = Path("/dev/nvidia0")
SHIPPED = ("chgnet-0.3.0", "chgnet-0.2.0", "chgnet-r2scan")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    value: str
    ok: bool = True


def examine(potentials: Sequence[str] | None, *, cluster: bool, address: str) -> Iterator[Finding]:
    """Look at everything that a campaign needs, one thing after the other.

    Args:
        potentials: Potentials to check besides those that ship with CHGNet.
        cluster: Whether to start or ask a Ray cluster.
        address: The cluster to ask.
    """
    yield from _machine()
    for name in PACKAGES:
        yield _package(name)
    yield from _gpus()
    for name in (*SHIPPED, *(potentials or ())):
        yield _tried(f"potential {name}", partial(_known_answers, name))
    if cluster:
        yield _tried("Ray cluster", partial(_ray, address))


def _machine() -> list[Finding]:
    usage = shutil.disk_usage(Path.cwd())
    writable = os.access(Path.cwd(), os.W_OK)
    return [
        Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("CPU cores", str(os.cpu_count())),
        Finding("disk here", f"{usage.free / 2**30:.0f} GiB free{'' if writable else ', not writable'}", writable),
    ]


def _package(name: str) -> Finding:
    found = installed_version(name)
    if found == MISSING:
        return Finding(name, f"{MISSING}; run pip install -c constraints.txt paragenesis", ok=False)
    return Finding(name, found)


def _gpus() -> list[Finding]:
    try:
        import torch
    except Exception as error:  # noqa: BLE001  see _tried
        return [Finding("GPUs", f"torch cannot be imported: {describe(error)}", ok=False)]
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return [Finding(f"GPU {i}", f"{p.name}, {p.total_memory / 2**30:.0f} GiB") for i, p in enumerate(found)]
    if NVIDIA_DEVICE.exists():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build for the CPU alone"
        said = (
            f"there is one, but torch {torch.__version__} ({built}) cannot use it; install a torch that fits its driver"
        )
        return [Finding("GPUs", said, ok=False)]
    return [Finding("GPUs", "none; everything runs on the CPU")]


def _tried(subject: str, look: Callable[[], Finding]) -> Finding:
    """A finding, or the error that stood in its way as one: a doctor reports whatever is wrong and goes on."""
    try:
        return look()
    except Exception as error:  # noqa: BLE001
        return Finding(subject, describe(error), ok=False)


def _known_answers(name: str) -> Finding:
    from paragenesis.engine.potentials import known_answer_check, load_potential

    potential = load_potential(name, device="auto")
    answer = known_answer_check(potential)
    if not answer.passed:
        return Finding(f"potential {name}", answer.sentence, ok=False)
    weights = f", weights {potential.level.weights[:12]}" if potential.level.weights else ""
    return Finding(f"potential {name}", f"error {answer.error:.3f} eV/atom on {answer.n} compounds{weights}")


def _ray(address: str) -> Finding:
    from paragenesis.actors import cluster_summary

    return Finding("Ray cluster", cluster_summary(address))

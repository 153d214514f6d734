"""What this machine has: versions, GPUs, potentials with the known answers, Ray and who can reach it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
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


def examine(
    potentials: Sequence[str] | None, *, cluster: bool, address: str, trust_network: bool = False
) -> Iterator[Finding]:
    """Look at everything that a campaign needs, one thing after the other.

    Args:
        potentials: Potentials to check besides those that ship with CHGNet.
        cluster: Whether to start or ask a Ray cluster.
        address: The cluster to ask.
        trust_network: Whether who can reach Ray is told as a fact instead of a problem.
    """
    yield from _machine()
    for name in PACKAGES:
        yield _package(name)
    yield from _gpus()
    for name in (*SHIPPED, *(potentials or ())):
        yield _tried(f"potential {name}", partial(_known_answers, name))
    yield _tried("authentication", partial(_authentication, trust_network))
    yield _tried("Ray's token", partial(_token, address, trust_network))
    with ExitStack() as stack:  # a cluster started here is up while it is looked at
        if cluster:
            yield _tried("Ray cluster", partial(_ray, address, trust_network, stack))
        yield _tried("Ray listens on", partial(_listening, trust_network))


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


def _authentication(trusted: bool) -> Finding:
    """Whether RAY_AUTH_MODE lets clusters be authenticated."""
    from paragenesis.actors import switched_off

    if off := switched_off():
        return Finding("authentication", f"off (RAY_AUTH_MODE={off}); unset it, or set it to token", trusted)
    return Finding("authentication", f"by token (RAY_AUTH_MODE={os.environ.get('RAY_AUTH_MODE', 'not set')})")


def _token(address: str, trusted: bool) -> Finding:
    """Where the token comes from, and who can read it."""
    from paragenesis.actors import find_token

    token = find_token()
    if token is None:
        said = "none; a private cluster gets one of its own, to join a running one set RAY_AUTH_TOKEN_PATH"
        return Finding("Ray's token", said, trusted or address == "local")
    return Finding("Ray's token", f"{token}; {token.fault}" if token.fault else str(token), trusted or not token.fault)


def _ray(address: str, trusted: bool, stack: ExitStack) -> Finding:
    """What a cluster has; it is left when the stack is closed."""
    from paragenesis.actors import cluster_summary, connected

    stack.enter_context(connected(address, trust_network=trusted))
    return Finding("Ray cluster", cluster_summary())


def _listening(trusted: bool) -> Finding:
    """The addresses of this user's Ray processes, first those that other machines reach."""
    from paragenesis.actors import ray_listeners

    found = ray_listeners()
    if not found:
        said = "not looked at: this system has no /proc" if found is None else "nothing: no Ray process of yours runs"
        return Finding("Ray listens on", said)
    outside = [str(one) for one in found if not one.on_loopback]
    inside = [str(one) for one in found if one.on_loopback]
    parts = [f"only this machine reaches {', '.join(inside)}"] if inside else []
    if outside:
        cure = "the network is trusted" if trusted else "stop them, or keep others out and pass --trust-network"
        parts.insert(0, f"other machines may reach {', '.join(outside)} ({cure})")
    return Finding("Ray listens on", "; ".join(parts), trusted or not outside)

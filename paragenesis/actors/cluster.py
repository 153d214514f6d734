"""Connecting to Ray: a private cluster on this machine, or one that is already running."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import ray
from ray._private import ray_constants

from paragenesis.actors import access
from paragenesis.engine.executor import describe
from paragenesis.engine.folders import claim_folder
from paragenesis.errors import ExecutionError, InputError

START_ATTEMPTS = 3  # Ray gives a node 30 s to start, hard-coded; a busy machine can need more
LOCAL_OBJECT_STORE_BYTES = 256 * 2**20  # chunks are small; Ray would otherwise reserve 30 % of the memory


def connect(address: str, *, trust_network: bool = False) -> Callable[[], None]:
    """Connect this process to Ray and return what undoes it.

    Whoever reaches an open Ray cluster can run code on it, so token authentication is turned on first, and a running
    cluster is joined only if it refuses to answer without a token and answers with ours (see `access.admitted`). A
    cluster that "auto" finds on this machine is no exception.

    Args:
        address: "local" for a private cluster on this machine; "auto" or "host:port" for a running one. If this
            process is connected already, that cluster is used, if it asks for a token, and left as it is.
        trust_network: Join, or go on, without asking for authentication: nobody else reaches the cluster.

    Raises:
        InputError: The cluster, or this side of it, is not authenticated, and the network is not trusted.
        ExecutionError: No cluster could be started or reached.
    """
    if ray.is_initialized():
        if not trust_network:
            access.check_used(ray.get_runtime_context().gcs_address)
        return lambda: None
    if address == "local":
        return _start_local(trust_network=trust_network)
    return _join(address if trust_network else access.admitted(address))


@contextmanager
def connected(address: str, *, trust_network: bool = False) -> Iterator[None]:
    """As `connect`, for the length of a block.

    Raises:
        InputError: As `connect`.
        ExecutionError: As `connect`.
    """
    disconnect = connect(address, trust_network=trust_network)
    try:
        yield
    finally:
        disconnect()


def _start_local(*, trust_network: bool) -> Callable[[], None]:
    """Start a cluster that nobody else can use: own folder, own token, on the loopback alone, no dashboard."""
    off = access.switched_off()
    if off and not trust_network:
        raise InputError(
            f"no Ray cluster was started: {access.MODE}={off} would let every user of this machine run code on it; "
            "unset it, or pass --trust-network if there are no others"
        )
    folder, remove_folder = claim_folder(_short_temp())
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with _environment(RAY_AUTH_TOKEN=_token()), _on_loopback():
                if not off:
                    access.turn_on()
                ray.init(
                    address="local",
                    _temp_dir=str(folder / "ray"),  # not the folder itself: Ray opens its own to everybody
                    num_cpus=(os.cpu_count() or 1) + 1,  # one more than there are, for the light stages
                    object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            break
        except Exception as error:
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                remove_folder()
                raise ExecutionError(
                    f"Ray did not start on this machine in {START_ATTEMPTS} attempts ({describe(error)}); "
                    "use --executor inline, or try again when the machine is less busy"
                ) from error

    def stop() -> None:
        ray.shutdown()
        remove_folder()

    return stop


@cache
def _token() -> str:
    """This process's token for its own clusters; Ray would write one to a file that everybody can read."""
    return secrets.token_hex(32)


def _join(address: str) -> Callable[[], None]:
    """Join a running cluster."""
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise access.unreachable(address, describe(error)) from error

    def leave() -> None:
        ray.shutdown()

    return leave


def _short_temp() -> Path:
    """A temporary folder with a short name, because Ray puts Unix sockets (at most 107 characters) below it."""
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) < 26 else "/tmp")


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables that the user has not set, for as long as Ray needs them to start."""
    added = {name: value for name, value in values.items() if not os.environ.get(name, "").strip()}
    blank = {name: os.environ[name] for name in added if name in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        os.environ.update(blank)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a cluster that starts meanwhile listen on the loopback alone, as Ray does on macOS and Windows.

    On Linux, Ray 2.60 listens on every interface and has no setting for it: it turns even
    `_node_ip_address="127.0.0.1"` into the outer address, unless it is told that clusters of several machines are off.
    """
    usual = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = usual


def cluster_summary() -> str:
    """What the cluster that this process is connected to has, in words."""
    total = ray.cluster_resources()
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return f"{nodes} node(s), {total.get('CPU', 0):g} CPU, {total.get('GPU', 0):g} GPU"

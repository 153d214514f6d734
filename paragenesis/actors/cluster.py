"""Connecting to Ray: a private cluster on this machine, or one that is already running."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import ray

from paragenesis.engine.executor import describe
from paragenesis.errors import ExecutionError

START_ATTEMPTS = 3  # Ray gives a node 30 s to start, hard-coded; a busy machine can need more
LOCAL_OBJECT_STORE_BYTES = 256 * 2**20  # chunks are small; Ray would otherwise reserve 30 % of the memory


def connect(address: str) -> Callable[[], None]:
    """Connect this process to Ray and return what undoes it.

    Args:
        address: "local" for a private cluster on this machine; "auto" or "host:port" for a running one. If this
            process is connected already, that cluster is used and left as it is.

    Raises:
        ExecutionError: No cluster could be started or reached.
    """
    if ray.is_initialized():
        return lambda: None
    return _start_local() if address == "local" else _join(address)


def _start_local() -> Callable[[], None]:
    """Start a cluster that nobody else can find: own folder, own token, no dashboard."""
    folder = tempfile.mkdtemp(prefix="pg-", dir=_short_temp())
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with _environment(RAY_AUTH_TOKEN=_token()):
                ray.init(
                    address="local",
                    _temp_dir=folder,
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
                shutil.rmtree(folder, ignore_errors=True)
                raise ExecutionError(
                    f"Ray did not start on this machine in {START_ATTEMPTS} attempts ({describe(error)}); "
                    "use --executor inline, or try again when the machine is less busy"
                ) from error

    def stop() -> None:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    return stop


@cache
def _token() -> str:
    """This process's token; Ray itself turns authentication on, and reads the token once for each process."""
    return secrets.token_hex(32)


def _join(address: str) -> Callable[[], None]:
    """Join a running cluster."""
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise ExecutionError(
            f"no Ray cluster could be reached at '{address}' ({describe(error)}); start one, give its address, "
            'or use "local"'
        ) from error

    def leave() -> None:
        ray.shutdown()

    return leave


def _short_temp() -> str | None:
    """A temporary folder with a short name, because Ray puts Unix sockets (at most 107 characters) below it."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 30 else "/tmp"


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables that the user has not set, for as long as Ray needs them to start."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def cluster_summary(address: str) -> str:
    """What a cluster has, in words.

    Raises:
        ExecutionError: It could not be started or reached.
    """
    disconnect = connect(address)
    try:
        total = ray.cluster_resources()
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        return f"{nodes} node(s), {total.get('CPU', 0):g} CPU, {total.get('GPU', 0):g} GPU; authentication: {mode}"
    finally:
        disconnect()

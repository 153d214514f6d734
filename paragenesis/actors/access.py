"""Who may command a Ray cluster: the token, where it lies, and whether a cluster asks for one.

As of Ray 2.60: authentication is on if RAY_AUTH_MODE is "token" and off if it is anything else; if it is not set, Ray
turns it on for clusters that it starts, and when it joins one, perhaps. The token is that of RAY_AUTH_TOKEN, else of
the file RAY_AUTH_TOKEN_PATH, else of ~/.ray/auth_token. A cluster without authentication ignores a token that it is
sent, so a token on our side alone protects nothing: whether the cluster wants one has to be asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc  # type: ignore[import-untyped]
from ray._common.tls_utils import load_certs_from_env
from ray._private import services
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from paragenesis.engine.executor import describe
from paragenesis.errors import ExecutionError, InputError

MODE = "RAY_AUTH_MODE"
QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # what Ray itself asks first; its empty form changes nothing
ANSWER_S = 30.0  # how long a cluster that is just starting is waited for
REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
TRUST = "or pass --trust-network (trust_network=True in Python) if nobody else can reach it"


@dataclass(frozen=True)
class Token:
    """Where Ray finds the token of this user.

    Attributes:
        source: "RAY_AUTH_TOKEN", or the path of a file.
        mode: The file's permission bits; None without a file.
        fault: What is wrong with it, with the cure; empty if nothing is.
    """

    source: str
    mode: int | None = None
    fault: str = ""

    def __str__(self) -> str:
        """Source and permissions."""
        return self.source if self.mode is None else f"{self.source}, mode {self.mode:04o}"


def find_token() -> Token | None:
    """The token that Ray would use; None if there is none. The file is looked at, never changed."""
    value = os.environ.get("RAY_AUTH_TOKEN", "")
    if value:
        return Token("RAY_AUTH_TOKEN", fault="" if value.strip() else "RAY_AUTH_TOKEN is blank; set it or unset it")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        mode, text = path.stat().st_mode & 0o777, path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return Token(named, fault=f"RAY_AUTH_TOKEN_PATH names '{named}', which does not exist") if named else None
    except OSError as error:
        return Token(str(path), fault=f"'{path}' cannot be read: {error.strerror}")
    fault = ""
    if mode & 0o077:
        fault = f"other users may read or change '{path}' (mode {mode:04o}); run chmod 600 '{path}'"
    if not text.strip():
        fault = f"'{path}' is empty; put the token in, or remove it"
    return Token(str(path), mode, fault)


def switched_off() -> str:
    """What RAY_AUTH_MODE says if it turns authentication off; empty if it does not."""
    mode = os.environ.get(MODE, "").strip()
    return "" if mode.lower() in ("", "token") else mode


def turn_on() -> None:
    """Turn token authentication on for this process and those it starts.

    Ray reads mode and token once, when it is imported and when it first needs them; here it reads both again.
    """
    os.environ[MODE] = "token"
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def admitted(address: str) -> str:
    """Turn authentication on and make sure that a running cluster asks for it; the cluster's "host:port".

    Nothing is sent before mode and token are there. Then the cluster is asked whether it is alive, without the token:
    an authenticated one refuses to say. Only then, it is asked with the token.

    Args:
        address: "auto" or "host:port".

    Raises:
        InputError: Authentication is off, there is no token or no safe one, the cluster does not ask for it, or
            refuses it.
        ExecutionError: There is no cluster.
    """
    _require_token(address)
    where = _resolved(address)
    turn_on()
    if _answers(where, {}):
        raise InputError(
            f"the Ray cluster at {where} obeys anyone: it answered without a token; start it with {MODE}=token in the "
            f"environment of every node, {TRUST}"
        )
    if not _answers(where, AuthenticationTokenLoader.instance().get_token_for_http_header()):
        raise InputError(f"the Ray cluster at {where} refuses the token of {find_token()}; give the cluster's own")
    return where


def check_used(where: str) -> None:
    """Make sure that the cluster which this process uses already asks for a token.

    Raises:
        InputError: It does not.
        ExecutionError: It cannot be asked.
    """
    try:
        open_to_all = _answers(where, {})
    except ExecutionError as error:
        raise ExecutionError(
            f"this program is connected to a Ray cluster whose head at {where} cannot be asked for authentication "
            f"({error}); run it where the head can be reached, {TRUST}"
        ) from error
    if open_to_all:
        raise InputError(
            f"this program is connected to the Ray cluster at {where}, which obeys anyone: it answered without a "
            f"token; start it with {MODE}=token in the environment, {TRUST}"
        )


def _require_token(address: str) -> None:
    """Refuse to join without authentication on this side.

    Raises:
        InputError: It is off, or there is no token, or one that others can read.
    """
    if off := switched_off():
        raise InputError(
            f"'{address}' was not joined: {MODE}={off} turns authentication off, and whoever reaches an open Ray "
            f"cluster can run code on it; set {MODE}=token, {TRUST}"
        )
    token = find_token()
    if token is None:
        raise InputError(
            f"'{address}' was not joined: there is no token to join with, neither RAY_AUTH_TOKEN nor a file "
            f"~/.ray/auth_token; copy the cluster's token there (mode 0600), {TRUST}"
        )
    if token.fault:
        raise InputError(f"'{address}' was not joined: {token.fault}, {TRUST}")


def _resolved(address: str) -> str:
    """The "host:port" that Ray would join; "auto" is RAY_ADDRESS, or a cluster on this machine.

    Raises:
        InputError: It is no address of this kind.
        ExecutionError: There is no cluster on this machine.
    """
    services.find_gcs_addresses.cache_clear()
    try:
        where = services.canonicalize_bootstrap_address(address)
    except ConnectionError as error:
        raise unreachable(address, describe(error)) from error
    except ValueError:
        where = None
    if where is None or "://" in where:
        named = f"'{address}'" if address != "auto" else f"RAY_ADDRESS '{os.environ.get('RAY_ADDRESS')}'"
        raise InputError(f'{named} is no address of a running Ray cluster; give "host:port" of its head, or "auto"')
    return str(where)


def _answers(where: str, metadata: Mapping[str, str]) -> bool:
    """Whether a cluster's head answers a question that comes with these credentials.

    Raises:
        ExecutionError: Nobody is there.
    """
    with _channel(where) as channel:
        try:
            channel.unary_unary(QUESTION)(b"", timeout=ANSWER_S, wait_for_ready=True, metadata=tuple(metadata.items()))
        except grpc.RpcError as error:
            if error.code() in REFUSALS:
                return False
            raise unreachable(where, f"{error.code().name}: {error.details()}") from error
    return True


def _channel(where: str) -> grpc.Channel:
    """A channel that says nothing of its own accord, encrypted if Ray's are (RAY_USE_TLS)."""
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(where, options=GLOBAL_GRPC_OPTIONS)
    chain, key, authority = load_certs_from_env()
    credentials = grpc.ssl_channel_credentials(authority, private_key=key, certificate_chain=chain)
    return grpc.secure_channel(where, credentials, options=GLOBAL_GRPC_OPTIONS)


def unreachable(address: str, why: str) -> ExecutionError:
    """The error for a cluster that is not there."""
    return ExecutionError(
        f"no Ray cluster could be reached at '{address}' ({why}); start one, give its address, or use \"local\""
    )

"""Who is let in: authentication before Ray is touched, private clusters on the loopback, and who listens where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from paragenesis.actors import access, ray_listeners
from paragenesis.actors.access import find_token
from paragenesis.actors.cluster import connect
from paragenesis.actors.listeners import Listener
from paragenesis.errors import ExecutionError, InputError

VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and none of Ray's variables."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def calls(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `ray.init` and the cluster are asked; both are stand-ins, and the cluster has no authentication."""
    made: list[dict[str, Any]] = []

    def init(**given: Any) -> None:
        made.append(given | {name: os.environ.get(name) for name in VARIABLES})

    def answers(where: str, metadata: Any) -> bool:
        made.append({"asked": where})
        return True

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(access, "_answers", answers)
    # the real one would make a cluster that other tests use forget its token
    monkeypatch.setattr(access, "turn_on", lambda: monkeypatch.setenv("RAY_AUTH_MODE", "token"))
    return made


def token_file(path: Path, mode: int, text: str = "token") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode)
    path.write_text(text)
    path.chmod(mode)
    return path


# --- joining -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "elsewhere.example:6379"])
@pytest.mark.parametrize(
    ("variables", "mode", "said"),
    [
        ({}, None, "there is no token to join with"),
        ({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "disabled"}, None, "RAY_AUTH_MODE=disabled turns authentication off"),
        ({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "tokn"}, None, "RAY_AUTH_MODE=tokn turns authentication off"),
        ({"RAY_AUTH_TOKEN": " "}, None, "RAY_AUTH_TOKEN is blank"),
        ({"RAY_AUTH_TOKEN_PATH": "/no/such/token"}, None, "'/no/such/token', which does not exist"),
        ({"RAY_AUTH_MODE": "token"}, 0o644, "(mode 0644); run chmod 600 '"),
        ({"RAY_AUTH_MODE": "token"}, 0o620, "(mode 0620); run chmod 600 '"),
    ],
)
def test_joining_without_authentication_is_refused_before_anything_is_sent(
    home: Path,
    calls: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    mode: int | None,
    said: str,
    address: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if mode is not None:
        file = token_file(home / ".ray" / "auth_token", mode)
    with pytest.raises(InputError, match="was not joined") as refused:
        connect(address)
    assert said in str(refused.value)
    assert "--trust-network" in str(refused.value)
    assert calls == []
    if mode is not None:
        assert file.stat().st_mode & 0o777 == mode, "a user's file is not changed"
    connect(address, trust_network=True)
    assert [call["address"] for call in calls] == [address]


def test_a_cluster_that_answers_without_a_token_is_not_joined(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token")
    with pytest.raises(InputError, match="obeys anyone: it answered without a token"):
        connect("head.example:6379")
    assert calls == [{"asked": "head.example:6379"}]


@pytest.mark.parametrize(("address", "variable"), [("ray://h:10001", ""), ("nowhere", ""), ("auto", "ray://h:10001")])
def test_an_address_that_cannot_be_checked_is_refused(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, address: str, variable: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token")
    monkeypatch.setenv("RAY_ADDRESS", variable)
    with pytest.raises(InputError, match='give "host:port" of its head, or "auto"'):
        connect(address)
    assert calls == []


def test_a_head_that_is_not_there_is_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "ANSWER_S", 0.2)
    with pytest.raises(ExecutionError, match=r"no Ray cluster could be reached at '127\.0\.0\.1:1' \("):
        access._answers("127.0.0.1:1", {})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_that_the_program_uses_already_must_ask_for_a_token_too(monkeypatch: pytest.MonkeyPatch) -> None:
    connect("auto")()  # the tests' own asks for one, and was left as it is
    assert ray.is_initialized()
    monkeypatch.setattr(access, "_answers", lambda where, metadata: not metadata)
    with pytest.raises(InputError, match=r"connected to the Ray cluster at .*, which obeys anyone.*--trust-network"):
        connect("local")
    connect("local", trust_network=True)


# --- the token ---------------------------------------------------------------------------------------------------

COMPARE = """
import json, os, sys
from pathlib import Path
from ray._raylet import AuthenticationTokenLoader
from ray.exceptions import AuthenticationError
from paragenesis.actors.access import find_token

for variables in json.loads(sys.argv[1]):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    os.environ.update(variables)
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        theirs = loader.get_raw_token(ignore_auth_mode=True)
    except AuthenticationError:
        theirs = ""
    ours = find_token()
    value = ""
    if ours is not None and not ours.fault:
        value = os.environ["RAY_AUTH_TOKEN"] if ours.mode is None else Path(ours.source).read_text().strip()
    print(json.dumps([theirs, value]))
"""


def test_the_token_found_is_the_one_that_ray_uses(home: Path) -> None:
    token_file(home / ".ray" / "auth_token", 0o600, " of the home folder\n")
    token_file(home / "named", 0o600, "named\n")
    token_file(home / "empty", 0o600, "\n")
    tries = [
        {},
        {"RAY_AUTH_TOKEN": "variable", "RAY_AUTH_TOKEN_PATH": str(home / "named")},
        {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": ""},
        {"RAY_AUTH_TOKEN": " "},
        {"RAY_AUTH_TOKEN_PATH": str(home / "named")},
        {"RAY_AUTH_TOKEN_PATH": str(home / "empty")},
        {"RAY_AUTH_TOKEN_PATH": str(home / "absent")},
        {"HOME": str(home / "absent")},
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, json.dumps(tries)], capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [theirs for theirs, _ in found] == [
        "of the home folder",
        "variable",
        "of the home folder",
        "",
        "named",
        "",
        "",
        "",
    ]
    assert [ours for _, ours in found] == [theirs for theirs, _ in found]


def test_the_token_is_described_with_the_permissions_of_its_file(home: Path) -> None:
    assert find_token() is None
    file = token_file(home / ".ray" / "auth_token", 0o600)
    assert (str(find_token()), find_token().fault) == (f"{file}, mode 0600", "")  # type: ignore[union-attr]
    file.chmod(0o640)
    assert str(find_token()) == f"{file}, mode 0640"


# --- private clusters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, "", " ", "mine"])
def test_a_private_cluster_gets_its_token_by_the_environment_so_that_ray_writes_none(
    home: Path, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    if given is not None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", given)
    connect("local")()
    (call,) = calls
    assert call["address"] == "local"
    assert call["RAY_AUTH_MODE"] == "token"
    assert call["RAY_AUTH_TOKEN"] == given if given and given.strip() else len(call["RAY_AUTH_TOKEN"]) == 64
    assert os.environ.get("RAY_AUTH_TOKEN") == given
    assert list(home.iterdir()) == []


def test_a_private_cluster_without_authentication_is_refused(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(InputError, match="RAY_AUTH_MODE=disabled would let every user of this machine"):
        connect("local")
    assert calls == []
    connect("local", trust_network=True)
    assert calls[0]["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_private_cluster_listens_on_the_loopback_alone() -> None:
    @ray.remote
    def work() -> str:
        return os.environ["RAY_AUTH_MODE"]

    assert ray.get(work.remote()) == "token"
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    found = [one for one in ray_listeners() or [] if one.pid in ours]
    assert {"gcs_server", "raylet"} <= {one.process for one in found}
    assert any(one.process.startswith("ray::") for one in found), "workers listen, too"
    assert [str(one) for one in found if not one.on_loopback] == []
    driver = [c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert driver, "this process listens, too"
    assert set(driver) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


# --- who listens -------------------------------------------------------------------------------------------------

LISTEN = """
import socket, sys
for host in ("0.0.0.0", "127.0.0.1"):
    s = socket.socket()
    s.bind((host, 0))
    s.listen()
    print(s.getsockname()[1], flush=True)
    globals()[host] = s
sys.stdin.read()
"""


@pytest.fixture
def planted() -> Iterator[Callable[[str], tuple[int, int, int]]]:
    """Starts a process under another name that listens twice; its pid, an open port and one on the loopback."""
    started: list[subprocess.Popen[str]] = []

    def plant(name: str) -> tuple[int, int, int]:
        process = subprocess.Popen(
            [name, "-c", LISTEN],
            executable=sys.executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return process.pid, int(process.stdout.readline()), int(process.stdout.readline())

    yield plant
    for process in started:
        process.communicate("", timeout=30)


def test_listeners_of_ray_are_found_with_their_addresses(planted: Callable[[str], tuple[int, int, int]]) -> None:
    pid, everywhere, inside = planted("/opt/ray/raylet")
    other, *_ = planted("/opt/something/else")
    found = ray_listeners() or []
    assert [one for one in found if one.pid == pid] == sorted(
        [Listener("raylet", pid, "0.0.0.0", everywhere), Listener("raylet", pid, "127.0.0.1", inside)]
    )
    assert [one for one in found if one.pid == other] == []
    assert [one.on_loopback for one in found if one.pid == pid] == [False, True]


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:5} 0 {inode} 1 0 100 0\n"


def test_sockets_are_read_as_linux_writes_them(tmp_path: Path) -> None:
    uid = os.geteuid()
    (tmp_path / "net").mkdir()
    rows = [("0100007F:1F90", "0A", uid, 1), ("00000000:18EB", "0A", uid + 1, 2), ("0100007F:1F91", "01", uid, 3)]
    six = [("0" * 32 + ":18EB", "0A", uid, 4), ("0000000000000000FFFF00000100007F:0050", "0A", uid, 5)]
    six += [("00000000000000000000000001000000:0051", "0A", uid, 6)]
    for table, lines in (("tcp", rows), ("tcp6", six)):
        text = HEAD + "".join(ROW.format(address=a, state=s, uid=u, inode=i) for a, s, u, i in lines)
        (tmp_path / "net" / table).write_text(text)
    for pid, command in ((7, "ray::DashboardAgent\0\0"), (8, "/usr/bin/python3\0-u\0/x/ray/dashboard/dashboard.py\0")):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "cmdline").write_text(command)
    for pid, inode in ((7, 1), (7, 2), (7, 3), (7, 4), (8, 5), (8, 6)):
        (tmp_path / str(pid) / "fd" / str(inode)).symlink_to(f"socket:[{inode}]")
    found = ray_listeners(tmp_path)
    assert found is not None
    assert [str(one) for one in found] == [
        "dashboard.py 127.0.0.1:80",
        "dashboard.py [::1]:81",
        "ray::DashboardAgent 127.0.0.1:8080",
        "ray::DashboardAgent [::]:6379",
    ]
    assert [one.on_loopback for one in found] == [True, True, True, False]
    assert ray_listeners(tmp_path / "7") is None, "other systems have no such folder"

"""The doctor finds what is wrong, names it, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from paragenesis import doctor
from paragenesis.actors.listeners import Listener
from paragenesis.cli import run_command

INSIDE = Listener("ray::IDLE", 8, "127.0.0.1", 40001)
OUTSIDE = Listener("raylet", 7, "::", 40000)


@pytest.fixture(autouse=True)
def ray_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Listener]:
    """What Ray's processes listen on, none at first; those of this machine, and its tokens, are none of the tests'."""
    found: list[Listener] = []
    monkeypatch.setattr("paragenesis.actors.ray_listeners", lambda: found)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return found


def findings(monkeypatch: pytest.MonkeyPatch, *potentials: str) -> dict[str, doctor.Finding]:
    monkeypatch.setattr(doctor, "SHIPPED", ("chgnet-0.3.0",))
    return {f.subject: f for f in doctor.examine(potentials, cluster=False, address="local")}


def test_a_sound_machine_has_versions_and_a_potential_with_the_known_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch)
    assert all(f.ok for f in found.values())
    assert set(doctor.PACKAGES) <= found.keys()
    assert found["torch"].value.startswith("2.")
    assert "eV/atom on 17 compounds, weights d14ab7c0f093" in found["potential chgnet-0.3.0"].value


def test_every_problem_is_found_not_only_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(doctor, "NVIDIA_DEVICE", tmp_path / "nvidia0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = findings(monkeypatch, "chgnet-9", "matgl:/no/such/folder", "lennard-jones")
    problems = {name for name, f in found.items() if not f.ok}
    assert problems >= {"no-such-package", "GPUs", "potential chgnet-9", "potential matgl:/no/such/folder"}
    assert "not installed" in found["no-such-package"].value
    assert "did you mean" in found["potential chgnet-9"].value
    assert "cannot use it; install a torch" in found["GPUs"].value


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ok: bool, code: int
) -> None:
    monkeypatch.setattr(doctor, "_machine", lambda: [doctor.Finding("disk here", "3 GiB free", ok)])
    monkeypatch.setattr(doctor, "SHIPPED", ())
    assert run_command(["doctor", "--no-ray"]) == code
    out = capsys.readouterr().out
    assert "3 GiB free" in out
    assert ("PROBLEM" in out) == (not ok)
    assert ("1 to put right" in out) == (not ok)


# --- who can reach Ray -------------------------------------------------------------------------------------------


def security(
    monkeypatch: pytest.MonkeyPatch, *, address: str = "local", trust: bool = False
) -> dict[str, doctor.Finding]:
    monkeypatch.setattr(doctor, "SHIPPED", ())
    found = {f.subject: f for f in doctor.examine((), cluster=False, address=address, trust_network=trust)}
    return {name: found[name] for name in ("authentication", "Ray's token", "Ray listens on")}


def test_a_machine_without_ray_and_token_is_sound_until_a_cluster_is_to_be_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = security(monkeypatch)
    assert all(f.ok for f in found.values())
    assert found["authentication"].value == "by token (RAY_AUTH_MODE=not set)"
    assert found["Ray's token"].value.startswith("none;")
    assert "no Ray process of yours runs" in found["Ray listens on"].value
    joining = security(monkeypatch, address="auto")
    assert [name for name, f in joining.items() if not f.ok] == ["Ray's token"]


@pytest.mark.parametrize("trust", [False, True])
def test_what_lets_others_in_is_a_problem_unless_the_network_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray_processes: list[Listener], trust: bool
) -> None:
    ray_processes += [INSIDE, OUTSIDE]
    file = tmp_path / "token"
    file.write_text("secret")
    file.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    found = security(monkeypatch, trust=trust)
    assert [f.ok for f in found.values()] == [trust] * 3
    assert "off (RAY_AUTH_MODE=disabled)" in found["authentication"].value
    assert f"{file}, mode 0644" in found["Ray's token"].value
    assert f"chmod 600 '{file}'" in found["Ray's token"].value
    assert "other machines may reach raylet [::]:40000" in found["Ray listens on"].value
    assert "only this machine reaches ray::IDLE 127.0.0.1:40001" in found["Ray listens on"].value
    assert "secret" not in str(found)


def test_a_safe_machine_has_its_addresses_and_permissions_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray_processes: list[Listener]
) -> None:
    ray_processes.append(INSIDE)
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.touch(0o600)
    file.write_text("secret")
    found = security(monkeypatch, address="auto")
    assert [(f.ok, f.value) for f in found.values()] == [
        (True, "by token (RAY_AUTH_MODE=not set)"),
        (True, f"{file}, mode 0600"),
        (True, "only this machine reaches ray::IDLE 127.0.0.1:40001"),
    ]


def test_a_system_without_proc_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paragenesis.actors.ray_listeners", lambda: None)
    assert security(monkeypatch)["Ray listens on"].value.startswith("not looked at")


@pytest.mark.parametrize("trust", [False, True])
def test_the_doctor_joins_an_unauthenticated_cluster_only_where_the_network_is_trusted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trust: bool
) -> None:
    joined = []
    monkeypatch.setattr(doctor, "SHIPPED", ())
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.init", lambda address, **_: joined.append(address))
    monkeypatch.setattr("paragenesis.actors.cluster_summary", lambda: "2 node(s)")
    code = run_command(["doctor", "--address", "head:6379", *(["--trust-network"] if trust else [])])
    said = capsys.readouterr().out
    assert (code, joined) == ((0, ["head:6379"]) if trust else (1, []))
    assert ("2 node(s)" in said) == trust
    assert ("'head:6379' was not joined: there is no token" in said) == (not trust)

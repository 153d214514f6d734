"""The doctor finds what is wrong, names it, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from paragenesis import doctor
from paragenesis.cli import run_command


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

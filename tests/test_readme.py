"""The README's promises that a test can hold: its example runs, its files and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paragenesis.cli import build_parser
from paragenesis.engine.ledger import verify_ledger

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_is_at_most_twenty_lines_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found
    example = found.group(1)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "campaigns" / "silicates" / "report.html").is_file()
    assert verify_ledger(tmp_path / "campaigns" / "silicates") == []


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_command_of_the_table_exists() -> None:
    commands = re.findall(r"^\| `paragenesis (\w+)", README, re.MULTILINE)
    text = build_parser().format_help()
    assert len(commands) == 12
    assert all(re.search(rf"^\s+{command}\b", text, re.MULTILINE) for command in commands)


def test_the_two_commands_are_executable() -> None:
    for script in ("scripts/quickstart", "scripts/test"):
        assert script in README
        assert (ROOT / script).stat().st_mode & 0o111

"""The examples: the two forms of the quickstart are one campaign, and every script runs."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from pathlib import Path

from paragenesis import CampaignSpec
from paragenesis.engine.spec import changed_fields

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_python_quickstart_is_the_toml_quickstart() -> None:
    written: CampaignSpec = runpy.run_path(str(EXAMPLES / "quickstart.py"))["spec"]
    read = CampaignSpec.from_toml(EXAMPLES / "quickstart.toml")
    assert changed_fields(written.identity(), read.identity()) == []
    assert "custom_objective.py" in read.identity()["files"], "the user's file must count by its content"
    assert written.rounds == read.rounds


def test_the_python_quickstart_takes_at_most_fifteen_lines() -> None:
    text = (EXAMPLES / "quickstart.py").read_text(encoding="utf-8")
    docstring = ast.parse(text).body[0].end_lineno or 0
    code = [line for line in text.splitlines()[docstring:] if line.strip() and not line.startswith("#")]
    assert len(code) <= 15


def test_the_custom_objective_says_that_it_is_ready() -> None:
    script = subprocess.run(
        [sys.executable, str(EXAMPLES / "custom_objective.py")], capture_output=True, text=True, check=False
    )
    assert script.returncode == 0, script.stdout + script.stderr
    assert "specific_stiffness is ready" in script.stdout

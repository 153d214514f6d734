"""What a terminal shows: bars that fit, tables that can be read, and nobody else's warnings."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from paragenesis.engine.campaign import Progress
from paragenesis.terminal import progress, show_table

STEPS = [
    Progress(0, "check", 0, 1, "checking potentials, hull, objectives and generators"),
    Progress(1, "fill", 12, 48, "generating, screening and relaxing"),
    Progress(1, "fill", 48, 48, "7 of 12 kept (r001/chunk/substitution/00003)"),
    Progress(1, "decide", 2, 4, "2 of 3 selected, 1 held back by triage"),
    Progress(10, "verify", 0, 0, "asking the oracle (chgnet-r2scan/mp-r2scan/907a661e3ebc) [x]"),
    Progress(10, "close", 1, 1, "round 10 closed: 1 hits"),
]


@pytest.mark.parametrize("width", [80, 140])
def test_bars_fit_the_terminal_and_keep_their_counts(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, force_interactive=True, width=width, _environ={})
    with progress(console) as notify:
        for step in STEPS:
            notify(step)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).splitlines()
    last = [line for line in lines if line.strip()][-5:]
    assert max(map(len, lines)) <= width
    assert not any("None" in line for line in lines)
    assert [line.split("━")[0].strip() for line in last] == [
        "✓ check", "✓ round 1 · fill", "✓ round 1 · decide", "✓ round 10 · verify", "✓ round 10 · close",
    ]  # fmt: skip
    assert "48/48" in last[1]
    assert "2/4" in last[2], "a batch that could not be filled is not shown as full"
    assert "7 of 12 kept" in last[1]
    assert ("00003)" in last[1]) == (width == 140), "what does not fit is cut"


def test_a_wide_answer_is_shown_row_by_row() -> None:
    import pyarrow as pa

    table = pa.table({f"column_{i}": [f"value_{i}_a", f"value_{i}_b"] for i in range(20)})
    out = io.StringIO()
    show_table(Console(file=out, width=80), table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(r"column_19 +value_19_b", out.getvalue())
    assert sum(line.startswith("row ") for line in lines) == 2


def test_other_packages_are_silent_and_ours_are_not() -> None:
    script = """
import logging, warnings
from paragenesis.terminal import silence_third_parties
silence_third_parties()
warnings.warn_explicit("theirs", UserWarning, "pymatgen/core.py", 1, module="pymatgen.core")
warnings.warn_explicit("our warning", UserWarning, "x.py", 1, module="paragenesis_user_x")
logging.getLogger("moyo.lib").warning("theirs")
logging.basicConfig(level=logging.INFO)
logging.info("theirs")
logging.getLogger("paragenesis.engine").warning("our log line")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "theirs" not in done.stderr + done.stdout
    assert "our warning" in done.stderr
    assert "our log line" in done.stderr

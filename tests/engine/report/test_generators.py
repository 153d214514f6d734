"""The report's table of generators says what the ledger holds of their yields, aims and lessons."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paragenesis.engine.budget import Yield
from paragenesis.engine.ledger import Ledger, rows
from paragenesis.engine.records import yield_tables
from paragenesis.engine.report import write_report

Build = Callable[..., Path]
ATTACK = "<img src=x onerror=alert(1)>"


def row_of(page: str, table: str, index: int) -> str:
    """The words of one row of a table's body."""
    [body] = re.findall(rf'<table id="{table}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    cells = body.split("</tr>")[index]
    return " ".join(re.sub(r"<[^>]+>", " ", cells).split())


def write(directory: Path, number: int, tables: dict[str, Any], kind: str) -> None:
    with Ledger.open(directory) as ledger:
        ledger.commit(f"r{number}/{kind}", number, kind, tables)


def test_yields_aims_and_lessons_are_shown(build: Build) -> None:
    directory = build(rounds=2, verified=False)
    gave = Yield(generator="flow", asked=8, generated=7, kept=5, selected=2, verified=2, hits=1, cost=40_000.0)
    write(directory, 2, yield_tables(2, [gave], [0.25]), "yield")  # type: ignore[arg-type]
    aims = [
        [
            {"property": "band_gap", "low": 1.0, "high": 2.0},
            {"property": "energy_above_hull", "low": None, "high": 0.0},
        ],
        [{"property": "density", "low": 3.0, "high": None}, {"property": "band_gap", "low": 1.5, "high": 1.5}],
    ]
    chunks = rows("chunks", round=2, generator="flow", chunk=[0, 1, 2], n=4, aim=[*map(json.dumps, aims), None])
    write(directory, 2, {"chunks": chunks}, "plan")
    counts = {"valid": (10, 8), "unique": (10, 8), "novel": (5, 0)}
    lessons = rows(
        "learning",
        round=2,
        generator=["flow", "wyckoff"],
        outcome=["refused", "failed"],
        reason=["validity fell", None],
        error=[None, ATTACK],
        crystals=40,
        asked=[20, None],
        **{f"{n}_{w}": [both[i], None] for n, both in counts.items() for i, w in enumerate(("before", "after"))},
    )
    write(directory, 2, {"learning": lessons}, "learning")
    page = write_report(directory).read_text("utf-8")
    said = row_of(page, "generators", 0)
    assert said.startswith("2 flow 8 7 5 2 2 1 40,000 50 25% 2 aims")
    assert "band gap from 1 to 2; energy above hull at most 0" in said
    assert "density at least 3; band gap 1.5" in said
    assert (
        row_of(page, "learning", 0)
        == "2 flow refused 40 20 10/20 = 50% 8/20 = 40% 10/10 = 100% 8/8 = 100% 5/10 = 50% 0/8 = 0% validity fell"
    )
    assert row_of(page, "learning", 1) == "2 wyckoff failed 40 – &lt;img src=x onerror=alert(1)&gt;"
    assert ATTACK not in page


def test_a_ledger_without_yields_says_when_they_come(build: Build) -> None:
    page = write_report(build(rounds=1)).read_text("utf-8")
    assert "counted when a round closes" in page
    assert 'id="learning"' not in page

"""Cheaper oracles on the page: counts, and agreement with the oracle where both were asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import duckdb

from paragenesis.engine.report import write_report

Build = Callable[..., Path]
PROBES = [{"name": "chgnet-0.3.0", "q": 4, "level_key": "cheap/pbe/1", "level": {}}]


def test_a_campaign_without_them_says_nothing_of_them(build: Build) -> None:
    assert "Cheaper oracles" not in write_report(build()).read_text("utf-8")


def test_their_offset_is_told_apart_from_their_scatter(build: Build) -> None:
    directory = build(meta={"probes": json.dumps(PROBES)})
    with duckdb.connect(str(directory / "ledger.duckdb")) as connection:
        connection.execute(
            "INSERT INTO probes BY NAME SELECT DISTINCT round, 1 AS fidelity, candidate_id, 1 AS rank FROM selections"
        )
        connection.execute(
            "INSERT INTO probe_answers BY NAME SELECT candidate_id, 'cheap/pbe/1' AS level_key, property, round, "
            "1 AS fidelity, status, value - 0.5 AS value, error FROM verifications"
        )
    page = write_report(directory).read_text("utf-8")
    assert '<td class="n">12</td><td class="n">10</td><td class="n">2</td>' in page
    said = re.search(r"density: offset −0.5 g/cm3, scatter (\S+) g/cm3, correlation 1.00 \(10 crystals\)", page)
    assert said
    assert float(said[1]) < 1e-12

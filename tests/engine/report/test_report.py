"""The report says what the ledger holds, and nothing in the ledger can harm who reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from paragenesis.engine.ledger import Ledger, LedgerReader
from paragenesis.engine.report import write_report
from paragenesis.engine.report.data import Axis, read_campaign
from paragenesis.engine.report.figures_models import agreement, hull_histogram, reliability
from paragenesis.engine.report.figures_progress import pareto_panels
from paragenesis.engine.report.selected import Comparison, comparisons, read_selected
from paragenesis.errors import InputError, LedgerError
from paragenesis.objectives import Minimize

Build = Callable[..., Path]
SECTIONS = (
    "funnel",
    "pareto",
    "rounds",
    "hull",
    "agreement",
    "verified",
    "crystals",
    "generators",
    "honesty",
    "triage",
    "provenance",
)
ATTACK = "</script><script>document.body.dataset.pwned=1</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """The elements of a page, as a browser would see them."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._script = ""
        self.words: list[str] = []
        self.feed(file.read_text("utf-8").replace(get_plotlyjs(), ""))  # 5 MB that need no parsing

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = dict(attrs).get("data-for") or dict(attrs).get("id") or "code" if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self._script = "" if tag == "script" else self._script

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def figures(self) -> dict[str, Any]:
        return {key: json.loads(body) for key, body in self.scripts.items() if key.startswith("figure-")}


def test_every_section_is_there_with_its_figures(build: Build) -> None:
    file = write_report(build())
    page = Page(file)
    assert file.name == "report.html"
    assert [a["id"] for t, a in page.tags if t == "h2"] == [f"section-{name}" for name in SECTIONS]
    assert set(page.figures()) == {
        *(f"figure-{name}" for name in ("funnel", "rejections", "hypervolume", "hits", "hull", "agreement", "spread")),
        *(f"figure-pareto-{pair}" for pair in ("0-1", "0-2", "1-2")),
        *(f"figure-verified-{name}" for name in ("energy_above_hull", "density", "bulk_modulus")),
        "figure-reliability",
    }
    assert page.text.count("No ") == 0  # nothing is said to be missing
    for words in (
        "2,090 phases",
        "It is sparse",
        "Mixed levels, as asked for",
        "412 held-out",
        "bias −0.007",
        "seed 7",
    ):
        assert words in page.text
    assert "energy above hull at most 0.1 eV/atom" in page.text
    assert "density (g/cm3), minimise" in page.figures()["figure-pareto-0-1"]["layout"]["yaxis"]["title"]["text"]


def test_nothing_is_loaded_from_elsewhere(build: Build) -> None:
    page = Page(write_report(build()))
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, name, value)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_hostile_words_in_the_ledger_stay_words(build: Build) -> None:
    hostile = {"formula": ATTACK, "reason": ATTACK + ": x", "origin": ATTACK, "chemical_system": ATTACK}
    meta = {"name": ATTACK, "versions": {ATTACK: ATTACK}, "spec": {ATTACK: ATTACK}, "hull": {"name": ATTACK}}
    file = write_report(build(meta=meta, **hostile))
    page = Page(file)
    assert ATTACK not in file.read_text("utf-8")
    assert not [a for t, a in page.tags if t == "img" or any(name.startswith("on") for name in a)]
    assert ATTACK in page.text
    figures = page.figures()
    assert "&lt;img" in json.dumps(figures["figure-pareto-0-1"])  # Plotly reads HTML, so a figure's words are escaped
    assert "<img" not in json.dumps(figures)


# What the ledger means by these words decides what is shown, so they stay as they are.
MEANT = {
    "verdict",
    "status",
    "state",
    "kind",
    "property",
    "model",
    "outcome",
    "commit_key",
    "level_key",
    "aim",
    "stage",
}
MEANT |= {"key", "value", "condition", "calibration", "generator"}


def spoilt(directory: Path) -> int:
    """Put the attack into every column of texts in every table; how many columns."""
    count = 0
    with duckdb.connect(str(directory / "ledger.duckdb")) as connection:
        connection.execute(
            "INSERT INTO yields (round, generator, asked, generated, kept, selected, verified, hits, cost, next_share) "
            "VALUES (1, ?, 1, 1, 1, 1, 1, 1, 1.0, 1.0)", [ATTACK],
        )  # fmt: skip
        connection.execute(
            "INSERT INTO learning (round, generator, outcome, reason, crystals, weights, sha256) "
            "VALUES (1, ?, 'refused', 'why', 1, 'w', 's')", [ATTACK],
        )  # fmt: skip
        connection.execute(
            "INSERT INTO chunks (round, generator, chunk, n, aim) VALUES (1, ?, 0, 1, ?)",
            [ATTACK, json.dumps([{"property": ATTACK, "low": 1, "high": 2}])],
        )
        sql = "SELECT table_name, column_name FROM duckdb_columns() WHERE data_type = 'VARCHAR' AND NOT internal"
        for table, column in connection.execute(sql).fetchall():
            if column not in MEANT and table != "meta":
                connection.execute(f"UPDATE {table} SET {column} = coalesce({column}, '') || ?", [ATTACK])
                count += 1
        connection.execute("UPDATE rounds SET condition = ?, calibration = ?", [ATTACK, ATTACK])
    return count


_TAGS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "link",
        "style",
        "body",
        "main",
        "header",
        "p",
        "h1",
        "h2",
        "h3",
        "nav",
        "a",
        "section",
        "div",
        "b",
        "span",
        "small",
        "figure",
        "script",
        "figcaption",
        "canvas",
        "button",
        "dl",
        "dt",
        "dd",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "strong",
        "details",
        "summary",
        "code",
        "pre",
        "footer",
        "sub",
    ]
)


def test_hostile_words_in_every_table_stay_words(build: Build) -> None:
    level = {"engine": ATTACK, "functional": ATTACK, ATTACK: ATTACK}
    sources = {"references": {"mae": 0.1, "bias": 0.1, "n": 3, "source": ATTACK}, "level": level}
    meta: dict[str, Any] = {
        "name": ATTACK, "campaign_id": ATTACK, "seed": ATTACK, "spec": {ATTACK: [ATTACK]}, "versions": {ATTACK: ATTACK},
        "objectives": [{"name": name, "unit": ATTACK, "goal": "minimize"} for name in ("density", "bulk_modulus")],
        "hull": {"name": ATTACK, "functional": ATTACK, "description": ATTACK, "coverage": [ATTACK]},
        "members": [{"name": name, "level_key": ATTACK, **sources} for name in ("chgnet-0.3.0", ATTACK)],
        "probes": [{"name": ATTACK, "level_key": ATTACK}],
        "oracle": {"name": ATTACK, "level_key": "chgnet-r2scan/mp-r2scan/0123456789ab", **sources},
    }  # fmt: skip
    directory = build(meta=meta)
    assert spoilt(directory) > 20
    with LedgerReader.open_unchecked(directory) as ledger:
        file = write_report(ledger, directory / "report.html")
    page, raw = Page(file), file.read_text("utf-8")
    assert ATTACK not in raw
    assert "<img" not in raw.replace(get_plotlyjs(), "")
    assert not [a for t, a in page.tags if t == "img" or any(name.startswith("on") for name in a)]
    assert page.text.count(ATTACK) > 40
    assert {tag for tag, _ in page.tags} <= _TAGS
    assert "<img" not in json.dumps(page.figures())
    assert sum(tag == "script" for tag, _ in page.tags) == 3 + len(page.figures())
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data-cif"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, name)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"rounds": 0}, "No crystal has been generated yet."),
        ({"rounds": 1, "verified": False}, "No crystal has been verified yet."),
        ({"rounds": 1, "q": 0}, "No crystal has been selected yet."),
        ({"rounds": 1, "q": 1}, "No round has a hypervolume yet|relaxation did not converge"),
        ({"rounds": 1, "meta": {"objectives": []}}, "A Pareto front needs at least two objectives."),
        ({"rounds": 1, "meta": {"members": []}}, "only one member"),
        ({"rounds": 1, "verdict": "kept", "reason": None}, "No crystal was rejected, and none failed."),
        ({"rounds": 1, "verdict": "rejected", "reason": ""}, "no reason given|No kept crystal|No crystal has been"),
    ],
)
def test_what_is_missing_is_said(build: Build, state: dict[str, Any], said: str) -> None:
    page = Page(write_report(build(**state)))
    assert re.search(said, page.text + json.dumps(page.figures()))
    assert len([t for t, _ in page.tags if t == "h2"]) == len(SECTIONS)


def test_an_objective_without_any_value_gets_a_sentence(build: Build) -> None:
    nothing = {"name": "band_gap", "unit": "eV", "goal": {"kind": "range", "low": 1.0, "high": 2.0}}
    density = {"name": "density", "unit": "g/cm3", "goal": {"kind": "maximize"}}
    modulus = {"name": "bulk_modulus", "unit": "GPa", "goal": {"kind": "range", "low": 100.0, "high": 150.0}}
    page = Page(write_report(build(meta={"objectives": [density, nothing, modulus]})))
    assert "No candidate has values of both density and band gap." in page.text
    assert "No crystal has both an expected and a verified value of band gap yet." in page.text
    shaded = page.figures()["figure-pareto-0-2"]["layout"]["shapes"][0]
    assert (shaded["y0"], shaded["y1"]) == (100.0, 150.0)


def test_the_same_ledger_gives_the_same_bytes_from_disk_and_open(build: Build, tmp_path: Path) -> None:
    directory = build()
    first = write_report(directory).read_bytes()
    with Ledger.open(directory) as ledger:
        assert write_report(ledger, tmp_path / "other.html").read_bytes() == first
    assert write_report(directory).read_bytes() == first


def test_a_failure_leaves_the_old_report(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = build(rounds=1)
    before = write_report(directory).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(directory)
    assert (directory / "report.html").read_bytes() == before
    assert not list(directory.glob(".report*"))


def test_a_directory_without_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="give `out`"):
        write_report(object())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_counts_at_the_cut_offs_are_those_of_the_ledger(build: Build) -> None:
    with LedgerReader.open(build()) as ledger:
        caption = hull_histogram(read_campaign(ledger)).caption
        [counts] = ledger.query(
            "SELECT count(*) AS n, count(*) FILTER (mean <= 0) AS zero, count(*) FILTER (mean <= 0.1) AS tenth, "
            "count(*) FILTER (mean < -0.1) AS far FROM predictions WHERE model = 'ensemble' "
            "AND property = 'energy_above_hull'"
        ).to_pylist()
    assert f"Of {counts['n']} crystals judged by the ensemble, {counts['zero']} at or below 0" in caption
    assert f"{counts['tenth']} at or below 0.1 eV/atom" in caption
    assert f"{counts['far']} crystals below −0.1 eV/atom: a warning" in caption


def test_a_constant_offset_between_members_is_removed_and_said(build: Build) -> None:
    directory = build()
    change = "UPDATE predictions SET mean = mean + 0.5 WHERE model = 'chgnet-0.2.0' AND property = 'formation_energy'"
    with LedgerReader.open(directory) as ledger:
        before = agreement(read_campaign(ledger))
    with duckdb.connect(str(directory / "ledger.duckdb")) as connection:
        connection.execute(change)
    with LedgerReader.open(directory) as ledger:
        after = agreement(read_campaign(ledger))
    np.testing.assert_allclose(after[0].figure.data[0].y, before[0].figure.data[0].y, atol=1e-12)
    assert after[1].caption == before[1].caption
    shift = re.search(r"offset of (\S+) eV/atom removed", after[0].caption)
    assert shift is not None
    assert float(shift[1]) == pytest.approx(0.535, abs=0.01)
    assert "chgnet-0.2.0 refused 2 crystals." in after[0].caption


def test_expected_is_the_posterior_of_the_round_of_selection(build: Build) -> None:
    directory = build(rounds=1)
    with duckdb.connect(str(directory / "ledger.duckdb")) as connection:
        connection.execute(
            "UPDATE predictions SET mean = 1, std = 2 WHERE model = 'posterior:1' AND property = 'density'"
        )
        connection.execute(
            "INSERT INTO predictions (candidate_id, model, property, mean, std) "
            "SELECT candidate_id, 'posterior:2', property, 9, 9 FROM predictions WHERE model = 'posterior:1'"
        )
        connection.execute("UPDATE verifications SET value = rowid % 2 * 10 WHERE property = 'density'")
    with LedgerReader.open(directory) as ledger:
        campaign = read_campaign(ledger)
        density = comparisons(campaign, read_selected(ledger, campaign))[1]
    assert density.mean.tolist() == [1.0] * 5
    assert density.std.tolist() == [2.0] * 5
    inside = (np.abs(density.verified - 1) <= 3.29).mean()
    assert 0 < inside < 1
    assert density.coverage == pytest.approx(inside)
    assert density.bias == pytest.approx(1 - density.verified.mean())


def test_intervals_that_are_too_narrow_show_below_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    pair = Comparison(
        axis=Axis("density", "g/cm3", Minimize()),
        mean=np.zeros(n),
        std=np.full(n, 0.5),
        verified=rng.standard_normal(n),
        rounds=np.ones(n, dtype=np.int64),
        formulas=["NaCl"] * n,
    )
    panel = reliability([pair])
    assert panel.figure is not None
    curve = panel.figure.data[0]
    at = {round(x): y for x, y in zip(curve.x, curve.y, strict=True)}
    assert at[90] == pytest.approx(58.9, abs=2.0)  # 1.645 x 0.5 standard deviations
    assert "4000 values, miscalibration area 0.21" in panel.caption
    assert "standard deviation 0.5 g/cm3" in panel.caption
    assert reliability([replace(pair, std=np.full(n, np.nan))]).figure is None
    assert reliability([replace(pair, std=np.zeros(n))]).figure is None  # certain: there is no interval


def test_values_of_another_level_of_theory_are_left_out_and_said(build: Build) -> None:
    directory = build()
    with duckdb.connect(str(directory / "ledger.duckdb")) as connection:
        connection.execute(
            "INSERT INTO verifications BY NAME SELECT candidate_id, 'other/pbe/1' AS level_key, property, "
            "round + 1 AS round, status, 1000 AS value, error FROM verifications WHERE status = 'verified'"
        )
    with LedgerReader.open(directory) as ledger:
        campaign = read_campaign(ledger)
        assert np.nanmax(campaign.candidates.verified) < 1000
        assert all(
            v.verified < 1000 for s in read_selected(ledger, campaign) for v in s.values if v.verified == v.verified
        )
    assert "the ledger also holds other/pbe/1" in Page(write_report(directory)).text


def test_the_front_holds_what_no_other_verified_crystal_beats(build: Build) -> None:
    with LedgerReader.open(build()) as ledger:
        campaign = read_campaign(ledger)
    hull, density, modulus = (v[np.isfinite(v)] for v in campaign.candidates.verified)
    panel = pareto_panels(campaign)[0]
    line = next(t for t in panel.figure.data if t.name == "front")
    rings = next(t for t in panel.figure.data if t.name == "on the front of all")

    def unbeaten(losses: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Which columns no other column is at most as large as everywhere."""
        n = losses.shape[1]
        return np.array([not any((losses[:, j] <= losses[:, i]).all() for j in range(n) if j != i) for i in range(n)])

    pair, everything = np.stack([hull, density]), np.stack([hull, density, np.abs(modulus - 150.0)])
    assert sorted(line.x) == sorted(hull[unbeaten(pair)])
    assert sorted(rings.x) == sorted(hull[unbeaten(everything)])
    assert line.line.shape == "hv"


def test_verified_crystals_are_in_view_among_thousands_of_candidates(build: Build) -> None:
    directory = build()
    with duckdb.connect(str(directory / "ledger.duckdb")) as connection:
        connection.execute("INSERT INTO candidates (candidate_id, round, formula, verdict) "
                           "SELECT 'x' || i, 1, 'NaCl', 'kept' FROM range(5000) t(i)")  # fmt: skip
        for name in ("energy_above_hull", "density"):
            connection.execute(
                "INSERT INTO predictions (candidate_id, model, property, mean, std) "
                "SELECT candidate_id, 'ensemble', ?, 20 + rowid % 7, 0.1 FROM candidates WHERE candidate_id LIKE 'x%'",
                [name],
            )
    with LedgerReader.open(directory) as ledger:
        campaign = read_campaign(ledger)
    panel = pareto_panels(campaign)[0]
    low, high = panel.figure.layout.xaxis.range
    verified = campaign.candidates.verified[0][np.isfinite(campaign.candidates.verified[0])]
    assert low < verified.min() < verified.max() < high
    assert "3,000 of 5,0" in panel.caption
    assert len(panel.figure.data[0].x) == 3000

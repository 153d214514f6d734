"""The report's words and numbers: how values, levels of theory and provenance are written out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from paragenesis.engine.report.data import Campaign
from paragenesis.engine.report.figures_models import sentences
from paragenesis.engine.report.panels import fixed
from paragenesis.engine.report.selected import Value
from paragenesis.engine.report.source import Readable, parsed


def hit(campaign: Campaign) -> str:
    """What the campaign calls a hit, as a sentence."""
    axes = {axis.name: axis for axis in campaign.axes}
    bounds = [
        f"{axis.words} {words} {axis.with_unit(f'{rule[key]:g}')}"
        for rule in parsed(campaign.meta, "hits", [])
        if (axis := axes.get(rule["objective"]))
        for key, words in (("at_least", "at least"), ("at_most", "at most"))
        if rule.get(key) is not None
    ]
    if not bounds:
        return "The campaign sets no rule for hits."
    return f"A hit is a verified crystal with {' and '.join(bounds)}."


def facts(source: Readable, campaign: Campaign) -> list[tuple[str, str]]:
    """Provenance in pairs of words."""
    table = source.query("SELECT strftime(max(committed_at), '%Y-%m-%d %H:%M:%S') AS at FROM commits")
    facts = [
        ("campaign", campaign.name),
        ("campaign id", campaign.meta.get("campaign_id", "")),
        ("seed", campaign.meta.get("seed", "")),
        ("last commit (UTC)", table.column("at").to_pylist()[0] or "none"),
        ("hull", str(campaign.hull.get("name", ""))),
        ("hull's functional", str(campaign.hull.get("functional", ""))),
        ("hull's description", str(campaign.hull.get("description", ""))),
        ("hull's coverage", " ".join(sentences(campaign.hull.get("coverage")))),
        ("pairing with the hull", " ".join(sentences(campaign.hull.get("pairing")))),
    ]
    if len(campaign.oracle_levels) > 1:
        others = ", ".join(key for key in campaign.oracle_levels if key != campaign.oracle_level)
        facts.append(("verified values shown", f"{campaign.oracle_level} only; the ledger also holds {others}"))
    return [(name, value) for name, value in facts if value]


def source_of_energies(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A member or the oracle: name, key and fields of its level of theory, and a sentence on its references."""
    level = entry.get("level") or {}
    references = entry.get("references") or {}
    number = references.get("n_held_out", references.get("n"))
    words = [
        f"mean absolute error {references['mae']:.3f} eV/atom" if finite(references.get("mae")) else "",
        f"bias {fixed(references['bias'], 3, '+')} eV/atom" if finite(references.get("bias")) else "",
        f"{number} held-out compounds" if number else "",
        str(references.get("source") or ""),
    ]
    return {
        "name": str(entry.get("name", "")),
        "key": str(entry.get("level_key", "")),
        "level": json.loads(level) if isinstance(level, str) else level,
        "references": ", ".join(word for word in words if word) or "–",
    }


def finite(value: object) -> bool:
    """Whether a value of the ledger's JSON is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(value: float | None, digits: int = 4) -> str:
    """A number as people write it; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}g}".replace("-", "−")


def expected(value: Value) -> str:
    """Mean and half-width of the 90 % interval, both to the digits that the width warrants."""
    decimals = _decimals(value)
    if decimals is None or not math.isfinite(value.mean):
        return number(value.mean)
    return f"{fixed(value.mean, decimals)} ± {fixed(value.half_width, decimals)}"


def verified(value: Value) -> str:
    """The verified value, to the digits of the expectation beside it."""
    decimals = _decimals(value)
    if decimals is None or not math.isfinite(value.verified):
        return number(value.verified)
    return fixed(value.verified, decimals)


def _decimals(value: Value) -> int | None:
    """Decimals that leave two digits of the interval's half-width; None where it has none."""
    width = value.half_width
    if not (math.isfinite(width) and width > 0):
        return None
    return min(max(1 - math.floor(math.log10(width)), 0), 6)


def sort_key(value: float | None) -> str:
    """A number for sorting in the browser; empty where there is none."""
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def plain(value: object) -> str:
    """A value of the ledger's JSON in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

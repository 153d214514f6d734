"""What cheaper oracles were asked and said, and how far they agree with the campaign's own, as the report shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paragenesis.engine.report.data import Axis, Campaign
from paragenesis.engine.report.source import Readable, parsed

_COUNTS = """
    SELECT count(*) AS asked, count(*) FILTER (a.status = 'verified') AS answered,
           count(*) FILTER (a.status = 'failed') AS failed
    FROM probes p LEFT JOIN (SELECT DISTINCT candidate_id, fidelity, status FROM probe_answers) a
    USING (candidate_id, fidelity) WHERE p.fidelity = ?"""
_BOTH = """
    SELECT a.value AS cheap, v.value AS dear FROM probe_answers a JOIN verifications v USING (candidate_id, property)
    WHERE a.fidelity = ? AND property = ? AND v.level_key = ? AND isfinite(a.value) AND isfinite(v.value)
    ORDER BY candidate_id"""


@dataclass(frozen=True)
class Asked:
    """One cheaper oracle: its level of theory, what it was asked, and its agreement with the oracle in words."""

    name: str
    level_key: str
    asked: int
    answered: int
    failed: int
    agreement: tuple[str, ...]


def read_asked(source: Readable, campaign: Campaign) -> list[Asked]:
    """The campaign's cheaper oracles, the one most like its own first."""
    found = []
    for fidelity, entry in enumerate(parsed(campaign.meta, "probes", []), start=1):
        [counts] = source.query(_COUNTS, (fidelity,)).to_pylist()
        words = tuple(_agreement(source, fidelity, axis, campaign.oracle_level) for axis in campaign.axes)
        found.append(Asked(str(entry["name"]), str(entry["level_key"]), **counts, agreement=words))
    return found


def _agreement(source: Readable, fidelity: int, axis: Axis, level: str) -> str:
    """Offset, scatter and correlation of the values that both levels of theory gave."""
    table = source.query(_BOTH, (fidelity, axis.name, level))
    cheap, dear = (np.asarray(table.column(name), dtype=np.float64) for name in ("cheap", "dear"))
    if len(dear) < 2:
        return f"{axis.words}: too few crystals were asked of both"
    offset, scatter = float((cheap - dear).mean()), float((cheap - dear).std(ddof=1))
    words = f"{axis.words}: offset {axis.with_unit(f'{offset:+.3g}')}, scatter {axis.with_unit(f'{scatter:.3g}')}"
    if cheap.std() > 0 and dear.std() > 0:
        words += f", correlation {np.corrcoef(cheap, dear)[0, 1]:.2f}"
    return f"{words} ({len(dear)} crystals)".replace("offset -", "offset −")

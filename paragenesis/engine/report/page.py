"""The page put together: sections, selected crystals, provenance, and the one file they go into."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import plotly.io as pio
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from paragenesis.engine.report import figures_models, figures_progress, panels, wording
from paragenesis.engine.report.calibration import read_calibration
from paragenesis.engine.report.data import Campaign, read_campaign
from paragenesis.engine.report.generators import read_gave, read_taught
from paragenesis.engine.report.panels import Panel
from paragenesis.engine.report.probes import read_asked
from paragenesis.engine.report.selected import Geometry, Selected, comparisons, read_geometries, read_selected
from paragenesis.engine.report.source import Readable, opened, parsed
from paragenesis.errors import InputError, LedgerError, ParagenesisError

MAX_ROWS = 300  # selected crystals in the table; a geometry and a CIF each
_HERE = Path(__file__).parent
_TRIAGE_WORDS = {
    "implausible": "the ensemble puts it so far below the hull that extrapolation is likelier than discovery",
    "too_uncertain": "the models know too little of it to judge",
    "false_confidence": "it meets the goal only at the optimistic end of its interval",
    "hopeless": "even the optimistic end of its interval misses a wanted range or a verified crystal",
    "disagreement": "the members of the ensemble contradict each other",
}


@dataclass(frozen=True)
class Section:
    """A headed part of the page with one sentence that says what to see."""

    key: str
    title: str
    sentence: str
    panels: list[Panel]


def write(source: Readable | str | Path, out: str | Path | None) -> Path:
    """See `paragenesis.engine.report.write_report`."""
    if out is None:
        directory = source if isinstance(source, str | Path) else getattr(source, "directory", None)
        if directory is None:
            raise InputError("a report of an open ledger without a directory needs a file to write to; give `out`")
        out = Path(directory) / "report.html"
    target = Path(out)
    with opened(source) as readable:
        page = _rendered(readable)
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        with part.open("x", encoding="utf-8") as file:  # never over a link that somebody put there
            file.write(page)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _rendered(source: Readable) -> str:
    """The page, or a sentence on what the ledger holds instead of what a report needs.

    Raises:
        LedgerError: A ledger from elsewhere may hold anything.
    """
    try:
        return render(source)
    except ParagenesisError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise LedgerError(
            f"the ledger holds what a report cannot show ({type(error).__name__}: {error}); run `verify` on it"
        ) from error


def render(source: Readable) -> str:
    """The whole page as text."""
    campaign = read_campaign(source)
    selected = read_selected(source, campaign)
    shown = selected[:MAX_ROWS]
    geometries = read_geometries(source, campaign, sorted({s.candidate_id for s in shown}))
    scripts = [get_plotlyjs(), "\n".join((_HERE / name).read_text("utf-8") for name in ("viewer.js", "page.js"))]
    return _template().render(
        campaign=campaign,
        cards=_cards(campaign),
        hit=wording.hit(campaign),
        sections=_sections(campaign, selected),
        selected=shown,
        n_selected=len(selected),
        geometries=geometries,
        viewer=_viewer(shown, geometries),
        gave=read_gave(source),
        taught=read_taught(source),
        asked=read_asked(source, campaign),
        honesty=read_calibration(campaign),
        triage_words=_TRIAGE_WORDS,
        facts=wording.facts(source, campaign),
        members=[wording.source_of_energies(m) for m in campaign.members],
        oracle=wording.source_of_energies(campaign.oracle) if campaign.oracle else None,
        spec=json.dumps(parsed(campaign.meta, "spec", {}), indent=2, ensure_ascii=False),
        versions=parsed(campaign.meta, "versions", {}),
        style=Markup((_HERE / "style.css").read_text("utf-8")),
        scripts=[Markup(s) for s in scripts],
        script_hashes=" ".join(f"'sha256-{_sha256(s)}'" for s in scripts),
    )


@cache
def _template() -> jinja2.Template:
    """The page's template; to compile it takes as long as to fill it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        number=wording.number,
        expected=wording.expected,
        verified=wording.verified,
        plain=wording.plain,
        sort=wording.sort_key,
        formula=lambda words: Markup(panels.formula(words)),
        figure_json=_figure_json,
    )
    return environment.get_template("template.html")


def _sha256(script: str) -> str:
    """The hash by which the page's security policy admits an inline script."""
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _short(volume: float) -> str:
    """A hypervolume that fits its card: it may have any size, as it depends on the objectives' units."""
    if volume and not 1e-3 <= abs(volume) < 1e7:
        return f"{volume:.2e}"
    return f"{volume:,.0f}" if abs(volume) >= 1000 else f"{volume:.4g}"


def _cards(campaign: Campaign) -> list[tuple[str, str, str]]:
    """Headline numbers: label, value, a word on it."""
    made, checked = campaign.total("generated"), campaign.total("verified")
    kept, hits = campaign.total("kept"), campaign.total("hits")
    volumes = [r.hypervolume for r in campaign.rounds if r.hypervolume is not None and math.isfinite(r.hypervolume)]
    still_open = sum(r.state != "closed" for r in campaign.rounds)
    return [
        ("generated", f"{made:,}", "crystals"),
        ("kept", f"{kept:,}", f"{kept / made:.0%} of generated" if made else "none yet"),
        ("selected", f"{campaign.total('selected'):,}", "for verification"),
        ("verified", f"{checked:,}", f"by {campaign.oracle.get('name', 'the oracle')}"),
        ("hits", f"{hits:,}", f"{hits / checked:.0%} of verified" if checked else "none yet"),
        ("hypervolume", _short(volumes[-1]) if volumes else "–", "of the verified front"),
        (
            "rounds",
            f"{len(campaign.rounds):,}",
            f"{still_open} open" if still_open else "all closed" if campaign.rounds else "none yet",
        ),
    ]


def _sections(campaign: Campaign, selected: list[Selected]) -> list[Section]:
    """The parts of the page that are made of figures."""
    return [
        Section(
            "funnel",
            "Funnel",
            "Where crystals were lost on the way, and why; the commonest reason is the first to work on.",
            [figures_progress.funnel(campaign), figures_progress.rejections(campaign)],
        ),
        Section(
            "pareto",
            "Pareto fronts",
            "The trade-off between two objectives: solid points are verified, faint ones are only predicted, and a "
            "good campaign moves the line round by round towards its goals.",
            figures_progress.pareto_panels(campaign),
        ),
        Section(
            "rounds",
            "Round by round",
            "Whether the campaign still improves, and how often verification pays off.",
            [figures_progress.hypervolume(campaign), figures_progress.hits(campaign)],
        ),
        Section(
            "hull",
            "Stability",
            "How far the kept crystals lie above the convex hull of known phases; dashed lines mark the two cut-offs "
            "in use, 0 and 0.1 eV/atom.",
            [figures_models.hull_histogram(campaign)],
        ),
        Section(
            "agreement",
            "Agreement of the ensemble",
            "Where the potentials disagree, their mean deserves less trust: points off the diagonal and a long tail of "
            "the spread show it.",
            figures_models.agreement(campaign),
        ),
        Section(
            "verified",
            "Expected against verified",
            "How honest the expectations were: points belong on the diagonal, and nine in ten bars (90% intervals at "
            "selection) should touch it.",
            _compared(campaign, selected),
        ),
    ]


def _compared(campaign: Campaign, selected: list[Selected]) -> list[Panel]:
    """One panel an objective, or one that says that there is nothing to compare yet."""
    pairs = comparisons(campaign, selected)
    if not any(len(pair.mean) for pair in pairs):
        return [Panel("verified", "No selected crystal has both an expected and a verified value yet.")]
    return [*(figures_models.predicted_against_verified(pair) for pair in pairs), figures_models.reliability(pairs)]


def _viewer(shown: list[Selected], geometries: Mapping[str, Geometry]) -> dict[str, Any]:
    """What the crystal viewer draws: geometries by candidate, and colour and radius of their elements."""
    from ase.data import chemical_symbols, covalent_radii
    from ase.data.colors import jmol_colors

    kinds = sorted({z for g in geometries.values() for z in g.numbers})
    return {
        "crystals": {
            s.candidate_id: {"numbers": g.numbers, "frac": g.frac, "lattice": g.lattice}
            for s in shown
            if (g := geometries.get(s.candidate_id))
        },
        "elements": {
            str(z): {
                "symbol": chemical_symbols[z],
                "colour": [round(255 * float(c)) for c in jmol_colors[z]],
                "radius": round(float(covalent_radii[z]), 2),
            }
            for z in kinds
        },
    }


def _figure_json(panel: Panel) -> Markup:
    """A figure as JSON that cannot end the script element it stands in."""
    return Markup(pio.to_json(panel.figure, validate=False, pretty=False).replace("<", "\\u003c"))

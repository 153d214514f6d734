"""A panel: one figure with its caption, in the report's one style."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from paragenesis.crystals import FloatArray, IntArray

# Okabe and Ito's palette, distinguishable with all common kinds of colour blindness
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
INK, MUTED, FAINT, GRID = "#1f2933", "#6b7785", "#c3cad3", "#e6eaef"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
_VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962")  # without its yellow, which white paper swallows

HEIGHT = 360
MAX_POINTS = 3000  # SVG points a browser draws without a pause

_AXIS = {
    "gridcolor": GRID,
    "zerolinecolor": FAINT,
    "linecolor": FAINT,
    "ticks": "outside",
    "tickcolor": FAINT,
    "ticklen": 4,
    "showline": True,
    "automargin": True,
    "title": {"standoff": 10, "font": {"size": 13, "color": INK}},
    "tickfont": {"size": 12, "color": MUTED},
}
_TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": list(SERIES),
        "margin": {"l": 56, "r": 16, "t": 44, "b": 48},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "legend": {
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom",
            "font": {"size": 12}, "bgcolor": "rgba(255,255,255,0)",
        },
        "hoverlabel": {"bgcolor": "white", "bordercolor": FAINT, "font": {"color": INK, "size": 12}},
        "bargap": 0.25,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """A figure with its caption; without a figure the caption says why there is none.

    Attributes:
        key: Its id on the page.
        caption: What the figure shows, in words; plain text, escaped by the page.
        figure: The figure, or None where there is nothing to draw.
        wide: Whether it takes the full width of the page.
    """

    key: str
    caption: str
    figure: go.Figure | None = None
    wide: bool = False


def figure(traces: Sequence[Any], **layout: Any) -> go.Figure:
    """A figure of the report's style."""
    return go.Figure(traces, {"template": _TEMPLATE, "height": HEIGHT, **layout})


def text(words: str) -> str:
    """Words from the ledger for a figure, where Plotly reads a little HTML: everything special is escaped."""
    return html.escape(words)


def formula(words: str) -> str:
    """A formula for a figure, its numbers lowered: 'SrTiO<sub>3</sub>'."""
    return re.sub(r"(\d+)", r"<sub>\1</sub>", text(words)) if re.fullmatch(r"[A-Za-z0-9().]*", words) else text(words)


def formulas(words: Iterable[str]) -> list[str]:
    """`formula` of each."""
    return [formula(w) for w in words]


def shorter(words: str, length: int = 34) -> str:
    """Words cut to a length a figure's axis can carry."""
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


def round_colours(rounds: Sequence[int]) -> dict[int, str]:
    """A colour for each round, dark to light in their order."""
    from plotly.colors import sample_colorscale

    ordered = sorted(set(rounds))
    if len(ordered) == 1:
        return {ordered[0]: BLUE}
    places = np.linspace(0.0, 1.0, len(ordered)).tolist()
    return dict(zip(ordered, sample_colorscale(list(_VIRIDIS), places), strict=True))


def in_legend(rounds: Sequence[int], most: int = 8) -> set[int]:
    """The rounds named in a legend: all, or evenly spaced ones if they are many."""
    ordered = np.array(sorted(set(rounds)))
    places = np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).round().astype(int))
    return {int(r) for r in ordered[places]}


def thinned(where: IntArray, most: int = MAX_POINTS) -> IntArray:
    """Evenly spaced `most` of the given indices, or all of them."""
    return where if len(where) <= most else where[np.linspace(0, len(where) - 1, most).astype(np.int64)]


def clipped_range(values: FloatArray, whole: FloatArray | None = None, pad: float = 0.06) -> list[float]:
    """An axis range that holds the central 99 % of `values`, so that one outlier hides nothing, and all of `whole`."""
    kept = np.quantile(values, [0.005, 0.995]) if len(values) > 50 else values
    ends = kept if whole is None else np.concatenate([kept, whole])
    low, high = ends.min(), ends.max()
    margin = (high - low) * pad or max(abs(float(high)), 1.0) * pad
    return [float(low - margin), float(high + margin)]


def fixed(value: float, decimals: int, sign: str = "") -> str:
    """A number with so many decimals and a true minus; `sign="+"` shows the sign of positive ones too."""
    return f"{value:{sign}.{decimals}f}".replace("-", "−")


def count_of(number: int, one: str, many: str = "") -> str:
    """A count with its noun: '1 crystal', '1,200 crystals'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"

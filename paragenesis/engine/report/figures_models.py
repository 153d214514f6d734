"""Figures of what the models say: stability, agreement of the ensemble, expectation against verification."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from paragenesis.crystals import FloatArray
from paragenesis.engine.metrics import interval_coverage, miscalibration_area
from paragenesis.engine.report.data import Campaign
from paragenesis.engine.report.panels import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    ORANGE,
    RED,
    SERIES,
    SKY,
    Panel,
    clipped_range,
    count_of,
    figure,
    fixed,
    formulas,
    in_legend,
    round_colours,
    text,
    thinned,
)
from paragenesis.engine.report.selected import Comparison

CUTS = (0.0, 0.1)  # eV/atom: the two cut-offs in use
WARNING = -0.1  # eV/atom: farther below the hull than this is extrapolation
_BIN = 0.025  # eV/atom; divides both cut-offs and the warning line
_SHOWN = (-0.5, 1.0)  # eV/atom


def sentences(value: Any) -> list[str]:
    """A note of the ledger as a list of sentences; it may be one string or a list of them."""
    return [value] if isinstance(value, str) and value else [str(v) for v in value or []]


def hull_histogram(campaign: Campaign) -> Panel:
    """Distances to the hull, by the ensemble and verified, with both cut-offs and the warning zone."""
    predicted, verified = (
        v[np.isfinite(v)] for v in (campaign.candidates.hull_predicted, campaign.candidates.hull_verified)
    )
    if not len(predicted):
        return Panel("hull", "No kept crystal has an energy above hull.", wide=True)
    edges = _edges(np.concatenate([predicted, verified]))
    centres = (edges[:-1] + edges[1:]) / 2
    counts = _histogram(predicted, edges)
    bars = []
    for name, colour, low, high in (
        ("below −0.1: extrapolation?", RED, -np.inf, WARNING),
        ("on or below the hull", BLUE, WARNING, CUTS[0]),
        ("up to 0.1", SKY, CUTS[0], CUTS[1]),
        ("above 0.1", FAINT, CUTS[1], np.inf),
    ):
        zone = (centres > low) & (centres <= high) & (counts > 0)
        if zone.any():
            bars.append(_bars(centres[zone], counts[zone], name, colour))
    if len(verified):
        checked = _histogram(verified, edges)
        bars.append(
            go.Scatter(
                x=centres[checked > 0], y=checked[checked > 0], mode="markers", name="verified",
                marker={"symbol": "diamond", "size": 9, "color": ORANGE, "line": {"width": 1, "color": INK}},
                hovertemplate="verified near %{x:.2f}: %{y}<extra></extra>",
            )
        )  # fmt: skip
    chart = figure(bars, barmode="overlay", bargap=0.08)
    if edges[0] < WARNING:
        chart.add_vrect(x0=float(edges[0]), x1=WARNING, fillcolor=RED, opacity=0.07, line_width=0, layer="below")
    for cut in CUTS:
        chart.add_vline(x=cut, line={"color": INK, "width": 1.2, "dash": "dash"})
    name = str(campaign.hull.get("name", "unnamed"))
    chart.update_xaxes(
        title=text(f"energy above hull (eV/atom), hull: {name}"), zeroline=False, range=[edges[0], edges[-1]]
    )
    chart.update_yaxes(title="crystals")
    return Panel("hull", _hull_caption(campaign, name, predicted, verified), chart, wide=True)


def _bars(x: FloatArray, y: FloatArray, name: str, colour: str) -> go.Bar:
    """The bars of one zone of the histogram."""
    return go.Bar(
        x=x, y=y, name=name, marker_color=colour, width=_BIN * 0.92,
        hovertemplate="%{y} crystals near %{x:.2f} eV/atom<extra></extra>",
    )  # fmt: skip


def _edges(values: FloatArray) -> FloatArray:
    """Bin edges at multiples of the bin width, over the values but within what is shown."""
    low = min(max(float(values.min()), _SHOWN[0]), -2 * _BIN)
    high = max(min(float(values.max()), _SHOWN[1]), CUTS[1] + 2 * _BIN)
    steps = np.arange(math.floor(low / _BIN + 1e-9), math.ceil(high / _BIN - 1e-9) + 1)
    return np.asarray(steps * _BIN, dtype=np.float64)


def _histogram(values: FloatArray, edges: FloatArray) -> FloatArray:
    """Counts in bins that own their upper edge, as `distance <= cut-off` does; values outside go to the end bins."""
    bins = np.clip(np.searchsorted(edges, values - 1e-12, side="left") - 1, 0, len(edges) - 2)
    return np.asarray(np.bincount(bins, minlength=len(edges) - 1), dtype=np.float64)


def _hull_caption(campaign: Campaign, name: str, predicted: FloatArray, verified: FloatArray) -> str:
    """The hull by name, counts at both cut-offs, warnings, and what the hull does not cover."""
    parts = [f"Hull: {str(campaign.hull.get('description') or name).rstrip('.')}."]
    for who, values in (("judged by the ensemble", predicted), ("verified", verified)):
        if len(values):
            low, high = (int((values <= cut).sum()) for cut in CUTS)
            parts.append(
                f"Of {count_of(len(values), 'crystal')} {who}, {low:,} at or below {CUTS[0]:g} and {high:,} at or "
                f"below {CUTS[1]:g} eV/atom."
            )
    far = int((predicted < WARNING).sum())
    if far:
        parts.append(
            f"{count_of(far, 'crystal')} below −{-WARNING:g} eV/atom: a warning of extrapolation or of phases "
            "missing from the hull, not a discovery."
        )
    outside = int(((predicted < _SHOWN[0]) | (predicted > _SHOWN[1])).sum())
    if outside:
        parts.append(f"{count_of(outside, 'crystal')} outside −{-_SHOWN[0]:g} to {_SHOWN[1]:g} drawn in the end bins.")
    parts += sentences(campaign.hull.get("coverage"))
    if campaign.hull.get("mixed"):
        parts.append("Levels of theory were mixed with this hull on purpose; the provenance says which.")
    return " ".join(parts)


def agreement(campaign: Campaign) -> list[Panel]:
    """Parity of each member with the first one, and the spread over all."""
    names = [str(m.get("name", "")) for m in campaign.members]
    tables = (
        ("formation energy", campaign.candidates.formation_energies),
        ("energy above hull", campaign.candidates.hull_distances),
    )
    quantity, values = next(
        ((q, v) for q, v in tables if (np.isfinite(v).sum(0) > 1).any()), ("formation energy", tables[0][1])
    )
    if not (np.isfinite(values).sum(0) > 1).any():
        why = "only one member" if len(names) < 2 else "no crystal judged by two members"
        return [Panel("agreement", f"The ensemble has {why}: there is no agreement to show.", wide=True)]
    # constant shifts between members come from their elemental references and say nothing of their disagreement
    shifts = np.array([_shift(values[0], row) for row in values])
    aligned = values - shifts[:, None]
    return [_parity(quantity, names, aligned, shifts, campaign), _spread(quantity, aligned)]


def _shift(first: FloatArray, other: FloatArray) -> float:
    """Median of `other - first` where both answered; 0 where they never did."""
    both = np.isfinite(first) & np.isfinite(other)
    return float(np.median(other[both] - first[both])) if both.any() else 0.0


def _parity(quantity: str, names: list[str], values: FloatArray, shifts: FloatArray, campaign: Campaign) -> Panel:
    """Each further member against the first."""
    traces, notes, seen = [], [], []
    for k in range(1, len(names)):
        both = np.flatnonzero(np.isfinite(values[0]) & np.isfinite(values[k]))
        if not len(both):
            notes.append(f"{names[k]} and {names[0]} judged no crystal in common.")
            continue
        drawn = thinned(both)
        seen.append(values[[0, k]][:, both].ravel())
        mae = np.abs(values[k, both] - values[0, both]).mean()
        notes.append(
            f"{names[k]}: offset of {fixed(shifts[k], 3, '+')} eV/atom removed, mean absolute difference {mae:.3f}."
        )
        traces.append(
            go.Scatter(
                x=values[0, drawn], y=values[k, drawn], mode="markers", name=text(names[k]),
                marker={"size": 6, "opacity": 0.6, "color": SERIES[(k - 1) % len(SERIES)]},
                text=formulas(campaign.candidates.formulas[i] for i in drawn),
                hovertemplate="<b>%{text}</b><br>%{x:.3f}, %{y:.3f} eV/atom<extra></extra>",
            )
        )  # fmt: skip
    for refusal in campaign.refusals:
        notes.append(f"{refusal.model} refused {count_of(refusal.count, 'crystal')}.")
    chart = figure(traces, showlegend=True)
    ends = clipped_range(np.concatenate(seen)) if seen else [0.0, 1.0]
    _diagonal(chart, ends)
    chart.update_xaxes(title=text(f"{quantity} by {names[0]} (eV/atom)"), range=ends, zeroline=False)
    chart.update_yaxes(title="by the other members, aligned", range=ends, zeroline=False)
    return Panel("agreement", " ".join(notes), chart)


def _spread(quantity: str, values: FloatArray) -> Panel:
    """Standard deviation over the members, one value a crystal."""
    several = values[:, np.isfinite(values).sum(0) > 1]
    spread = np.nanstd(several, axis=0, ddof=1)
    top = max(float(np.quantile(spread, 0.99)), 1e-3)
    counts, edges = np.histogram(np.minimum(spread, top), bins=30, range=(0.0, top))
    bars = go.Bar(
        x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges) * 0.92, marker_color=BLUE,
        hovertemplate="%{y} crystals near %{x:.3f} eV/atom<extra></extra>", showlegend=False,
    )  # fmt: skip
    chart = figure([bars])
    median, high = float(np.median(spread)), float(np.quantile(spread, 0.9))
    chart.add_vline(x=median, line={"color": INK, "width": 1.2, "dash": "dash"})
    chart.update_xaxes(title="spread over members (eV/atom)", rangemode="tozero")
    chart.update_yaxes(title="crystals")
    caption = (
        f"Standard deviation of the {quantity} over the aligned members, {count_of(len(spread), 'crystal')}: "
        f"median {median:.3f} (dashed), "
        f"nine in ten below {high:.3f} eV/atom. The last bin holds the widest 1%."
    )
    return Panel("spread", caption, chart)


def predicted_against_verified(comparison: Comparison) -> Panel:
    """What was expected at selection, with its 90 % interval, against what the oracle found."""
    axis, key = comparison.axis, f"verified-{comparison.axis.name}"
    if not len(comparison.mean):
        return Panel(key, f"No crystal has both an expected and a verified value of {axis.words} yet.")
    colours, named = round_colours(comparison.rounds.tolist()), in_legend(comparison.rounds.tolist())
    width = 1.645 * np.nan_to_num(comparison.std)
    traces = []
    for number, colour in colours.items():
        here = comparison.rounds == number
        traces.append(
            go.Scatter(
                x=comparison.verified[here], y=comparison.mean[here], mode="markers", name=f"round {number}",
                showlegend=number in named, marker={"size": 8, "color": colour},
                error_y={"type": "data", "array": width[here], "color": colour, "thickness": 1.2, "width": 3},
                text=formulas(f for f, h in zip(comparison.formulas, here, strict=True) if h),
                customdata=width[here],
                hovertemplate="<b>%{text}</b><br>verified %{x:.4g}<br>expected %{y:.4g} ± %{customdata:.2g}"
                "<extra></extra>",
            )
        )  # fmt: skip
    chart = figure(traces, showlegend=True)
    ends = clipped_range(np.concatenate([comparison.verified, comparison.mean - width, comparison.mean + width]))
    _diagonal(chart, ends)
    chart.update_xaxes(title=text(f"verified {axis.label}"), range=ends, zeroline=False)
    chart.update_yaxes(title=text(f"expected {axis.label}"), range=ends, zeroline=False)
    inside = (
        "no interval was given"
        if math.isnan(comparison.coverage)
        else f"{comparison.coverage:.0%} inside their 90% intervals"
    )
    caption = (
        f"{count_of(len(comparison.mean), 'crystal')}: {inside}; mean error {comparison.bias:+.3g}, mean absolute "
        f"error {axis.with_unit(f'{comparison.mae:.3g}')}."
    )
    return Panel(key, caption.replace("error -", "error −"), chart)


def reliability(pairs: Sequence[Comparison]) -> Panel:
    """How many verified values lay inside intervals of each level, against how many should have."""
    levels = np.linspace(0.0, 1.0, 101)
    traces, words = [], []
    for pair, colour in zip(pairs, itertools.cycle(SERIES), strict=False):
        known = np.isfinite(pair.std) & (pair.std > 0)  # what is certain has no interval
        values, mean, std = pair.verified[known], pair.mean[known], pair.std[known]
        if not len(values):
            continue
        traces.append(
            go.Scatter(
                x=100 * levels, y=100 * interval_coverage(values, mean, std, levels), mode="lines", line_shape="hv",
                name=text(pair.axis.words), line_color=colour, showlegend=True,
                hovertemplate="%{x:.0f}% intervals hold %{y:.0f}%<extra></extra>",
            )
        )  # fmt: skip
        sharpness = pair.axis.with_unit(f"{np.sqrt((std**2).mean()):.2g}")
        words.append(
            f"{pair.axis.words}: {len(values)} values, miscalibration area "
            f"{miscalibration_area(values, mean, std):.2f}, standard deviation {sharpness} (root mean square)"
        )
    if not traces:
        return Panel("reliability", "No verified value has an interval yet.")
    chart = figure(traces, showlegend=True)
    _diagonal(chart, [0.0, 100.0])
    chart.update_xaxes(title="interval (%)", range=[0, 100])
    chart.update_yaxes(title="verified values inside (%)", range=[0, 102])
    return Panel("reliability", "Below the line intervals are too narrow. " + "; ".join(words) + ".", chart)


def _diagonal(chart: go.Figure, ends: list[float]) -> None:
    """The line on which both axes agree."""
    line = {"color": MUTED, "width": 1, "dash": "dot"}
    chart.add_shape(type="line", x0=ends[0], y0=ends[0], x1=ends[1], y1=ends[1], line=line, layer="below")

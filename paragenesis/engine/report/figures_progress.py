"""Figures of how the campaign went: funnel, rejections, Pareto fronts, hypervolume and hits."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import plotly.graph_objects as go

from paragenesis.crystals import BoolArray, FloatArray, IntArray
from paragenesis.engine.acquisition.pareto import pareto_front
from paragenesis.engine.report.data import Axis, Campaign
from paragenesis.engine.report.panels import (
    BLUE,
    FAINT,
    GREEN,
    HEIGHT,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Panel,
    clipped_range,
    count_of,
    figure,
    formulas,
    in_legend,
    round_colours,
    shorter,
    text,
    thinned,
)
from paragenesis.objectives.goals import Maximize, Minimize, Range, Target

_MOST_REASONS = 18


def funnel(campaign: Campaign) -> Panel:
    """How many crystals passed each gate."""
    gates = {
        "generated": campaign.total("generated"),
        "kept": campaign.total("kept"),
        "passed triage": campaign.passed_triage,
        "selected": campaign.total("selected"),
        "verified": campaign.total("verified"),
        "hits": campaign.total("hits"),
    }
    made = gates["generated"]
    if not made:
        return Panel("funnel", "No crystal has been generated yet.")
    labels = [f"<b>{n:,}</b>" + (f"  {n / made:.0%}" if made > n >= 0.01 * made else "") for n in gates.values()]
    colours = [SKY, SKY, SKY, BLUE, BLUE, GREEN]
    bars = go.Bar(
        x=list(gates.values()), y=list(gates), orientation="h", marker_color=colours, text=labels,
        textposition="outside", cliponaxis=False, hovertemplate="%{y}: %{x:,}<extra></extra>",
    )  # fmt: skip
    chart = figure([bars], xaxis={"range": [0, made * 1.2], "title": "crystals"}, margin={"t": 16})
    chart.update_yaxes(
        autorange="reversed", showline=False, ticks="", tickfont_size=13, tickfont_color=INK, ticklabelstandoff=6
    )
    rejected, failed = campaign.total("rejected"), campaign.total("failed")
    lost = sum(loss.count for loss in campaign.losses if loss.fate == "lost")
    of_these = f", {lost:,} of them by a fault of the infrastructure" if lost else ""
    answers = (
        f" {count_of(campaign.lost_answers, 'answer')} of oracles got lost likewise." if campaign.lost_answers else ""
    )
    return Panel(
        "funnel",
        f"From {count_of(made, 'generated crystal')} to the hits; {rejected:,} were rejected and {failed:,} failed"
        f"{of_these}.{answers} Passed triage: kept and never turned down by triage, or selected later all the same.",
        chart,
    )


def rejections(campaign: Campaign) -> Panel:
    """Why crystals were rejected or failed, by stage."""
    losses = campaign.losses
    if not losses:
        return Panel("rejections", "No crystal was rejected, and none failed.")
    shown = losses[:_MOST_REASONS]
    names = [text(shorter(f"{loss.stage}: {loss.word or 'no reason given'}")) for loss in shown]
    bars = []
    fates = {"rejected": ("rejected", ORANGE), "failed": ("failed", RED), "lost": ("infrastructure failed", PURPLE)}
    for fate, (name, colour) in fates.items():
        which = [i for i, loss in enumerate(shown) if loss.fate == fate]
        if which:
            bars.append(
                go.Bar(
                    x=[shown[i].count for i in which], y=which, orientation="h", name=name, marker_color=colour,
                    text=[f"{shown[i].count:,}" for i in which], textposition="outside", cliponaxis=False, width=0.7,
                    customdata=[text(shorter(shown[i].example or "", 110)) for i in which],
                    hovertemplate="%{x:,} crystals, for example:<br>%{customdata}<extra></extra>",
                )
            )  # fmt: skip
    chart = figure(bars, barmode="overlay", height=max(HEIGHT, 90 + 24 * len(shown)), margin={"t": 36})
    chart.update_xaxes(title="crystals", range=[0, max(loss.count for loss in shown) * 1.15])
    chart.update_yaxes(
        tickvals=list(range(len(shown))), ticktext=names, range=[len(shown) - 0.4, -0.6], showgrid=False,
        zeroline=False, showline=False, ticks="", tickfont_color=INK, ticklabelstandoff=6,
    )  # fmt: skip
    rest = sum(loss.count for loss in losses[_MOST_REASONS:])
    more = f" {count_of(rest, 'crystal')} with rarer reasons are not drawn." if rest else ""
    return Panel("rejections", f"Stage and reason of every crystal that was not kept.{more}", chart)


def pareto_panels(campaign: Campaign) -> list[Panel]:
    """One panel for each pair of objectives."""
    if len(campaign.axes) < 2:
        return [Panel("pareto", "A Pareto front needs at least two objectives.")]
    both = campaign.candidates.predicted, campaign.candidates.verified
    if not any((np.isfinite(values).sum(0) > 1).any() for values in both):
        return [Panel("pareto", "No candidate has values of two objectives.")]
    best = _overall_front(campaign)
    return [_pareto(campaign, i, j, best) for i, j in combinations(range(len(campaign.axes)), 2)]


def _overall_front(campaign: Campaign) -> BoolArray:
    """The verified candidates that no other beats in all objectives at once, shape `n`."""
    values = campaign.candidates.verified
    return pareto_front(np.stack([a.goal.utility(v) for a, v in zip(campaign.axes, values, strict=True)], axis=1))


def _pareto(campaign: Campaign, i: int, j: int, best: BoolArray) -> Panel:
    """The candidates in the plane of two objectives, rounds in colour."""
    x_axis, y_axis, all_of = campaign.axes[i], campaign.axes[j], campaign.candidates
    key, names = f"pareto-{i}-{j}", f"{x_axis.words} and {y_axis.words}"
    checked = np.isfinite(all_of.verified[[i, j]]).all(0)
    predicted = np.isfinite(all_of.predicted[[i, j]]).all(0) & ~checked
    if not (checked.any() or predicted.any()):
        return Panel(key, f"No candidate has values of both {names}.")
    pale, solid = np.flatnonzero(predicted), np.flatnonzero(checked)
    drawn = thinned(pale)
    traces = [_cloud(campaign, all_of.predicted, drawn, i, j)] if len(pale) else []
    if len(solid):
        traces.append(_front_line(x_axis, y_axis, all_of.verified[[i, j]][:, solid]))
        traces += _verified_points(campaign, solid, i, j)
        traces.append(_rings(all_of.verified[i, best], all_of.verified[j, best]))
    chart = figure(traces, height=HEIGHT + 40, margin={"t": 60})
    for axis, update, row, put in (
        (x_axis, chart.update_xaxes, i, chart.add_vrect),
        (y_axis, chart.update_yaxes, j, chart.add_hrect),
    ):
        ends = clipped_range(all_of.predicted[row, pale], all_of.verified[row, solid])
        update(title=text(axis.title), range=ends, zeroline=False)
        _mark_goal(axis, ends, put)
    note = f" {len(drawn):,} of {len(pale):,} predicted candidates are drawn." if len(drawn) < len(pale) else ""
    line = (
        f"The line joins the front of {names} among {count_of(len(solid), 'verified crystal')}; ringed points are on "
        "the front of all objectives at once."
        if len(solid)
        else f"Nothing is verified yet: predicted {names} only."
    )
    return Panel(key, line + note, chart)


def _cloud(campaign: Campaign, values: FloatArray, which: IntArray, i: int, j: int) -> go.Scatter:
    """Predicted candidates as faint points."""
    all_of = campaign.candidates
    return go.Scatter(
        x=values[i, which], y=values[j, which], mode="markers", name="predicted",
        marker={"size": 6, "color": FAINT, "opacity": 0.55},
        text=formulas(all_of.formulas[k] for k in which), customdata=all_of.rounds[which],
        hovertemplate="<b>%{text}</b>, predicted<br>%{x:.4g}, %{y:.4g}<br>generated in round %{customdata}"
        "<extra></extra>",
    )  # fmt: skip


def _verified_points(campaign: Campaign, which: IntArray, i: int, j: int) -> list[go.Scatter]:
    """Verified candidates as solid points, one trace a round."""
    all_of = campaign.candidates
    rounds = all_of.verified_rounds[which]
    colours, named = round_colours(rounds.tolist()), in_legend(rounds.tolist())
    traces = []
    for number, colour in colours.items():
        here = which[rounds == number]
        traces.append(
            go.Scatter(
                x=all_of.verified[i, here], y=all_of.verified[j, here], mode="markers",
                name=f"verified, round {number}", showlegend=number in named,
                marker={"size": 10, "color": colour, "line": {"width": 1, "color": "white"}},
                text=formulas(all_of.formulas[k] for k in here),
                hovertemplate=f"<b>%{{text}}</b>, verified<br>%{{x:.4g}}, %{{y:.4g}}<br>round {number}<extra></extra>",
            )
        )  # fmt: skip
    return traces


def _rings(x: FloatArray, y: FloatArray) -> go.Scatter:
    """Rings around the points on the front of all objectives at once."""
    marker = {"size": 17, "symbol": "circle-open", "color": RED, "line": {"width": 1.8}}
    return go.Scatter(x=x, y=y, mode="markers", name="on the front of all", marker=marker, hoverinfo="skip")


def _front_line(x_axis: Axis, y_axis: Axis, points: FloatArray) -> go.Scatter:
    """The non-dominated points of a plane joined; a staircase where both goals are one-sided (the attained region)."""
    utilities = np.stack([x_axis.goal.utility(points[0]), y_axis.goal.utility(points[1])], axis=1)
    front = points[:, pareto_front(utilities)]
    front = front[:, np.lexsort((front[1], front[0]))]
    shape = "linear"
    if isinstance(y_axis.goal, Minimize | Maximize):
        shape = {"minimize": "hv", "maximize": "vh"}.get(getattr(x_axis.goal, "kind", ""), "linear")
    line = {"color": MUTED, "width": 1.5, "shape": shape}
    return go.Scatter(x=front[0], y=front[1], mode="lines", name="front", line=line, hoverinfo="skip")


def _mark_goal(axis: Axis, shown: list[float] | None, put: object) -> None:
    """Shade the wanted range as far as it is shown, or draw the target, of an objective that has one."""
    goal = axis.goal
    ends: tuple[float, float] | None = None
    if isinstance(goal, Target):
        ends = (goal.value, goal.value)
    elif isinstance(goal, Range):
        first, last = shown or goal.ends
        ends = (max(goal.ends[0], first), min(goal.ends[1], last))
        ends = ends if np.isfinite(ends).all() and ends[0] < ends[1] else None
    if ends and callable(put):
        put(*ends, fillcolor=GREEN, opacity=0.12, line_width=0 if ends[0] < ends[1] else 1.5, line_color=GREEN)


def hypervolume(campaign: Campaign) -> Panel:
    """The hypervolume after each round."""
    rounds = [r for r in campaign.rounds if r.hypervolume is not None and np.isfinite(r.hypervolume)]
    if not rounds:
        return Panel("hypervolume", "No round has a hypervolume yet: it needs verified crystals.")
    trace = go.Scatter(
        x=[r.round for r in rounds], y=[r.hypervolume for r in rounds], mode="lines+markers", line_color=BLUE,
        marker_size=9, hovertemplate="round %{x}: %{y:.4g}<extra></extra>", showlegend=False,
    )  # fmt: skip
    chart = figure([trace], margin={"t": 16}, height=HEIGHT - 60)
    chart.update_xaxes(title="round", **_round_ticks(campaign))
    chart.update_yaxes(title="hypervolume", rangemode="tozero")
    points = {tuple(r.ref_point) for r in rounds if r.ref_point}
    moved = " The reference point moved between rounds, so their values are not strictly comparable."
    return Panel(
        "hypervolume",
        "The volume of objective space that the verified crystals dominate, measured from the reference point; a curve "
        f"that still rises has not finished.{moved if len(points) > 1 else ''}",
        chart,
    )


def hits(campaign: Campaign) -> Panel:
    """Verified crystals and hits of each round."""
    if not campaign.total("verified"):
        return Panel("hits", "No crystal has been verified yet.")
    numbers = [r.round for r in campaign.rounds]
    bars = [
        go.Bar(x=numbers, y=[r.verified for r in campaign.rounds], name="verified", marker_color=SKY),
        go.Bar(x=numbers, y=[r.hits or 0 for r in campaign.rounds], name="hits", marker_color=GREEN),
    ]
    gap = 0.3 if len(numbers) > 4 else 0.55
    chart = figure(bars, barmode="group", bargap=gap, height=HEIGHT - 60, hovermode="x unified")
    chart.update_xaxes(title="round", **_round_ticks(campaign))
    chart.update_yaxes(title="crystals", tickformat=",d", rangemode="tozero")
    return Panel("hits", "Verified crystals of each round and, of those, the hits.", chart)


def _round_ticks(campaign: Campaign) -> dict[str, object]:
    """Whole-numbered ticks and half a round of room at both ends."""
    numbers = [r.round for r in campaign.rounds]
    ticks: dict[str, object] = {"dtick": 1} if len(numbers) <= 15 else {"tickformat": "d"}
    return {**ticks, "range": [min(numbers) - 0.6, max(numbers) + 0.6]}

"""Charts as SVG, drawn by Vega on this side: they need no script, print, and take the page's
colours.

A chart is a Vega-Lite specification made of the rows it shows; vl-convert is imported when the
first one is drawn. Colours are CSS variables of the page's style sheet, so one drawing serves light
and dark. Each chart is drawn twice, for wide and for narrow screens, and CSS shows one of them.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from markupsafe import Markup

WIDE, NARROW = 880, 300
"""Pixels of the plot."""
Row: TypeAlias = Mapping[str, str | float | int | bool | None]
Spec: TypeAlias = dict[str, object]

COLOURS = tuple(f"var(--series-{n})" for n in range(1, 8))
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [10, 4], [3, 5], [12, 3, 3, 3])
_LABELS = {"labelColor": "var(--ink)", "titleColor": "var(--dim)", "titleFontWeight": "normal"}
_FONT = "system-ui, sans-serif"
_CONFIG: Spec = {"background": "transparent", "font": _FONT, "view": {"stroke": None}}
_AXIS: Spec = {
    **_LABELS,
    "gridColor": "var(--line)",
    "domainColor": "var(--line)",
    "tickColor": "var(--line)",
    "labelFontSize": 12,
    "titleFontSize": 12,
}
_LEGEND: Spec = {
    **_LABELS,
    "orient": "top",
    "labelFontSize": 12,
    "title": None,
    "symbolStrokeWidth": 2,
    "symbolSize": 90,
    "labelLimit": 240,
}
_DRAWING = threading.Lock()
# Marks say what they show to a screen reader; a title makes the browser show it to all.
_MARK = re.compile(r'<(path|line|rect)( aria-label="([^"]*)"[^>]*)/>')


_ZERO: Spec = {
    "data": {"values": [{}]},
    "mark": {"type": "rule", "color": "var(--dim)", "strokeWidth": 1.5, "aria": False},
    "encoding": {"x": {"datum": 0, "type": "quantitative"}},
}


def draw(spec: Spec) -> Markup:
    """A specification with `width` left out, as two SVG drawings."""
    drawings = []
    for css, width in (("wide-only", WIDE), ("narrow-only", NARROW)):
        sized = _sized(spec, width)
        svg = _drawn(json.dumps(sized, sort_keys=True))
        drawings.append(svg.replace('class="marks"', f'class="chart {css}"', 1))
    # The drawing is Vega's own, with every text of the data escaped in it.
    return Markup("".join(drawings))


def intervals(
    rows: Sequence[Row], *, series: Sequence[str], title: str, bounds: tuple[float, float] | None
) -> Markup:
    """Points with their 95 % intervals, one line a `name`, one symbol a `series`, by `group`.

    A row: `{"name": ..., "group": ..., "series": ..., "value": ..., "low": ..., "high": ...}`.
    """
    scale: Spec = {"domain": list(bounds), "nice": False} if bounds else {"zero": True}
    across: Spec = {"type": "quantitative", "title": title, "scale": scale}
    colour = _by_series(series)
    down: Spec = {"field": "name", "type": "nominal", "sort": None, "title": None}
    offset: Spec = {"field": "series", "type": "nominal", "sort": list(series)}
    shared: Spec = {"y": down, "color": colour}
    has_several = len({row["name"] for row in rows}) < len(rows)
    if has_several:
        shared["yOffset"] = offset
    layers: list[Spec] = [] if bounds else [_ZERO]
    layers += [
        {
            "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.65},
            "encoding": {"x": {"field": "low", **across}, "x2": {"field": "high"}, **shared},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {
                "x": {"field": "value", **across},
                "shape": _by_series(series, SHAPES),
                **shared,
                "description": {"field": "told"},
            },
        },
    ]
    return draw(
        {
            "data": {"values": [dict(row) for row in rows]},
            "height": {"step": 15 if has_several else 24},
            "layer": layers,
        }
    )


def curves(
    rows: Sequence[Row], *, series: Sequence[str], x_title: str, y_title: str, marks: Sequence[Row]
) -> Markup:
    """Lines of `value` over `x`, one a `series`; `marks` are upright lines at `x`."""
    layers: list[Spec] = [
        {
            "data": {"values": [dict(row) for row in rows]},
            "mark": {"type": "line", "strokeWidth": 1.8},
            "encoding": {
                "x": _axis("x", x_title),
                "y": {**_axis("value", y_title), "scale": {"zero": False}},
                "color": _by_series(series),
                "strokeDash": _by_series(series, DASHES),
            },
        }
    ]
    if marks:
        values = {"values": [dict(mark) for mark in marks]}
        layers += [
            {
                "data": values,
                "mark": {"type": "rule", "color": "var(--dim)", "strokeDash": [3, 3]},
                "encoding": {"x": _axis("x", x_title), "description": {"field": "label"}},
            },
            {
                "data": values,
                "mark": {
                    "type": "text",
                    "align": "center",
                    "dy": -4,
                    "baseline": "bottom",
                    "color": "var(--dim)",
                    "fontSize": 11,
                    "y": 0,
                },
                "encoding": {"x": _axis("x", x_title), "text": {"field": "label"}},
            },
        ]
    return draw({"height": 220, "layer": layers})


def measured(
    rows: Sequence[Row], *, series: Sequence[str], x_title: str, y_title: str, marks: Sequence[Row]
) -> Markup:
    """Points of `value` over `x` with 95 % intervals `low` to `high`, and `left` to `right` where
    rows have them; joined by a line within a series where `joined` is true. `marks`: upright lines.
    """
    values: Spec = {"values": [dict(row) for row in rows]}
    across = {**_axis("x", x_title), "scale": {"zero": False}}
    up: Spec = {"type": "quantitative", "title": y_title, "scale": {"zero": False}}
    colour = _by_series(series)
    rule: Spec = {"type": "rule", "strokeWidth": 1.5, "opacity": 0.65}
    bars: list[Spec] = [
        {
            "mark": rule,
            "encoding": {
                "x": across, "y": {"field": "low", **up}, "y2": {"field": "high"}, "color": colour,
            },
        }
    ]  # fmt: skip
    if any("left" in row for row in rows):
        sides = {"x": {**across, "field": "left"}, "x2": {"field": "right"}}
        bars.append(
            {"mark": rule, "encoding": {**sides, "y": {"field": "value", **up}, "color": colour}}
        )
    place: Spec = {"x": across, "y": {"field": "value", **up}}
    layers: list[Spec] = [
        *bars,
        {
            "transform": [{"filter": "datum.joined"}],
            "mark": {"type": "line", "strokeWidth": 1.5, "strokeDash": [4, 3]},
            "encoding": {**place, "detail": {"field": "line"}, "color": {"value": "var(--dim)"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {
                **place, "color": colour, "shape": _by_series(series, SHAPES),
                "description": {"field": "told"},
            },
        },
    ]  # fmt: skip
    if marks:
        layers.append(
            {
                "data": {"values": [dict(mark) for mark in marks]},
                "mark": {"type": "rule", "color": "var(--dim)", "strokeDash": [3, 3]},
                "encoding": {"x": _axis("x", x_title), "description": {"field": "label"}},
            }
        )
    return draw({"data": values, "height": 240, "layer": layers})


def bars(
    rows: Sequence[Row], *, series: Sequence[str], title: str, is_stacked: bool = False
) -> Markup:
    """Bars of `value`, one a `name`; stacked by `series` where there are several."""
    encoding: Spec = {
        "y": {"field": "name", "type": "nominal", "sort": None, "title": None},
        "x": _axis("value", title),
        "description": {"field": "told"},
        "color": _by_series(series) if is_stacked else {"value": COLOURS[0]},
    }
    if is_stacked:
        encoding["order"] = {"field": "order", "type": "quantitative"}
    return draw(
        {
            "data": {"values": [dict(row) for row in rows]},
            "height": {"step": 24},
            "mark": {"type": "bar", "cornerRadius": 2, "stroke": "var(--paper)"},
            "encoding": encoding,
        }
    )


def warm_up() -> None:
    """Start the drawing engine, which takes a second or two."""
    bars([{"name": "", "value": 1, "told": ""}], series=[], title="")


def _axis(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title}


def _by_series(series: Sequence[str], looks: Sequence[object] = COLOURS) -> Spec:
    """One look a series: colours, symbols or dashes, which share one legend."""
    return {
        "field": "series",
        "type": "nominal",
        "scale": {
            "domain": list(series),
            "range": [looks[n % len(looks)] for n in range(len(series))],
        },
    }


def _sized(spec: Spec, width: int) -> Spec:
    is_narrow = width <= NARROW
    axis = {**_AXIS, "labelLimit": 110 if is_narrow else 230}
    across = {
        "tickCount": 4 if is_narrow else 8,
        "labelOverlap": "greedy",
        "labelSeparation": 14,
    }
    legend = {**_LEGEND, "columns": 2 if is_narrow else 4, "columnPadding": 26}
    return {
        **spec,
        "width": width,
        "padding": {"left": 10, "right": 14, "top": 4, "bottom": 4},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": {
            **_CONFIG,
            "axis": axis,
            "axisX": across,
            "axisY": {"labelOverlap": False},
            "legend": legend,
        },
    }


@lru_cache(maxsize=512)
def _drawn(spec: str) -> str:
    import vl_convert

    # One at a time: its engine is one for the process.
    with _DRAWING:
        svg: str = vl_convert.vegalite_to_svg(spec)
    return _MARK.sub(r"<\1\2><title>\3</title></\1>", svg)

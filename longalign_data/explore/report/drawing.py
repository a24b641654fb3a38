"""Vega-Lite into SVG.

In: `Plot`, what is to be drawn at a given width. Out: `Chart`, drawn. Drawing happens when the report is made, so that the
page holds pictures and no program. Every chart is drawn twice, for a wide page and for a phone, because letters that shrink
with a picture cannot be read. Colours are names of the style sheet's, which knows light and dark.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from longalign_data.explore.figures import Bar
from longalign_data.explore.plain import one_line, shorten
from longalign_data.sources.extras import extra

WIDE, NARROW = 940, 330

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart: its drawings as SVG, and its figures as a table, the first row being the heads."""

    title: str
    says: str
    wide: str
    narrow: str
    table: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What is to be drawn: `spec` makes it for a width in pixels."""

    title: str
    says: str
    spec: Callable[[int], Spec]
    table: Sequence[Sequence[str]]


def draw(plots: Sequence[Plot]) -> list[Chart]:
    """The charts. Raises MissingExtraError when the package that draws is not installed."""
    vega = extra("vl_convert", package="vl-convert-python", extra="look", purpose="the report")
    charts = []
    for number, plot in enumerate(plots):
        drawn = []
        for width in (WIDE, NARROW):
            svg = vega.vegalite_to_svg({**plot.spec(width), "config": _CONFIG, "background": None, "padding": 4})
            # Names of clips are counted anew in every drawing, and a page has room for each only once.
            svg = re.sub(r'(id="|url\(#)(clip\d+)', rf"\g<1>c{number}-{width}-\2", svg)
            drawn.append(svg.replace("<svg ", f'<svg role="img" aria-label="{_attribute(plot.title)}" ', 1))
        charts.append(Chart(title=plot.title, says=plot.says, wide=drawn[0], narrow=drawn[1], table=plot.table))
    return charts


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


COLOURS = [f"var(--s{n})" for n in range(1, 9)]
_CONFIG: Spec = {
    "aria": False,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "range": {"category": COLOURS},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelLimit": 130,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "labelLimit": 200,
        "orient": "top",
        "title": None,
        "symbolType": "square",
        "offset": 8,
    },
    "bar": {"cornerRadiusEnd": 2},
}


def counts(ticks: int = 5) -> Spec:
    """An axis of whole numbers."""
    return {"format": "~s", "tickCount": ticks, "tickMinStep": 1}


def words(labels: Sequence[str], width: int) -> Spec:
    """An axis of words, which slant where they would not stand side by side."""
    return {"labelAngle": 0 if sum(8 * len(each) + 8 for each in labels) < width - 60 else -60}


def time_axis(width: int) -> Spec:
    """An axis of points in time."""
    return {
        "field": "time",
        "type": "temporal",
        "scale": {"type": "utc"},
        "title": "UTC",
        "axis": {"tickCount": 6 if width > 500 else 3},
    }


def span(bar: Bar) -> str:
    """The lengths of a bucket, such as `8k–16k` or `8,192–16,384`."""
    low, high = ("" if end is None else _short(end) for end in (bar.low, bar.high))
    return f"{low}–{high}" if low and high else f"over {low}" if low else f"under {high}"


def bucket_label(name: str) -> str:
    """The name of a sampler's bucket, such as `8192-16384`, in the same form."""
    return "–".join(_short(int(n)) for n in re.findall(r"\d+", name)) or label(name)


def _short(number: int) -> str:
    """Exact: `8k` is 8,000."""
    return f"{number // 1_000:,}k" if number and number % 1_000 == 0 else f"{number:,}"


def label(text: str, width: int = 28) -> str:
    """A name out of the data, on one line and not too long."""
    return shorten(one_line(text), width)

"""The charts of the report: figures in, Vega-Lite out, drawn here into SVG.

Drawing happens when the report is made, so that the page holds pictures and no program. Every chart is drawn twice, for a
wide page and for a phone, because letters that shrink with a picture cannot be read. Colours are names of the style
sheet's, which knows light and dark. What a chart shows stands beside it in figures.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longalign_data.explore.calls import Calls
from longalign_data.explore.figures import Histogram, Stats
from longalign_data.explore.plain import one_line, shorten
from longalign_data.explore.weights import Row
from longalign_data.sources.extras import extra

WIDE, NARROW = 940, 330
GROUPS = 12
"""Sources that are drawn by themselves; the others are drawn together."""

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


_COLOURS = [f"var(--s{n})" for n in range(1, 9)]
_CONFIG: Spec = {
    "aria": False,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "range": {"category": _COLOURS},
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


def plots_of(stats: Stats, calls: Sequence[Calls], weights: Sequence[Row]) -> Mapping[str, Sequence[Plot]]:
    """Every chart that these figures can fill, by the heading below which it stands."""
    return {
        "Lengths": [plot for plot in (_targets(stats), _fine(stats), _answers(stats)) if plot],
        "Sources, languages and tasks": [plot for plot in (_crossings(stats),) if plot],
        "From documents to packs": [plot for plot in (_funnel(stats),) if plot],
        "Evidence": [plot for plot in (_depths(stats),) if plot],
        "The teacher": [plot for plot in (_cost(calls), _cache(calls)) if plot],
        "Training": [plot for plot in (_weights(weights), _sequences(stats), _steps(stats)) if plot],
    }


def _targets(stats: Stats) -> Plot | None:
    """Fig. 3 of the paper, as asked for and as had."""
    cells = [cell for cell in stats.cells if cell.bucket]
    if not cells:
        return None
    buckets: dict[str, list[int]] = {}
    for cell in cells:
        sums = buckets.setdefault(cell.bucket, [0, 0, 0])
        for place, count in enumerate((cell.target or 0, cell.achieved, cell.available)):
            sums[place] += count
    names = sorted(buckets, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    kinds = ("asked for", "had")
    values = [
        {"bucket": _bucket(name), "kind": kind, "documents": count}
        for name in names
        for kind, count in zip(kinds, buckets[name], strict=False)
    ]

    def spec(width: int) -> Spec:
        return {
            "width": width - 60,
            "height": 220,
            "data": {"values": values},
            "mark": "bar",
            "encoding": {
                "x": {"field": "bucket", "sort": None, "title": "tokens of the document", "axis": {"labelAngle": 0}},
                "xOffset": {"field": "kind", "sort": None},
                "y": {"field": "documents", "type": "quantitative", "title": None, "axis": _counts()},
                "color": {
                    "field": "kind",
                    "sort": None,
                    "scale": {"domain": kinds, "range": [_COLOURS[5], _COLOURS[0]]},
                },
            },
        }

    return Plot(
        title="Documents by length, asked for and had",
        says="What the recipe asks of each length, and what the corpus could give.",
        spec=spec,
        table=[
            ("tokens", *kinds, "there were"),
            *((_bucket(name), *(f"{count:,}" for count in buckets[name])) for name in names),
        ],
    )


def _fine(stats: Stats) -> Plot | None:
    found = {histogram.of: histogram for histogram in stats.fine}
    if "samples" not in found:
        return None
    total = sum(bar.count for bar in found["samples"].bars)
    wish = _wished(stats, found["samples"])
    layers = [{"of": "samples", **_bar(bar)} for bar in found["samples"].bars]

    def spec(width: int) -> Spec:
        x = {"field": "low", "type": "quantitative", "title": "tokens of the sample", "axis": _thousands(width)}
        bars: Spec = {
            "data": {"values": layers},
            "mark": {"type": "rect", "stroke": "var(--paper)", "strokeWidth": 1},
            "encoding": {
                "x": x,
                "x2": {"field": "high"},
                "y": {"field": "count", "type": "quantitative", "title": None, "axis": _counts()},
                "y2": {"datum": 0},
                "color": {"datum": "samples", "scale": {"range": [_COLOURS[0], _COLOURS[5]]}},
            },
        }
        line: Spec = {
            "data": {"values": wish},
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
            "encoding": {
                "x": {**x, "field": "at"},
                "y": {"field": "count", "type": "quantitative"},
                "color": {"datum": "asked for"},
            },
        }
        return {"width": width - 60, "height": 220, "layer": [bars, line] if wish else [bars]}

    return Plot(
        title="Samples by length",
        says=f"{total:,} samples; long ones cost most and are what the recipe exists for.",
        spec=spec,
        table=[
            ("tokens", "samples", "share"),
            *((_span(bar), f"{bar.count:,}", f"{bar.count / total:.1%}") for bar in found["samples"].bars),
        ],
    )


def _wished(stats: Stats, bins: Histogram) -> list[dict[str, float]]:
    """The target as a line over the bins: each bucket's documents, spread evenly over its width."""
    asked: dict[tuple[int, int], int] = {}
    for cell in stats.cells:
        edges = [int(n) for n in re.findall(r"\d+", cell.bucket)]
        if cell.target is not None and len(edges) == 2:
            asked[edges[0], edges[1]] = asked.get((edges[0], edges[1]), 0) + cell.target
    width = next((bar.high - bar.low for bar in bins.bars if bar.low is not None and bar.high is not None), 0)
    spans = sorted(asked)
    points = [{"at": float(low), "count": asked[low, high] * width / (high - low)} for low, high in spans]
    return [*points, {"at": float(spans[-1][1]), "count": points[-1]["count"]}] if points else []


def _answers(stats: Stats) -> Plot | None:
    found = next((histogram for histogram in stats.histograms if histogram.of == "answers"), None)
    if found is None:
        return None
    values = [{"tokens": _span(bar), "answers": bar.count} for bar in found.bars]

    def spec(width: int) -> Spec:
        return {
            "width": width - 60,
            "height": 160,
            "data": {"values": values},
            "mark": {"type": "bar", "color": _COLOURS[1]},
            "encoding": {
                "x": {
                    "field": "tokens",
                    "sort": None,
                    "title": "tokens of the answer",
                    "axis": {"labelAngle": 0 if width > 500 else -60},
                },
                "y": {"field": "answers", "type": "quantitative", "title": None, "axis": _counts()},
            },
        }

    of_tasks = [row for row in stats.lengths if row.of == "answers" and row.by in ("", "task")]
    return Plot(
        title="Answers by length",
        says="Short answers carry few targets; the weights below make them count all the same.",
        spec=spec,
        table=[
            ("task", "answers", "p10", "median", "p90", "longest"),
            *(
                (row.key or "all", *(f"{n:,}" for n in (row.count, row.p10, row.p50, row.p90, row.max)))
                for row in of_tasks
            ),
        ],
    )


def _crossings(stats: Stats) -> Plot | None:
    if not stats.crossings:
        return None
    size: dict[str, int] = {}
    for row in stats.crossings:
        size[row.source] = size.get(row.source, 0) + row.samples
    alone = sorted(size, key=lambda name: (-size[name], name))[:GROUPS]
    sums: dict[tuple[str, str], int] = {}
    for row in stats.crossings:
        name = f"{_name(row.source)} ({_name(row.language, 12)})" if row.source in alone else "all others"
        sums[name, row.task] = sums.get((name, row.task), 0) + row.samples
    values = [{"source": source, "task": _name(task), "samples": count} for (source, task), count in sums.items()]
    order = [*dict.fromkeys(source for source, _ in sums if source != "all others"), "all others"]

    def spec(width: int) -> Spec:
        return {
            "width": width - (170 if width > 500 else 120),
            "height": {"step": 26},
            "data": {"values": values},
            "mark": "bar",
            "encoding": {
                "y": {
                    "field": "source",
                    "sort": order,
                    "title": None,
                    "axis": {"labelLimit": 150 if width > 500 else 100},
                },
                "x": {
                    "field": "samples",
                    "type": "quantitative",
                    "title": "samples",
                    "axis": _counts(4 if width < 500 else 8),
                },
                "color": {"field": "task", "legend": {"columns": 4 if width > 500 else 2}},
            },
        }

    return Plot(
        title="Samples by source, language and task",
        says="A recipe draws tasks by chance for each document, so the mix should look alike everywhere.",
        spec=spec,
        table=[
            ("source", "language", "task", "samples", "tokens"),
            *(
                (_name(row.source), _name(row.language), _name(row.task), f"{row.samples:,}", f"{row.tokens:,}")
                for row in stats.crossings[:60]
            ),
            *([("…", "", f"{len(stats.crossings) - 60:,} more", "", "")] if len(stats.crossings) > 60 else []),
        ],
    )


def _funnel(stats: Stats) -> Plot | None:
    if not stats.stages:
        return None
    values = [
        {"stage": row.stage, "kind": kind, "number": number, "order": order}
        for row in stats.stages
        for order, (kind, number) in enumerate(
            (
                ("went on", row.num_in - row.num_rejected - row.num_left_out),
                ("left out", row.num_left_out),
                ("rejected", row.num_rejected),
            )
        )
    ]

    def spec(width: int) -> Spec:
        return {
            "width": width - 80,
            "height": {"step": 26},
            "data": {"values": values},
            "mark": "bar",
            "encoding": {
                "y": {"field": "stage", "sort": None, "title": None},
                "x": {
                    "field": "number",
                    "type": "quantitative",
                    "stack": "normalize",
                    "title": "share of what went in",
                    "axis": {"format": "%", "tickCount": 5},
                },
                "order": {"field": "order"},
                "color": {
                    "field": "kind",
                    "sort": None,
                    "scale": {
                        "domain": ["went on", "left out", "rejected"],
                        "range": [_COLOURS[0], "var(--line)", _COLOURS[3]],
                    },
                },
            },
        }

    return Plot(
        title="What became of what went into each stage",
        says="Nothing is lost in silence: what does not go on is rejected with a reason, or left out on purpose.",
        spec=spec,
        table=[
            ("stage", "in", "out", "rejected", "left out", "tokens", "seconds"),
            *(
                (
                    row.stage,
                    *(f"{n:,}" for n in (row.num_in, row.num_out, row.num_rejected, row.num_left_out, row.num_tokens)),
                    f"{row.seconds:,.1f}",
                )
                for row in stats.stages
            ),
        ],
    )


def _depths(stats: Stats) -> Plot | None:
    if not stats.depths:
        return None
    tenths = [f"{10 * n}–{10 * n + 10}%" for n in range(10)]
    values = [
        {"depth": tenths[n], "task": _name(row.task), "places": count}
        for row in stats.depths
        for n, count in enumerate(row.tenths)
    ]
    total = sum(sum(row.tenths) for row in stats.depths)

    def spec(width: int) -> Spec:
        return {
            "width": width - 60,
            "height": 180,
            "data": {"values": values},
            "mark": "bar",
            "encoding": {
                "x": {
                    "field": "depth",
                    "sort": None,
                    "title": "depth in the document",
                    "axis": {"labelAngle": 0 if width > 500 else -60},
                },
                "y": {"field": "places", "type": "quantitative", "title": None, "axis": _counts()},
                "color": {"field": "task", "legend": {"columns": 4 if width > 500 else 2}},
            },
        }

    return Plot(
        title="Where in their documents the answers find their evidence",
        says=f"{total:,} places. Answers that only need the head of a document do not teach long context.",
        spec=spec,
        table=[("task", *tenths), *((_name(row.task), *(f"{n:,}" for n in row.tenths)) for row in stats.depths)],
    )


def _cost(calls: Sequence[Calls]) -> Plot | None:
    if not calls:
        return None
    paid = any(band.usd for band in calls)
    running = list(itertools.accumulate(band.usd if paid else band.replies for band in calls))
    word = "dollars" if paid else "replies"
    values = [{"time": band.begin.isoformat(), "sum": total} for band, total in zip(calls, running, strict=True)]

    def spec(width: int) -> Spec:
        return {
            "width": width - 60,
            "height": 160,
            "data": {"values": values},
            "mark": {"type": "area", "line": {"color": _COLOURS[0]}, "color": _COLOURS[0], "fillOpacity": 0.25},
            "encoding": {
                "x": _time(width),
                "y": {"field": "sum", "type": "quantitative", "title": None, "axis": {"format": "~s", "tickCount": 4}},
            },
        }

    return Plot(
        title=f"{word.capitalize()} over time",
        says=f"{running[-1]:,.2f} dollars for {sum(band.replies for band in calls):,} replies, earlier and rejected ones included."
        if paid
        else f"{running[-1]:,.0f} replies, free or without a known price.",
        spec=spec,
        table=_calls_table(calls),
    )


def _cache(calls: Sequence[Calls]) -> Plot | None:
    bands = [band for band in calls if band.prompt_tokens]
    if not bands or not any(band.cached_tokens for band in bands):
        return None
    values = [{"time": band.begin.isoformat(), "share": band.cached_tokens / band.prompt_tokens} for band in bands]
    share = sum(band.cached_tokens for band in bands) / sum(band.prompt_tokens for band in bands)

    def spec(width: int) -> Spec:
        return {
            "width": width - 60,
            "height": 140,
            "data": {"values": values},
            "mark": {"type": "line", "point": {"color": _COLOURS[2]}, "color": _COLOURS[2]},
            "encoding": {
                "x": _time(width),
                "y": {
                    "field": "share",
                    "type": "quantitative",
                    "title": None,
                    "scale": {"domain": [0, 1]},
                    "axis": {"format": "%", "tickCount": 4},
                },
            },
        }

    return Plot(
        title="Prompt tokens that came from the provider's cache",
        says=f"{share:.1%} in all. Two calls about one document can share all of it but the instruction.",
        spec=spec,
        table=_calls_table(bands),
    )


def _calls_table(calls: Sequence[Calls]) -> list[tuple[str, ...]]:
    heads = ("from (UTC)", "replies", "refused", "prompt tokens", "from cache", "output tokens", "dollars")
    return [
        heads,
        *(
            (
                f"{band.begin:%Y-%m-%d %H:%M:%S}",
                *(
                    f"{n:,}"
                    for n in (band.replies, band.refused, band.prompt_tokens, band.cached_tokens, band.output_tokens)
                ),
                f"{band.usd:,.4f}",
            )
            for band in calls
        ),
    ]


def _weights(rows: Sequence[Row]) -> Plot | None:
    by_length = [row for row in rows if row.by == "length"]
    if not by_length:
        return None
    ways = ("this plan", "plain packing", "every token alike")
    values = [
        {"length": row.key.replace(" to ", "–"), "way": name, "mean": way.mean, "low": way.p1, "high": way.p99}
        for row in by_length
        for name, way in zip(ways, (row.this_plan, row.plain_packing, row.token_mean), strict=True)
    ]

    def spec(width: int) -> Spec:
        shared: Spec = {
            "x": {
                "field": "length",
                "sort": None,
                "title": "tokens of the sequence",
                "axis": {"labelAngle": 0 if width > 500 else -60},
            },
            "xOffset": {"field": "way", "sort": None},
            "color": {
                "field": "way",
                "sort": None,
                "scale": {"domain": ways, "range": [_COLOURS[0], _COLOURS[3], _COLOURS[4]]},
                "legend": {"columns": 3 if width > 500 else 2},
            },
        }
        y: Spec = {
            "type": "quantitative",
            "title": None,
            "scale": {"type": "symlog", "constant": 0.1},
            "axis": {"values": [0, 0.25, 0.5, 1, 2, 4, 8], "format": ".2~f"},
        }
        return {
            "width": width - 60,
            "height": 220,
            "data": {"values": values},
            "layer": [
                {
                    "mark": {"type": "rule", "strokeWidth": 2},
                    "encoding": {**shared, "y": {"field": "low", **y}, "y2": {"field": "high"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
                    "encoding": {**shared, "y": {"field": "mean", **y}},
                },
            ],
        }

    return Plot(
        title="How much a sequence counts, by its length",
        says="1 is its fair share. Points are means, lines run from the 1st to the 99th percentile. Plain packing is best-fit "
        "packs without loss weights.",
        spec=spec,
        table=[
            ("tokens", "sequences", "targets", *ways),
            *(
                (
                    row.key,
                    f"{row.count:,}",
                    f"{row.targets:,.0f}",
                    *(
                        f"{way.mean:.2f} ({way.p1:.2f} to {way.p99:.2f})"
                        for way in (row.this_plan, row.plain_packing, row.token_mean)
                    ),
                )
                for row in by_length
            ),
        ],
    )


def _sequences(stats: Stats) -> Plot | None:
    if len(stats.steps) < 2:
        return None
    values = [{"step": band.first, "low": band.least_sequences, "high": band.most_sequences} for band in stats.steps]

    def spec(width: int) -> Spec:
        x = {"field": "step", "type": "quantitative", "title": "step", "axis": {"format": "d", "tickCount": 6}}
        y = {"type": "quantitative", "title": None, "axis": _counts(), "scale": {"zero": True}}
        return {
            "width": width - 60,
            "height": 120,
            "data": {"values": values},
            "layer": [
                {
                    "mark": {"type": "area", "color": _COLOURS[1], "opacity": 0.3},
                    "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}},
                },
                {"mark": {"type": "line", "color": _COLOURS[1]}, "encoding": {"x": x, "y": {"field": "high", **y}}},
            ],
        }

    return Plot(
        title="Sequences in a step",
        says="Alike from step to step means that every step's gradient speaks for as many sequences.",
        spec=spec,
        table=_step_table(stats),
    )


def _steps(stats: Stats) -> Plot | None:
    if len(stats.steps) < 2:
        return None
    kinds = {"room that is filled": "fill", "time that ranks wait": "idle"}
    values = [
        {"step": band.first, "kind": kind, "share": getattr(band, field)}
        for band in stats.steps
        for kind, field in kinds.items()
    ]

    def spec(width: int) -> Spec:
        return {
            "width": width - 60,
            "height": 160,
            "data": {"values": values},
            "mark": {"type": "line"},
            "encoding": {
                "x": {
                    "field": "step",
                    "type": "quantitative",
                    "title": "step",
                    "axis": {"format": "d", "tickCount": 6},
                },
                "y": {
                    "field": "share",
                    "type": "quantitative",
                    "title": None,
                    "scale": {"domain": [0, 1]},
                    "axis": {"format": "%", "tickCount": 5},
                },
                "color": {"field": "kind", "sort": None, "scale": {"range": [_COLOURS[0], _COLOURS[3]]}},
            },
        }

    return Plot(
        title="Fill and modelled idle time of the steps",
        says="Idle is modelled for one rank a pack, from the work of the packs of a step.",
        spec=spec,
        table=_step_table(stats),
    )


def _step_table(stats: Stats) -> list[tuple[str, ...]]:
    return [
        ("steps", "fill", "sequences", "idle"),
        *(
            (
                f"{band.first:,}" if band.first == band.last else f"{band.first:,}–{band.last:,}",
                f"{band.fill:.2%}",
                f"{band.least_sequences:,}"
                if band.least_sequences == band.most_sequences
                else f"{band.least_sequences:,}–{band.most_sequences:,}",
                f"{band.idle:.1%}",
            )
            for band in stats.steps
        ),
    ]


def _counts(ticks: int = 5) -> Spec:
    return {"format": "~s", "tickCount": ticks, "tickMinStep": 1}


def _thousands(width: int) -> Spec:
    return {"format": "~s", "tickCount": 8 if width > 500 else 5}


def _time(width: int) -> Spec:
    return {
        "field": "time",
        "type": "temporal",
        "scale": {"type": "utc"},
        "title": "UTC",
        "axis": {"tickCount": 6 if width > 500 else 3},
    }


def _bar(bar: Any) -> dict[str, int | None]:
    return {"low": bar.low, "high": bar.high, "count": bar.count}


def _span(bar: Any) -> str:
    if bar.low is None:
        return f"under {_short(bar.high)}"
    return f"over {_short(bar.low)}" if bar.high is None else f"{_short(bar.low)}–{_short(bar.high)}"


def _bucket(name: str) -> str:
    return "–".join(_short(int(n)) for n in re.findall(r"\d+", name)) or _name(name)


def _short(number: int) -> str:
    if number < 1_000:
        return str(number)
    return f"{number / 1_000:.3g}k" if number < 1_000_000 else f"{number / 1_000_000:.3g}M"


def _name(text: str, width: int = 28) -> str:
    return shorten(one_line(text), width)

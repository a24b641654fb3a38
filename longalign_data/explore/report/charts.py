"""The charts of the report: figures in, plots out. What a chart shows stands beside it in numbers."""

import re
from collections.abc import Mapping, Sequence

from longalign_data.explore.calls import Calls
from longalign_data.explore.figures import Histogram, Stats
from longalign_data.explore.report.drawing import COLOURS, Plot, Spec, bucket_label, counts, label, span, words
from longalign_data.explore.report.training import cache, cost, fill_and_idle, sequences_in_steps, weights_by_length
from longalign_data.explore.weights import Row

GROUPS = 12
"""Sources that are drawn by themselves; the others are drawn together."""


def plots_of(stats: Stats, calls: Sequence[Calls], weights: Sequence[Row]) -> Mapping[str, Sequence[Plot]]:
    """Every chart that these figures can fill, by the heading below which it stands."""
    return {
        "Lengths": [plot for plot in (_targets(stats), _fine(stats), _answers(stats)) if plot],
        "Sources, languages and tasks": [plot for plot in (_crossings(stats),) if plot],
        "From documents to packs": [plot for plot in (_funnel(stats),) if plot],
        "Evidence": [plot for plot in (_depths(stats),) if plot],
        "The teacher": [plot for plot in (cost(calls), cache(calls)) if plot],
        "Training": [
            plot for plot in (weights_by_length(weights), sequences_in_steps(stats), fill_and_idle(stats)) if plot
        ],
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
        {"bucket": bucket_label(name), "kind": kind, "documents": count}
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
                "x": {
                    "field": "bucket",
                    "sort": None,
                    "title": "tokens of the document",
                    "axis": words([bucket_label(name) for name in names], width),
                },
                "xOffset": {"field": "kind", "sort": None},
                "y": {"field": "documents", "type": "quantitative", "title": None, "axis": counts()},
                "color": {
                    "field": "kind",
                    "sort": None,
                    "scale": {"domain": kinds, "range": [COLOURS[5], COLOURS[0]]},
                },
            },
        }

    return Plot(
        title="Documents by length, asked for and had",
        says="What the recipe asks of each length, and what the corpus could give.",
        spec=spec,
        table=[
            ("tokens", *kinds, "there were"),
            *((bucket_label(name), *(f"{count:,}" for count in buckets[name])) for name in names),
        ],
    )


def _fine(stats: Stats) -> Plot | None:
    found = {histogram.of: histogram for histogram in stats.fine}
    if "samples" not in found:
        return None
    total = sum(bar.count for bar in found["samples"].bars)
    wish = _wished(stats, found["samples"])
    layers = [{"low": bar.low, "high": bar.high, "count": bar.count} for bar in found["samples"].bars]

    def spec(width: int) -> Spec:
        x = {
            "field": "low",
            "type": "quantitative",
            "title": "tokens of the sample",
            "axis": {"format": "~s", "tickCount": 8 if width > 500 else 5},
        }
        bars: Spec = {
            "data": {"values": layers},
            "mark": {"type": "rect", "stroke": "var(--paper)", "strokeWidth": 1},
            "encoding": {
                "x": x,
                "x2": {"field": "high"},
                "y": {"field": "count", "type": "quantitative", "title": None, "axis": counts()},
                "y2": {"datum": 0},
                "color": {"datum": "samples", "scale": {"range": [COLOURS[0], COLOURS[5]]}},
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
            *((span(bar), f"{bar.count:,}", f"{bar.count / total:.1%}") for bar in found["samples"].bars),
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
    values = [{"tokens": span(bar), "answers": bar.count} for bar in found.bars]

    def spec(width: int) -> Spec:
        return {
            "width": width - 60,
            "height": 160,
            "data": {"values": values},
            "mark": {"type": "bar", "color": COLOURS[1]},
            "encoding": {
                "x": {
                    "field": "tokens",
                    "sort": None,
                    "title": "tokens of the answer",
                    "axis": words([span(bar) for bar in found.bars], width),
                },
                "y": {"field": "answers", "type": "quantitative", "title": None, "axis": counts()},
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
        name = f"{label(row.source)} ({label(row.language, 12)})" if row.source in alone else "all others"
        sums[name, row.task] = sums.get((name, row.task), 0) + row.samples
    values = [{"source": source, "task": label(task), "samples": count} for (source, task), count in sums.items()]
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
                    "axis": counts(4 if width < 500 else 8),
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
                (label(row.source), label(row.language), label(row.task), f"{row.samples:,}", f"{row.tokens:,}")
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
                        "range": [COLOURS[0], "var(--line)", COLOURS[3]],
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
        {"depth": tenths[n], "task": label(row.task), "places": count}
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
                    "axis": words(tenths, width),
                },
                "y": {"field": "places", "type": "quantitative", "title": None, "axis": counts()},
                "color": {"field": "task", "legend": {"columns": 4 if width > 500 else 2}},
            },
        }

    return Plot(
        title="Where in their documents the answers find their evidence",
        says=f"{total:,} places. Answers that only need the head of a document do not teach long context.",
        spec=spec,
        table=[("task", *tenths), *((label(row.task), *(f"{n:,}" for n in row.tenths)) for row in stats.depths)],
    )

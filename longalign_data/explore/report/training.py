"""The report's charts about the teacher's bill and about training; see `charts`."""

import itertools
from collections.abc import Sequence

from longalign_data.explore.calls import Calls
from longalign_data.explore.figures import Stats
from longalign_data.explore.report.drawing import COLOURS, Plot, Spec, counts, time_axis, words
from longalign_data.explore.weights import Row


def cost(calls: Sequence[Calls]) -> Plot | None:
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
            "mark": {"type": "area", "line": {"color": COLOURS[0]}, "color": COLOURS[0], "fillOpacity": 0.25},
            "encoding": {
                "x": time_axis(width),
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


def cache(calls: Sequence[Calls]) -> Plot | None:
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
            "mark": {"type": "line", "point": {"color": COLOURS[2]}, "color": COLOURS[2]},
            "encoding": {
                "x": time_axis(width),
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


def weights_by_length(rows: Sequence[Row]) -> Plot | None:
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
                "axis": words([row.key for row in by_length], width),
            },
            "xOffset": {"field": "way", "sort": None},
            "color": {
                "field": "way",
                "sort": None,
                "scale": {"domain": ways, "range": [COLOURS[0], COLOURS[3], COLOURS[4]]},
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


def sequences_in_steps(stats: Stats) -> Plot | None:
    if len(stats.steps) < 2:
        return None
    values = [{"step": band.first, "low": band.least_sequences, "high": band.most_sequences} for band in stats.steps]

    def spec(width: int) -> Spec:
        x = {"field": "step", "type": "quantitative", "title": "step", "axis": {"format": "d", "tickCount": 6}}
        y = {"type": "quantitative", "title": None, "axis": counts(), "scale": {"zero": True}}
        return {
            "width": width - 60,
            "height": 120,
            "data": {"values": values},
            "layer": [
                {
                    "mark": {"type": "area", "color": COLOURS[1], "opacity": 0.3},
                    "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}},
                },
                {"mark": {"type": "line", "color": COLOURS[1]}, "encoding": {"x": x, "y": {"field": "high", **y}}},
            ],
        }

    return Plot(
        title="Sequences in a step",
        says="Alike from step to step means that every step's gradient speaks for as many sequences.",
        spec=spec,
        table=_step_table(stats),
    )


def fill_and_idle(stats: Stats) -> Plot | None:
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
                "color": {"field": "kind", "sort": None, "scale": {"range": [COLOURS[0], COLOURS[3]]}},
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

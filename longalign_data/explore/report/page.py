"""The report: all figures of a build and some of its samples, as one page that needs no network and no program.

In: a build, prices. Out: HTML under `MAX_BYTES`, whatever the build holds. Text out of documents is escaped, and the page's
own policy forbids every script, so that even text that got through could do nothing.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longalign_data.errors import BuildError
from longalign_data.explore.calls import calls_over_time
from longalign_data.explore.figures import Stats, collect
from longalign_data.explore.pages.sample import ShownDocument, Whole, whole_sample
from longalign_data.explore.pages.templates import BASE_CSS, environment
from longalign_data.explore.pages.text import around
from longalign_data.explore.plan import plan_report
from longalign_data.explore.recorded import manifest_of, rehearsal_words
from longalign_data.explore.report.charts import plots_of
from longalign_data.explore.report.drawing import draw
from longalign_data.explore.sql import connect, reading
from longalign_data.explore.weights import Row, weight_rows
from longalign_data.shards.folder import BuildFolder
from longalign_data.teachers.prices import Prices

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent
NUM_SAMPLES = 40
DOCUMENT_CHARS = 16_000
MAX_BYTES = 5_000_000
SAMPLES_BYTES = 3_000_000
"""Of all samples together; escaped, hostile text can be many times as long as it was."""
SET_ASIDE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A document as the page shows it."""

    title: str
    facts: Sequence[tuple[str, str]]
    blocks: Sequence[Any]


def render_report(build: BuildFolder, prices: Prices) -> str:
    """The report as HTML. Raises BuildError for a damaged build, naming the file, or one that holds nothing, and
    MissingExtraError when the packages of the extra `look` are not installed."""
    templates = environment(HERE, purpose="the report")
    stats = collect(build)
    if not stats.lengths and not stats.stages:
        raise BuildError(f"{build.root}: holds no rows yet; run: longalign build RECIPE")
    plots = plots_of(stats, calls_over_time(build, prices), _weights(build))
    drawn = iter(draw([plot for found in plots.values() for plot in found]))
    sections = [(heading, [next(drawn) for _ in found]) for heading, found in plots.items() if found]
    counted = {row.of: row.count for row in stats.lengths if not row.by}
    num_samples = counted.get("samples", 0)
    style = BASE_CSS.read_text(encoding="utf-8") + (HERE / "report.css").read_text(encoding="utf-8")
    manifest = manifest_of(build)
    html = templates.get_template("report.html").render(
        name=f"{manifest.get('name', build.root.parent.name)} {manifest.get('version', build.root.name)}",
        description=_description(manifest),
        made=_made(manifest),
        rehearsal=rehearsal_words(stats.rehearsed) if stats.rehearsed else "",
        style=_markup(style),
        style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
        tiles=list(_tiles(stats)),
        sections=sections,
        set_aside=_set_aside(stats),
        samples=list(_samples(build, templates, "samples" if num_samples else "chats")),
        num_samples=num_samples or counted.get("chats", 0),
        recipe=str(manifest.get("recipe", ""))[:100_000],
    )
    assert len(html.encode()) < MAX_BYTES
    return html


def _weights(build: BuildFolder) -> Sequence[Row]:
    """Empty where the build cannot tell: it is not complete, or did not keep its sequences."""
    if not build.shards("sequences") or not manifest_of(build):
        return []
    return weight_rows(build, plan_report(build, {}))


def _tiles(stats: Stats) -> Iterator[tuple[str, str]]:
    whole = {row.of: row for row in stats.lengths if not row.by}
    for of in ("documents", "samples", "chats"):
        if of in whole:
            yield f"{whole[of].count:,}", of
    if "samples" in whole:
        yield _large(whole["samples"].tokens), "tokens in samples"
        yield f"{whole['samples'].p50:,}", "tokens in the middle sample"
    if stats.packing is not None:
        yield f"{stats.packing.packs:,}", "packs"
        yield f"{stats.packing.mean_fill:.2%}", "of their room filled"
        yield f"{stats.packing.steps:,}", "optimizer steps"
    priced = [spent.cost_usd for spent in stats.spending if spent.cost_usd is not None]
    if priced:
        yield f"{sum(priced):,.2f}", "dollars for the samples"


def _large(number: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _set_aside(stats: Stats) -> list[tuple[str, ...]]:
    rows = sorted(stats.set_aside, key=lambda row: -row.count)
    if not rows:
        return []
    shown = [(row.stage, row.kind, row.reason, f"{row.count:,}") for row in rows[:SET_ASIDE]]
    more = [("…", "", f"{len(rows) - SET_ASIDE:,} more reasons", "")] if len(rows) > SET_ASIDE else []
    return [("stage", "", "reason", "number"), *shown, *more]


def _description(manifest: Any) -> str:
    from longalign_data import yamlfile
    from longalign_data.recipe import Recipe

    if not manifest.get("recipe"):
        return ""
    return yamlfile.parse(manifest["recipe"], Path("recipe"), Recipe).description


def _made(manifest: Any) -> str:
    teacher = manifest.get("teacher") or {}
    return ", ".join(
        part
        for part in (
            f"made with {manifest['made_with']}" if manifest.get("made_with") else "a build on its way",
            f"teacher {teacher['provider']} {teacher['model']}" if teacher else "",
            f"parent version {manifest['parent']['version']}" if manifest.get("parent") else "",
        )
        if part
    )


def _samples(build: BuildFolder, templates: "jinja2.Environment", table: str) -> Iterator[Any]:
    """Samples as HTML, as many as fit: of every source, language and task one, then of each a second, and so on."""
    template = templates.get_template("sample.html")
    connection = connect(build)
    try:
        with reading(connection):
            ids = connection.execute(
                f"""
                select sample_id from (
                    select sample_id, row_number() over (partition by source, lang, task order by sample_id) as nth from {table}
                ) order by nth, sample_id limit $1
                """,  # noqa: S608 - one of two names
                [NUM_SAMPLES],
            ).fetchall()
        room = SAMPLES_BYTES
        for (sample_id,) in ids:
            whole = whole_sample(connection, sample_id, table=table)
            assert whole is not None
            html = template.render(whole=_with_excerpts(whole), provenance=list(provenance(whole)))
            room -= len(html.encode())
            if room < 0:
                return
            yield _markup(html)
    finally:
        connection.close()


def _with_excerpts(whole: Whole) -> dict[str, Any]:
    return {
        "sample": whole.sample,
        "turns": whole.turns,
        "documents": [
            _Shown(
                title=_title(document),
                facts=document.facts,
                blocks=around(document.text, document.evidence, chars=DOCUMENT_CHARS),
            )
            for document in whole.documents
        ],
    }


def _title(document: ShownDocument) -> str:
    return next((value for name, value in document.facts if name == "title"), document.doc_id)


def provenance(whole: Whole) -> Iterator[tuple[str, str]]:
    """Where a sample comes from and what became of it, as pairs of words."""
    sample, usage = whole.sample, whole.sample.usage
    yield "sample", sample.sample_id
    yield "teacher", f"{sample.teacher.provider} {sample.teacher.model}"
    yield "terms", sample.teacher.terms
    yield "licence", sample.license
    yield "tokens", f"{sample.num_tokens:,}, of them {sample.num_answer_tokens:,} in the answer"
    yield (
        "usage",
        f"{usage.input_tokens:,} tokens in, {usage.cache_write_tokens:,} written to and {usage.cache_read_tokens:,} read from "
        f"cache, {usage.output_tokens:,} out",
    )
    yield "cost", "no price known" if sample.cost_usd is None else f"{sample.cost_usd:,.6f} dollars"
    yield "ended by", sample.stop_reason
    yield "requests", ", ".join(sample.request_ids) or "(none)"
    if whole.training is not None:
        place = whole.training
        yield (
            "in training",
            (
                f"step {place.step:,}, pack {place.pack_id}, {place.num_targets:,} targets, "
                f"{place.truncated_tokens:,} tokens cut out of the document"
            ),
        )


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - our own style sheet, and what a template has escaped

"""One sample as a person reads it.

In: a build and the beginning of a sample's id (or none, for some sample). Out, on the console: where it came from, the
head and tail of its documents, the evidence, the questions, the answer, and what became of it in training.

Whatever a document holds is printed as text: no markup, no escape sequence and no change of direction gets through.
"""

import bisect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from longalign_data.errors import BuildError, UserError
from longalign_data.explore.plain import one_line, shorten, visible
from longalign_data.explore.sql import connect, reading
from longalign_data.records import Sample
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import from_row

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

HEAD_CHARS = 1_200
TAIL_CHARS = 800
QUOTE_CHARS = 240
LISTED = 8


def show(build: BuildFolder, sample_id_prefix: str | None, console: "Console") -> None:
    """Prints the sample whose id begins with `sample_id_prefix`; without one, that with the smallest id, which is as good
    as a random one and always the same. A prefix of several ids lists them instead.

    Raises UserError when no id begins so, with the nearest ids, and BuildError when the build holds no samples or a
    damaged file.
    """
    connection = connect(build)
    try:
        sample_id = _find(connection, build, sample_id_prefix, console)
        if sample_id is not None:
            _Page(connection, console).sample(sample_id)
    finally:
        connection.close()


def _find(
    connection: "duckdb.DuckDBPyConnection", build: BuildFolder, prefix: str | None, console: "Console"
) -> str | None:
    with reading(connection):
        found_ids = connection.execute("select sample_id from samples order by sample_id").fetchall()
    ids: list[str] = [row[0] for row in found_ids]
    if not ids:
        raise BuildError(
            f"{build.root}: holds no samples: the stage 'generate' is not complete, or the recipe does not keep them; "
            "run: longalign build RECIPE"
        )
    if not prefix:
        return ids[0]
    wanted = prefix.strip().lower()
    found = [sample_id for sample_id in ids if sample_id.startswith(wanted)]
    if not found:
        # Ids that share the longest beginning stand next to the place where the prefix would stand.
        at = bisect.bisect_left(ids, wanted)
        near = ids[max(0, at - 3) : at + 3]
        raise UserError(f"no sample's id begins with {one_line(prefix)!r}; near it stand: {', '.join(near)}")
    if len(found) == 1 or found[0] == wanted:
        return found[0]
    from rich.text import Text

    console.print(Text(f"{len(found):,} samples begin with {wanted}:"))
    with reading(connection):
        rows = connection.execute(
            "select sample_id, task, lang, source, num_tokens from samples where starts_with(sample_id, ?) "
            "order by sample_id limit ?",
            [wanted, LISTED],
        ).fetchall()
    for sample_id, task, lang, source, tokens in rows:
        console.print(Text(f"  {sample_id}  {one_line(task)}, {one_line(lang)}, {one_line(source)}, {tokens:,} tokens"))
    if len(found) > LISTED:
        console.print(Text(f"  … and {len(found) - LISTED:,} more"))
    return None


class _Page:
    """Prints the parts of one sample, one below the other."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", console: "Console") -> None:
        self._connection = connection
        self._console = console

    def sample(self, sample_id: str) -> None:
        sample = from_row(Sample, self._row("select * from samples where sample_id = ?", sample_id) or {})
        documents = {
            doc_id: row
            for doc_id in sample.doc_ids
            if (row := self._row("select * from documents where doc_id = ?", doc_id)) is not None
        }
        self._head(f"sample {sample.sample_id}")
        self._field("task", f"{sample.task}, {sample.lang}")
        self._field("tokens", f"{sample.num_tokens:,}, of them {sample.num_answer_tokens:,} in the answer")
        self._field("licence", sample.license)
        self._field("source", sample.source)
        texts = self._documents(sample, documents)
        self._evidence(sample, texts)
        self._turns(sample)
        self._provenance(sample)
        self._training(sample_id)

    def _documents(self, sample: Sample, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Prints the documents; returns their texts by id, as far as they are known."""
        texts = {}
        for number, doc_id in enumerate(sample.doc_ids):
            row = documents.get(doc_id)
            if row is not None:
                text = row["text"]
            elif number < len(sample.document_spans):
                span = sample.document_spans[number]
                text = sample.messages[span.message_index].content[span.start : span.end]
            else:
                continue
            texts[doc_id] = text
            self._head(f"document {doc_id}")
            if row is not None:
                self._field("title", row["title"] or "(none)")
                self._field("from", f"{row['source']}: {row['source_ref']}")
                self._field("licence", f"{row['license']}, {row['lang']}")
                self._field("length", f"{row['num_tokens']:,} tokens, {row['num_chars']:,} characters")
            else:
                self._field("length", f"{len(text):,} characters (the table documents does not hold it)")
            self._console.print()
            head, left_out, tail = excerpt(text)
            self._text(head)
            if left_out:
                self._text(f"[… {left_out} …]", style="dim")
                self._text(tail)
        return texts

    def _evidence(self, sample: Sample, texts: Mapping[str, str]) -> None:
        if not sample.checks.evidence:
            return
        self._head("evidence")
        for span in sample.checks.evidence:
            text = texts.get(span.doc_id)
            of = f" of {span.doc_id[:12]}" if len(sample.doc_ids) > 1 else ""
            place = f"characters {span.start:,}-{span.end:,}{of}"
            if text is None or not 0 <= span.start <= span.end <= len(text):
                self._text(f"{place}: not in the document as it is stored", indent=2)
                continue
            depth = span.start / max(1, len(text))
            quote = shorten(one_line(text[span.start : span.end]), QUOTE_CHARS)
            self._text(f"{depth:.0%} deep, {place}: “{quote}”", indent=2)

    def _turns(self, sample: Sample) -> None:
        if sample.questions:
            self._head("questions")
            for number, question in enumerate(sample.questions):
                asked = number == sample.question_index
                mark = ">" if asked else " "
                self._text(f"{mark} {number + 1}: {question}", style="bold" if asked else "", indent=2)
        spans = {span.message_index: span for span in reversed(sample.document_spans)}
        for index, message in enumerate(sample.messages):
            answer = message.role == "assistant"
            if index in spans or (sample.questions and message.role == "user"):
                continue  # the document and the question stand above
            self._head("answer" if answer and sample.questions else message.role)
            self._text(message.content)

    def _provenance(self, sample: Sample) -> None:
        self._head("teacher")
        usage = sample.usage
        self._field("model", f"{sample.teacher.provider} {sample.teacher.model}")
        self._field("terms", sample.teacher.terms)
        self._field(
            "usage",
            f"{usage.input_tokens:,} tokens in, {usage.cache_write_tokens:,} written to and {usage.cache_read_tokens:,} "
            f"read from cache, {usage.output_tokens:,} out (thinking: {usage.thinking_tokens:,})",
        )
        self._field("cost", "no price known" if sample.cost_usd is None else f"{sample.cost_usd:,.6f} USD")
        self._field("ended by", sample.stop_reason)
        self._field("requests", ", ".join(sample.request_ids) or "(none)")
        for score in sample.checks.scores:
            self._field(score.name, f"{score.value:.4g}" + (f" ({score.detail})" if score.detail else ""))

    def _training(self, sample_id: str) -> None:
        sequence = self._row(
            "select sequence_id, num_tokens, num_targets, truncated_tokens from sequences where sample_id = ?",
            sample_id,
        )
        if sequence is None:
            return
        self._head("in training")
        cut = sequence["truncated_tokens"]
        lost = f", {cut:,} cut out of the document" if cut else ", whole"
        self._field("sequence", sequence["sequence_id"])
        self._field("tokens", f"{sequence['num_tokens']:,}, {sequence['num_targets']:,} of them targets{lost}")
        pack = self._row(
            "select pack_id, num_tokens, num_sequences from packs where list_contains(sequence_ids, ?)",
            sequence["sequence_id"],
        )
        if pack is None:
            return
        self._field("pack", f"{pack['pack_id']} ({pack['num_sequences']:,} sequences, {pack['num_tokens']:,} tokens)")
        plan = self._row("select step, position, num_sequences from plan where pack_id = ?", pack["pack_id"])
        if plan is not None:
            self._field(
                "step",
                f"{plan['step']:,}, position {plan['position']:,} ({plan['num_sequences']:,} sequences in the step)",
            )

    def _row(self, query: str, value: str) -> dict[str, Any] | None:
        with reading(self._connection):
            found = self._connection.sql(query, params=[value]).to_arrow_table()
        rows: list[dict[str, Any]] = found.slice(0, 1).to_pylist()
        return rows[0] if rows else None

    def _head(self, title: str) -> None:
        from rich.text import Text

        self._console.print()
        self._console.print(Text(f"-- {visible(title)} ".ljust(min(72, self._console.width), "-"), style="bold"))

    def _field(self, name: str, value: str) -> None:
        self._text(f"{one_line(name) + ':':<10} {one_line(value)}")

    def _text(self, text: str, *, style: str = "", indent: int = 0) -> None:
        from rich.padding import Padding
        from rich.text import Text

        # Tabs move to stops that depend on the terminal; four blanks read the same everywhere.
        body = Text(visible(text).replace("\t", "    "), style=style, overflow="fold")
        self._console.print(Padding(body, (0, 0, 0, indent), expand=False) if indent else body)


def excerpt(text: str, *, head: int = HEAD_CHARS, tail: int = TAIL_CHARS) -> tuple[str, str, str]:
    """The beginning of a text, what was left out after it (empty when nothing was), and its end.

    Both are whole lines of at most `head` and `tail` characters together; only a line that is longer than that by itself is
    cut, and the words say so.
    """
    text = text.strip("\n")
    if len(text) <= head + tail:
        return text, "", ""
    first, first_cut = _whole_lines(text.split("\n"), head)
    last, last_cut = _whole_lines([line[::-1] for line in reversed(text.split("\n"))], tail)
    last = [line[::-1] for line in reversed(last)]
    start, end = "\n".join(first), "\n".join(last)
    middle = text[len(start) : len(text) - len(end)]
    lines = middle.strip("\n").count("\n") + 1
    within = ", in the middle of a line" if first_cut or last_cut else ""
    return start, f"{len(middle):,} characters in {lines:,} lines left out{within}", end


def _whole_lines(lines: Sequence[str], room: int) -> tuple[list[str], bool]:
    """As many of the lines as fit into `room` characters, and whether the only one had to be cut."""
    taken: list[str] = []
    for line in lines:
        if len(line) + 1 > room:
            break
        taken.append(line)
        room -= len(line) + 1
    if any(line.strip() for line in taken):
        return taken, False
    return [*taken, lines[len(taken)][:room]], True

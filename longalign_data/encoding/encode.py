"""The stage `encode`: samples in, sequences out.

In: the tables `samples` and `chats` and the recipe's `encode`. Out: `sequences`, in the order of these, and rejects:

    no-assistant-turn             nobody answers
    no-targets                    no target is left that has a token before it (N_i = 0)
    too-long                      longer than `max_tokens`, and the recipe says `overlong: reject`
    too-long-without-document     longer than `max_tokens`, and there is no document to cut
    too-long-beside-document      template, question and answer alone are longer than `max_tokens`
    template                      the template cannot write this conversation
    template-rewrites-turns       the template writes earlier turns anew, so that targets cannot be told

With `mode: pretrain` the selected documents come in instead, in stored order, and their windows go out (see `windows`).

Work is dealt out by row groups of the input: some megabytes of text, tokenised by one process, which gives back columns.
So the memory does not grow with the table, and little Python runs beside the tokenizer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longalign_data.encoding.cut import Cutter
from longalign_data.encoding.rows import Encoded, Labels, assemble, count_targets
from longalign_data.encoding.templates import Refusal, Rendered, Segment, Template, load_template
from longalign_data.encoding.windows import Windower
from longalign_data.engine import Progress, RunOptions, map_ordered
from longalign_data.errors import BuildError
from longalign_data.identity import digest
from longalign_data.recipe import Encode, LoadedRecipe, portable
from longalign_data.records import DocumentSpan, Message, Reject, Sample, TokenSequence
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import from_row, iter_batches
from longalign_data.shards.stage import StageReport, StageWriter, require
from longalign_data.tokenizers import Tokenizer, load_tokenizer

SEVERAL_GROUPS = 8
"""From so many row groups on, other processes help; starting them costs about as much as encoding these."""


class Chat(NamedTuple):
    """What of a sample is encoded, or goes along."""

    sample_id: str
    source: str
    task: str
    messages: Sequence[Message]
    document_spans: Sequence[DocumentSpan]


class Encoder:
    """Samples to sequences with one tokenizer, template and length."""

    columns = ("sample_id", "source", "task", "messages", "document_spans")

    def __init__(self, tokenizer: Tokenizer, template: Template, choice: Encode) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._max_tokens = choice.max_tokens
        self._cuts = choice.overlong == "cut-document"
        self.template = template.name
        self.identity = digest(
            ["encode", tokenizer.identity, template.identity, choice.max_tokens, choice.overlong],
        )

    def encode(self, samples: Sequence[Sample]) -> list[TokenSequence | Reject]:
        """A sequence or a reject for each sample, in order; each depends on its sample alone. Sequences have at most
        `max_tokens` tokens, and at least one target."""
        chats = [Chat(s.sample_id, s.source, s.task, s.messages, s.document_spans) for s in samples]
        outcomes = self._outcomes(chats)
        rows = iter(self._encoded(chats, outcomes).table.to_pylist())
        return [outcome if isinstance(outcome, Reject) else from_row(TokenSequence, next(rows)) for outcome in outcomes]

    def encode_rows(self, rows: pa.Table) -> Encoded:
        """The same for rows of `samples`, of which `columns` are needed."""
        chats = list(_chats(rows))
        return self._encoded(chats, self._outcomes(chats))

    def _outcomes(self, chats: Sequence[Chat]) -> list["_Sequence | Reject"]:
        rendered = self._template.render([chat.messages for chat in chats])
        return [self._outcome(chat, segments) for chat, segments in zip(chats, rendered, strict=True)]

    def _encoded(self, chats: Sequence[Chat], outcomes: Sequence["_Sequence | Reject"]) -> Encoded:
        kept = [(chat, found) for chat, found in zip(chats, outcomes, strict=True) if isinstance(found, _Sequence)]
        labels = Labels(
            sequence_ids=[digest([chat.sample_id, self.identity]) for chat, _ in kept],
            sample_ids=[chat.sample_id for chat, _ in kept],
            sources=[chat.source for chat, _ in kept],
            tasks=[chat.task for chat, _ in kept],
            truncated_tokens=[found.truncated_tokens for _, found in kept],
        )
        return Encoded(
            table=assemble(labels, [found.segments for _, found in kept]),
            rejects=[outcome for outcome in outcomes if isinstance(outcome, Reject)],
            num_in=len(chats),
            answers_cut=sum(found.answer_cut for _, found in kept),
        )

    def _outcome(self, chat: Chat, rendered: Rendered) -> "_Sequence | Reject":
        if not any(message.role == "assistant" for message in chat.messages):
            return _reject(chat, "no-assistant-turn", "the conversation has no assistant turn")
        if isinstance(rendered, Refusal):
            return _reject(chat, rendered.reason, rendered.detail)
        num_tokens = _length(rendered)
        num_targets = count_targets(rendered)
        if not num_targets:
            return _reject(chat, "no-targets", "every answer is empty, or nothing stands before it")
        if num_tokens <= self._max_tokens:
            return _Sequence(rendered, 0, answer_cut=False)
        shorter = self._shorten(chat, num_tokens)
        if isinstance(shorter, Reject):
            return shorter
        return _Sequence(shorter, num_tokens - _length(shorter), answer_cut=count_targets(shorter) < num_targets)

    def _shorten(self, chat: Chat, num_tokens: int) -> list[Segment] | Reject:
        """The conversation with the middle of its documents cut so that `max_tokens` suffice."""
        over = f"{num_tokens} tokens; encode.max_tokens is {self._max_tokens}"
        if not self._cuts:
            return _reject(chat, "too-long", over)
        cutter = Cutter(chat.messages, chat.document_spans, self._tokenizer)
        if not cutter.num_tokens:
            return _reject(chat, "too-long-without-document", f"{over}, and no part of it may be cut")
        excess = num_tokens - self._max_tokens
        while excess < cutter.num_tokens:
            (rendered,) = self._template.render([cutter.without(excess)])
            if isinstance(rendered, Refusal):
                return _reject(chat, rendered.reason, rendered.detail)
            still = _length(rendered) - self._max_tokens
            if still <= 0:
                return rendered
            # Tokenising anew around the cut gave some tokens back; one round more almost always does.
            excess += still
        return _reject(
            chat, "too-long-beside-document", f"{over}, of which {cutter.num_tokens} are of documents that may be cut"
        )


class _Sequence(NamedTuple):
    segments: list[Segment]
    truncated_tokens: int
    answer_cut: bool


def make_encoder(choice: Encode, default_tokenizer: str) -> Encoder:
    """The encoder of conversations that a recipe asks for. Raises RecipeError or TokenizerError, naming what fits
    instead."""
    tokenizer = load_tokenizer(choice.tokenizer or default_tokenizer)
    return Encoder(tokenizer, load_template(choice.template, tokenizer), choice)


def make_windower(choice: Encode, default_tokenizer: str) -> Windower:
    """What cuts documents into windows, for `mode: pretrain`. Raises TokenizerError."""
    return Windower(load_tokenizer(choice.tokenizer or default_tokenizer), choice.max_tokens)


def encoder_identity(choice: Encode, default_tokenizer: str) -> str:
    """What decides about the sequences besides the samples: vocabulary, template, length. Raises as `make_encoder`."""
    return _coder(choice, default_tokenizer).identity


def encode(
    loaded: LoadedRecipe, build: BuildFolder, *, fingerprint: str, run: RunOptions, progress: Progress
) -> StageReport:
    """Writes `sequences`. Tokenises in `run.workers` processes; goes on after a cut where it stopped.

    Raises BuildError when what it reads is not complete, and the errors of `make_encoder`.
    """
    before = {"samples": "generate", "chats": "mix", "documents": "sample"}
    num_stored = sum(require(build, before[table]).num_out for table in _tables(loaded))
    choice = loaded.recipe.encode
    spec = choice.tokenizer or loaded.recipe.tokenizer
    encoder = _coder(choice, loaded.recipe.tokenizer)
    jobs = list(_jobs(loaded, build))
    num_inputs = sum(job.num_inputs for job in jobs)
    progress.start("encode", num_inputs, "documents" if choice.mode == "pretrain" else "samples")
    if num_inputs != num_stored:
        raise BuildError(
            f"{build.root}: {num_inputs} inputs are stored, not the {num_stored} that were made; build again"
        )
    with StageWriter(build, "encode", fingerprint=fingerprint, run=run) as writer:
        progress.advance(items=writer.cursor)
        todo = list(_after(jobs, writer.cursor))
        workers = run.workers if len(todo) >= SEVERAL_GROUPS else 1
        for job, encoded in zip(todo, map_ordered(_run, todo, workers=workers), strict=True):
            for reject in encoded.rejects:
                writer.reject(reject)
            if encoded.table.num_rows:
                writer.write_table("sequences", encoded.table)
            writer.count(encoded.figures())
            writer.next_input(encoded.num_in, inputs=job.num_inputs)
            progress.advance(items=job.num_inputs, tokens=pc.sum(encoded.table.column("num_tokens")).as_py() or 0)
        return writer.finish(
            {
                "tokenizer": portable(spec),
                "tokenizer_identity": load_tokenizer(spec).identity,
                "template": encoder.template,
                "encoding": encoder.identity,
                "max_tokens": choice.max_tokens,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One row group of the input, or the `rows` of it that are wanted."""

    choice: Encode
    default_tokenizer: str
    path: Path
    group: int
    num_inputs: int
    rows: Sequence[int] | None = None


def _coder(choice: Encode, default_tokenizer: str) -> Encoder | Windower:
    make = make_windower if choice.mode == "pretrain" else make_encoder
    return make(choice, default_tokenizer)


def _tables(loaded: LoadedRecipe) -> list[str]:
    """What is encoded, in order."""
    recipe = loaded.recipe
    if recipe.encode.mode == "pretrain":
        return ["documents"]
    return [table for table, wanted in (("samples", recipe.sources), ("chats", recipe.mix)) if wanted]


def _run(job: _Job) -> Encoded:
    coder = _coder(job.choice, job.default_tokenizer)
    with pq.ParquetFile(job.path) as file:
        table = file.read_row_group(job.group, columns=list(coder.columns))
    return coder.encode_rows(table if job.rows is None else table.take(pa.array(job.rows, pa.int64())))


def _jobs(loaded: LoadedRecipe, build: BuildFolder) -> Iterator[_Job]:
    """The row groups with something to encode, in order."""
    choice, default = loaded.recipe.encode, loaded.recipe.tokenizer
    pretrain = choice.mode == "pretrain"
    selected = pa.concat_arrays(
        [pa.array([], pa.string())]
        + [
            batch.column(0)
            for batch in (iter_batches(build.shards("selection"), columns=["doc_id"]) if pretrain else ())
        ]
    )
    for path in [path for table in _tables(loaded) for path in build.shards(table)]:
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    rows: list[int] | None = None
                    num_inputs = file.metadata.row_group(group).num_rows
                    if pretrain:
                        ids = file.read_row_group(group, columns=["doc_id"]).column(0)
                        rows = pc.indices_nonzero(pc.is_in(ids, selected)).to_pylist()
                        num_inputs = len(rows)
                    if num_inputs:
                        yield _Job(
                            choice=choice, default_tokenizer=default, path=path,
                            group=group, num_inputs=num_inputs, rows=rows,
                        )  # fmt: skip
        except (pa.ArrowInvalid, OSError) as error:
            raise BuildError(
                f"{path}: cannot be read as Parquet: {error}; remove the build folder's state to make it again"
            ) from error


def _after(jobs: Sequence[_Job], cursor: int) -> Iterator[_Job]:
    """The jobs behind the first `cursor` inputs; a cut falls between two jobs."""
    for job in jobs:
        if cursor <= 0:
            yield job
        cursor -= job.num_inputs


def _chats(rows: pa.Table) -> Iterator[Chat]:
    messages = rows.column("messages").combine_chunks()
    turns = messages.flatten()
    roles, contents = turns.field("role").to_pylist(), turns.field("content").to_pylist()
    counts = pc.list_value_length(messages).to_pylist()
    labels = (rows.column(name).to_pylist() for name in ("sample_id", "source", "task", "document_spans"))
    at = 0
    for sample_id, source, task, spans, count in zip(*labels, counts, strict=True):
        end = at + count
        pairs = zip(roles[at:end], contents[at:end], strict=True)
        turns_here = [Message(role=role, content=content) for role, content in pairs]
        yield Chat(sample_id, source, task, turns_here, [DocumentSpan(**span) for span in spans])
        at = end


def _length(segments: Sequence[Segment]) -> int:
    return sum(len(segment.ids) for segment in segments)


def _reject(chat: Chat, reason: str, detail: str) -> Reject:
    return Reject(id=chat.sample_id, stage="encode", reason=reason, detail=detail)

"""The stage `encode`: samples in, sequences out.

In: the table `samples` and the recipe's `encode`. Out: `sequences`, in the order of the samples, and rejects:

    no-assistant-turn             nobody answers
    no-targets                    no target is left that has a token before it (N_i = 0)
    too-long                      longer than `max_tokens`, and the recipe says `overlong: reject`
    too-long-without-document     longer than `max_tokens`, and there is no document to cut
    too-long-beside-document      template, question and answer alone are longer than `max_tokens`
    template                      the template cannot write this conversation
    template-rewrites-turns       the template writes earlier turns anew, so that targets cannot be told
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from longalign_data.encoding.cut import Cutter
from longalign_data.encoding.templates import Refusal, Rendered, Segment, Template, load_template
from longalign_data.engine import Progress, RunOptions
from longalign_data.identity import digest
from longalign_data.recipe import Encode, LoadedRecipe
from longalign_data.records import Reject, Sample, TargetSpan, TokenSequence
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches, iter_records
from longalign_data.shards.stage import StageReport, StageWriter, require
from longalign_data.tokenizers import Tokenizer, load_tokenizer

BATCH_SAMPLES = 1024
BATCH_CHARS = 8_000_000
"""What is tokenised at once: enough for all threads, little enough for the memory."""


class Encoder:
    """Samples to sequences with one tokenizer, template and length."""

    def __init__(self, tokenizer: Tokenizer, template: Template, choice: Encode) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._max_tokens = choice.max_tokens
        self._cuts = choice.overlong == "cut-document"
        self.identity = digest(
            ["encode", tokenizer.identity, template.identity, choice.max_tokens, choice.overlong],
        )

    def encode(self, samples: Sequence[Sample], *, threads: int = 1) -> list[TokenSequence | Reject]:
        """A sequence or a reject for each sample, in order; each depends on its sample alone. Sequences have at most
        `max_tokens` tokens, and at least one target."""
        rendered = self._template.render([sample.messages for sample in samples], threads=threads)
        return [self._finish(sample, segments) for sample, segments in zip(samples, rendered, strict=True)]

    def _finish(self, sample: Sample, rendered: Rendered) -> TokenSequence | Reject:
        if not any(message.role == "assistant" for message in sample.messages):
            return _reject(sample, "no-assistant-turn", "the conversation has no assistant turn")
        if isinstance(rendered, Refusal):
            return _reject(sample, rendered.reason, rendered.detail)
        num_tokens = _length(rendered)
        if num_tokens > self._max_tokens:
            shorter = self._shorten(sample, num_tokens)
            if isinstance(shorter, Reject):
                return shorter
            rendered = shorter
        spans = _spans(rendered)
        num_targets = sum(span.end - span.start for span in spans)
        if not num_targets:
            return _reject(sample, "no-targets", "every answer is empty, or nothing stands before it")
        input_ids = np.concatenate([np.asarray(segment.ids, np.int32) for segment in rendered])
        return TokenSequence(
            sequence_id=digest([sample.sample_id, self.identity]),
            sample_id=sample.sample_id,
            # Arrow takes an array of numbers whole, without a Python object for each.
            input_ids=cast(Any, input_ids),
            target_spans=spans,
            num_tokens=len(input_ids),
            num_targets=num_targets,
            truncated_tokens=num_tokens - len(input_ids),
        )

    def _shorten(self, sample: Sample, num_tokens: int) -> list[Segment] | Reject:
        """The conversation with the middle of its documents cut so that `max_tokens` suffice."""
        over = f"{num_tokens} tokens; encode.max_tokens is {self._max_tokens}"
        if not self._cuts:
            return _reject(sample, "too-long", over)
        cutter = Cutter(sample.messages, sample.document_spans, self._tokenizer)
        if not cutter.num_tokens:
            return _reject(sample, "too-long-without-document", f"{over}, and no part of it may be cut")
        excess = num_tokens - self._max_tokens
        while excess < cutter.num_tokens:
            (rendered,) = self._template.render([cutter.without(excess)])
            if isinstance(rendered, Refusal):
                return _reject(sample, rendered.reason, rendered.detail)
            still = _length(rendered) - self._max_tokens
            if still <= 0:
                return rendered
            # Tokenising anew around the cut gave some tokens back; one round more almost always does.
            excess += still
        return _reject(
            sample, "too-long-beside-document", f"{over}, of which {cutter.num_tokens} are of documents that may be cut"
        )


def make_encoder(choice: Encode, default_tokenizer: str) -> Encoder:
    """The encoder that a recipe asks for. Raises RecipeError or TokenizerError, naming what fits instead."""
    tokenizer = load_tokenizer(choice.tokenizer or default_tokenizer)
    return Encoder(tokenizer, load_template(choice.template, tokenizer), choice)


def encode(
    loaded: LoadedRecipe, build: BuildFolder, *, fingerprint: str, run: RunOptions, progress: Progress
) -> StageReport:
    """Writes `sequences`. Tokenises on `run.workers` threads, a batch at a time; goes on after a cut where it stopped.

    Raises BuildError when generate is not complete, and the errors of `make_encoder`.
    """
    generated = require(build, "generate")
    choice = loaded.recipe.encode
    spec = choice.tokenizer or loaded.recipe.tokenizer
    encoder = make_encoder(choice, loaded.recipe.tokenizer)
    progress.start("encode", generated.num_out, "samples")
    with StageWriter(build, "encode", fingerprint=fingerprint, run=run) as writer:
        totals = _Totals(build)
        progress.advance(items=writer.cursor)
        samples = iter_records(build.shards("samples"), Sample)
        for batch in _batches(samples, skip=writer.cursor):
            for outcome in encoder.encode(batch, threads=run.workers):
                if isinstance(outcome, Reject):
                    writer.reject(outcome)
                else:
                    writer.write("sequences", outcome)
                    totals.add(outcome.num_targets, outcome.truncated_tokens)
                writer.next_input()
                progress.advance(items=1, tokens=0 if isinstance(outcome, Reject) else outcome.num_tokens)
        return writer.finish(
            {
                "tokenizer": spec,
                "tokenizer_identity": load_tokenizer(spec).identity,
                "template": choice.template,
                "encoding": encoder.identity,
                "max_tokens": choice.max_tokens,
                "num_targets": totals.num_targets,
                "truncated_samples": totals.truncated_samples,
                "truncated_tokens": totals.truncated_tokens,
            }
        )


class _Totals:
    """Sums over all sequences, those that an earlier, cut-off run has stored included."""

    def __init__(self, build: BuildFolder) -> None:
        self.num_targets = self.truncated_samples = self.truncated_tokens = 0
        for batch in iter_batches(build.shards("sequences"), columns=["num_targets", "truncated_tokens"]):
            for num_targets, truncated in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                self.add(num_targets, truncated)

    def add(self, num_targets: int, truncated_tokens: int) -> None:
        self.num_targets += num_targets
        self.truncated_samples += truncated_tokens > 0
        self.truncated_tokens += truncated_tokens


def _batches(samples: Iterable[Sample], *, skip: int) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    num_chars = 0
    for index, sample in enumerate(samples):
        if index < skip:
            continue
        batch.append(sample)
        num_chars += sum(len(message.content) for message in sample.messages)
        if len(batch) >= BATCH_SAMPLES or num_chars >= BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


def _length(segments: Sequence[Segment]) -> int:
    return sum(len(segment.ids) for segment in segments)


def _spans(segments: Sequence[Segment]) -> list[TargetSpan]:
    """The targets as spans, touching ones joined. The first token of a sequence has no logits before it and is none."""
    spans: list[TargetSpan] = []
    at = 0
    for segment in segments:
        start, end = max(at, 1), at + len(segment.ids)
        at = end
        if segment.is_target and start < end:
            if spans and spans[-1].end == start:
                start = spans.pop().start
            spans.append(TargetSpan(start=start, end=end))
    return spans


def _reject(sample: Sample, reason: str, detail: str) -> Reject:
    return Reject(id=sample.sample_id, stage="encode", reason=reason, detail=detail)

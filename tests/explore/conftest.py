"""One small build with every table, written by the real stage writer."""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from longalign_data.engine import RunOptions
from longalign_data.identity import document_id
from longalign_data.records import (
    Checks,
    Document,
    DocumentSpan,
    Evidence,
    Message,
    Pack,
    PlanEntry,
    Reject,
    Sample,
    Score,
    Selected,
    TargetSpan,
    Teacher,
    TokenSequence,
    Usage,
)
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter

TASKS = ("general", "summary", "reasoning", "extraction")
NUM_DOCUMENTS = 24
HOSTILE = "[bold red]A title[/bold red]\x1b[2J\x07 with \u202eorders"


def make_id(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def make_document(number: int) -> Document:
    chinese = number % 6 == 5
    line = "这是第{n}行，讲述河流与山。\n" if chinese else "Line {n} tells of rivers, hills and the weather.\n"
    text = f"Document {number % 20}\n" + "".join(line.format(n=n) for n in range(40 * (number + 1)))
    if number == 0:
        text = f"{HOSTILE}\n" + text
    return Document(
        doc_id=document_id(text),
        source="rivers-zh" if chinese else "rivers" if number % 2 else "hills",
        source_ref=f"notes/{number}.jsonl:0-{len(text.encode())}",
        lang="zh" if chinese else "en",
        license="CC0-1.0",
        title=HOSTILE if number == 0 else f"Document {number}",
        text=text,
        num_chars=len(text),
        num_bytes=len(text.encode()),
        num_tokens=len(text) // 4,
    )


def make_sample(document: Document, number: int) -> Sample:
    question, answer = f"Which line comes after line {number % 15}?", f"Line {number + 1}. " * (number + 1)
    start = document.text.index("7", len(document.text) // 2)
    return Sample(
        sample_id=make_id("sample", document.doc_id),
        doc_ids=(document.doc_id,),
        source=document.source,
        lang=document.lang,
        task=TASKS[number % 4],
        messages=(
            Message(role="user", content=f"{document.text}\n\n{question}"),
            Message(role="assistant", content=answer),
        ),
        document_spans=(DocumentSpan(message_index=0, start=0, end=len(document.text)),),
        questions=("What is told?", "Who tells it?", question, "Where is it?", "Why is it told?"),
        question_index=2,
        teacher=Teacher(provider="extractive", model="extractive-1", terms="none"),
        usage=Usage(input_tokens=document.num_tokens, output_tokens=len(answer) // 4),
        cost_usd=None if number % 2 else 0.25,
        stop_reason="end_turn",
        request_ids=(make_id("request", number),),
        num_tokens=document.num_tokens + 20 + len(answer) // 4,
        num_answer_tokens=len(answer) // 4,
        checks=Checks(
            evidence=(Evidence(doc_id=document.doc_id, start=start, end=start + 12),),
            scores=(Score(name="grounding", value=0.75),),
        ),
        license=document.license,
    )


def make_sequence(sample: Sample) -> TokenSequence:
    length = min(sample.num_tokens, 5_000)
    return TokenSequence(
        sequence_id=make_id("sequence", sample.sample_id),
        sample_id=sample.sample_id,
        source=sample.source,
        task=sample.task,
        input_ids=tuple(range(length)),
        target_spans=(TargetSpan(start=length - sample.num_answer_tokens, end=length),),
        num_tokens=length,
        num_targets=sample.num_answer_tokens,
        truncated_tokens=sample.num_tokens - length,
    )


def make_pack(sequences: Sequence[TokenSequence]) -> Pack:
    borders = [0]
    for sequence in sequences:
        borders.append(borders[-1] + sequence.num_tokens)
    return Pack(
        pack_id=make_id("pack", *[sequence.sequence_id for sequence in sequences]),
        input_ids=tuple(token for sequence in sequences for token in sequence.input_ids),
        loss_weights=tuple(
            1.0 / sequence.num_targets if token >= sequence.target_spans[0].start else 0.0
            for sequence in sequences
            for token in range(sequence.num_tokens)
        ),
        cu_seqlens=tuple(borders),
        sequence_ids=tuple(sequence.sequence_id for sequence in sequences),
        num_tokens=borders[-1],
        num_sequences=len(sequences),
        num_targets=sum(sequence.num_targets for sequence in sequences),
        work=float(borders[-1]),
    )


def write_build(root: Path) -> BuildFolder:
    """24 documents, 20 selected, 18 samples (2 rejects), 18 sequences (the longest cut), 9 packs in 3 steps."""
    build, run = BuildFolder(root), RunOptions(row_group_bytes=20_000)
    documents = [make_document(number) for number in range(NUM_DOCUMENTS)]
    with StageWriter(build, "ingest", fingerprint="a", run=run) as writer:
        for document in documents:
            writer.write("documents", document)
            writer.next_input()
        writer.reject(Reject(id="notes/99.jsonl:0", stage="ingest", reason="broken-json", detail="line 1"))
        writer.next_input()
        writer.reject(
            Reject(
                id=documents[3].doc_id,
                stage="ingest",
                reason="duplicate",
                detail="hills:notes/100.jsonl:0-9: the same text",
            )
        )
        writer.next_input()
        writer.leave_out("too-short", 3)
        writer.next_input(3)
        writer.finish()
    edges = [256, 1024, 4096, 16384]
    with StageWriter(build, "sample", fingerprint="b", run=run) as writer:
        for rank, document in enumerate(documents[:20]):
            bucket = next(f"{low}-{high}" for low, high in itertools.pairwise(edges) if document.num_tokens <= high)
            writer.write("selection", Selected(doc_id=document.doc_id, bucket=bucket, key=rank / 10 + 0.05, rank=rank))
            writer.next_input()
        writer.leave_out("not-drawn", 4)
        writer.next_input(4)
        cells = [
            {"lang": "en", "source": None, "bucket": "1024-4096", "target": 10, "achieved": 9, "available": 9},
            {"lang": "zh", "source": None, "bucket": "1024-4096", "target": 2, "achieved": 2, "available": 3},
        ]
        sources = [{"lang": "", "source": "hills", "bucket": "", "target": None, "achieved": 10, "available": 12}]
        writer.finish({"cells": cells, "sources": sources, "edges": edges})
    samples = [make_sample(document, number) for number, document in enumerate(documents[:18])]
    with StageWriter(build, "generate", fingerprint="c", run=run) as writer:
        for sample in samples:
            writer.write("samples", sample)
            writer.next_input()
        for document in documents[18:20]:
            writer.reject(
                Reject(id=document.doc_id, stage="generate", reason="refused", detail="[red]no[/red]\x1b[31m")
            )
            writer.next_input()
        writer.finish()
    with StageWriter(build, "mix", fingerprint="m", run=run) as writer:
        writer.write("chats", dataclasses.replace(samples[0], sample_id=make_id("chat"), task="general-chat"))
        writer.next_input()
        writer.finish()
    sequences = [make_sequence(sample) for sample in samples]
    with StageWriter(build, "encode", fingerprint="d", run=run) as writer:
        for sequence in sequences:
            writer.write("sequences", sequence)
            writer.next_input()
        writer.finish()
    with StageWriter(build, "pack", fingerprint="e", run=run) as writer:
        for number in range(9):
            members = sequences[2 * number : 2 * number + 2]
            pack = make_pack(members)
            writer.write("packs", pack)
            entry = PlanEntry(
                step=number // 3,
                position=number % 3,
                pack_id=pack.pack_id,
                num_sequences=6,
                normalizer=6.0,
                epoch=0,
                capacity=10_000,
            )
            writer.write("plan", entry)
            writer.next_input(len(members))
        writer.finish({"capacity": 10_000})
    return build


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> BuildFolder:
    return write_build(tmp_path_factory.mktemp("builds") / "rivers" / "1.0.0")

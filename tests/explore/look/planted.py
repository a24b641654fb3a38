"""A build that would like to do harm, and one document in each language that is as long as they get."""

import dataclasses
import json
from pathlib import Path

from longalign_data.engine import RunOptions
from longalign_data.generation.ledger import Call, Ledger
from longalign_data.identity import document_id
from longalign_data.records import Checks, Document, Evidence, PlanEntry, Reject, Sample, Score, Selected, Usage
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter
from longalign_data.teachers.base import TeacherRequest
from tests.explore.conftest import make_document, make_id, make_pack, make_sample, make_sequence

SCRIPT = "<script>window.planted = 1; fetch('/planted')</script>"
HOSTILE = (
    f"{SCRIPT}<img src='/planted.png' onerror='window.planted = 2'>\n"
    '"><svg onload="window.planted = 3"></svg>{{ 7 * 7 }}{% raw %}\n'
    "[a link](javascript:window.planted=4) javascript:window.planted=5 </style></title></details>" + SCRIPT + "\n"
    "\u202eturned around\u202c \u200fright\u200e \x1b[2J\x07 \u2066isolated\u2069\n"
    "שלום עולם, مرحبا بالعالم\n"
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇳 ✅\n"
)
HUGE_LINE = "0123456789abcdef" * 15_000
RECIPE = "sources: [{card: python-topics}]\nsample: {count: 1}\npack: {packs_per_step: 2, capacity: 65536}\n"
NUM_SMALL = 130
LONG_TOKENS = 64_000


def _long(language: str) -> str:
    if language == "zh":
        return "".join(f"第{n}章说，江河从山中流出，经过城市与田野。\n" for n in range(2_900))
    return "".join(f"Line {n} tells of rivers, of hills, and of what the weather did to them.\n" for n in range(3_900))


def documents() -> list[Document]:
    """The hostile one, two of 64k tokens, and many small ones whose every character grows when it is escaped."""
    texts = [
        (HOSTILE + HUGE_LINE + "\n" + HOSTILE, "en", 60_000),
        (_long("zh"), "zh", LONG_TOKENS),
        (_long("en"), "en", LONG_TOKENS),
        *((f"Number {n}\n" + "\u202e<\"'" * 3_500, "en", 1_000 + n) for n in range(NUM_SMALL)),
    ]
    return [
        Document(
            doc_id=document_id(text),
            source=f"harm {SCRIPT}" if number == 0 else "rivers",
            source_ref="javascript:window.planted=6" if number == 0 else f"notes/{number}.txt",
            lang=lang,
            license="CC0-1.0",
            title=HOSTILE if number == 0 else f"江河 {number}" if lang == "zh" else f"Document {number}",
            text=text,
            num_chars=len(text),
            num_bytes=len(text.encode()),
            num_tokens=tokens,
        )
        for number, (text, lang, tokens) in enumerate(texts)
    ]


def sample_of(document: Document, number: int) -> Sample:
    """A sample whose question, answer, scores and terms are hostile too, for the first document."""
    start = len(document.text) // 2
    sample = dataclasses.replace(
        make_sample(make_document(1), 1),
        sample_id=make_id("planted", number),
        doc_ids=(document.doc_id,),
        source=document.source,
        lang=document.lang,
        task=("general", "summary", "reasoning", "extraction")[number % 4],
        document_spans=(),
        questions=tuple(f"{document.title} {word}?" for word in ("What", "Who", "Which", "Where", "Why")),
        num_tokens=document.num_tokens + 30,
        checks=Checks(
            evidence=(Evidence(doc_id=document.doc_id, start=start, end=start + 40),),
            scores=(
                Score(name="grounding", value=number / 200),
                Score(name=f"odd {SCRIPT}", value=1.0, detail=f"Judged: {SCRIPT}"),
            ),
        ),
    )
    user, answer = sample.messages
    return dataclasses.replace(
        sample,
        messages=(
            dataclasses.replace(user, content=f"{document.text}\n\n{sample.questions[2]}"),
            dataclasses.replace(answer, content=HOSTILE if number == 0 else f"Answer {number}: 江河."),
        ),
        document_spans=(
            dataclasses.replace(make_sample(make_document(1), 1).document_spans[0], end=len(document.text)),
        ),
        teacher=dataclasses.replace(sample.teacher, terms=SCRIPT if number == 0 else "none"),
    )


def write_planted(root: Path) -> BuildFolder:
    """Every table of such a build."""
    build, run = BuildFolder(root), RunOptions()
    found = documents()
    with StageWriter(build, "ingest", fingerprint="a", run=run) as writer:
        for document in found:
            writer.write("documents", document)
            writer.next_input()
        writer.reject(Reject(id=SCRIPT, stage="ingest", reason=f"odd {SCRIPT}", detail=HOSTILE))
        writer.next_input()
        writer.finish()
    with StageWriter(build, "sample", fingerprint="b", run=run) as writer:
        for rank, document in enumerate(found):
            writer.write("selection", Selected(doc_id=document.doc_id, bucket="0-64000", key=rank / 10, rank=rank))
            writer.next_input()
        writer.finish()
    samples = [sample_of(document, number) for number, document in enumerate(found)]
    with StageWriter(build, "generate", fingerprint="c", run=run) as writer:
        for sample in samples:
            writer.write("samples", sample)
            writer.next_input()
        writer.finish()
    # Of the sequences, token ids play no part here.
    sequences = [make_sequence(dataclasses.replace(sample, num_tokens=400 + n)) for n, sample in enumerate(samples)]
    with StageWriter(build, "encode", fingerprint="d", run=run) as writer:
        for sequence in sequences:
            writer.write("sequences", sequence)
            writer.next_input()
        writer.finish()
    with StageWriter(build, "pack", fingerprint="e", run=run) as writer:
        for number in range(0, len(sequences), 7):
            pack = make_pack(sequences[number : number + 7])
            writer.write("packs", pack)
            entry = PlanEntry(
                step=number // 7,
                position=0,
                pack_id=pack.pack_id,
                num_sequences=7,
                normalizer=7.0,
                epoch=0,
                capacity=5_000,
            )
            writer.write("plan", entry)
            writer.next_input(len(sequences[number : number + 7]))
        writer.finish({"capacity": 5_000})
    build.manifest.write_text(
        json.dumps(
            {
                "name": f"planted {SCRIPT}",
                "version": "1.0.0",
                "recipe": f"name: planted\nversion: 1.0.0\ndescription: {json.dumps(SCRIPT)}\n{RECIPE}",
                "stages": [{"stage": "encode", "details": {"answers_cut": 0}}],
            }
        )
    )
    with Ledger(build.ledger) as ledger:
        for number in range(40):
            call = Call(
                request_id=f"{number:032x}",
                document_id="d",
                kind="answer",
                provider="openai",
                request=TeacherRequest(document="", instruction="", model="small", max_tokens=1, parameters={}),
            )
            ledger.begin(call)
            ledger.answered(call, {"id": number})
            ledger.note_usage(
                call, Usage(input_tokens=1_000, cache_read_tokens=9_000 * (number % 2), output_tokens=500)
            )
    return build

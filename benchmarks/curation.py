"""What each switch of `curate` costs: MB/s of one core over book-length documents in English, code and Chinese.

    python benchmarks/curation.py

English is this Python's documentation, code its library, Chinese the Romance of the Three Kingdoms, all cut into documents of a
megabyte. Seconds are of processor time, which other work on the machine leaves mostly alone; each figure is the best of three.
"""

import json
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from record import store

from longalign_data.curation.decontamination import load_index, overlap, write_index
from longalign_data.curation.language import identify
from longalign_data.curation.near import NearDuplicates, signature
from longalign_data.curation.personal import find_personal
from longalign_data.curation.quality import measure
from longalign_data.curation.secrets import find_secrets
from tests.fixtures import corpora

BOOK_CHARS = 1_000_000
CHINESE_CHARS = 300_000
BOOKS = 6


def books() -> dict[str, list[str]]:
    """Documents of a megabyte, no two alike: six of each kind, and the two that the novel comes to."""
    library = Path(sysconfig.get_path("stdlib"))
    code = "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in sorted(library.glob("*.py")))
    prose = "\n\n".join(f"{number}. {text}" for number in range(BOOKS * 3) for _, text in corpora.topics())
    novel = "\n".join(text for _, text in corpora.chinese_novel())
    return {
        "English": [prose[n * BOOK_CHARS : (n + 1) * BOOK_CHARS] for n in range(BOOKS)],
        "code": [code[n * BOOK_CHARS : (n + 1) * BOOK_CHARS] for n in range(BOOKS)],
        "Chinese": [novel[at : at + CHINESE_CHARS] for at in range(0, 2 * CHINESE_CHARS, CHINESE_CHARS)],
    }


def seconds_of(step: Callable[[str], object], texts: list[str]) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for text in texts:
            step(text)
        best = min(best, time.process_time() - began)
    return best


if __name__ == "__main__":
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # A benchmark of 2,000 questions; none of them stands in the texts.
        items = [{"question": f"What does rule {n} of part {n % 7} say about case {n * 31}?"} for n in range(2000)]
        questions = Path(folder, "questions.jsonl")
        questions.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        write_index([questions], Path(folder, "index"))
        index = load_index(Path(folder, "index"))
        steps: dict[str, Callable[[str], object]] = {
            "near-duplicates, signature": signature,
            "secrets": find_secrets,
            "personal data": find_personal,
            "quality": measure,
            "language": identify,
            "decontamination": lambda text: overlap(text, index),
        }
        for kind, texts in books().items():
            size = sum(len(text.encode()) for text in texts)
            for name, step in steps.items():
                seconds = seconds_of(step, texts)
                rows.append(
                    {
                        "switch": name,
                        "text": kind,
                        "mb": round(size / 1e6, 1),
                        "mb_per_s": round(size / 1e6 / seconds, 1),
                        "ms_per_document": round(1000 * seconds / len(texts), 1),
                    }
                )
                print(rows[-1], flush=True)
    # Looking up and keeping signatures is one process' work for the whole build.
    found = [signature(f"document {n} of {n * 7919}. " * 40 + str(n) * 30) for n in range(20_000)]
    near = NearDuplicates(0.8)
    began = time.process_time()
    for one in found:
        near.add(one)
    seconds = time.process_time() - began
    rows.append({"switch": "near-duplicates, comparing", "text": "", "documents_per_s": round(len(found) / seconds)})
    store("curation", rows, packages=("rensa", "py3langid"))

"""Drawing 10,000 documents of ten million (or of N million) by (id, tokens, language, source).

python benchmarks/sampling.py [N]

Beside it, on a hundredth of the candidates, what the draw costs with one BLAKE2b call a document. More than ten million are
stored apart: 100 shows that memory does not grow with the candidates.
"""

import math
import resource
import sys
import time

import numpy as np
from record import store

from longalign_data.identity import uniform
from longalign_data.recipe import SampleDocuments
from longalign_data.sampling.draw import finish
from longalign_data.sampling.partial import Batch, PartialDraw

ROWS = 1 << 16


def batches(num: int):
    """Random ids, Pareto lengths; made while they are drawn, as a table of documents would be read."""
    rng = np.random.default_rng(1)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    for start in range(0, num, ROWS):
        size = min(ROWS, num - start)
        raw = rng.integers(0, 256, (size, 16), dtype=np.uint8)
        ids = np.stack([digits[raw >> 4], digits[raw & 15]], axis=2).reshape(size, 32)
        yield Batch(
            ids=np.ascontiguousarray(ids).view("S32").reshape(size),
            num_tokens=np.minimum(64_000, 8_000 * (1 + rng.pareto(1.2, size))).astype(np.int64),
            langs=(rng.random(size) < 0.1).astype(np.int64),
            lang_names=["en", "zh"],
            sources=rng.integers(0, 9, size),
            source_names=[f"source-{n}" for n in range(9)],
        )


if __name__ == "__main__":
    num = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 10_000_000
    wish = SampleDocuments(count=10_000, languages={"zh": 0.1})
    making = drawing = 0.0
    partial = PartialDraw(wish, seed=1)
    source = batches(num)
    while True:
        began = time.perf_counter()
        batch = next(source, None)
        made = time.perf_counter()
        making += made - began
        if batch is None:
            break
        partial.add(batch)
        drawing += time.perf_counter() - made
    began = time.perf_counter()
    drawn = finish(partial)
    drawing += time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    names = [f"{n:032x}" for n in range(num // 100)]
    began = time.perf_counter()
    for name in names:
        -math.log(uniform(1, "sample", name))
    hashing = (time.perf_counter() - began) * 100
    rows = [
        {
            "what": "draw in batches",
            "candidates": num,
            "drawn": len(drawn.drawn),
            "seconds": round(drawing, 2),
            "peak_mib": round(peak),
        },
        {
            "what": "BLAKE2b for each id alone (from a hundredth)",
            "candidates": num,
            "drawn": 0,
            "seconds": round(hashing, 2),
            "peak_mib": 0,
        },
    ]
    store("sampling" if num <= 10_000_000 else "sampling-large", rows, packages=("numpy",))

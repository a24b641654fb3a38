"""A folder that `longalign plan` and `longalign weights` read, with the lengths of the synthetic mix and nothing else.

python benchmarks/mix_build.py builds/mix
longalign plan builds/mix --ranks 8 --accumulation 4
longalign weights builds/mix

100,000 sequences, a tenth of them long (8k to 64k) with answers of some 290 tokens, the others chats of which the answer is
20% to 70%. There are no tokens in it: planning needs lengths alone.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
from packing import LONG, synthetic

from longalign_data.engine import RunOptions
from longalign_data.records import TargetSpan, TokenSequence
from longalign_data.shards.files import write_json
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter

RECIPE = """
name: mix
version: 1.0.0
sources: [{card: none}]
sample: {count: 1}
pack: {packs_per_step: 32}
"""

if __name__ == "__main__":
    build = BuildFolder(Path(sys.argv[1]))
    lengths = synthetic(100_000)
    draws = np.random.default_rng(5)
    answers = np.where(
        lengths >= LONG, draws.normal(290, 60, len(lengths)), lengths * draws.uniform(0.2, 0.7, len(lengths))
    )
    targets = np.clip(answers.astype(np.int64), 1, lengths - 1)
    with StageWriter(build, "encode", fingerprint="mix", run=RunOptions()) as writer:
        for number, (length, target) in enumerate(zip(lengths.tolist(), targets.tolist(), strict=True)):
            writer.write(
                "sequences",
                TokenSequence(
                    sequence_id=f"{number:08d}",
                    sample_id=f"{number:08d}",
                    source="documents" if length >= LONG else "chats",
                    task="long-qa" if length >= LONG else "general-chat",
                    input_ids=[],
                    target_spans=[TargetSpan(start=length - target, end=length)],
                    num_tokens=length,
                    num_targets=target,
                    truncated_tokens=0,
                ),
            )
            writer.next_input()
        writer.count({"answers_cut": 0})  # nothing is cut here
        report = writer.finish()
    write_json(build.manifest, {"recipe": RECIPE, "stages": [dataclasses.asdict(report)]})

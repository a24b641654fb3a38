"""The quickstart's build from nothing and again, by the real command, with the seconds of each stage.

python benchmarks/quickstart.py
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import store

ROOT = Path(__file__).parent.parent


def run(output: Path) -> float:
    command = [
        sys.executable,
        "-m",
        "longalign_data",
        "build",
        str(ROOT / "recipes" / "quickstart.yaml"),
        "--output",
        str(output),
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - began


def shards(root: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(root.rglob("*.parquet")))).hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        first = run(output)
        root = output / "quickstart" / "1.0.0"
        before = shards(root)
        second = run(output)
        assert shards(root) == before
        stages = json.loads((root / "manifest.json").read_text(encoding="utf-8"))["stages"]
        rows = [
            {"what": "whole build from nothing", "seconds": round(first, 1)},
            {"what": "again", "seconds": round(second, 1)},
        ]
        rows += [
            {
                "what": f"stage {s['stage']}",
                "seconds": s["seconds"],
                "in": s["num_in"],
                "out": s["num_out"],
                "tokens": s["num_tokens"],
            }
            for s in stages
        ]
    store("quickstart", rows, packages=("pyarrow", "tiktoken", "datasets"))

"""How soon the command line answers, beside the interpreter alone and beside the libraries that it must not import.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time

from record import store

SIDES = {
    "python -c pass": ["-c", "pass"],
    "import typer": ["-c", "import typer"],
    "longalign --help": ["-m", "longalign_data", "--help"],
    "import pyarrow, duckdb, datasets": ["-c", "import pyarrow, duckdb, datasets"],
}


def seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    rows = []
    for name, arguments in SIDES.items():
        seconds(arguments)
        times = [seconds(arguments) for _ in range(9)]
        rows.append({"what": name, "median_s": round(statistics.median(times), 3), "max_s": round(max(times), 3)})
    store("startup", rows, packages=("typer", "rich"))

"""Where and on what a measurement was taken; every benchmark stores its rows through `store`."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, cores, memory, Python and the commit; nothing that names a person or a place."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    # What was stored a moment ago changes nothing that is measured.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "system": platform.system(),
        "commit": commit + ("+changes" if changed else ""),
    }


def _git(*arguments: str) -> str:
    """What git says of this repository; nothing where there is no git or no repository, as in a copy on another machine."""
    command = ["git", "-C", str(RESULTS.parent.parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def store(name: str, rows: list[dict[str, Any]], *, packages: tuple[str, ...]) -> Path:
    """Prints the rows and writes `results/<name>.json`."""
    path = write(name, rows, packages=packages)
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    print(f"-> {path.relative_to(RESULTS.parent.parent)}")
    return path


def write(name: str, rows: list[dict[str, Any]], *, packages: tuple[str, ...]) -> Path:
    """Writes `results/<name>.json`."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"machine": machine(), "versions": versions, "rows": rows}, indent=2) + "\n", encoding="utf-8"
    )
    return path


def peak_rss_mib() -> int:
    """The most that was resident of this process. What the system adds up as `ru_maxrss` begins with what the process had
    resident that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024)

"""All GPU benchmarks, one after the other, each in a process of its own: `python -m benchmarks.gpu.all`."""

import subprocess
import sys

BENCHMARKS = ("attention", "step", "work", "methods", "offload")


def main(arguments: list[str]) -> int:
    """The number of those that failed."""
    failed = 0
    for name in BENCHMARKS:
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        failed += (
            subprocess.run([sys.executable, "-m", f"benchmarks.gpu.{name}", *arguments], check=False).returncode != 0
        )
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What docs/scale.md says was measured is what is stored."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_figures_of_the_page_are_those_that_are_stored() -> None:
    script = ROOT / "benchmarks" / "scale_page.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    assert (ROOT / "docs" / "scale.md").read_text(encoding="utf-8") == done.stdout

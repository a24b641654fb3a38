"""The quickstart's own report and explorer, opened in a browser as its reader would."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from longalign_data.shards.folder import BuildFolder
from tests.explore.look.conftest import follow, viewing

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> BuildFolder:
    folder = tmp_path_factory.mktemp("quickstart")
    command = [sys.executable, "-m", "longalign_data", "build", "quickstart", "-o", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=800, check=True)
    return BuildFolder(folder / "quickstart" / "1.0.0")


def test_the_report_of_the_quickstart_opens_with_charts_and_samples(quickstart: BuildFolder, page: "Page") -> None:
    out = quickstart.root.parent / "report.html"
    command = [sys.executable, "-m", "longalign_data", "report", str(quickstart.root), "--out", str(out)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=800, check=True)
    assert out.stat().st_size < 5_000_000
    page.goto(out.as_uri())
    assert page.locator("h1").inner_text().startswith("quickstart")
    assert page.locator("figure .wide svg").count() >= 8
    sample = page.locator(".sample").first
    assert page.locator(".sample").count() >= 30
    sample.locator("summary").first.click()
    assert sample.locator("mark").count() >= 1


def test_the_explorer_of_the_quickstart_lists_filters_and_opens(quickstart: BuildFolder, page: "Page") -> None:
    with viewing(quickstart) as address:
        page.goto(address)
        assert page.locator(".pages").first.inner_text().startswith("96 samples, 1 to 50")
        page.locator("select[name=task]").select_option("summary")
        follow(page, page.get_by_role("button", name="Show"))
        assert set(page.locator("td[data-name='task']").all_inner_texts()) == {"summary"}
        follow(page, page.locator("td[data-name='question'] a").first)
        assert page.locator("mark").count() >= 1
        assert "pack" in page.locator("body").inner_text()

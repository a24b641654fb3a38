"""A real browser without a screen, and builds for it to look at."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from longalign_data.shards.folder import BuildFolder
from tests.explore.look.planted import write_planted

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install -e '.[dev]')")
PATIENCE_MS = 120_000
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(
    scope="module"
)  # no longer: its event loop is the thread's until it ends, and other tests need their own
def browser() -> "Iterator[playwright.Browser]":
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; make browser installs one where it may")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE_MS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: "playwright.Browser") -> "Iterator[playwright.Page]":
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    context.close()


def follow(page: "playwright.Page", link: "playwright.Locator") -> None:
    """Clicks, and waits until the page that this leads to is there whole: to count or list what a page holds waits for nothing."""
    with page.expect_navigation():
        link.click()


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> BuildFolder:
    return write_planted(tmp_path_factory.mktemp("builds") / "planted" / "1.0.0")


@contextmanager
def viewing(build: BuildFolder) -> Iterator[str]:
    """`longalign view` on a free port; its address, without a slash at the end."""
    command = [sys.executable, "-m", "longalign_data", "view", str(build.root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"(http://127\.0\.0\.1:\d+)/ ", process.stdout.readline())
            assert found, "the explorer did not start"
            yield found.group(1)
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def address(planted: BuildFolder) -> Iterator[str]:
    """The explorer of the planted build."""
    with viewing(planted) as url:
        yield url

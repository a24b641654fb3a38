import datetime
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from longalign_data.errors import BuildError, MissingExtraError
from longalign_data.explore.report.page import MAX_BYTES, render_report
from longalign_data.shards.folder import BuildFolder
from longalign_data.teachers.prices import ModelPrice, Prices, ProviderPrices, Tier
from tests.explore.look.conftest import PATIENCE_MS
from tests.explore.look.planted import SCRIPT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PRICES = Prices(
    dated=datetime.date(2026, 1, 1),
    providers={"openai": ProviderPrices(models={"small": ModelPrice(tiers=[Tier(input=1.0, output=2.0)])})},
)


@pytest.fixture(scope="module")
def report(build: BuildFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    command = [sys.executable, "-m", "longalign_data", "report", str(build.root), "--out", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.startswith(f"{path}: 0.")
    return path


@pytest.fixture(scope="module")
def hostile(planted: BuildFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(planted, PRICES), encoding="utf-8")
    return path


def test_the_report_stands_alone_and_shows_every_part(report: Path, page: "Page") -> None:
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(report.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert said == []
    assert page.locator("script").count() == 0
    for title in (
        "asked for and had",
        "Samples by length",
        "Answers by length",
        "source, language and task",
        "each stage",
    ):
        assert page.locator("figure", has_text=title).locator(".wide svg").is_visible()
    assert page.locator("figure", has_text="find their evidence").locator(".wide path").count() > 10
    assert page.locator(".sample").count() == 18
    assert page.get_by_role("cell", name="broken-json").is_visible()


def test_a_sample_opens_with_its_evidence_marked(report: Path, page: "Page", build: BuildFolder) -> None:
    page.goto(report.as_uri())
    sample = page.locator(".sample").first
    assert not sample.locator(".answer").is_visible()
    sample.locator("summary").first.click()
    sample.locator(".answer").wait_for()
    assert sample.locator("ol.questions li").count() == 5
    assert sample.locator("li.asked").count() == 1
    sample.locator("summary", has_text="Document").first.click()
    marked = sample.locator("mark").first
    marked.wait_for()
    assert (marked.text_content() or "").startswith("7")


def test_money_cache_and_weights_are_drawn_where_they_are_known(hostile: Path, page: "Page") -> None:
    page.goto(hostile.as_uri())
    cost = page.locator("figure", has_text="Dollars over time")
    # 40 replies of 1,000 tokens, half of them 9,000 more that no price makes cheaper, and 500 written.
    assert "0.26 dollars for 40 replies" in cost.inner_text()
    assert cost.locator(".wide path").count() > 3
    assert "81.8% in all" in page.locator("figure", has_text="provider's cache").inner_text()
    weights = page.locator("figure", has_text="How much a sequence counts")
    weights.locator("summary").click()
    assert weights.get_by_role("cell", name="1.00 (1.00 to 1.00)").first.is_visible()


def test_the_report_can_be_read_on_a_phone_and_in_the_dark(report: Path, browser: "Browser") -> None:
    papers = set()
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(report.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        figure = page.locator("figure").first
        assert figure.locator(".narrow svg").is_visible()
        assert not figure.locator(".wide svg").is_visible()
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert len(papers) == 2


def test_hostile_text_is_shown_and_does_nothing(hostile: Path, page: "Page") -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(hostile.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert page.evaluate("window.planted") is None
    assert len([url for url in asked if not url.startswith("data:")]) == 1
    # What lies outside of the window is not laid out, and has no inner text.
    words = page.locator("body").text_content() or ""
    assert SCRIPT in words
    assert "javascript:window.planted=6" in words
    assert "<U+202E>turned around<U+202C>" in words
    assert "👩‍👩‍👧‍👦" in words
    # The evidence of the Chinese document is in its middle, of 2,900 lines.
    assert re.search(r"第14\d\d章", words)
    assert page.locator("script, img, [onload], [onerror], a:not([href^='#'])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_even_text_that_was_not_escaped_could_not_run(hostile: Path, page: "Page", tmp_path: Path) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    spoiled = tmp_path / "spoiled.html"
    text = hostile.read_text(encoding="utf-8")
    attack = f"{SCRIPT}<img src='x' onerror='window.planted = 2'><style>body {{ display: none }}</style>"
    spoiled.write_text(text.replace("<header>", f"<header>{attack}", 1), encoding="utf-8")
    page.goto(spoiled.as_uri())
    assert page.locator("script").count() == 1
    assert page.evaluate("window.planted") is None
    assert page.locator("h1").is_visible()
    assert len([words for words in said if "Content Security Policy" in words]) >= 3


def test_the_report_keeps_its_size_whatever_the_texts_are(hostile: Path) -> None:
    # Forty samples of these documents would be 4 MB: each of their characters takes seven bytes.
    assert 3_000_000 < hostile.stat().st_size < MAX_BYTES


def test_the_pictures_of_the_page_are_there_and_small() -> None:
    docs = Path(__file__).parents[3] / "docs"
    pictures = re.findall(r"\]\((img/[^)]+)\)", (docs / "look.md").read_text(encoding="utf-8"))
    assert sorted(pictures) == sorted(f"img/{path.name}" for path in (docs / "img").iterdir())
    assert len(pictures) == 8
    assert max((docs / picture).stat().st_size for picture in pictures) < 200_000


@pytest.mark.parametrize(("module", "package"), [("vl_convert", "vl-convert-python"), ("jinja2", "jinja2")])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    module: str, package: str, build: BuildFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingExtraError, match=rf"the report needs {package}, .* pip install 'longalign-data\[look\]'"
    ):
        render_report(build, PRICES)


def test_a_build_of_conversations_alone_shows_these_and_one_of_documents_none(
    build: BuildFolder, tmp_path: Path
) -> None:
    copy = BuildFolder(tmp_path / "build")
    shutil.copytree(build.root, copy.root)
    shutil.rmtree(copy.root / "samples")
    text = render_report(copy, PRICES)
    assert text.count('<details class="sample">') == 1
    assert "1 of 1, taken" in text
    shutil.rmtree(copy.root / "chats")
    assert "Samples to read" not in render_report(copy, PRICES)


def test_a_build_that_holds_nothing_gets_no_report(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="holds no rows yet"):
        render_report(BuildFolder(tmp_path), PRICES)

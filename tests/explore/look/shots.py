"""Takes the pictures of docs/look.md: `python -m tests.explore.look.shots BUILD`."""

import base64
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from longalign_data.shards.folder import open_build
from tests.explore.look.conftest import CHROMIUM, FLAGS, viewing

PICTURES = Path(__file__).parents[3] / "docs" / "img"
WIDE, PHONE = (1280, 1500), (390, 1300)
OPEN_SAMPLE = """
    const sample = document.querySelectorAll('.sample')[2];
    sample.open = true;
    sample.querySelector('details').open = true;
    sample.querySelector('mark').scrollIntoView({block: 'center'});
"""
TO_TRAINING = "document.querySelector('#part-6').scrollIntoView()"


def shoot(page: Page, name: str) -> None:
    """What the window shows, as WebP, which Chromium writes itself."""
    page.wait_for_timeout(300)
    session = page.context.new_cdp_session(page)
    picture = session.send("Page.captureScreenshot", {"format": "webp", "quality": 72})
    (PICTURES / f"{name}.webp").write_bytes(base64.b64decode(picture["data"]))


def main() -> None:
    build = open_build(Path(sys.argv[1]))
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running, viewing(build) as address:
        report = Path(folder) / "report.html"
        command = [sys.executable, "-m", "longalign_data", "report", str(build.root), "--out", str(report)]
        subprocess.run(command, check=True)
        assert CHROMIUM is not None, "no Chromium is installed; make browser installs one"
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for (width, height), scheme, place in (
            (WIDE, "light", "0"),
            (WIDE, "dark", TO_TRAINING),
            (PHONE, "light", "0"),
            (PHONE, "dark", OPEN_SAMPLE),
        ):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(report.as_uri())
            page.evaluate(place)
            shoot(page, f"report-{width}-{scheme}")
            page.goto(f"{address}/?sort=-evidence&num_tokens=8000..")
            if scheme == "dark":
                page.locator("td a").nth(3).click()
                page.locator("summary", has_text="sequences of this pack").click()
            shoot(page, f"view-{width}-{scheme}")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()

import http.client
import re
import signal
import subprocess
import sys
import urllib.parse
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from longalign_data.errors import UserError
from longalign_data.explore.plain import visible
from longalign_data.explore.view.listing import DOCUMENTS, asked
from longalign_data.explore.view.server import serve
from longalign_data.shards.folder import BuildFolder
from tests.explore.conftest import make_id
from tests.explore.look.conftest import follow
from tests.explore.look.planted import NUM_SMALL, SCRIPT

if TYPE_CHECKING:
    from playwright.sync_api import Page

TOTAL = NUM_SMALL + 3
HARM, CHINESE, ENGLISH = (make_id("planted", number) for number in range(3))


def texts(page: "Page", column: str) -> list[str]:
    return page.locator(f"td[data-name='{column}']").all_inner_texts()


def test_samples_are_filtered_sorted_and_paged(page: "Page", address: str) -> None:
    page.goto(address)
    assert page.locator(".pages").first.inner_text().startswith(f"{TOTAL} samples, 1 to 50")
    first = texts(page, "question")
    follow(page, page.get_by_role("link", name="next").first)
    assert page.locator(".pages").first.inner_text().startswith(f"{TOTAL} samples, 51 to 100")
    assert not set(first) & set(texts(page, "question"))
    follow(page, page.get_by_role("link", name="last").first)
    assert len(texts(page, "task")) == TOTAL - 100
    page.goto(address)
    follow(page, page.get_by_role("link", name="num tokens"))
    tokens = [int(text.replace(",", "")) for text in texts(page, "num tokens")]
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[0] == 64_030
    follow(page, page.get_by_role("link", name="num tokens"))
    assert texts(page, "num tokens")[0] == "1,030"
    follow(page, page.get_by_role("link", name="grounding"))
    assert texts(page, "grounding")[0] == f"{(TOTAL - 1) / 200:.4g}"


def test_filters_join_and_stay_while_paging(page: "Page", address: str) -> None:
    page.goto(address)
    page.locator("select[name=task]").select_option("summary")
    page.locator("input[name=num_tokens]").fill("..2000")
    follow(page, page.get_by_role("button", name="Show"))
    assert set(texts(page, "task")) == {"summary"}
    assert page.locator(".pages").first.inner_text().startswith("32 samples")
    assert page.locator("select[name=task]").input_value() == "summary"
    page.get_by_text("More columns").click()
    page.locator("input[name=sample_id]").fill(make_id("planted", 5)[:20])
    follow(page, page.get_by_role("button", name="Show"))
    assert page.locator(".pages").first.inner_text().startswith("1 samples")
    follow(page, page.get_by_role("link", name="clear"))
    assert page.locator(".pages").first.inner_text().startswith(f"{TOTAL} samples")


def test_a_sample_opens_with_evidence_questions_and_its_pack(page: "Page", address: str) -> None:
    page.goto(f"{address}/?lang=zh")
    follow(page, page.locator("td a"))
    assert page.locator("h1").inner_text() == "江河 1 Which?"
    assert page.locator(".answer").inner_text() == "Answer 1: 江河."
    assert page.locator("ol.questions li").count() == 5
    page.locator(".places a").click()
    page.locator("mark:target").wait_for()
    assert page.get_by_text("notes/1.txt", exact=True).is_visible()
    assert page.get_by_text("Judged: ").is_visible()
    blocks = page.locator(".pack rect.this, .pack rect.other")
    assert blocks.count() == 7
    assert page.locator(".pack rect.this").count() == 1
    assert page.locator(".pack rect.target").count() == 7
    page.locator("summary", has_text="The sequences of this pack").click()
    page.locator("details a").nth(1).click()
    page.wait_for_url(f"**/sample/{ENGLISH}")


@pytest.mark.parametrize("sample_id", [CHINESE, ENGLISH, HARM], ids=["chinese", "english", "one huge line"])
def test_a_document_of_64k_tokens_opens_whole(page: "Page", address: str, planted: BuildFolder, sample_id: str) -> None:
    """How long that takes is measured in benchmarks/look.py."""
    stored = [row for shard in planted.shards("samples") for row in pq.read_table(shard).to_pylist()]
    (sample,) = [row for row in stored if row["sample_id"] == sample_id]
    page.goto(f"{address}/sample/{sample_id}")
    page.locator(".document").wait_for()
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shown = page.locator(".document").text_content() or ""
    assert len(shown) > 60_000
    text = sample["messages"][0]["content"][sample["document_spans"][0]["start"] : sample["document_spans"][0]["end"]]
    for piece in (text[-2_000:], text[len(text) // 2 : len(text) // 2 + 2_000]):
        for line in visible(piece).splitlines()[1:-1]:
            assert line.strip() in shown


def test_hostile_text_is_shown_and_does_nothing(page: "Page", address: str) -> None:
    asked_for: list[str] = []
    page.on("request", lambda request: asked_for.append(urllib.parse.urlsplit(request.url).path))
    for path in (f"/sample/{HARM}", "/?sort=-num_tokens", "/documents?sort=-num_tokens", "/rejects", "/build"):
        page.goto(address + path)
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
        assert page.evaluate("window.planted") is None
        assert SCRIPT in page.locator("body").inner_text()
        assert page.locator("script, img, [onload], [onerror], a[href^='javascript']").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert set(asked_for) <= {"/", "/documents", "/rejects", "/build", "/style.css", f"/sample/{HARM}", ""}
    page.goto(f"{address}/?question={urllib.parse.quote(SCRIPT)}&{urllib.parse.quote(SCRIPT)}=1&sort=x")
    assert page.evaluate("window.planted") is None
    assert "there is no column" in page.locator("body").inner_text()


def test_the_explorer_can_be_read_on_a_phone(page: "Page", address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/", f"/sample/{CHINESE}", f"/sample/{HARM}", "/documents", "/rejects"):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def request(address: str, path: str, *, method: str = "GET", host: str | None = None) -> http.client.HTTPResponse:
    place = urllib.parse.urlsplit(address).netloc
    connection = http.client.HTTPConnection(place, timeout=300)
    connection.request(method, path, headers={"Host": host or place})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def page_text(address: str, path: str) -> str:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=300)
    connection.request("GET", path)
    text = connection.getresponse().read().decode("utf-8")
    connection.close()
    return text


def test_a_list_that_falls_by_its_first_order_goes_on_falling(address: str) -> None:
    seen: list[str] = []
    at: str | None = "/?sort=-sample_id"
    while at is not None:
        html = page_text(address, at)
        seen += re.findall(r'href="/sample/([^"]+)"', html)
        following = re.search(r'rel="next" href="([^"]+)"', html)
        at = unescape(following.group(1)) if following else None
    assert len(seen) == TOTAL
    assert seen == sorted(seen, reverse=True)


def test_only_this_machine_may_ask_and_only_for_pages(address: str) -> None:
    answer = request(address, "/")
    assert answer.status == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy
    assert "unsafe" not in policy
    assert [request(address, "/", method=method).status for method in ("POST", "PUT", "DELETE")] == [405] * 3
    # A page elsewhere whose name was made to point here names itself as the host.
    assert request(address, "/", host="rebound.example").status == 400
    assert [request(address, path).status for path in ("/nothing", "/sample/none", "/../manifest.json")] == [404] * 3
    listening = Path("/proc/net/tcp")
    if listening.is_file():
        port = f":{urllib.parse.urlsplit(address).port:04X}"
        places = {line.split()[1] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"}
        assert [place for place in places if place.endswith(port)] == [f"0100007F{port}"]


def test_looking_changes_nothing_in_the_build(address: str, planted: BuildFolder) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(planted.root.rglob("*"))}

    before = state()
    for path in ("/", f"/sample/{HARM}", "/documents", "/rejects", "/build"):
        assert request(address, path).status == 200
    assert state() == before


def test_it_ends_with_ctrl_c_and_says_when_its_port_is_taken(build: BuildFolder) -> None:
    command = [sys.executable, "-m", "longalign_data", "view", str(build.root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0].rstrip("/")
        assert request(address, "/").status == 200
        port = urllib.parse.urlsplit(address).port
        assert port is not None
        with pytest.raises(UserError, match=rf"port {port} cannot be listened to: .*; choose another with --port"):
            serve(build, port, on_start=print)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=300) == ("", "")
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"num_tokens": "many"}, "num_tokens: 'many' is no number"),
        ({"num_tokens": ".."}, "is no number and no range"),
        ({"text": "x"}, "there is no column 'text'"),
        ({"sort": "-text); drop table"}, "there is no column '-text); drop table' to sort by"),
    ],
)
def test_what_cannot_be_understood_is_told_and_left_out(query: dict[str, str], words: str) -> None:
    wish = asked(DOCUMENTS, query, sort="doc_id")
    assert words in wish.wrong[0]
    assert not wish.filters
    assert wish.sort == "doc_id"


@pytest.mark.parametrize("page_number", ["0", "-3", "x", "999", "²", "99999999999999999999"])
def test_a_page_that_is_none_is_the_first_or_the_last(page_number: str, address: str) -> None:
    assert request(address, f"/?page={urllib.parse.quote(page_number)}").status == 200

"""What a batch API says against requests: without the key, and an error of status 200 for what it is."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from longalign_data.errors import TeacherError
from longalign_data.recipe import TeacherChoice
from longalign_data.teachers.batches import BatchTeacher, ItemResult
from longalign_data.teachers.table import load_teacher

KEY = "sk-planted-in-a-batch-7"

TORN = b'{"custom_id": "q-torn", "resp'
NO_ID = {"response": {"status_code": 200, "body": {}}, "result": {"type": "succeeded", "message": {}}}
ODD_OF_OPENAI: list[dict[str, Any]] = [
    {"response": {"status_code": 500, "body": None}},
    {"response": {"status_code": 502, "body": "<html>bad gateway</html>"}},
    {"response": {"status_code": 503, "body": {"error": "no worker is free"}}},
    {"response": {"status_code": 200, "body": None}},
    {"response": {"body": {"choices": []}}},
    {"response": "overloaded"},
    {"response": None, "error": "overloaded"},
    {"response": None, "error": None},
]
ODD_OF_ANTHROPIC: list[dict[str, Any]] = [
    {},
    {"result": None},
    {"result": {"type": "errored"}},
    {"result": {"type": "errored", "error": None}},
    {"result": {"type": "errored", "error": "overloaded"}},
    {"result": {"type": "errored", "error": {"type": "error", "error": "overloaded"}}},
    {"result": {"type": "succeeded", "message": None}},
]


def with_ids(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"custom_id": f"q-odd{number}", **line} for number, line in enumerate(lines)]


class Handler(BaseHTTPRequestHandler):
    """A batch of either provider that has ended; its items repeat the header of whoever fetches them."""

    def do_GET(self) -> None:
        echo = {"type": "invalid_request_error", "message": f"bad header {self.headers['authorization']}"}
        if self.path.endswith("/results"):
            errored = {"type": "errored", "error": {"type": "error", "error": echo}}
            good = {"custom_id": "q-2", "result": {"type": "succeeded", "message": {"said": "well"}}}
            self.send([{"custom_id": "q-1", "result": errored}, TORN, NO_ID, *with_ids(ODD_OF_ANTHROPIC), good])
        elif self.path.endswith("/content"):
            within = {"error": {"message": "overloaded", "code": 502}}
            self.send(
                [
                    *with_ids(ODD_OF_OPENAI),
                    TORN,
                    NO_ID,
                    {"custom_id": "q-1", "response": {"status_code": 400, "body": {"error": echo}}},
                    {"custom_id": "q-2", "response": {"status_code": 200, "body": within}},
                    {"custom_id": "q-3", "response": {"status_code": 200, "body": {"said": echo["message"]}}},
                ]
            )
        elif "messages" in self.path:
            url = f"http://{self.headers['host']}/v1/messages/batches/b/results"
            ended = {"id": "b", "type": "message_batch", "processing_status": "ended", "results_url": url}
            counts = {"processing": 0, "succeeded": 0, "errored": 1, "canceled": 0, "expired": 0}
            self.send([ended | {"created_at": "2026-11-22T00:00:00Z", "archived_at": None, "request_counts": counts}])
        else:
            errors = {"data": [{"code": "bad", "message": echo["message"]}]}
            failed = {"id": "b", "object": "batch", "status": "failed", "created_at": 1, "errors": errors}
            self.send([failed | {"output_file_id": "f", "error_file_id": None}])

    def send(self, lines: Sequence[dict[str, Any] | bytes]) -> None:
        data = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def url() -> Iterator[str]:
    with serving(Handler) as address:
        yield address


def fetched(
    url: str,
    provider: str,
    *,
    retry_s: float = 0.0,
    results: dict[str, ItemResult] | None = None,
) -> tuple[str, dict[str, ItemResult]]:
    """The detail of the batch's status, and its results, which go into `results` as they come."""
    found: dict[str, ItemResult] = {} if results is None else results

    async def run() -> str:
        choice = TeacherChoice.model_validate({"provider": provider, "model": "fake-1"})
        base_url = url + ("/v1" if provider == "openai" else "")
        teacher = load_teacher(choice, api_key=KEY, base_url=base_url, retry_s=retry_s)
        assert isinstance(teacher, BatchTeacher)
        try:
            batches = teacher.batches()
            status = await batches.status("b")
            async for result in batches.results("b"):
                found[result.custom_id] = result
            return status.detail
        finally:
            await teacher.close()

    return asyncio.run(run()), found


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_batch_that_repeats_the_key_does_not_get_it_said(url: str, provider: str) -> None:
    detail, results = fetched(url, provider)
    fault = results["q-1"].fault
    assert fault is not None
    assert fault.message == "HTTP 400: bad header Bearer [API key]"
    assert KEY not in detail
    assert provider == "anthropic" or "[API key]" in detail
    assert provider == "anthropic" or results["q-3"].raw == {"said": "bad header Bearer [API key]"}


def test_an_item_of_status_200_that_holds_an_error_is_asked_again(url: str) -> None:
    result = fetched(url, "openai")[1]["q-2"]
    assert result.raw is None
    assert result.fault is not None
    assert result.fault.retryable


@pytest.mark.parametrize(("provider", "odd"), [("anthropic", ODD_OF_ANTHROPIC), ("openai", ODD_OF_OPENAI)])
def test_a_result_that_cannot_be_read_is_asked_again_and_costs_no_other(
    url: str, provider: str, odd: list[dict[str, Any]]
) -> None:
    results = fetched(url, provider)[1]
    assert results["q-2" if provider == "anthropic" else "q-3"].raw
    assert len(results) == len(odd) + (2 if provider == "anthropic" else 3), "lines without an id say nothing of any"
    for number in range(len(odd)):
        result = results[f"q-odd{number}"]
        assert result.raw is None
        assert result.fault is not None
        assert result.fault.retryable, result.fault


def test_a_batch_in_another_format_is_no_traceback(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send([{"id": "b", "status": "completed", "said": KEY}]))
    for provider in ("anthropic", "openai"):
        with pytest.raises(TeacherError, match="a batch that is not in the provider's format") as caught:
            fetched(url, provider)
        assert caught.value.retryable
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_key_across_the_end_of_what_is_shown_of_a_batch_is_not_said(
    url: str, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for length in range(150, 190, 8):
        odd = {"id": "b", "status": None, "said": "x" * length + f" {KEY}"}
        monkeypatch.setattr(Handler, "do_GET", lambda self, odd=odd: self.send([odd]))
        with pytest.raises(TeacherError, match="a batch that is not in the provider's format") as caught:
            fetched(url, provider)
        assert KEY[:6] not in str(caught.value)


def torn(data: bytes) -> bytes:
    return data[:-5]


def between_lines(data: bytes) -> bytes:
    return data[: data[:-1].rindex(b"\n") + 1]


def ending_early(cut: Callable[[bytes], bytes], *, times: int | None = None) -> type[BaseHTTPRequestHandler]:
    """A batch of three answered requests, whose file of results ends early so many times, or always. Its length is not said, so a
    broken connection looks like the end."""

    class Cut(Handler):
        num_cut = 0

        def do_GET(self) -> None:
            if self.path.endswith(("/results", "/content")):
                self.send_results()
            elif "messages" in self.path:
                url = f"http://{self.headers['host']}/v1/messages/batches/b/results"
                ended = {"id": "b", "processing_status": "ended", "results_url": url}
                self.send([ended | {"created_at": "2026-11-22T00:00:00Z", "request_counts": {"succeeded": 3}}])
            else:
                counts = {"total": 3, "completed": 3, "failed": 0}
                ended = {"id": "b", "status": "completed", "created_at": 1, "output_file_id": "f"}
                self.send([ended | {"request_counts": counts}])

        def send_results(self) -> None:
            said = {"said": "well"}
            result = {"type": "succeeded", "message": said}
            both = {"result": result, "response": {"status_code": 200, "body": said}}
            data = b"".join(json.dumps({"custom_id": f"q-{number}"} | both).encode() + b"\n" for number in range(3))
            is_cut = times is None or Cut.num_cut < times
            Cut.num_cut += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(cut(data) if is_cut else data)

    return Cut


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
@pytest.mark.parametrize("cut", [torn, between_lines])
def test_results_that_end_early_are_fetched_again(provider: str, cut: Callable[[bytes], bytes]) -> None:
    with serving(ending_early(cut, times=1)) as url:
        assert sorted(fetched(url, provider, retry_s=60.0)[1]) == ["q-0", "q-1", "q-2"]


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
@pytest.mark.parametrize("cut", [torn, between_lines])
def test_results_that_never_come_whole_are_an_error_behind_what_came(
    provider: str, cut: Callable[[bytes], bytes]
) -> None:
    results: dict[str, ItemResult] = {}
    early = pytest.raises(TeacherError, match="results that end early: 2 whole lines of 3")
    with serving(ending_early(cut)) as url, early as caught:
        fetched(url, provider, results=results)
    assert caught.value.retryable
    assert sorted(results) == ["q-0", "q-1"]

"""The fake provider as the official clients see it."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from longalign_data.errors import RecipeError
from longalign_data.recipe import TeacherChoice
from longalign_data.tasks.questions import parse_questions
from longalign_data.tasks.templates import load_templates
from longalign_data.teachers.base import TeacherRequest
from longalign_data.teachers.extractive.teacher import respond
from longalign_data.teachers.fake import FakeServer, Scenario, load_scenario
from longalign_data.teachers.table import load_teacher

DOCUMENT = "\n\n".join(
    f"Section {k}\n\nOn day {k} the inspectors counted {k * 37 % 991} barrels. The clerk Odette{k} wrote it down."
    for k in range(90)
)
ASKING = load_templates().instruction("extraction", "en")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., FakeServer]]:
    servers: list[FakeServer] = []

    def start(**scenario: Any) -> FakeServer:
        servers.append(FakeServer(Scenario.model_validate(scenario), log=tmp_path / "log.jsonl").__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


def blocks(instruction: str, *, marked: bool = False) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "text", "text": DOCUMENT}
    if marked:
        document["cache_control"] = {"type": "ephemeral"}
    content = [document, {"type": "text", "text": "\n\n" + instruction}]
    return {"model": "fake-1", "max_tokens": 1000, "messages": [{"role": "user", "content": content}]}


CLIENTS = contextlib.ExitStack()


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    CLIENTS.close()


def client(server: FakeServer, *, api_key: str = "any", **options: Any) -> anthropic.Anthropic:
    return CLIENTS.enter_context(anthropic.Anthropic(api_key=api_key, base_url=server.url, max_retries=0, **options))


def openai_client(server: FakeServer) -> openai.OpenAI:
    return CLIENTS.enter_context(openai.OpenAI(api_key="any", base_url=f"{server.url}/v1", max_retries=0))


def test_both_wires_say_what_the_offline_teacher_says(serve: Callable[..., FakeServer]) -> None:
    server = serve()
    expected = respond(DOCUMENT, ASKING)["text"]
    assert client(server).messages.create(**blocks(ASKING)).content[0].text == expected
    chat = openai_client(server).chat.completions
    message: Any = {"role": "user", "content": f"{DOCUMENT}\n\n{ASKING}"}
    assert chat.create(model="fake-1", messages=[message]).choices[0].message.content == expected
    question = parse_questions(expected)[0]
    message["content"] = f"{DOCUMENT}\n\n{question}"
    answer = chat.create(model="fake-1", messages=[message]).choices[0].message.content
    assert answer == respond(DOCUMENT, question)["text"]


def test_a_marked_document_is_written_to_the_cache_once_and_read_after(serve: Callable[..., FakeServer]) -> None:
    messages = client(serve()).messages
    first, second = (messages.create(**blocks(ASKING, marked=True)).usage for _ in range(2))
    assert first.cache_creation_input_tokens == second.cache_read_input_tokens > 1000
    assert first.cache_read_input_tokens == second.cache_creation_input_tokens == 0
    counted = messages.count_tokens(model="fake-1", messages=blocks(ASKING)["messages"]).input_tokens
    assert counted == (first.cache_creation_input_tokens or 0) + first.input_tokens


def test_message_batches_answer_every_item_in_an_order_of_their_own(serve: Callable[..., FakeServer]) -> None:
    server = serve(batches={"seconds": 600.0})
    batches = client(server).messages.batches
    ids = [f"q-{n:03}" for n in range(12)]
    batch = batches.create(requests=[{"custom_id": i, "params": blocks(f"Tell me {i}.")} for i in ids])  # type: ignore[typeddict-item]
    assert batch.processing_status == "in_progress"
    assert batch.request_counts.processing == 12
    server.state.batches[batch.id].ready = 0.0
    assert batches.retrieve(batch.id).processing_status == "ended"
    results = list(batches.results(batch.id))
    assert sorted(result.custom_id for result in results) == ids != [result.custom_id for result in results]
    assert {result.result.type for result in results} == {"succeeded"}
    assert [found.id for found in batches.list(limit=1)] == [batch.id]


def test_openai_batches_put_replies_and_errors_into_two_files(serve: Callable[..., FakeServer]) -> None:
    server = serve(batches={"seconds": 600.0}, faults=[{"kind": "expired", "share": 0.4}])
    api = openai_client(server)
    lines = [
        {
            "custom_id": f"a-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "fake-1", "messages": [{"role": "user", "content": f"{DOCUMENT}\n\nTell me {n}."}]},
        }
        for n in range(12)
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    file = api.files.create(file=("batch.jsonl", content), purpose="batch")
    batch = api.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"label": "x"}
    )
    server.state.batches[batch.id].ready = 0.0
    batch = api.batches.retrieve(batch.id)
    assert (batch.status, batch.metadata) == ("completed", {"label": "x"})
    assert batch.output_file_id
    assert batch.error_file_id
    replies = [json.loads(line) for line in api.files.content(batch.output_file_id).text.splitlines()]
    errors = [json.loads(line) for line in api.files.content(batch.error_file_id).text.splitlines()]
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}
    assert sorted(line["custom_id"] for line in replies + errors) == sorted(str(line["custom_id"]) for line in lines)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("rate-limited", anthropic.RateLimitError),
        ("overloaded", anthropic.InternalServerError),
        ("server-error", anthropic.InternalServerError),
        ("invalid", anthropic.BadRequestError),
        ("too-long", anthropic.BadRequestError),
        ("drop", anthropic.APIConnectionError),
        ("half-body", anthropic.APIError),
        ("lost-reply", anthropic.APIConnectionError),
        ("timeout", anthropic.APIConnectionError),
    ],
)
def test_a_fault_reaches_the_client_as_its_own_error(
    serve: Callable[..., FakeServer], tmp_path: Path, fault: str, error: type[Exception]
) -> None:
    import httpx2

    server = serve(faults=[{"kind": fault, "attempts": 1, "seconds": 3_600.0}])
    # Only the reply is waited for so briefly: a request that was not sent whole is no attempt.
    patience = httpx2.Timeout(60, read=0.2) if fault == "timeout" else 60
    # A body that ends early surfaces as the HTTP library's own error.
    with pytest.raises((error, httpx2.TransportError)):
        client(server, timeout=patience).messages.create(**blocks(ASKING))
    end = time.monotonic() + 60
    while not (tmp_path / "log.jsonl").read_text(encoding="utf-8"):
        # Whoever gave up early must not overtake the attempt that meets the fault.
        assert time.monotonic() < end
        time.sleep(0.01)
    assert client(server).messages.create(**blocks(ASKING)).stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("fault", "stop", "num_texts"),
    [
        ("refusal", "refusal", 0),
        ("max-tokens", "max_tokens", 1),
        ("context-exceeded", "model_context_window_exceeded", 1),
        ("thinking-first", "end_turn", 1),
        ("several-blocks", "end_turn", 2),
        ("empty", "end_turn", 0),
    ],
)
def test_a_reply_can_have_every_odd_shape(
    serve: Callable[..., FakeServer], fault: str, stop: str, num_texts: int
) -> None:
    message = client(serve(faults=[{"kind": fault}])).messages.create(**blocks(ASKING))
    assert message.stop_reason == stop
    assert sum(block.type == "text" for block in message.content) == num_texts
    assert (message.content[0].type == "thinking" if message.content else False) == (fault == "thinking-first")


def test_limits_are_kept_and_told(serve: Callable[..., FakeServer]) -> None:
    messages = client(serve(limits={"requests_per_minute": 2})).messages
    began = time.monotonic()
    first = messages.with_raw_response.create(**blocks("One."))
    assert first.headers["anthropic-ratelimit-requests-remaining"] == "1"
    messages.create(**blocks("Two."))
    with pytest.raises(anthropic.RateLimitError) as refused:
        messages.create(**blocks("Three."))
    # One comes free in 30 seconds, of which these calls took some.
    assert 29 - (time.monotonic() - began) < float(refused.value.response.headers["retry-after"]) <= 30


@pytest.mark.parametrize("wire", ["messages", "chat"])
def test_tokens_read_from_the_cache_count_against_the_limit_of_openais_wire_alone(
    serve: Callable[..., FakeServer], wire: str
) -> None:
    limits = {"input_tokens_per_minute": 60, "burst_s": 6_000.0}  # so that next to nothing comes back meanwhile
    server = serve(limits=limits, cache={"min_tokens": 100})
    num_tokens = len(DOCUMENT) / 4
    left = []
    for _ in range(2):
        if wire == "messages":
            sent = client(server).messages.with_raw_response.create(**blocks(ASKING, marked=True))
            left.append(int(sent.headers["anthropic-ratelimit-input-tokens-remaining"]))
        else:
            chat = openai_client(server).chat.completions.with_raw_response
            message: Any = {"role": "user", "content": f"{DOCUMENT}\n\n{ASKING}"}
            told = chat.create(model="fake-1", messages=[message])
            assert told.headers["x-ratelimit-limit-tokens"] == "60"
            left.append(int(told.headers["x-ratelimit-remaining-tokens"]))
    assert left[0] < 6_000 - num_tokens
    assert (left[0] - left[1] > num_tokens) == (wire == "chat")


@pytest.mark.parametrize(
    ("provider", "cache", "limits"),
    [
        ("openai", {"min_tokens": 100}, {"input_tokens_per_minute": 450_000, "burst_s": 1.0}),
        # Shorter than what the model caches: nothing is written, and all of it counts.
        ("anthropic", {"min_tokens": 100_000}, {"input_tokens_per_minute": 450_000, "burst_s": 1.0}),
        # Read from the cache it does not count: counted, the fourth call would wait for minutes.
        ("anthropic", {"min_tokens": 100}, {"input_tokens_per_minute": 60, "burst_s": 6_000.0}),
    ],
)
def test_a_teacher_knows_what_its_provider_counts_of_a_document_that_it_has_seen(
    serve: Callable[..., FakeServer], tmp_path: Path, provider: str, cache: dict[str, Any], limits: dict[str, Any]
) -> None:
    server = serve(limits=limits, cache=cache)
    choice = TeacherChoice.model_validate({"provider": provider, "model": "fake-1"})
    path = "/v1" if provider == "openai" else ""
    teacher = load_teacher(choice, api_key="any", base_url=server.url + path, calls_per_document=5)

    async def ask_all() -> None:
        for number in range(5):
            instruction = f"What was counted on day {number}?"
            await teacher.ask(
                TeacherRequest(model="fake-1", document=DOCUMENT, instruction=instruction, max_tokens=500)
            )
        await teacher.close()

    asyncio.run(asyncio.wait_for(ask_all(), 90))
    calls = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [call["status"] for call in calls if call["event"] == "call"] == [200] * 5


def test_sampling_parameters_and_wrong_keys_are_refused_as_the_real_one_does(
    serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    server = serve(key="right")
    with pytest.raises(anthropic.AuthenticationError):
        client(server).messages.create(**blocks(ASKING))
    right = client(server, api_key="right")
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        right.messages.create(**blocks(ASKING), extra_body={"temperature": 1})
    assert "right" not in (tmp_path / "log.jsonl").read_text(encoding="utf-8")


def test_the_same_requests_meet_the_same_faults_in_any_order(serve: Callable[..., FakeServer]) -> None:
    def stops(order: list[int]) -> dict[int, str | None]:
        messages = client(serve(seed=5, faults=[{"kind": "refusal", "share": 0.4}])).messages
        return {n: messages.create(**blocks(f"Tell me {n}.")).stop_reason for n in order}

    numbers = list(range(12))
    assert stops(numbers) == stops(numbers[::-1])
    assert len(set(stops(numbers).values())) == 2


def test_a_wrong_scenario_is_answered_with_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text("seed: 3\nfaults:\n  - {kind: overlaoded, share: 0.1}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"scenario.yaml:3: faults\[0\].kind: .*'overloaded'"):
        load_scenario(path)

"""The two live teachers against servers that speak their wire formats."""

import asyncio
import socket
import textwrap
from typing import Any

import pytest
from pydantic import ValidationError

from longalign_data.errors import TeacherError
from longalign_data.recipe import TeacherChoice
from longalign_data.records import Usage
from longalign_data.teachers import anthropic, openai
from longalign_data.teachers.base import Raw, TeacherRequest, prompt
from longalign_data.teachers.table import PROVIDERS, load_teacher
from tests.teachers.fake_servers import KEY, Answer, FakeServer, completion, message, refused, text, thinking

LONG_ENOUGH_TO_CACHE = "A document. 文档。" * 400
REQUEST = TeacherRequest(model="teacher-1", document=LONG_ENOUGH_TO_CACHE, instruction="What is it?", max_tokens=50)


def ask(
    server: FakeServer,
    *,
    provider: str = "anthropic",
    request: TeacherRequest = REQUEST,
    retry_s: float = 20.0,
    **options: Any,
) -> Raw:
    choice = TeacherChoice.model_validate({"provider": provider, "model": "teacher-1"})
    path = "/v1" if provider == "openai" else ""
    options = {"api_key": KEY, "base_url": server.url + path} | options

    async def once() -> Raw:
        teacher = load_teacher(choice, retry_s=retry_s, **options)
        try:
            return await teacher.ask(request)
        finally:
            await teacher.close()

    with server.running():
        return asyncio.run(once())


def test_an_anthropic_request_carries_the_document_first_marked_for_the_cache_and_no_system_prompt() -> None:
    server = FakeServer(lambda body, times: Answer(message(text("ok"))))
    raw = ask(server)
    (seen,) = server.seen
    assert seen.path == "/v1/messages"
    assert KEY in seen.headers["authorization"]
    assert seen.headers["anthropic-version"]
    assert seen.body == {
        "model": "teacher-1",
        "max_tokens": 50,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": REQUEST.document, "cache_control": {"type": "ephemeral"}},
                    {"type": "text", "text": "\n\nWhat is it?"},
                ],
            }
        ],
    }
    assert "".join(block["text"] for block in seen.body["messages"][0]["content"]) == prompt(REQUEST)
    assert raw == message(text("ok"))


def test_the_cache_mark_can_be_left_out_and_parameters_go_into_the_body_as_they_are() -> None:
    server = FakeServer(lambda body, times: Answer(message(text("ok"))))
    request = TeacherRequest(
        model="teacher-1",
        document="d",
        instruction="i",
        max_tokens=30_000,
        parameters={"temperature": 0.5, "thinking": {"type": "adaptive"}},
    )
    ask(server, request=request, prompt_cache=False)
    body = server.seen[0].body
    assert body["temperature"] == 0.5
    assert body["thinking"] == {"type": "adaptive"}
    assert body["max_tokens"] == 30_000
    assert "cache_control" not in body["messages"][0]["content"][0]


def test_an_openai_request_is_one_user_message_with_document_and_instruction() -> None:
    server = FakeServer(lambda body, times: Answer(completion("ok")))
    raw = ask(server, provider="openai")
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.body == {
        "model": "teacher-1",
        "messages": [{"role": "user", "content": prompt(REQUEST)}],
        "max_tokens": 50,
    }
    assert raw == completion("ok")


def test_a_server_of_ones_own_needs_no_key() -> None:
    server = FakeServer(lambda body, times: Answer(completion("ok")))
    assert ask(server, provider="openai", api_key=None) == completion("ok")


OVERLOADED = refused(529, "overloaded_error", "Overloaded")
LIMITED = refused(429, "rate_limit_error", "slow down", retry_after="0.6")
BROKEN = refused(500, "api_error", "oops")
QUOTA = refused(429, "rate_limit_error", "You exceeded your current quota. Please retry in 12s")
BILLING = refused(503, "api_error", "billing service temporarily unavailable")
CUT = Answer(message(text("never to be seen in full")), cut=True)
NO_JSON = Answer("<html>gateway</html>")


WITHIN = Answer({"error": {"message": "Upstream provider overloaded", "code": 502}})
WITHIN_TYPED = Answer({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
WITHIN_BARE = Answer({"error": "no worker is free", "choices": None})


@pytest.mark.parametrize(
    "fault",
    [OVERLOADED, LIMITED, BROKEN, QUOTA, BILLING, WITHIN, WITHIN_TYPED, WITHIN_BARE, CUT, NO_JSON],
    ids=["529", "429", "500", "quota", "billing", "within", "within-typed", "within-bare", "cut", "html"],
)
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_transient_fault_is_asked_again_until_a_reply_comes(provider: str, fault: Answer) -> None:
    good = message(text("ok")) if provider == "anthropic" else completion("ok")
    server = FakeServer(lambda body, times: fault if times < 1 else Answer(good))
    assert ask(server, provider=provider) == good
    assert len(server.seen) == 2


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_retrying_ends_at_the_deadline_even_when_the_server_asks_for_a_longer_wait(provider: str) -> None:
    server = FakeServer(lambda body, times: refused(429, "rate_limit_error", "slow down", retry_after="86400"))
    with pytest.raises(TeacherError, match=r"HTTP 429: slow down \(after 1 attempts") as caught:
        ask(server, provider=provider, retry_s=5)
    assert caught.value.retryable
    assert caught.value.reason == "rate-limited"


def test_a_server_that_is_not_there_is_a_transient_fault() -> None:
    choice = TeacherChoice(provider="anthropic", model="teacher-1")

    async def once(port: int) -> Raw:
        teacher = load_teacher(choice, api_key=KEY, base_url=f"http://127.0.0.1:{port}", retry_s=0.1)
        try:
            return await teacher.ask(REQUEST)
        finally:
            await teacher.close()

    with socket.socket() as silent:
        # Nobody listens, and nobody else can take it meanwhile.
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(TeacherError) as caught:
            asyncio.run(once(silent.getsockname()[1]))
    assert caught.value.retryable
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (400, "prompt is too long: 300000 tokens > 200000 maximum", "context-exceeded"),
        (400, "This model's maximum context length is 8192 tokens", "context-exceeded"),
        (400, "request (1834 tokens) exceeds the available context size (512 tokens)", "context-exceeded"),
        (400, "input length and `max_tokens` exceed context limit: 199000 + 2048 > 200000", "context-exceeded"),
        (400, "The decoder prompt (length 9000) is longer than the maximum model length of 8192", "context-exceeded"),
        (400, "Input length (9000 tokens) exceeds the maximum allowed length (8192 tokens)", "context-exceeded"),
        (400, "max_tokens is too large: 100000", "bad-request"),
        (413, "Request exceeds the maximum size", "context-exceeded"),
        (400, "temperature: Extra inputs are not permitted", "bad-request"),
        (400, "Your credit balance is too low", "unpaid"),
        (400, "You have reached your specified API usage limits. You will regain access on 2026-12-01", "unpaid"),
        (400, "You have reached your specified workspace API usage limits", "unpaid"),
        (400, "This organization has been disabled.", "unauthorized"),
        (402, "no money", "unpaid"),
        (403, "billing is not set up for this project", "unpaid"),
        (401, "invalid x-api-key", "unauthorized"),
        (403, "not allowed", "unauthorized"),
        (404, "model: nobody", "not-found"),
        (422, "unprocessable", "bad-request"),
    ],
)
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_an_error_of_the_client_is_not_asked_again_and_says_why(
    provider: str, status: int, said: str, reason: str
) -> None:
    server = FakeServer(lambda body, times: refused(status, "some_error", said))
    with pytest.raises(TeacherError) as caught:
        ask(server, provider=provider)
    assert len(server.seen) == 1
    assert not caught.value.retryable
    assert caught.value.reason == reason
    assert said in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "said", "reason"),
    [
        (
            400,
            {"error": "This model's maximum context length is 8192 tokens"},
            "context length is 8192",
            "context-exceeded",
        ),
        (
            422,
            {
                "error": "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000",
                "error_type": "v",
            },
            "Given: 5000",
            "context-exceeded",
        ),
        (
            422,
            {
                "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 and 200"
            },
            "must be <= 4096",
            "context-exceeded",
        ),
        (400, {"detail": "prompt is too long"}, "prompt is too long", "context-exceeded"),
        (422, {"detail": [{"loc": ["body", "top_k"], "msg": "not permitted"}]}, "top_k", "bad-request"),
        (400, "prompt is too long:\n maximum context length is 8192", "too long: maximum", "context-exceeded"),
        (403, {"error": "You exceeded your current quota"}, "current quota", "unpaid"),
        (400, {"object": "error", "message": "top_p: no", "code": 400}, "top_p: no [400]", "bad-request"),
        (401, {"error": f"the key {KEY} is not known"}, "the key [API key] is", "unauthorized"),
        (400, "no " * 5_000, "no no …", "bad-request"),
        (400, "<html>bad gateway</html>", "Error code: 400", "bad-request"),
        (400, "", "HTTP 400: ", "bad-request"),
    ],
)
def test_what_a_server_says_in_a_form_of_its_own_is_said_and_understood(
    status: int, body: Any, said: str, reason: str
) -> None:
    server = FakeServer(lambda request, times: Answer(body, status=status))
    with pytest.raises(TeacherError) as caught:
        ask(server, provider="openai")
    assert caught.value.reason == reason
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600
    assert KEY not in str(caught.value)


def test_a_key_across_the_end_of_what_is_shown_is_not_said() -> None:
    key = "sk-proj-AAAA-bbbb1234-cccc5678"
    for before in range(464, 496, 4):
        said = "x " * (before // 2) + f"{key} is wrong" + " tail" * 50
        server = FakeServer(lambda body, times, said=said: Answer(said, status=400))
        with pytest.raises(TeacherError) as caught:
            ask(server, provider="openai", api_key=key)
        assert "sk-" not in str(caught.value)


def test_of_a_body_that_repeats_a_long_request_the_head_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    shorten = textwrap.shorten

    def watched(text: str, *rest: Any, **more: Any) -> str:
        given.append(len(text))
        return shorten(text, *rest, **more)

    monkeypatch.setattr(textwrap, "shorten", watched)
    server = FakeServer(lambda body, times: Answer({"detail": [{"msg": "no", "input": "word " * 60_000}]}, status=422))
    with pytest.raises(TeacherError, match=r"no.* word word .*…"):
        ask(server, provider="openai")
    assert given
    assert max(given) < 10_000


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"message": "no such user", "code": 401}, "unauthorized"),
        ({"message": "top_p: not permitted", "code": "400"}, "bad-request"),
        ({"message": "This model's maximum context length is 8192 tokens", "code": "too_long"}, "context-exceeded"),
    ],
)
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_an_error_within_a_reply_of_status_200_means_what_its_code_means(
    provider: str, error: dict[str, Any], reason: str
) -> None:
    server = FakeServer(lambda body, times: Answer({"error": error}))
    with pytest.raises(TeacherError) as caught:
        ask(server, provider=provider)
    assert (caught.value.reason, caught.value.retryable) == (reason, False)
    assert len(server.seen) == 1
    assert error["message"] in str(caught.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"message": "the input was flagged", "code": 403}, "bad-request"),
        ({"message": "no credits", "code": 402}, "unpaid"),
        ({"message": "This model's maximum context length is 8192 tokens"}, "context-exceeded"),
    ],
)
def test_an_error_in_place_of_a_choice_is_about_this_request(error: dict[str, Any], reason: str) -> None:
    raw = {"choices": [{"index": 0, "finish_reason": "error", "error": error}]}
    server = FakeServer(lambda body, times: Answer(raw))
    with pytest.raises(TeacherError) as caught:
        ask(server, provider="openai")
    assert (caught.value.reason, caught.value.retryable) == (reason, False)
    assert error["message"] in str(caught.value)
    with pytest.raises(ValueError, match=error["message"]):
        openai.read(raw)


@pytest.mark.parametrize("code", [429, 502, "provider_overloaded"])
def test_a_choice_that_broke_off_is_asked_again(code: object) -> None:
    broken = completion("half of an ans") | {"choices": [{"error": {"code": code, "message": "broke off"}}]}
    server = FakeServer(lambda body, times: Answer(broken if times == 0 else completion("whole")))
    assert openai.read(ask(server, provider="openai")).text == "whole"
    assert len(server.seen) == 2


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_key_that_a_server_repeats_in_its_reply_is_not_handed_on(provider: str) -> None:
    said = f"your key is {KEY}, mind it"
    raw = message(text(said)) if provider == "anthropic" else completion(said)
    server = FakeServer(lambda body, times: Answer(raw | {"debug": {KEY: [KEY]}}))
    got = ask(server, provider=provider)
    assert KEY not in str(got)
    assert PROVIDERS[provider].read(got).text == "your key is [API key], mind it"


def test_a_number_of_tokens_may_be_written_as_a_float() -> None:
    usage = {"prompt_tokens": 6000.0, "completion_tokens": 200.0, "prompt_tokens_details": None}
    assert openai.read(completion("x") | {"usage": usage}).usage == Usage(input_tokens=6000, output_tokens=200)


@pytest.mark.parametrize("count", [-1, -0.5, 2**31, 10**400, float("nan"), float("inf"), "3000000000"])
def test_a_number_of_tokens_that_cannot_be_makes_the_reply_unreadable(count: object) -> None:
    for read, raw, name in (
        (openai.read, completion("x"), "prompt_tokens"),
        (openai.read, completion("x"), "completion_tokens"),
        (anthropic.read, message(), "cache_read_input_tokens"),
    ):
        with pytest.raises(ValueError, match=name):
            read(raw | {"usage": raw["usage"] | {name: count}})


@pytest.mark.parametrize(("count", "read"), [("6000", 6000), ("0", 0), (2.5, 3), (True, 0), ("many", 0), ([6000], 0)])
def test_a_number_of_tokens_in_another_form_does_not_cost_the_reply(count: object, read: int) -> None:
    got = openai.read(completion("x") | {"usage": {"prompt_tokens": 7, "completion_tokens": count}})
    assert (got.text, got.usage) == ("x", Usage(input_tokens=7, output_tokens=read))


def test_what_was_written_to_a_cache_is_no_input() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 60},
    }
    assert openai.read(completion("x") | {"usage": usage}).usage == Usage(
        input_tokens=10, cache_write_tokens=60, cache_read_tokens=30, output_tokens=5
    )


def test_a_used_up_quota_is_not_waited_for() -> None:
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    server = FakeServer(lambda request, times: Answer(body, status=429))
    with pytest.raises(TeacherError) as caught:
        ask(server, provider="openai")
    assert caught.value.reason == "unpaid"
    assert len(server.seen) == 1


def test_a_missing_key_is_found_at_the_first_request_and_named() -> None:
    choice = TeacherChoice(provider="anthropic", model="teacher-1")
    with pytest.raises(TeacherError, match="ANTHROPIC_API_KEY"):
        asyncio.run(load_teacher(choice).ask(REQUEST))
    choice = TeacherChoice(provider="openai", model="teacher-1")
    with pytest.raises(TeacherError, match="OPENAI_BASE_URL"):
        asyncio.run(load_teacher(choice).ask(REQUEST))


def test_parameters_that_the_stage_sets_are_refused() -> None:
    with pytest.raises(ValidationError, match="stream is set by the stage itself"):
        TeacherChoice(provider="anthropic", model="teacher-1", parameters={"stream": True})


@pytest.mark.parametrize(("provider", "model"), [("anthropic", "extractive-1"), ("extractive", "teacher-1")])
def test_a_model_that_cannot_be_the_providers_is_told(provider: str, model: str) -> None:
    with pytest.raises(ValidationError, match=f"model: '{model}' with provider '{provider}'"):
        TeacherChoice.model_validate({"provider": provider, "model": model})


def test_text_blocks_are_joined_and_thinking_is_skipped_wherever_it_stands() -> None:
    raw = message(thinking("hm"), text("one "), {"type": "redacted_thinking", "data": "x"}, text("two"))
    reply = anthropic.read(raw)
    assert reply.text == "one two"
    assert reply.stop_reason == "end_turn"
    assert reply.usage == Usage(
        input_tokens=11, cache_write_tokens=100, cache_read_tokens=7, output_tokens=20, thinking_tokens=3
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("max_tokens", "max_tokens"),
        ("refusal", "refusal"),
        ("model_context_window_exceeded", "context_exceeded"),
        ("pause_turn", "pause_turn"),
        ("something_new", "unknown"),
        (None, "unknown"),
    ],
)
def test_every_stop_reason_of_anthropic_has_its_meaning(given: str | None, meant: str) -> None:
    assert anthropic.read(message(stop=given or "") | {"stop_reason": given}).stop_reason == meant


def test_a_refusal_with_empty_content_is_read_with_its_category() -> None:
    reply = anthropic.read(message(stop="refusal", stop_details={"type": "refusal", "category": "bio"}))
    assert (reply.text, reply.stop_reason) == ("", "refusal")
    assert "bio" in reply.detail


@pytest.mark.parametrize(
    ("raw", "text_", "stop"),
    [
        (completion("hello"), "hello", "end_turn"),
        (completion("hel", "length"), "hel", "max_tokens"),
        (completion(None, "content_filter"), "", "refusal"),
        (completion(None, refusal="I will not"), "", "refusal"),
        (completion(None, "tool_calls"), "", "tool_use"),
        (completion("x", "eos"), "x", "unknown"),
    ],
)
def test_every_chat_completion_is_read(raw: Raw, text_: str, stop: str) -> None:
    reply = openai.read(raw)
    assert (reply.text, reply.stop_reason) == (text_, stop)
    assert reply.usage == Usage(input_tokens=111, cache_read_tokens=7, output_tokens=20, thinking_tokens=3)


FIVE = "1: Which pump?\n2: Which valve?"
THOUGHTS = "The user wants questions.\n1. Perhaps the pump?\n2. The bridge?"


@pytest.mark.parametrize(
    "content",
    [
        f"<think>\n{THOUGHTS}\n</think>\n\n{FIVE}",
        f"\n<think>{THOUGHTS}</think>{FIVE}",
        f"{THOUGHTS}\n</think>\n\n{FIVE}",
        f"<think>\n\n</think>\n\n{FIVE}",
        f'<think>{THOUGHTS} It says "which"</think>{FIVE}',
        f"<think>It splits at `</think>`. {THOUGHTS}\n</think>\n\n{FIVE}",
        f"<think>\n```\n</think>\n```\n{THOUGHTS}\n</think>\n\n{FIVE}",
        f"<think>\n{THOUGHTS} In ``` is code.\n</think>\n\n{FIVE}",
        f"They ask about `<think>` tags.\n{THOUGHTS}\n</think>\n\n{FIVE}",
        f"{THOUGHTS}</think>\n\n{FIVE}",
        FIVE,
    ],
)
def test_thinking_that_stands_in_the_text_is_no_part_of_what_is_said(content: str) -> None:
    for reply in (openai.read(completion(content)), anthropic.read(message(text(content)))):
        assert (reply.text, reply.stop_reason) == (FIVE, "end_turn")


def test_a_text_about_thinking_stays_whole() -> None:
    for content in (
        "It ends with `</think>`, as it says.",
        'The tag is "</think>".',
        "Between <think> and </think> stands what it thinks.",
        "The tag </think> closes the block that <think> opened.",
        "The closing tag is </think>, and the parser looks for it.",
        "</think> is the closing tag.",
        "It is closed by “</think>”, the page says.",
        "它以「</think>」结束。",
        "The mark (</think>) ends it.",
        "Stop strings are: </think>, </s>.",
        "In the template: <b></think></b>",
        "It ends with:\n```\n</think>\n```\nThen the text begins.",
        "The form is\n<think>\nthoughts\n</think>\nanswer",
        "<think> is the opening tag of the block.",
        "<think> and </think> delimit the reasoning.",
        "It is written `thoughts.</think>answer`, on one line.",
        "It is written <think>thoughts.</think>answer, on one line.",
        "A line of it:\n```\nThoughts.</think>answer\n```\nThen the text begins.",
        "标签</think>表示思考结束。",
        "It writes thoughts</think>answer.",
        "推理部分在前。</think>标签之后是最终答案。",
        'The server returned "Let me see.</think>The answer is 4." instead of the answer.',
        "A line of it:\n\n    Thoughts.</think>answer\n\nThen the text begins.",
    ):
        assert openai.read(completion(content)).text == anthropic.read(message(text(content))).text == content


def test_a_text_that_ends_within_its_thinking_is_no_answer() -> None:
    content = f"<think>\n{THOUGHTS}"
    for reply in (openai.read(completion(content)), anthropic.read(message(text(content)))):
        assert (reply.text, reply.stop_reason) == ("", "unknown")
        assert "within its thinking" in reply.detail
    assert openai.read(completion(content, "length")).stop_reason == "max_tokens"
    assert anthropic.read(message(text(content), stop="max_tokens")).stop_reason == "max_tokens"


def test_the_texts_of_content_in_parts_are_joined_and_its_thinking_is_skipped() -> None:
    thought: dict[str, Any] = {"type": "thinking", "thinking": [text(THOUGHTS)]}
    raw = completion(None)
    for parts, said in (
        ([thought, text("1: Which "), text("pump?")], "1: Which pump?"),
        ([thought], ""),
        ([None, "odd", {"type": "text"}, {"type": "text", "text": None}, text("x")], "x"),
    ):
        raw["choices"][0]["message"]["content"] = parts
        reply = openai.read(raw)
        assert (reply.text, reply.stop_reason) == (said, "end_turn")


def test_a_server_that_counts_nothing_is_read_with_a_usage_of_zero() -> None:
    raw = {key: value for key, value in completion("x").items() if key != "usage"}
    assert openai.read(raw).usage == Usage()


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@pytest.mark.parametrize(
    "raw", [{}, {"content": None, "choices": []}, {"choices": [None]}, {"error": {"message": "x"}}]
)
def test_a_reply_in_another_format_is_a_value_error(provider: str, raw: Raw) -> None:
    with pytest.raises(ValueError, match="has a"):
        PROVIDERS[provider].read(raw)


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_every_provider_says_something_of_the_terms_of_its_output(provider: str) -> None:
    assert len(PROVIDERS[provider].terms) > 40


def test_what_openai_restricts_is_said_where_openai_itself_answers() -> None:
    notice = PROVIDERS["openai"].notice
    assert "compete with OpenAI" in notice(None)
    assert notice("https://eu.api.openai.com/v1") == notice(None)
    assert notice("http://localhost:8000/v1") == notice("https://notopenai.com/v1") == ""

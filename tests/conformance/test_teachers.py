"""What every teacher in the table does, whoever wrote it: a new entry gets these for nothing.

A teacher that is not free is asked over real HTTP; the fake provider speaks its protocol.
"""

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from longalign_data.errors import TeacherError
from longalign_data.recipe import TeacherChoice
from longalign_data.records import Usage
from longalign_data.tasks.questions import parse_questions
from longalign_data.tasks.templates import load_templates
from longalign_data.teachers.base import ABORTING_REASONS, Raw, Teacher, TeacherReply, TeacherRequest, prompt
from longalign_data.teachers.batches import BatchTeacher, Item, ItemResult
from longalign_data.teachers.fake import FakeServer, Scenario
from longalign_data.teachers.fake.state import Asked
from longalign_data.teachers.table import PROVIDERS, load_teacher, teacher_record

ALL = sorted(PROVIDERS)
PAID = [name for name in ALL if not PROVIDERS[name].is_free]
KEY = "sk-planted-in-conformance"
DOCUMENT = "\n\n".join(
    f"Section {k}\n\nOn day {k} the inspectors counted {k * 37 % 991} barrels. The clerk Odette{k} wrote it down. 完毕。"
    for k in range(90)
)
ResultT = TypeVar("ResultT")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., FakeServer]]:
    with contextlib.ExitStack() as stack:
        yield lambda **scenario: stack.enter_context(
            FakeServer(Scenario.model_validate(scenario), log=tmp_path / "log.jsonl")
        )


def choice_of(provider: str) -> TeacherChoice:
    model = {} if provider == "extractive" else {"model": "fake-1"}
    return TeacherChoice.model_validate({"provider": provider, **model})


def request_of(provider: str, instruction: str, **changes: Any) -> TeacherRequest:
    model = choice_of(provider).model
    request = TeacherRequest(model=model, document=DOCUMENT, instruction=instruction, max_tokens=700)
    return dataclasses.replace(request, **changes)


def asking(provider: str, server: FakeServer, use: Callable[[Teacher], Coroutine[Any, Any, ResultT]]) -> ResultT:
    """What `use` makes of a teacher that is closed afterwards, twice."""

    async def run() -> ResultT:
        path = "/v1" if provider == "openai" else ""
        teacher = load_teacher(choice_of(provider), api_key=KEY, base_url=server.url + path, retry_s=60.0)
        try:
            return await use(teacher)
        finally:
            assert isinstance(teacher.status(), str)
            assert KEY not in teacher.status() + repr(teacher)
            await teacher.close()
            await teacher.close()

    return asyncio.run(run())


ASK_FOR_QUESTIONS = load_templates().instruction("extraction", "en")


@pytest.mark.parametrize("provider", ALL)
def test_it_proposes_questions_and_answers_one(provider: str, serve: Callable[..., FakeServer]) -> None:
    async def use(teacher: Teacher) -> tuple[Raw, Raw, str]:
        asked = await teacher.ask(request_of(provider, ASK_FOR_QUESTIONS))
        question = parse_questions(PROVIDERS[provider].read(asked).text)[0]
        return asked, await teacher.ask(request_of(provider, question)), question

    server = serve()
    *raws, question = asking(provider, server, use)
    assert question
    for raw in raws:
        reply = PROVIDERS[provider].read(raw)
        assert reply.stop_reason == "end_turn"
        assert reply.text.strip()
        stored = PROVIDERS[provider].read(json.loads(json.dumps(raw)))
        assert stored == reply, "a stored reply is read as it was"
    usages = [PROVIDERS[provider].read(raw).usage for raw in raws]
    if PROVIDERS[provider].is_free:
        assert usages == [Usage(), Usage()]
    else:
        meter = server.state.meter
        for name in ("input_tokens", "cache_write_tokens", "cache_read_tokens", "output_tokens"):
            assert sum(getattr(usage, name) for usage in usages) == meter[name]
        assert meter["cache_read_tokens"] > 0, "the document is the same prefix in both calls"


@pytest.mark.parametrize("provider", PAID)
@pytest.mark.parametrize("document", [DOCUMENT, ""])
def test_the_server_is_told_the_document_then_the_instruction_and_nothing_else(
    provider: str, document: str, serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    request = request_of(provider, "How many barrels on day 3?", document=document)
    asking(provider, serve(), lambda teacher: teacher.ask(request))
    (line,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    told = Asked(
        wire="chat", model="fake-1", document=document, instruction=request.instruction, max_tokens=700, marked=False
    )
    assert line["key"] == told.key
    assert prompt(request).startswith(document)
    assert prompt(request).endswith(request.instruction)


@pytest.mark.parametrize("provider", PAID)
@pytest.mark.parametrize(
    "kind", ["rate-limited", "overloaded", "server-error", "unavailable", "drop", "half-body", "lost-reply"]
)
def test_a_transient_fault_is_asked_again(provider: str, kind: str, serve: Callable[..., FakeServer]) -> None:
    server = serve(faults=[{"kind": kind, "attempts": 1, "retry_after_s": 0.1}])
    raw = asking(provider, server, lambda teacher: teacher.ask(request_of(provider, ASK_FOR_QUESTIONS)))
    assert PROVIDERS[provider].read(raw).stop_reason == "end_turn"
    assert server.state.num_http == 2


@pytest.mark.parametrize("provider", PAID)
@pytest.mark.parametrize(
    ("scenario", "reason", "is_for_all"),
    [
        ({"key": "another"}, "unauthorized", True),
        ({"models": ["other"]}, "not-found", True),
        ({"faults": [{"kind": "invalid"}]}, "bad-request", False),
        ({"faults": [{"kind": "too-long"}]}, "context-exceeded", False),
        ({"faults": [{"kind": "too-large"}]}, "context-exceeded", False),
    ],
)
def test_what_no_attempt_can_mend_is_asked_once_and_said_without_the_key(
    provider: str, scenario: dict[str, Any], reason: str, is_for_all: bool, serve: Callable[..., FakeServer]
) -> None:
    server = serve(**scenario)
    with pytest.raises(TeacherError) as raised:
        asking(provider, server, lambda teacher: teacher.ask(request_of(provider, ASK_FOR_QUESTIONS)))
    assert (raised.value.reason, raised.value.retryable) == (reason, False)
    assert (reason in ABORTING_REASONS) == is_for_all
    assert server.state.num_http == 1
    assert KEY not in str(raised.value) + repr(raised.getrepr(style="long"))


@pytest.mark.parametrize("provider", PAID)
@pytest.mark.parametrize(
    ("kind", "stop"), [("refusal", "refusal"), ("max-tokens", "max_tokens"), ("empty", "end_turn")]
)
def test_a_reply_that_is_no_answer_is_a_reply_and_says_so(
    provider: str, kind: str, stop: str, serve: Callable[..., FakeServer]
) -> None:
    server = serve(faults=[{"kind": kind}])
    raw = asking(provider, server, lambda teacher: teacher.ask(request_of(provider, ASK_FOR_QUESTIONS)))
    reply: TeacherReply = PROVIDERS[provider].read(raw)
    assert reply.stop_reason == stop
    assert reply.text == "" or stop == "max_tokens"


@pytest.mark.parametrize("provider", PAID)
def test_a_request_that_is_given_up_ends_at_once(provider: str, serve: Callable[..., FakeServer]) -> None:
    server = serve(latency_s=3_600.0)

    async def use(teacher: Teacher) -> bool:
        task = asyncio.create_task(teacher.ask(request_of(provider, ASK_FOR_QUESTIONS)))
        while not server.state.num_http:
            assert not task.done(), task
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait({task}, timeout=300)  # the server answers much later
        return task.cancelled()

    assert asking(provider, server, use)


@pytest.mark.parametrize("provider", PAID)
def test_without_a_key_the_first_request_says_what_is_missing(provider: str) -> None:
    async def ask() -> None:
        await load_teacher(choice_of(provider)).ask(request_of(provider, ASK_FOR_QUESTIONS))

    with pytest.raises(TeacherError, match=f"{provider.upper()}_") as raised:
        asyncio.run(ask())
    assert raised.value.reason == "no-key"


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize("raw", [{}, {"content": "text"}, {"choices": []}, {"choices": [{}]}, {"text": 5}])
def test_a_reply_in_another_format_is_a_value_error(provider: str, raw: Raw) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        PROVIDERS[provider].read(raw)


@pytest.mark.parametrize("provider", ALL)
def test_it_says_under_which_terms_its_output_may_be_used(provider: str) -> None:
    assert len(teacher_record(choice_of(provider)).terms) > 20
    own = choice_of(provider).model_copy(update={"terms": "ours"})
    assert teacher_record(own).terms == "ours"


def has_batches(provider: str) -> bool:
    return isinstance(load_teacher(choice_of(provider), api_key=KEY), BatchTeacher)


@pytest.mark.parametrize("provider", [name for name in ALL if has_batches(name)])
def test_a_batch_says_what_the_calls_say_and_is_found_in_the_list(
    provider: str, serve: Callable[..., FakeServer]
) -> None:
    requests = [request_of(provider, f"How many barrels were counted on day {k}?") for k in range(3, 7)]
    items = [Item(custom_id=f"q-{k}", request=request) for k, request in enumerate(requests)]

    async def use(teacher: Teacher) -> tuple[list[Raw], dict[str, ItemResult]]:
        assert isinstance(teacher, BatchTeacher)
        batches = teacher.batches()
        assert sum(map(batches.size, items)) < batches.limits.max_bytes
        began = time.time()
        submitted = await batches.submit("label", items)
        while (status := await batches.status(submitted.batch_id)).state == "running":
            await asyncio.sleep(0.05)
        assert (status.state, status.num_requests) == ("ended", len(items))
        assert status.label in (None, "label")
        listed = [found.batch_id async for found in batches.listed(began - 5)]
        assert listed == [submitted.batch_id]
        results = {result.custom_id: result async for result in batches.results(submitted.batch_id)}
        return [await teacher.ask(request) for request in requests], results

    live, batched = asking(provider, serve(batches={"seconds": 0.1}), use)
    read = PROVIDERS[provider].read
    for number, raw in enumerate(live):
        result = batched[f"q-{number}"]
        assert result.raw is not None
        assert read(result.raw).text == read(raw).text

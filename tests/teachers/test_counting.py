"""Counting prompts with a server's own endpoint, where the server has one and where not."""

import asyncio

import pytest

from longalign_data.errors import TeacherError
from longalign_data.recipe import TeacherChoice
from longalign_data.teachers.base import Connection, TeacherRequest
from longalign_data.teachers.counting import count_prompts
from tests.teachers.fake_servers import KEY, Answer, FakeServer, message, refused, text


def count(answer: Answer) -> list[int]:
    request = TeacherRequest(model="teacher-1", document="A document.", instruction="What is it?", max_tokens=5)
    choice = TeacherChoice(provider="anthropic", model="teacher-1")
    with FakeServer(lambda body, times: answer).running() as server:
        connection = Connection(api_key=KEY, base_url=server.url)
        return list(asyncio.run(count_prompts(choice, connection, [request, request])))


def test_each_prompt_is_counted() -> None:
    assert count(Answer({"input_tokens": 12})) == [12, 12]


@pytest.mark.parametrize(
    "answer",
    [Answer(message(text("hello"))), Answer({"input_tokens": "many"}), Answer({}), Answer("hello", status=404)],
    ids=["message", "text", "empty", "404"],
)
def test_a_server_without_the_endpoint_is_named_with_the_way_to_do_without(answer: Answer) -> None:
    with pytest.raises(TeacherError, match="estimate without --pilot"):
        count(answer)


def test_what_a_server_says_against_it_is_said_without_the_key() -> None:
    with pytest.raises(TeacherError, match=r"bad header: \[API key\]") as caught:
        count(refused(400, "invalid_request_error", f"bad header: {KEY}"))
    assert KEY not in repr(caught.getrepr(style="long"))

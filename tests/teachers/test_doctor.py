"""What `longalign doctor` finds out with one question."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from longalign_data.cli.build import connection_of
from longalign_data.errors import UserError
from longalign_data.recipe import TeacherChoice
from longalign_data.teachers.base import Connection
from longalign_data.teachers.doctor import Finding, examine
from longalign_data.teachers.fake import FakeServer, Scenario
from longalign_data.teachers.prices import load_prices
from tests.teachers import fake_servers

KEY = "sk-planted-77aa12"


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    servers: list[FakeServer] = []

    def start(**scenario: Any) -> FakeServer:
        servers.append(FakeServer(Scenario.model_validate(scenario)).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


def ask(url: str | None, *, provider: str = "anthropic", key: str | None = KEY, **choice: Any) -> list[Finding]:
    wanted = TeacherChoice(provider=provider, model="claude-haiku-5-5", **choice)
    connection = Connection(api_key=key, base_url=url, timeout_s=60.0, retry_s=0.5)
    found = asyncio.run(examine(wanted, connection, load_prices()))
    assert all(KEY not in finding.words for finding in found)
    return found


def words(findings: list[Finding], state: str) -> str:
    return "\n".join(finding.words for finding in findings if finding.state == state)


def test_a_teacher_that_works_is_said_to_work(serve: Callable[..., FakeServer]) -> None:
    found = ask(serve().url)
    assert words(found, "bad") == ""
    assert words(found, "look") == ""
    good = words(found, "ok")
    for part in ("a key was given", "and right", "answered in", "tokens in", "from a prompt cache", "USD"):
        assert part in good


def test_a_password_in_an_address_is_not_said(serve: Callable[..., FakeServer]) -> None:
    found = ask(serve().url.replace("//", "//anna:opensesame@"))
    assert "reached http://***@127.0.0.1" in words(found, "ok")
    assert "opensesame" not in str(found)
    with pytest.raises(UserError) as caught:
        connection_of(TeacherChoice(provider="anthropic", model="m"), "htp://anna:opensesame@host")
    assert "htp://***@host" in str(caught.value)


def test_an_open_server_needs_no_key_and_its_missing_price_is_only_remarked(serve: Callable[..., FakeServer]) -> None:
    found = ask(serve().url + "/v1", provider="openai", key=None)
    assert words(found, "bad") == ""
    assert "needs none" in words(found, "ok")
    assert "no price is known" in words(found, "look")


@pytest.mark.parametrize(
    ("scenario", "advice"),
    [
        ({"key": "another"}, "the key is not accepted"),
        ({"models": ["other-1"]}, "does not know this model"),
        ({"faults": [{"kind": "invalid"}]}, "does not take a parameter"),
        ({"faults": [{"kind": "refusal"}]}, "only a finished answer can be used"),
        ({"faults": [{"kind": "max-tokens"}]}, "raise the limits"),
        ({"faults": [{"kind": "empty"}]}, "empty"),
    ],
)
def test_what_does_not_work_is_said_in_plain_words(
    serve: Callable[..., FakeServer], scenario: dict[str, Any], advice: str
) -> None:
    assert advice in words(ask(serve(**scenario).url), "bad")


def test_thinking_in_the_text_is_said_and_what_follows_it_is_taken_for_the_answer() -> None:
    reply = fake_servers.completion("<think>The lamp, then.</think>\n\nIt is 37 metres above the sea.")
    with fake_servers.FakeServer(lambda body, times: fake_servers.Answer(reply)).running() as server:
        found = ask(server.url + "/v1", provider="openai")
    assert words(found, "bad") == ""
    assert "and right: 'It is 37 metres" in words(found, "ok")
    assert "thinking stands in the text" in words(found, "look")


@pytest.mark.parametrize("usage", [None, {"completion_tokens": 9}])
def test_a_usage_without_the_prompt_is_remarked(usage: dict[str, int] | None) -> None:
    server = fake_servers.FakeServer(
        lambda body, times: fake_servers.Answer(fake_servers.completion("37 metres.") | {"usage": usage})
    )
    with server.running():
        found = ask(f"{server.url}/v1", provider="openai")
    assert "does not name the tokens of its prompt: replies count with the most" in words(found, "look")


def test_a_server_that_is_not_there_and_a_key_that_is_not_given_are_told_apart() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        # Nobody listens, and nobody else can take it meanwhile.
        port = free.getsockname()[1]
        assert "check the address" in words(ask(f"http://127.0.0.1:{port}"), "bad")
    assert "ANTHROPIC_API_KEY is not set" in words(ask(None, key=None), "bad")


def test_the_offline_teacher_needs_nothing() -> None:
    choice = TeacherChoice()
    (finding,) = asyncio.run(examine(choice, Connection(), load_prices()))
    assert finding.state == "ok"


@pytest.mark.parametrize("status", [200, 401])
def test_a_server_that_repeats_the_key_does_not_get_it_said(status: int) -> None:
    def script(body: dict[str, Any], times: int) -> fake_servers.Answer:
        echo = f"37, and you sent {server.seen[-1].headers['authorization']}"
        if status == 200:
            return fake_servers.Answer(fake_servers.message(fake_servers.text(echo)))
        return fake_servers.refused(401, "authentication_error", echo)

    server = fake_servers.FakeServer(script)
    with server.running():
        found = ask(server.url)
    assert "you sent Bearer [API key]" in words(found, "ok" if status == 200 else "bad")

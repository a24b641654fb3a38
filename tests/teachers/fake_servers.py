"""Teachers for tests: real HTTP servers on this machine that speak the providers' wire formats, faults included."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-0123456789-secret"

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the server sends back. With `cut` it says how long the body is and closes the connection in its middle."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    delay_s: float = 0.0


@dataclass
class Seen:
    """One request that reached the server. `whole` says that a whole reply with status 200 was sent."""

    path: str
    headers: dict[str, str]
    body: Json
    whole: bool = False
    done: bool = False


Script = Callable[[Json, int], Answer]
"""The answer to a body that has been received so many times before."""


class FakeServer:
    """`url`, the `seen` requests in order, and what answers them."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.times: Counter[str] = Counter()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                entry = Seen(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                key = json.dumps(body, sort_keys=True)
                with outer._lock:
                    outer.seen.append(entry)
                    before = outer.times[key]
                    outer.times[key] += 1
                answer = outer.script(body, before)
                time.sleep(answer.delay_s)
                data = answer.body.encode() if isinstance(answer.body, str) else json.dumps(answer.body).encode()
                try:
                    self.send_response(answer.status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(data)))
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2] if answer.cut else data)
                    self.wfile.flush()
                    entry.whole = answer.status == 200 and not answer.cut
                except OSError:
                    pass
                entry.done = True
                if answer.cut:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that was killed closes its connections

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator["FakeServer"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered."""
        return all(entry.done for entry in self.seen)

    def answered(self) -> Counter[str]:
        """How often each body got a whole reply."""
        return Counter(json.dumps(entry.body, sort_keys=True) for entry in self.seen if entry.whole)


def message(*blocks: Json, stop: str = "end_turn", **extra: Any) -> Json:
    """A reply of the Messages API."""
    usage = {
        "input_tokens": 11,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 7,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 3},
        "service_tier": "standard",
    }
    reply = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "teacher-1",
        "content": list(blocks),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }
    return reply | extra


def text(value: str) -> Json:
    return {"type": "text", "text": value}


def thinking(value: str) -> Json:
    return {"type": "thinking", "thinking": value, "signature": "c2ln"}


def refused(status: int, kind: str, said: str, **headers: str) -> Answer:
    """An error of the Messages API."""
    body = {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_1"}
    return Answer(body, status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def instruction_of(body: Json) -> str:
    """The last block of an Anthropic request, or what follows the document in an OpenAI one."""
    content = body["messages"][0]["content"]
    last = content[-1]["text"] if isinstance(content, list) else content
    return str(last).rsplit("\n\n", 1)[-1] if not isinstance(content, list) else str(last).removeprefix("\n\n")


def document_of(body: Json) -> str:
    return str(body["messages"][0]["content"][0]["text"])


def wants_questions(body: Json) -> bool:
    content = body["messages"][0]["content"]
    whole = content if isinstance(content, str) else content[-1]["text"]
    return "\n1: " in whole


def teaches(body: Json, times: int) -> Answer:
    """Five questions that name their document, and an answer that names its question."""
    del times
    if wants_questions(body):
        name = document_of(body).split()[0]
        listed = "\n".join(f"{number}: What is thing {number} of {name}?" for number in range(1, 6))
        return Answer(message(thinking("hm"), text(listed)))
    return Answer(message(text("It is this: "), text(instruction_of(body))))


def completion(content: str | None, finish: str = "stop", **extra: Any) -> Json:
    """A chat completion."""
    return {
        "id": "cmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "teacher-1",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **extra}}
        ],
        "usage": {
            "prompt_tokens": 118,
            "completion_tokens": 20,
            "total_tokens": 138,
            "prompt_tokens_details": {"cached_tokens": 7},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }

"""The server: Anthropic's Messages, Message Batches and count_tokens; OpenAI's Chat Completions, Files and Batches.

Plain HTTP/1.1 on one address, a thread a connection. `GET /fake/meter` tells tokens and dollars so far, `GET /fake/scenario`
how the server behaves. Streaming is refused: the teachers here do not use it.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from longalign_data.identity import digest, uniform
from longalign_data.teachers.fake import answers, anthropic_wire, openai_wire
from longalign_data.teachers.fake.scenario import Scenario
from longalign_data.teachers.fake.state import Asked, Batch, BatchItem, Refused, Reply, State, Wire

MAX_REQUESTS: dict[Wire, int] = {"messages": 100_000, "chat": 50_000}
MAX_BYTES: dict[Wire, int] = {"messages": 256 << 20, "chat": 200 << 20}
_SAMPLING = ("temperature", "top_p", "top_k")
_MAX_BODY = 300 << 20


class FakeServer:
    """The server in threads of this process; a context manager. `url` is the address for a client's base URL (with `/v1`
    behind it for OpenAI's client); port 0 takes a free one. Raises OSError when the address is taken."""

    def __init__(self, scenario: Scenario, *, host: str = "127.0.0.1", port: int = 0, log: Path | None = None) -> None:
        self.state = State(scenario, log)
        state = self.state

        class Handler(_Handler):
            pass

        Handler.state = state
        self._server = _Server((host, port), Handler)
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True, name="fake-provider"
        )

    def __enter__(self) -> "FakeServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.state.close()

    def serve(self) -> None:
        """Serves in this thread until interrupted."""
        with contextlib.closing(self._server):
            self._server.serve_forever()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def close(self) -> None:
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of the server's."""
        del request, client_address


class _DroppedError(Exception):
    """The connection ends here, by the scenario."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        del format, args

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        parts = urlsplit(self.path)
        path = parts.path.rstrip("/").removeprefix("/v1")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        is_anthropic = path.startswith("/messages") or "anthropic-version" in self.headers
        self.state.num_http += 1
        try:
            body = self._body()
            refused = self._authorized(path)
            if refused is None:
                try:
                    refused = self._route(method, path, query, body)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    refused = Refused(status=400, kind="invalid_request_error", message=f"malformed request: {error}")
            if refused is not None:
                self._refuse(refused, anthropic=is_anthropic)
        except (_DroppedError, ConnectionError):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        length = int(self.headers.get("content-length") or 0)
        if length > _MAX_BODY:
            raise _DroppedError
        body = self.rfile.read(length)
        if len(body) < length:
            raise _DroppedError
        return body

    def _authorized(self, path: str) -> Refused | None:
        if path.startswith("/fake"):
            return None
        given = self.headers.get("authorization", "").removeprefix("Bearer ") or self.headers.get("x-api-key", "")
        if not given or self.state.scenario.key not in (None, given):
            return Refused(status=401, kind="authentication_error", message="invalid API key")
        return None

    def _route(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Refused | None:
        match (method, *path.strip("/").split("/")):
            case ("POST", "messages"):
                return self._call("messages", _json(body))
            case ("POST", "chat", "completions"):
                return self._call("chat", _json(body))
            case ("POST", "messages", "count_tokens"):
                asked = _asked("messages", {"max_tokens": 1} | _json(body))
                return asked if isinstance(asked, Refused) else self._send({"input_tokens": asked.num_tokens})
            case ("POST", "messages", "batches"):
                return self._create_message_batch(body)
            case ("GET", "messages", "batches"):
                return self._list("messages", query)
            case ("GET", "messages", "batches", batch_id, "results"):
                return self._results(batch_id)
            case (_, "messages", "batches", batch_id, *rest) | (_, "batches", batch_id, *rest):
                return self._batch(method, batch_id, rest)
            case ("POST", "batches"):
                return self._create_batch(_json(body))
            case ("GET", "batches"):
                return self._list("chat", query)
            case ("POST", "files"):
                return self._upload(body)
            case ("GET", "files", file_id, "content"):
                return self._content(file_id)
            case ("GET" | "DELETE", "files", file_id):
                return self._file(method, file_id)
            case ("GET", "fake", "meter"):
                return self._send(dict(self.state.meter) | {"usd": self.state.usd()})
            case ("GET", "fake", "scenario"):
                return self._send(self.state.scenario.model_dump(exclude={"key"}))
        return Refused(status=404, kind="not_found_error", message=f"{method} {path}: nothing here")

    # Calls

    def _call(self, wire: Wire, body: dict[str, Any]) -> Refused | None:
        state = self.state
        asked = _asked(wire, body)
        refused = asked if isinstance(asked, Refused) else state.check(asked)
        if isinstance(asked, Refused) or refused is not None:
            state.note("call", wire=wire, status=refused.status if refused else 400, fault=None)
            return refused
        limited = state.enter(asked)
        if limited is not None:
            state.note("call", wire=wire, key=asked.key, status=429, fault="limit")
            return limited
        with contextlib.ExitStack() as place:
            place.callback(state.leave)
            return self._admitted(wire, asked, place)

    def _admitted(self, wire: Wire, asked: Asked, place: contextlib.ExitStack) -> Refused | None:
        """`place` is what the call holds of the server; it is free once the reply is made, before anybody has read it."""
        state = self.state
        attempt = state.attempt(asked)
        fault = state.fault(asked, attempt, in_batch=False)
        kind = fault.kind if fault else None
        said: dict[str, Any] = {"wire": wire, "key": asked.key, "attempt": attempt, "fault": kind}
        refused = state.refusal(asked, fault)
        if refused is not None:
            state.note("call", **said, status=refused.status)
            return refused
        time.sleep(state.scenario.latency_s)
        if fault is not None and kind in {"drop", "timeout"}:
            state.note("call", **said, status=None)
            if kind == "timeout":
                time.sleep(fault.seconds)
            raise _DroppedError
        reply = state.reply(asked, fault, in_batch=False)
        said |= {"status": 200, "stop": reply.stop, "usage": asdict(reply.billed)}
        whole = anthropic_wire.message(asked, reply) if wire == "messages" else openai_wire.completion(asked, reply)
        place.close()
        if kind in {"lost-reply", "half-body"}:
            state.note("call", **said, delivered=False)
            if kind == "half-body":
                text = json.dumps(whole, ensure_ascii=False).encode()
                self._head(200, len(text), "application/json")
                self.wfile.write(text[: len(text) // 2])
            raise _DroppedError
        data = json.dumps(whole, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            self._head(200, len(data), "application/json")
            self.wfile.write(data[:-1])
        except OSError:
            state.note("call", **said, delivered=False)
            raise
        # Before the last byte: what a client has been answered stands in the log by the time that it goes on.
        state.note("call", **said, delivered=True)
        self.wfile.write(data[-1:])
        return None

    # Batches

    def _create_message_batch(self, body: bytes) -> Refused | None:
        if len(body) > (self.state.scenario.batches.max_bytes or MAX_BYTES["messages"]):
            return Refused(status=413, kind="request_too_large", message="Request exceeds the maximum size")
        requests = _json(body)["requests"]
        items = [(request["custom_id"], _asked("messages", request["params"])) for request in requests]
        refused = self._check_items("messages", [custom_id for custom_id, _ in items])
        if refused is not None:
            return refused
        batch, lost = self.state.add_batch("messages", items, metadata={})
        if lost:
            raise _DroppedError
        return self._send(anthropic_wire.batch_object(batch, self._base()))

    def _create_batch(self, body: dict[str, Any]) -> Refused | None:
        content = self.state.files.get(body["input_file_id"])
        if content is None:
            return Refused(status=404, kind="invalid_request_error", message=f"no file {body['input_file_id']}")
        if body["endpoint"] != "/v1/chat/completions" or body["completion_window"] != "24h":
            return Refused(status=400, kind="invalid_request_error", message="endpoint or completion_window")
        lines = [json.loads(line) for line in content.splitlines() if line.strip()]
        items = [(line["custom_id"], _asked("chat", line["body"])) for line in lines]
        refused = self._check_items("chat", [custom_id for custom_id, _ in items])
        if refused is not None:
            return refused
        batch, lost = self.state.add_batch(
            "chat", items, metadata=body.get("metadata") or {}, input_file=body["input_file_id"]
        )
        if lost:
            raise _DroppedError
        return self._send(openai_wire.batch_object(batch))

    def _check_items(self, wire: Wire, custom_ids: list[str]) -> Refused | None:
        limit = self.state.scenario.batches.max_requests or MAX_REQUESTS[wire]
        if not 0 < len(custom_ids) <= limit:
            message = f"a batch holds 1 to {limit} requests; found {len(custom_ids)}"
        elif len(set(custom_ids)) < len(custom_ids):
            message = "custom_id must be unique within a batch"
        elif any(not 0 < len(custom_id) <= 64 for custom_id in custom_ids):
            message = "custom_id must have 1 to 64 characters"
        else:
            return None
        return Refused(status=400, kind="invalid_request_error", message=message)

    def _batch(self, method: str, batch_id: str, rest: list[str]) -> Refused | None:
        batch = self.state.batches.get(batch_id)
        if batch is None:
            return Refused(status=404, kind="not_found_error", message=f"no batch {batch_id}")
        if rest == ["cancel"] and method == "POST":
            with self.state.lock:
                batch.cancelled = batch.cancelled or not batch.is_over(time.time())
        elif rest or method != "GET":
            return Refused(status=404, kind="not_found_error", message="nothing here")
        self.state.settle(batch)
        return self._send(self._shown(batch))

    def _shown(self, batch: Batch) -> dict[str, Any]:
        if batch.wire == "messages":
            return anthropic_wire.batch_object(batch, self._base(), archived=self._is_archived(batch))
        if batch.settled and len(batch.files) == 1:
            self._write_files(batch)
        return openai_wire.batch_object(batch)

    def _is_archived(self, batch: Batch) -> bool:
        return time.time() - batch.created > self.state.scenario.batches.kept_s

    def _write_files(self, batch: Batch) -> None:
        with self.state.lock:
            output: list[dict[str, Any]] = []
            errors: list[dict[str, Any]] = []
            for item in _shuffled(batch, self.state.scenario.seed):
                (output if isinstance(item.result, Reply) else errors).append(openai_wire.result_line(batch, item))
            for name, lines in (("output", output), ("error", errors)):
                file_id = f"file-{digest([batch.batch_id, name])[:24]}" if lines else ""
                if lines:
                    self.state.files[file_id] = b"".join(
                        json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines
                    )
                batch.files.append(file_id)

    def _list(self, wire: Wire, query: Mapping[str, str]) -> Refused | None:
        with self.state.lock:
            found = [batch for batch in self.state.batches.values() if batch.wire == wire][::-1]
        after = query.get("after_id") or query.get("after")
        if after:
            ids = [batch.batch_id for batch in found]
            if after not in ids:
                return Refused(status=404, kind="not_found_error", message=f"no batch {after}")
            found = found[ids.index(after) + 1 :]
        limit = int(query.get("limit", 20))
        page = found[:limit]
        for batch in page:
            self.state.settle(batch)
        shown = [self._shown(batch) for batch in page]
        return self._send(
            {
                "object": "list",
                "data": shown,
                "has_more": len(found) > limit,
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
            }
        )

    def _results(self, batch_id: str) -> Refused | None:
        batch = self.state.batches.get(batch_id)
        if batch is None or self._is_archived(batch):
            return Refused(status=404, kind="not_found_error", message=f"no results of {batch_id}")
        self.state.settle(batch)
        if not batch.settled:
            return Refused(status=404, kind="not_found_error", message=f"{batch_id} has not ended")
        lines = (anthropic_wire.result_line(item) for item in _shuffled(batch, self.state.scenario.seed))
        text = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
        return self._send_bytes(text, "application/x-jsonl")

    # Files

    def _upload(self, body: bytes) -> Refused | None:
        head = b"content-type: " + self.headers["content-type"].encode() + b"\r\n\r\n"
        form = BytesParser(policy=HTTP).parsebytes(head + body)
        content, purpose = b"", ""
        for part in form.iter_parts():
            name = part.get_param("name", header="content-disposition")
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            if name == "file":
                content = payload
            elif name == "purpose":
                purpose = payload.decode()
        if purpose != "batch":
            return Refused(status=400, kind="invalid_request_error", message="purpose must be batch")
        if len(content) > (self.state.scenario.batches.max_bytes or MAX_BYTES["chat"]):
            return Refused(status=413, kind="invalid_request_error", message="the file exceeds the maximum size")
        with self.state.lock:
            self.state.num_uploads += 1
            file_id = f"file-{digest(['input', self.state.num_uploads])[:24]}"
            self.state.files[file_id] = content
        return self._send(openai_wire.file_object(file_id, len(content)))

    def _file(self, method: str, file_id: str) -> Refused | None:
        content = self.state.files.get(file_id)
        if content is None:
            return Refused(status=404, kind="invalid_request_error", message=f"no file {file_id}")
        if method == "DELETE":
            del self.state.files[file_id]
            return self._send({"id": file_id, "object": "file", "deleted": True})
        return self._send(openai_wire.file_object(file_id, len(content)))

    def _content(self, file_id: str) -> Refused | None:
        content = self.state.files.get(file_id)
        owner = next((batch for batch in self.state.batches.values() if file_id in batch.files), None)
        if content is None or (owner is not None and self._is_archived(owner)):
            return Refused(status=404, kind="invalid_request_error", message=f"no content of file {file_id}")
        return self._send_bytes(content, "application/octet-stream")

    # Sending

    def _base(self) -> str:
        return f"http://{self.headers.get('host', '')}"

    def _send(self, body: dict[str, Any]) -> Refused | None:
        return self._send_bytes(
            json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"), "application/json"
        )

    def _send_bytes(
        self, body: bytes, content_type: str, status: int = 200, more: Mapping[str, str] | None = None
    ) -> Refused | None:
        self._head(status, len(body), content_type, more)
        self.wfile.write(body)
        self.wfile.flush()
        return None

    def _head(self, status: int, length: int, content_type: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(length))
        anthropic = "anthropic-version" in self.headers
        for name, limit, left, full_s in self.state.standing():
            if anthropic:
                reset = datetime.fromtimestamp(time.time() + full_s, UTC).isoformat()
                values = {"limit": str(limit), "remaining": str(left), "reset": reset}
                for field, value in values.items():
                    self.send_header(f"anthropic-ratelimit-{name}-{field}", value)
            else:
                short = "tokens" if name == "input-tokens" else name
                self.send_header(f"x-ratelimit-limit-{short}", str(limit))
                self.send_header(f"x-ratelimit-remaining-{short}", str(left))
                self.send_header(f"x-ratelimit-reset-{short}", f"{full_s:.3f}s")
        for name_, value in (more or {}).items():
            self.send_header(name_, value)
        self.end_headers()

    def _refuse(self, refused: Refused, *, anthropic: bool) -> None:
        more = {} if refused.retry_after_s is None else {"retry-after": f"{refused.retry_after_s:.3f}"}
        body = anthropic_wire.error(refused) if anthropic else {"error": openai_wire.error(refused)}
        self._send_bytes(json.dumps(body, ensure_ascii=False).encode(), "application/json", refused.status, more)


def _json(body: bytes) -> dict[str, Any]:
    value = json.loads(body)
    if not isinstance(value, dict):
        raise TypeError("the body must be a JSON object")
    return value


def _asked(wire: Wire, body: Mapping[str, Any]) -> Asked | Refused:
    """A request body of either wire, or the 400 that it earns."""

    def wrong(message: str) -> Refused:
        return Refused(status=400, kind="invalid_request_error", message=message)

    if body.get("stream"):
        return wrong("stream: this server does not stream")
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    if not isinstance(body.get("model"), str) or not body.get("messages"):
        return wrong("model and messages are required")
    if wire == "messages":
        if not isinstance(limit, int) or limit < 1:
            return wrong("max_tokens: an integer of at least 1 is required")
        for name in _SAMPLING:
            if name in body:
                return wrong(f"{name}: sampling parameters are not supported by this API version")
    content = body["messages"][-1]["content"]
    blocks = [{"text": content}] if isinstance(content, str) else content
    texts = [str(block.get("text") or "") for block in blocks]
    if wire == "messages" and not all(texts):
        return wrong("messages: text content blocks must be non-empty")
    if len(texts) == 2 and texts[1].startswith("\n\n"):
        document, instruction = texts[0], texts[1][2:]
    else:
        document, instruction = answers.split_prompt("".join(texts))
    return Asked(
        wire=wire,
        model=body["model"],
        document=document,
        instruction=instruction,
        max_tokens=limit if isinstance(limit, int) else 4_096,
        marked=wire == "chat" or any("cache_control" in block for block in blocks),
    )


def _shuffled(batch: Batch, seed: int) -> list[BatchItem]:
    return sorted(batch.items, key=lambda item: uniform(seed, batch.batch_id, item.custom_id))

"""Requests out as a file, replies in from a file: a way to ask a teacher that this machine never talks to.

Out: one JSON object a line. For provider `openai` the format of OpenAI's Batch API, which `vllm run-batch` reads too:

    {"custom_id": "9f0c...", "method": "POST", "url": "/v1/chat/completions", "body": {"model": ..., "messages": [...], ...}}

and for `anthropic` that of a Message Batch (`{"custom_id": ..., "params": {...}}`). In: the lines that came of it, in any
order, of any number of files:

    {"custom_id": "9f0c...", "response": {"status_code": 200, "body": {...}}, "error": null}
    {"custom_id": "9f0c...", "result": {"type": "succeeded", "message": {...}}}

Two rounds make a data set: the questions, and once they are in, the answers (paid checks are a third). The ids are the
ledger's own, so it makes no difference in the end how a reply came.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longalign_data.errors import UserError
from longalign_data.generation.asking import keep
from longalign_data.generation.documents import SelectedDocuments
from longalign_data.generation.exchange import Plan, waiting
from longalign_data.generation.ledger import Call, Ledger
from longalign_data.generation.submissions import Submissions
from longalign_data.teachers.anthropic import content_of
from longalign_data.teachers.base import Raw, prompt
from longalign_data.teachers.retry import fault_of_status, fault_within

SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What a file of requests holds: how many of each kind (`num_checks`: the paid ones), and its bytes."""

    num_questions: int
    num_answers: int
    num_checks: int
    num_bytes: int

    @property
    def num_requests(self) -> int:
        return self.num_questions + self.num_answers + self.num_checks


@dataclass(slots=True, kw_only=True)
class Imported:
    """What became of the lines of a file: replies `num_stored` in the ledger, `num_known` that were there already, and the
    others by what is wrong with them, with the first few in words. `num_waiting` requests still have no reply."""

    num_lines: int = 0
    num_stored: int = 0
    num_known: int = 0
    num_waiting: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def problem(self, reason: str, example: str) -> None:
        self.problems[reason] += 1
        if len(self.examples) < SHOWN_PROBLEMS:
            self.examples.append(example)


def export_requests(documents: SelectedDocuments, plan: Plan, ledger: Ledger, path: Path) -> Exported:
    """Writes every request that can be asked now and has no reply. Nothing is written to the ledger. Raises UserError for
    a teacher that answers by itself, and while a batch is out."""
    line = _form(plan)
    Submissions(ledger).require_none_out(plan.recipe)
    counts: Counter[str] = Counter()
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for document in documents.documents(documents.left(plan, ledger)):
                for call in waiting(document, plan, ledger):
                    file.write(json.dumps(line(call), ensure_ascii=False) + "\n")
                    counts[call.kind] += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(
        num_questions=counts["question"],
        num_answers=counts["answer"],
        num_checks=counts["closed-book"] + counts["judge"],
        num_bytes=path.stat().st_size,
    )


def import_replies(documents: SelectedDocuments, plan: Plan, ledger: Ledger, path: Path) -> Imported:
    """Stores the replies of a file in the ledger. A request that has a reply keeps it. A line that is torn, failed or of
    another build is counted and left out, and its request stays to be asked; final are a prompt too long for the model, and a
    request that was refused where others of the file were answered. Raises UserError when the file cannot be read."""
    _form(plan)
    result = Imported()
    replies = _replies(path, result)
    used: set[str] = set()
    # A request that is refused where others are answered will always be; where nothing was, the fault is the recipe's.
    final = {"context-exceeded"} | ({"bad-request"} if any(reply.raw for reply in replies.values()) else set())
    for document in documents.documents(documents.left(plan, ledger)):
        while calls := waiting(document, plan, ledger):
            here = [call for call in calls if call.request_id in replies and call.request_id not in used]
            for call in here:
                used.add(call.request_id)
                _store(call, replies[call.request_id], plan, ledger, result, final)
            if not here:
                break
        result.num_waiting += len(calls)
    for custom_id in replies.keys() - used:
        if ledger.reply(custom_id) is not None:
            result.num_known += 1
        else:
            result.problem("another build", f"{custom_id}: not a request of this build that waits for a reply")
    return result


@dataclass(frozen=True, slots=True)
class _Reply:
    raw: Raw | None
    status: int
    message: str


def _store(call: Call, reply: _Reply, plan: Plan, ledger: Ledger, result: Imported, final: Collection[str]) -> None:
    if reply.raw is None:
        fault = fault_of_status(reply.status, reply.message, {})
        if fault.reason in final:
            ledger.begin(call)
            ledger.refused(call, reason=fault.reason, message=reply.message)
        result.problem(fault.reason, f"{call.request_id}: {fault.message}")
        return
    try:
        plan.read(reply.raw)
    except ValueError as error:
        result.problem("not in the provider's format", f"{call.request_id}: {error}")
        return
    with ledger.together():
        ledger.begin(call)
        keep(ledger, call, reply.raw, plan)
    result.num_stored += 1


def _replies(path: Path, result: Imported) -> Mapping[str, _Reply]:
    """The lines of a file by their request; of two for one request the one that succeeded, else the last."""
    found: dict[str, _Reply] = {}
    for number, text in _lines(path):
        result.num_lines += 1
        try:
            line = json.loads(text)
            custom_id, reply = _reply(line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            result.problem("unreadable line", f"{path}:{number}: {error}")
            continue
        if custom_id not in found or found[custom_id].raw is None:
            found[custom_id] = reply
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.decode("utf-8", "replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _reply(line: Any) -> tuple[str, _Reply]:
    if not isinstance(line, dict) or not isinstance(line.get("custom_id"), str):
        raise ValueError("expected an object with the text `custom_id`")
    custom_id: str = line["custom_id"]
    result, response = line.get("result"), line.get("response")
    if isinstance(result, dict):
        message = result.get("message")
        if result.get("type") == "succeeded" and isinstance(message, dict):
            return custom_id, _Reply(message, 200, "")
        error = result.get("error")
        inner = error.get("error", error) if isinstance(error, dict) else None
        is_invalid = isinstance(inner, dict) and inner.get("type") == "invalid_request_error"
        return custom_id, _Reply(None, 400 if is_invalid else 503, _said(inner) or str(result.get("type")))
    if isinstance(response, dict):
        status = response.get("status_code", 200)
        # vllm run-batch has put the completion itself here, without the envelope, in some releases.
        body = response.get("body", response)
        if isinstance(status, int) and status < 300 and isinstance(body, dict) and not line.get("error"):
            fault = fault_within(body, {})
            if fault is None:
                return custom_id, _Reply(body, status, "")
            means = 503 if fault.retryable else 413 if fault.reason == "context-exceeded" else 400
            return custom_id, _Reply(None, means, fault.message)
        said = _said(line.get("error")) or _said(body)
        return custom_id, _Reply(None, status if isinstance(status, int) and status >= 300 else 503, said)
    if line.get("error"):
        return custom_id, _Reply(None, 503, _said(line["error"]))
    raise ValueError("expected `response` or `result`, found neither; is this the file of requests?")


def _said(error: Any) -> str:
    if isinstance(error, dict):
        inner = error.get("error", error)
        return str(inner.get("message", inner)) if isinstance(inner, dict) else str(inner)
    return str(error) if error else ""


def _openai_line(call: Call) -> dict[str, Any]:
    request = call.request
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": "user", "content": prompt(request)}],
        # OpenAI's newer models refuse `max_tokens`; vLLM knows both names.
        "max_completion_tokens": request.max_tokens,
        **request.parameters,
    }
    return {"custom_id": call.request_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def _anthropic_line(call: Call) -> dict[str, Any]:
    request = call.request
    params: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": [{"role": "user", "content": content_of(request)}],
        **request.parameters,
    }
    return {"custom_id": call.request_id, "params": params}


FORMS: dict[str, Callable[[Call], dict[str, Any]]] = {"openai": _openai_line, "anthropic": _anthropic_line}
"""How a request is written, by provider."""


def _form(plan: Plan) -> Callable[[Call], dict[str, Any]]:
    provider = plan.recipe.generate.teacher.provider
    if provider not in FORMS:
        known: Sequence[str] = sorted(FORMS)
        raise UserError(
            f"generate.teacher.provider: {provider!r} answers by itself, there is nothing to ask elsewhere; requests can be "
            f"exported for: {', '.join(known)}"
        )
    return FORMS[provider]

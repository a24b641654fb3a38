"""What the fake provider remembers: attempts, limits, caches, batches, the meter and the log. It knows nothing of HTTP.

One line of the log, for a call that was answered:

    {"t": 0.412, "event": "call", "wire": "messages", "key": "9f0c...", "attempt": 1, "status": 200, "fault": null,
     "stop": "end_turn", "usage": {"input": 210, "cache_write": 6120, "cache_read": 0, "output": 48}, "delivered": true}

`key` is a hash of model, prompt and limit: the same request has the same key, live and in a batch. Keys and addresses of
clients are never written.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from longalign_data.identity import digest, uniform
from longalign_data.teachers import doctor
from longalign_data.teachers.fake import answers
from longalign_data.teachers.fake.scenario import BATCH_ONLY, LIVE_ONLY, REFUSALS, Fault, Limits, Scenario

Wire = Literal["messages", "chat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as both wires understand it. `marked` says that the document carries a cache mark (or that the wire
    caches by itself)."""

    wire: Wire
    model: str
    document: str
    instruction: str
    max_tokens: int
    marked: bool

    @property
    def key(self) -> str:
        return digest([self.model, self.document + self.instruction.strip(), self.max_tokens])

    @property
    def num_tokens(self) -> int:
        return answers.count_tokens(self.document + self.instruction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """Tokens of one reply; `input` excludes cache writes and reads."""

    input: int
    cache_write: int = 0
    cache_read: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model said: the text, why it stopped, the fault that shaped it if any, and the bill."""

    text: str
    stop: Literal["end_turn", "max_tokens", "refusal", "context_exceeded"]
    fault: Fault | None
    billed: Billed


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An error in place of a reply: HTTP status, the provider's name for it, and what it says."""

    status: int
    kind: str
    message: str
    retry_after_s: float | None = None
    fault: Fault | None = None


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float

    def refill(self, limit: float, holds: float, now: float) -> None:
        self.level = min(holds, self.level + (now - self.at) * limit / 60)
        self.at = now


@dataclass(slots=True, kw_only=True)
class BatchItem:
    """One request of a batch, and its result once the batch has ended."""

    custom_id: str
    asked: Asked | Refused
    attempt: int
    result: Reply | Refused | Literal["expired"] | None = None


@dataclass(slots=True, kw_only=True)
class Batch:
    """A batch of either wire. `files` are the ids of its input, output and error file on the OpenAI wire."""

    batch_id: str
    wire: Wire
    items: list[BatchItem]
    created: float
    ready: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    failed: str | None = None
    failed_code: str = ""
    cancelled: bool = False
    settled: bool = False

    def is_over(self, now: float) -> bool:
        return self.failed is not None or self.cancelled or now >= self.ready


class State:
    """Everything that lasts between two requests; safe for many threads."""

    def __init__(self, scenario: Scenario, log: Path | None = None) -> None:
        self.scenario = scenario
        self.lock = threading.RLock()
        self.batches: dict[str, Batch] = {}
        self.files: dict[str, bytes] = {}
        self._log = log.open("a", encoding="utf-8") if log is not None else None
        self._began = time.monotonic()
        self._attempts: Counter[str] = Counter()
        self._cache: dict[str, float] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._busy = 0
        self._first: float | None = None
        self._lost_left = scenario.batches.lost_replies
        self._failures_left = scenario.batches.failures
        self.meter: Counter[str] = Counter()
        self.num_http = 0
        self.num_uploads = 0

    def note(self, event: str, **what: Any) -> None:
        """Adds a line to the log; it is there whole once this returns."""
        with self.lock:
            if self._log is not None:
                line = {"t": round(time.monotonic() - self._began, 4), "event": event, **what}
                self._log.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._log.flush()

    def close(self) -> None:
        """Closes the log; what happens from now on is not written."""
        with self.lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def check(self, asked: Asked) -> Refused | None:
        """What no attempt can get past: an account whose limit is reached, an unknown model, a prompt beyond the window."""
        limit = self.scenario.usage_limit_usd
        if limit is not None and self.usd() >= limit:
            message = (
                "You have reached your specified API usage limits. You will regain access on 2099-01-01 at 00:00 UTC."
            )
            return Refused(status=400, kind="invalid_request_error", message=message)
        known = self.scenario.models
        if known is not None and asked.model not in known:
            return Refused(status=404, kind="not_found_error", message=f"model: {asked.model}")
        if asked.num_tokens > self.scenario.context_tokens:
            return _too_long(asked.num_tokens, self.scenario.context_tokens)
        return None

    # Limits

    def limits(self, now: float) -> Limits:
        """The limits that hold at this moment."""
        if self._first is None:
            self._first = now
        found = self.scenario.limits
        for change in sorted(self.scenario.changes, key=lambda change: change.after_s):
            if now - self._first >= change.after_s:
                found = change.limits
        return found

    def enter(self, asked: Asked) -> Refused | None:
        """Takes a place for a call, or says how long to wait. A call that got one must `leave`."""
        with self.lock:
            now = time.monotonic()
            limits = self.limits(now)
            if limits.concurrent is not None and self._busy >= limits.concurrent:
                wait = max(0.05, self.scenario.latency_s / 2)
                return Refused(
                    status=429, kind="rate_limit_error", message="too many requests at once", retry_after_s=wait
                )
            cached = self._cached(asked, now) if asked.wire == "messages" else 0
            costs = (
                ("requests", limits.requests_per_minute, 1.0),
                ("input-tokens", limits.input_tokens_per_minute, float(asked.num_tokens - cached)),
            )
            for name, limit, cost in costs:
                if limit is None:
                    continue
                holds = limit * limits.burst_s / 60
                bucket = self._buckets.setdefault(name, _Bucket(holds, now))
                bucket.refill(limit, holds, now)
                if bucket.level < min(cost, holds):
                    wait = (min(cost, holds) - bucket.level) * 60 / limit
                    return Refused(
                        status=429,
                        kind="rate_limit_error",
                        message=f"this would exceed the limit of {limit} {name.replace('-', ' ')} per minute",
                        retry_after_s=wait,
                    )
            for name, limit, cost in costs:
                if limit is not None:
                    self._buckets[name].level -= cost
            self._busy += 1
            return None

    def leave(self) -> None:
        with self.lock:
            self._busy -= 1

    def standing(self) -> list[tuple[str, int, int, float]]:
        """For each limit: its name, the limit, what remains of it, and the seconds until it is full again."""
        with self.lock:
            now = time.monotonic()
            limits = self.limits(now)
            if not limits.tell:
                return []
            found = []
            for name, limit in (
                ("requests", limits.requests_per_minute),
                ("input-tokens", limits.input_tokens_per_minute),
            ):
                if limit is not None:
                    holds = limit * limits.burst_s / 60
                    bucket = self._buckets.setdefault(name, _Bucket(holds, now))
                    bucket.refill(limit, holds, now)
                    found.append((name, limit, max(0, int(bucket.level)), (holds - bucket.level) * 60 / limit))
            return found

    # Faults and replies

    def attempt(self, asked: Asked) -> int:
        """Counts an attempt at a request, from 1."""
        with self.lock:
            self._attempts[asked.key] += 1
            return self._attempts[asked.key]

    def fault(self, asked: Asked, attempt: int, *, in_batch: bool) -> Fault | None:
        """The fault that this attempt meets: the first of the scenario's that its draw falls into."""
        out_of_place = LIVE_ONLY if in_batch else BATCH_ONLY
        for number, fault in enumerate(self.scenario.faults):
            if fault.kind in out_of_place or (fault.attempts is not None and attempt > fault.attempts):
                continue
            # What some documents are refused for is not met by the tiny question that tells it from a closed account.
            if asked.document == doctor.DOCUMENT and fault.kind in REFUSALS and fault.share < 1:
                continue
            if uniform(self.scenario.seed, f"fault {number}", asked.key) < fault.share:
                return fault
        return None

    def refusal(self, asked: Asked, fault: Fault | None) -> Refused | None:
        """The error status that a fault stands for."""
        kinds = {
            "rate-limited": (429, "rate_limit_error", "number of requests has exceeded your rate limit"),
            "overloaded": (529, "overloaded_error", "Overloaded"),
            "server-error": (500, "api_error", "Internal server error"),
            "unavailable": (503, "api_error", "Service unavailable"),
            "invalid": (400, "invalid_request_error", "messages.0.content: this request is refused by the scenario"),
            "too-large": (413, "request_too_large", "Request exceeds the maximum size"),
            "errored": (500, "api_error", "Internal server error"),
        }
        if fault is None:
            return None
        if fault.kind == "too-long":
            return replace(_too_long(asked.num_tokens, self.scenario.context_tokens), fault=fault)
        if fault.kind not in kinds:
            return None
        status, kind, message = kinds[fault.kind]
        retry_after = fault.retry_after_s if fault.kind == "rate-limited" else None
        return Refused(status=status, kind=kind, message=message, retry_after_s=retry_after, fault=fault)

    def reply(self, asked: Asked, fault: Fault | None, *, in_batch: bool) -> Reply:
        """What the model says to a request, and what it costs; the meter runs."""
        kind = fault.kind if fault else None
        text = answers.answer(asked.document, asked.instruction, seed=self.scenario.seed)
        stop: Literal["end_turn", "max_tokens", "refusal", "context_exceeded"] = "end_turn"
        if kind in {"refusal", "empty"}:
            text, stop = "", "refusal" if kind == "refusal" else "end_turn"
        elif kind == "context-exceeded":
            text, stop = text[: len(text) // 2], "context_exceeded"
        elif kind == "max-tokens" or answers.count_tokens(text) > asked.max_tokens:
            text, stop = text[: min(len(text) // 2, 2 * asked.max_tokens)], "max_tokens"
        output = 0 if kind == "refusal" else answers.count_tokens(text) + (50 if kind == "thinking-first" else 0)
        billed = Billed(input=100, output=output) if kind == "cut-prompt" else self._bill(asked, output)
        share = self.scenario.prices.batch if in_batch else 1.0
        prices = self.scenario.prices
        dollars = share * (
            billed.input * prices.input
            + billed.cache_write * prices.input * prices.cache_write
            + billed.cache_read * prices.input * prices.cache_read
            + billed.output * prices.output
        )
        with self.lock:
            self.meter.update({f"{name}_tokens": count for name, count in asdict(billed).items()})
            self.meter["batch_replies" if in_batch else "live_replies"] += 1
            self.meter["nano_usd"] += round(dollars * 1_000)
        return Reply(text=text, stop=stop, fault=fault, billed=billed)

    def usd(self) -> float:
        """What everything so far costs by the scenario's prices."""
        return self.meter["nano_usd"] / 1e9

    def _cache_key(self, asked: Asked) -> str:
        return digest([asked.wire, asked.model, asked.document])

    def _cached(self, asked: Asked, now: float) -> int:
        """Tokens of the prefix that stand in the cache and will be found."""
        num = answers.count_tokens(asked.document)
        cache = self.scenario.cache
        if not asked.marked or num < cache.min_tokens or self._cache.get(self._cache_key(asked), 0.0) < now:
            return 0
        return num if uniform(self.scenario.seed, "cache", asked.key) < cache.hit_rate else 0

    def _bill(self, asked: Asked, output: int) -> Billed:
        with self.lock:
            now = time.monotonic()
            cached = self._cached(asked, now)
            num = answers.count_tokens(asked.document)
            can_cache = asked.marked and num >= self.scenario.cache.min_tokens
            written = num - cached if can_cache and asked.wire == "messages" else 0
            if can_cache:
                self._cache[self._cache_key(asked)] = now + self.scenario.cache.seconds
            rest = asked.num_tokens - cached - written
            return Billed(input=max(0, rest), cache_write=written, cache_read=cached, output=output)

    # Batches

    def add_batch(
        self,
        wire: Wire,
        items: Sequence[tuple[str, Asked | Refused]],
        *,
        metadata: Mapping[str, str],
        input_file: str = "",
    ) -> tuple[Batch, bool]:
        """A new batch, and whether the reply to its submission gets lost."""
        with self.lock:
            now = time.time()
            held = [
                BatchItem(
                    custom_id=custom_id,
                    asked=asked,
                    attempt=self.attempt(asked) if isinstance(asked, Asked) else 1,
                )
                for custom_id, asked in items
            ]
            number = len(self.batches)
            name = digest([self.scenario.seed, "batch", number])[:24]
            batch = Batch(
                batch_id=f"{'msgbatch' if wire == 'messages' else 'batch'}_{name}",
                wire=wire,
                items=held,
                created=now,
                ready=now + self.scenario.batches.seconds,
                metadata=dict(metadata),
                files=[input_file] if input_file else [],
            )
            limit = self.scenario.batches.enqueued_tokens
            if wire == "chat" and limit is not None:
                waiting = sum(_tokens(other) for other in self.batches.values() if not other.is_over(now))
                if waiting + _tokens(batch) > limit:
                    batch.failed = f"Enqueued token limit reached. Limit: {limit} enqueued tokens."
                    batch.failed_code = "token_limit_exceeded"
            if wire == "chat" and self._failures_left > 0:
                self._failures_left -= 1
                batch.failed, batch.failed_code = "The batch failed.", self.scenario.batches.failure
            self.batches[batch.batch_id] = batch
            lost = self._lost_left > 0
            self._lost_left -= lost
            self.note(
                "batch",
                wire=wire,
                batch=batch.batch_id,
                failed=batch.failed,
                lost_reply=lost,
                items=[
                    {"custom_id": item.custom_id, "key": item.asked.key if isinstance(item.asked, Asked) else None}
                    for item in held
                ],
            )
            return batch, lost

    def settle(self, batch: Batch) -> None:
        """Makes the results of a batch whose time has come."""
        with self.lock:
            if batch.settled or batch.failed or not batch.is_over(time.time()):
                return
            for item in batch.items:
                item.result = self._result(batch, item)
            batch.settled = True
            self.note(
                "results",
                batch=batch.batch_id,
                items=[
                    {
                        "custom_id": item.custom_id,
                        "key": item.asked.key if isinstance(item.asked, Asked) else None,
                        "result": item.result if isinstance(item.result, str) else type(item.result).__name__.lower(),
                        "status": item.result.status if isinstance(item.result, Refused) else None,
                    }
                    for item in batch.items
                ],
            )

    def _result(self, batch: Batch, item: BatchItem) -> Reply | Refused | Literal["expired"]:
        if isinstance(item.asked, Refused):
            return item.asked
        refused = self.check(item.asked)
        fault = None if batch.cancelled else self.fault(item.asked, item.attempt, in_batch=True)
        if batch.cancelled or (fault is not None and fault.kind == "expired"):
            return "expired"
        refused = refused or self.refusal(item.asked, fault)
        return refused or self.reply(item.asked, fault, in_batch=True)


def _tokens(batch: Batch) -> int:
    return sum(item.asked.num_tokens for item in batch.items if isinstance(item.asked, Asked))


def _too_long(found: int, limit: int) -> Refused:
    return Refused(
        status=400, kind="invalid_request_error", message=f"prompt is too long: {found} tokens > {limit} maximum"
    )

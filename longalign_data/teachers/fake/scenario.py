"""Scenario files: how the fake provider behaves. Everything is drawn from `seed` and the request itself, so the same
requests meet the same faults in whatever order they come.

    seed: 7
    latency_s: 0.05
    limits: {requests_per_minute: 600, input_tokens_per_minute: 2000000}
    faults:
      - {kind: overloaded, share: 0.1, attempts: 2}     # the first two attempts of a tenth of the requests
      - {kind: refusal, share: 0.05}                    # every attempt of a twentieth of them
    batches: {seconds: 3}
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from longalign_data import yamlfile
from longalign_data.yamlfile import Strict

FaultKind = Literal[
    "rate-limited", "overloaded", "server-error", "unavailable", "drop", "half-body", "lost-reply", "timeout",
    "invalid", "too-long", "too-large", "refusal", "max-tokens", "context-exceeded", "thinking-first",
    "several-blocks", "empty", "cut-prompt", "expired", "errored",
]  # fmt: skip

LIVE_ONLY: frozenset[FaultKind] = frozenset(
    {
        "rate-limited",
        "overloaded",
        "server-error",
        "unavailable",
        "drop",
        "half-body",
        "lost-reply",
        "timeout",
        "too-large",
    }
)
BATCH_ONLY: frozenset[FaultKind] = frozenset({"expired", "errored"})
REFUSALS: frozenset[FaultKind] = frozenset({"invalid", "too-long", "too-large"})

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]


class Fault(Strict):
    """What goes wrong with a `share` of the requests, in each one's first `attempts` (all, when not given).

    Of one call alone: `rate-limited` (429 with retry-after), `overloaded` (529), `server-error` (500), `unavailable` (503),
    `drop` (the connection ends without a byte), `half-body`, `lost-reply` (answered and billed, then dropped), `timeout`
    (silence for `seconds`, then dropped), `too-large` (413). Of calls and batch items: `invalid` and `too-long` (400),
    and the replies `refusal`, `max-tokens`, `context-exceeded`, `thinking-first`, `several-blocks`, `empty`, `cut-prompt`
    (only 100 tokens of the prompt are read and billed, without a word). Of batch items alone: `expired` and `errored`
    (the server's fault, worth asking again).
    """

    kind: FaultKind
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    attempts: Count | None = None
    retry_after_s: Seconds = 1.0
    seconds: Seconds = 60.0


class Limits(Strict):
    """What the server takes; nothing given, no limit. Buckets fill continuously, as the real ones do. Tokens read from the
    cache do not count on Anthropic's wire and do on OpenAI's. A bucket holds what flows into it in `burst_s` seconds. `tell` says
    whether the limits stand in the response headers."""

    concurrent: Count | None = None
    requests_per_minute: Count | None = None
    input_tokens_per_minute: Count | None = None
    burst_s: Annotated[float, Field(gt=0)] = 60.0
    tell: bool = True


class LimitsFrom(Strict):
    """Other limits, from `after_s` seconds after the first request on."""

    after_s: Seconds
    limits: Limits


class Cache(Strict):
    """The prompt cache: prefixes from `min_tokens`, kept `seconds` after their last use, found with chance `hit_rate`."""

    min_tokens: Count = 1_024
    seconds: Seconds = 300.0
    hit_rate: Annotated[float, Field(ge=0, le=1)] = 1.0


class Batches(Strict):
    """A batch takes `seconds`; its results are kept `kept_s` after its creation. `enqueued_tokens` is the limit of all
    waiting batches of the OpenAI wire together. `lost_replies` of the first submissions are accepted, and their replies
    dropped. `failures` of the first batches of the OpenAI wire fail as a whole, for `failure`."""

    seconds: Seconds = 1.0
    kept_s: Seconds = 29 * 86_400.0
    max_requests: Count | None = None
    max_bytes: Count | None = None
    enqueued_tokens: Count | None = None
    lost_replies: Annotated[int, Field(ge=0)] = 0
    failures: Annotated[int, Field(ge=0)] = 0
    failure: str = "billing_hard_limit_reached"


class Prices(Strict):
    """Dollars for a million tokens, and what multiplies the price of input (cache) and of everything (batch)."""

    input: Seconds = 2.0
    output: Seconds = 10.0
    cache_write: Seconds = 1.25
    cache_read: Seconds = 0.1
    batch: Seconds = 0.5


class Scenario(Strict):
    """How the fake provider behaves. With `key` every other API key is refused; `models` are the only ones known, where
    given. A reply takes `latency_s`. Once `usage_limit_usd` are spent, every request is refused, as by an account whose limit is
    reached."""

    seed: int = 0
    key: str | None = None
    models: list[str] | None = None
    latency_s: Seconds = 0.0
    context_tokens: Count = 1_000_000
    limits: Limits = Limits()
    changes: list[LimitsFrom] = []
    cache: Cache = Cache()
    batches: Batches = Batches()
    prices: Prices = Prices()
    usage_limit_usd: Seconds | None = None
    faults: list[Fault] = []


def load_scenario(path: Path) -> Scenario:
    """The scenario of a file. Raises RecipeError naming file, line and key."""
    return yamlfile.load(path, Scenario)

"""What a build's teacher was asked over time: replies, tokens, cache and dollars.

In: `ledger.sqlite`, opened so that nothing in it can change, and prices. Out: at most `BANDS` spans of equal time. The
ledger is never published; without it there are none.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from longalign_data.errors import BuildError
from longalign_data.records import Usage
from longalign_data.shards.folder import BuildFolder
from longalign_data.teachers.prices import FREE, Prices
from longalign_data.teachers.table import PROVIDERS

BANDS = 60
_STEPS = [timedelta(seconds=s) for s in (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 86400, 7 * 86400)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """The replies that came in from `begin` on, for as long as `seconds`. `usd` counts those with a known price."""

    begin: datetime
    seconds: float
    replies: int
    refused: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: float


def calls_over_time(build: BuildFolder, prices: Prices) -> Sequence[Calls]:
    """From the first reply to the last, spans without replies included. Raises BuildError for what is no ledger."""
    if not build.ledger.is_file():
        return []
    try:
        with closing(_open(build)) as db:
            return list(_bands(db, prices))
    except (sqlite3.Error, ValueError) as error:
        raise BuildError(f"{build.ledger}: the ledger cannot be read: {error}") from None


def _open(build: BuildFolder) -> sqlite3.Connection:
    # Without a log that another process may be writing, nothing but the file itself needs to be looked at or created.
    log = build.ledger.with_name(f"{build.ledger.name}-wal")
    quiet = not log.is_file() or log.stat().st_size == 0
    return sqlite3.connect(f"{build.ledger.absolute().as_uri()}?mode=ro{'&immutable=1' if quiet else ''}", uri=True)


def _bands(db: sqlite3.Connection, prices: Prices) -> Iterator[Calls]:
    first, last = db.execute("SELECT min(received), max(received) FROM replies").fetchone()
    if first is None:
        return
    begin, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    step = next((step for step in _STEPS if (end - begin) / step < BANDS), (end - begin) / (BANDS - 1))
    begin = datetime.fromtimestamp(begin.timestamp() // step.total_seconds() * step.total_seconds(), UTC)
    sums = [[0, 0, 0, 0, 0, 0.0] for _ in range(int((end - begin) / step) + 1)]
    (batches,) = db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'submission_items'").fetchone()
    batched = (
        {row[0] for row in db.execute("SELECT request_id FROM submission_items JOIN submissions USING (submission_id)")}
        if batches
        else set()
    )
    (others,) = db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'taken_over'").fetchone()
    if others:
        batched |= {row[0] for row in db.execute("SELECT request_id FROM taken_over WHERE was_in_batch")}
    rates = {
        pair: FREE if pair[0] in PROVIDERS and PROVIDERS[pair[0]].is_free else prices.rate(*pair)
        for pair in db.execute("SELECT DISTINCT provider, model FROM requests").fetchall()
    }
    rows = db.execute(
        "SELECT request_id, provider, model, received, failure, coalesce(input_tokens, 0), coalesce(cache_write_tokens, 0), "
        "coalesce(cache_read_tokens, 0), coalesce(output_tokens, 0) FROM replies JOIN requests USING (request_id)"
    )
    for request_id, provider, model, received, failure, given, written, cached, output in rows:
        band = sums[int((datetime.fromisoformat(received) - begin) / step)]
        usage = Usage(input_tokens=given, cache_write_tokens=written, cache_read_tokens=cached, output_tokens=output)
        rate = rates[provider, model]
        for place, value in enumerate((1, failure is not None, given + written + cached, cached, output)):
            band[place] += value
        band[5] += rate.cost(usage, batch=request_id in batched) if rate is not None and failure is None else 0.0
    for number, (replies, refused, prompt, cached, output, usd) in enumerate(sums):
        yield Calls(
            begin=begin + number * step,
            seconds=step.total_seconds(),
            replies=int(replies),
            refused=int(refused),
            prompt_tokens=int(prompt),
            cached_tokens=int(cached),
            output_tokens=int(output),
            usd=usd,
        )

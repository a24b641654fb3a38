"""Saying what goes on while nothing is finished: somebody may be waiting for ten minutes beside a server that is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from longalign_data.engine import Progress

EVERY_S = 1.0


@contextlib.asynccontextmanager
async def telling(progress: Progress, words: Callable[[], str]) -> AsyncIterator[None]:
    """Within it, what `words` says is told every second."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            progress.advance(note=words())

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

"""A provider's HTTP client, made once and beside the event loop: importing one takes a second on a slow machine, and calls that
are under way must not stand still for it."""

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any


class Client:
    """`make` gives the client when it is needed first, with all that its first request would import. May be used again
    after `close`."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None
        self._lock = threading.Lock()

    def get(self) -> Any:
        """The client; raises what `make` does."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    async def ready(self) -> Any:
        """As `get`, without holding up the loop."""
        return self._made if self._made is not None else await asyncio.to_thread(self._load)

    def _load(self) -> Any:
        import anyio

        client = self.get()
        anyio.run(anyio.sleep, 0)  # loads what the HTTP library needs of it for this kind of loop
        # What was imported stays. Each full collection would look through all of it, which held the loop for 60 to 90 ms.
        gc.collect()
        gc.freeze()
        return client

    async def close(self) -> None:
        """Closes the connections, if there ever were any."""
        if self._made is not None:
            await self._made.close()
            self._made = None
            gc.unfreeze()

"""How work runs: a map over jobs that gives the same results in the same order whatever runs it, and progress.

`map_ordered` is the one seam between the stages and the machine. Its results come in the order of the jobs, never in
the order of completion, so nothing downstream can depend on the number of workers.
"""

import itertools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from longalign_data.errors import BuildError

Job = TypeVar("Job")
Result = TypeVar("Result")


class Progress(Protocol):
    """Receives what a stage has done. Called from the main process only."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        """A stage begins: `total` items of `unit` are expected (None when unknown)."""

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        """`items` more are done, with `tokens` tokens; `note` is shown beside the bar when not empty."""


class Silent:
    """Progress that nobody watches."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        del label, total, unit

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        del items, tokens, note


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a build is run. Nothing in here is identity: any two values give the same rows in the same order.

    `schedule` says how the teacher is asked: `live`, one call after the other for each document, or `batch`, through the
    provider's batch API. `concurrency` is the most documents that are asked about at once; the level below it is found.
    `shard_bytes` and `row_group_bytes` are uncompressed Arrow bytes at which a file or a row group is closed.
    """

    workers: int = 1
    concurrency: int = 64
    schedule: Literal["live", "batch"] = "live"
    shard_bytes: int = 256 << 20
    row_group_bytes: int = 4 << 20


def map_ordered(function: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int) -> Iterator[Result]:
    """`function(job)` for each job, in the order of the jobs, on `workers` processes.

    With one worker everything runs here. Otherwise `function` and its jobs must be picklable (a module's own function
    and plain dataclasses): processes are spawned, not forked, as on macOS and Windows. At most 2 * workers results wait
    in memory. An exception of a job is raised here, at its place in the order, and ends the map. Raises BuildError when
    the system ended a worker process (most often for want of memory).
    """
    if workers <= 1:
        yield from map(function, jobs)
        return
    todo = iter(jobs)
    pending: deque[Future[Result]] = deque()
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        for job in itertools.islice(todo, 2 * workers):
            pending.append(pool.submit(function, job))
        while pending:
            yield pending.popleft().result()
            for job in itertools.islice(todo, 1):
                pending.append(pool.submit(function, job))
    except BrokenProcessPool as error:
        raise BuildError(
            f"the system ended one of the {workers} worker processes, most often because memory ran out; "
            "the same command goes on where this one was, with fewer at a time by --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; this ends it instead."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()

"""How work runs: a map over jobs that gives the same results in the same order whatever runs it, and progress.

`map_ordered` is the one seam between the stages and the machine, or the machines: local processes, or a Ray cluster. Its
results come in the order of the jobs, never in the order of completion, so nothing downstream can depend on the number of
workers. A worker that is lost (killed, out of memory, its machine gone) is replaced, and its jobs are done again.
"""

import itertools
import logging
import multiprocessing
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from longalign_data.errors import BuildError, MissingExtraError

Job = TypeVar("Job")
Result = TypeVar("Result")


class Progress(Protocol):
    """Receives what a stage has done. Called from the main process only."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        """A stage begins: `total` items of `unit` are expected (None when unknown)."""

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        """`items` more are done, with `tokens` tokens; `note` is shown beside the bar when not empty."""

    def say(self, words: str) -> None:
        """Something that somebody should read, now or in a log; it stays."""


class Silent:
    """Progress that nobody watches."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        del label, total, unit

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        del items, tokens, note

    def say(self, words: str) -> None:
        del words


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a build is run. Nothing in here is identity: any two values give the same rows in the same order.

    `schedule` says how the teacher is asked: `live`, one call after the other for each document, or `batch`, through the
    provider's batch API. `concurrency` is the most documents that are asked about at once; the level below it is found.
    `shard_bytes` and `row_group_bytes` are uncompressed Arrow bytes at which a file or a row group is closed. With
    `ray_address` the partitions run on the Ray cluster there (`auto`: the one this machine belongs to).
    """

    workers: int = 1
    ray_address: str | None = None
    concurrency: int = 64
    schedule: Literal["live", "batch"] = "live"
    shard_bytes: int = 256 << 20
    row_group_bytes: int = 4 << 20


ANSWER_S = 5
"""Seconds in which a head node must take a connection, and again in which it must answer."""

LOST_WORKERS = 3
"""How often in a row the workers may be lost before the same job is done."""


def map_ordered(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int, ray_address: str | None = None
) -> Iterator[Result]:
    """`function(job)` for each job, in the order of the jobs: on `workers` processes, or on the CPUs of a Ray cluster.

    With one worker everything runs here. Otherwise `function` and its jobs must be picklable (a module's own function
    and plain dataclasses): processes are spawned, not forked, as on macOS and Windows. At most 2 results a worker wait
    in memory. An exception of a job is raised here, at its place in the order, and ends the map. A job may be done more
    than once, when its worker is lost; BuildError is raised when workers are lost over and over.
    """
    if ray_address is not None:
        yield from _map_on_ray(function, jobs, ray_address)
    elif workers <= 1:
        yield from map(function, jobs)
    else:
        yield from _map_on_processes(function, jobs, workers)


def _map_on_processes(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    todo = iter(jobs)
    pending: deque[tuple[Job, Future[Result]]] = deque()
    pool = _pool(workers)
    lost = 0
    try:
        for job in itertools.islice(todo, 2 * workers):
            pending.append((job, pool.submit(function, job)))
        while pending:
            try:
                result = pending[0][1].result()
            except BrokenProcessPool:
                # The death of one worker takes the whole pool, and every job in it, with it.
                lost += 1
                pool.shutdown(wait=True, cancel_futures=True)
                if lost >= LOST_WORKERS:
                    raise BuildError(
                        f"the system ended worker processes {lost} times in a row (there are {workers}), most often because "
                        "memory ran out; the same command goes on where this one was, with fewer at a time by --workers"
                    ) from None
                pool = _pool(workers)
                pending = deque((job, pool.submit(function, job)) for job, _ in pending)
                continue
            lost = 0
            pending.popleft()
            yield result
            for job in itertools.islice(todo, 1):
                try:
                    future = pool.submit(function, job)
                except BrokenProcessPool:
                    # Found out in the next round, when the first job of the queue is asked for.
                    future = Future()
                    future.set_exception(BrokenProcessPool())
                pending.append((job, future))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)


def _map_on_ray(function: Callable[[Job], Result], jobs: Iterable[Job], address: str) -> Iterator[Result]:
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError:
        raise MissingExtraError("ray", extra="ray", purpose="running on a cluster") from None
    cluster: Any = ray  # parts of Ray carry no types
    # A program that has connected already, with options of its own, keeps its connection.
    connected_here = not ray.is_initialized()
    try:
        if connected_here:
            _connect(cluster, address)
        # A lost worker or machine is Ray's to notice: it does the job again elsewhere. An exception of a job is ours.
        remote = ray.remote(max_retries=LOST_WORKERS, retry_exceptions=False, scheduling_strategy="SPREAD")(function)
        todo = iter(jobs)
        pending: deque[Any] = deque()
        window = 2 * max(1, int(cluster.cluster_resources().get("CPU", 1)))
        pending.extend(remote.remote(job) for job in itertools.islice(todo, window))
        while pending:
            try:
                result: Result = ray.get(pending.popleft())
            except RayTaskError as error:
                raise error.cause from None
            yield result
            pending.extend(remote.remote(job) for job in itertools.islice(todo, 1))
    except (RayError, ConnectionError) as error:
        raise BuildError(
            f"the Ray cluster at {address!r} cannot be reached or has lost too many workers: {error}; what was finished stands"
        ) from error
    finally:
        if connected_here:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    try:
        _probe(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ray.exceptions.RayError, OSError, OverflowError, RuntimeError, ValueError) as error:
        # Ray has no type of its own for an address that is malformed or at which nothing answers.
        raise BuildError(
            f"no Ray cluster at {address!r}: {error}; expected host:port of a running head node (ray start --head "
            "--port=6379), or auto on a machine that belongs to one"
        ) from error


# The connection preface and an empty SETTINGS frame of RFC 9113, sections 3.4 and 6.5: a gRPC server answers them at once.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
_SETTINGS, _TLS_ALERT = 0x04, 0x15


def _probe(address: str) -> None:
    """Raises OSError where host:port cannot be a head node: nothing is there, or it does not answer as one. Ray itself tries for
    minutes. What is no host:port is Ray's to judge."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S) as connection:
            connection.sendall(_PREFACE)
            answer = connection.recv(9)
    except TimeoutError:
        raise OSError(f"it does not answer within {ANSWER_S} s") from None
    except ConnectionResetError:
        answer = b""
    # A server with TLS answers with an alert or hangs up.
    if answer and answer[0] != _TLS_ALERT and answer[3:4] != bytes([_SETTINGS]):
        raise OSError(f"what answers there is no Ray head node (it begins with {answer!r})")


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; this ends it instead."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()

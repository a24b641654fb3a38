"""Ranks as real processes, forked from a server that has imported torch, transformers and DeepSpeed once: importing takes
longer than most of what is tested here."""

import contextlib
import gc
import itertools
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from trainer.__main__ import main


def start(function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> list[BaseProcess]:
    """`function` with each of `arguments`, in as many processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trainer.preloaded"])
    processes = [context.Process(target=_quiet, args=(function, *given)) for given in arguments]
    for process in processes:
        process.start()
    return list(processes)


def finish(processes: Sequence[BaseProcess], timeout: float = 600) -> list[int | None]:
    """Exit codes; None for a process that did not end in time, which is killed then."""
    for process in processes:
        process.join(timeout)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def start_training(ranks: int, options: list[str], errors: Path) -> list[BaseProcess]:
    """`python -m trainer OPTIONS` on as many ranks; what they say on standard error goes to files named after `errors`."""
    port = str(free_port())
    return start(train_rank, [(rank, ranks, port, options, errors.with_suffix(f".{rank}")) for rank in range(ranks)])


def train(ranks: int, options: list[str], errors: Path) -> None:
    """The same to its end, which must be a good one."""
    codes = finish(start_training(ranks, options, errors))
    assert codes == [0] * ranks, errors.with_suffix(".0").read_text()[-4000:]


_PORTS = itertools.count(os.getpid())
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])


def free_port() -> int:
    """A port that nobody takes before the ranks do, seconds later: below those that the system gives out by itself, of a range
    that is this worker's own, and no two in succession alike."""
    for number in _PORTS:
        port = 20_000 + _WORKER % 8 * 1_000 + number % 1_000
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("they never end")


def _quiet(function: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # DeepSpeed collects garbage for every engine it makes; what is imported is none
    function(*arguments)


def train_rank(rank: int, ranks: int, port: str, options: list[str], errors: Path) -> None:
    """One rank of `start_training`, in its process."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "DS_ACCELERATOR": "cpu"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    with errors.open("w") as sys.stderr:
        code = main(options, os.environ)
    sys.exit(code)

"""kill -9 at random moments, faults on: nothing answered is asked again, nothing received is lost, no row changes.

Twelve kills by default; LONGALIGN_KILLS=200 for the whole proof (`make kills`). Every other build stands beside a trial whose
replies it takes over.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from longalign_data.identity import digest
from longalign_data.teachers import doctor
from longalign_data.teachers.fake import FakeServer
from tests.asked import Asked, log_of, rows, texts
from tests.generation.test_trials import asked_for, made

NUM_KILLS = int(os.environ.get("LONGALIGN_KILLS", "12"))
CONCURRENCY = 3
FAULTS = [
    {"kind": "refusal", "share": 0.1},
    {"kind": "overloaded", "share": 0.2, "attempts": 1},
    {"kind": "half-body", "share": 0.1, "attempts": 1},
    {"kind": "drop", "share": 0.1, "attempts": 1},
    {"kind": "expired", "share": 0.2, "attempts": 1},
    {"kind": "errored", "share": 0.1, "attempts": 1},
]


def replies(output: Path, name: str = "asked") -> dict[str, bytes]:
    """The raw replies of the ledger, by the key under which the provider logs their requests."""
    path = output / name / "1.0.0/ledger.sqlite"
    if not path.exists():
        return {}
    documents = {row["doc_id"]: row["text"] for row in rows(output, "documents", name)}
    documents[digest(doctor.DOCUMENT)] = doctor.DOCUMENT  # of the tiny question that goes ahead of a batch
    ledger = sqlite3.connect(path)
    try:
        found = ledger.execute(
            "SELECT document_id, model, instruction, max_tokens, raw FROM requests JOIN replies USING (request_id)"
        ).fetchall()
    except sqlite3.OperationalError:
        return {}  # killed before the tables were made
    finally:
        ledger.close()
    return {
        digest([model, documents[doc_id] + instruction.strip(), max_tokens]): raw
        for doc_id, model, instruction, max_tokens, raw in found
    }


def kill_after(process: "subprocess.Popen[str]", server: FakeServer, seconds: float) -> bool:
    """Kills so long after the process' first request; whether it was still alive."""
    before = server.state.num_http
    while server.state.num_http == before and process.poll() is None:
        time.sleep(0.005)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=300)
    return process.returncode == -signal.SIGKILL


@pytest.mark.timeout(150 * NUM_KILLS)
@pytest.mark.parametrize("schedule", ["live", "batch"])
def test_kills_at_random_moments_buy_nothing_twice_and_change_no_row(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, schedule: Literal["live", "batch"]
) -> None:
    asked = corpus("anthropic", count=24, size=10)
    scenario = {"seed": 8, "faults": FAULTS, "latency_s": 0.1, "batches": {"seconds": 0.3, "lost_replies": 1}}
    reference = serve(**scenario)
    asked.build(reference.url, tmp_path / "whole", "--schedule", schedule)
    whole, rejects = texts(tmp_path / "whole"), rows(tmp_path / "whole", "rejects")
    assert len(whole) + len(rejects) == 24
    made(asked, serve(**scenario).url, tmp_path / "tried", schedule=schedule, limit=8)
    trial = tmp_path / "tried/asked-limit-8"
    bought = set(replies(tmp_path / "tried", trial.name))
    assert len(bought) > 8
    moments = random.Random(9)
    num_left, number = NUM_KILLS // 2, 1
    while num_left:
        number += 1
        output, server = tmp_path / f"cut-{number}", serve(**scenario)
        has_trial = number % 2 == 0
        if has_trial:
            shutil.copytree(asked.prepared, output)
            shutil.copytree(trial, output / trial.name)
        kept: dict[str, bytes] = {}
        asked_so_far: dict[str, int] = {}
        num_kills = 0
        while num_left:
            process = asked.start(server.url, output, "--schedule", schedule, "--concurrency", str(CONCURRENCY))
            if not kill_after(process, server, moments.uniform(0, 0.5 if schedule == "live" else 1.2)):
                assert process.returncode == 0
                break
            num_left -= 1
            num_kills += 1
            time.sleep(0.2)  # what was under way is answered, into the void
            now = replies(output)
            assert kept.items() <= now.items(), "a reply was lost or changed"
            sent = Counter(line["key"] for line in log_of(tmp_path, number) if line["event"] == "call")
            assert all(sent[key] == count for key, count in asked_so_far.items()), "asked again though answered"
            kept, asked_so_far = now, {key: sent[key] for key in now}
        asked.build(server.url, output, "--schedule", schedule)
        assert kept.items() <= replies(output).items()
        assert texts(output) == whole
        assert rows(output, "rejects") == rejects
        log = log_of(tmp_path, number)
        assert not has_trial or not bought & set(asked_for(log)), "bought though a trial had paid for it"
        sent = Counter(line["key"] for line in log if line["event"] == "call")
        assert all(sent[key] == count for key, count in asked_so_far.items())
        delivered = Counter(line["key"] for line in log if line["event"] == "call" and line.get("delivered"))
        assert delivered.total() - len(delivered) <= CONCURRENCY * num_kills, "only what was under way"
        # Of a batch nothing is in danger, not even what was under way: the provider keeps it.
        answered: set[str] = set()
        for line in log:
            if line["event"] == "batch":
                assert not answered & {item["key"] for item in line["items"]}
            elif line["event"] == "results":
                answered |= {item["key"] for item in line["items"] if item["result"] == "reply"}

"""Live calls against a server that throttles and changes its mind: throughput beside the ideal, and the share refused.

python benchmarks/throttle.py [--curator PYTHON]

Four servers, each the fake provider in a process of its own: one takes so many calls at once and tells nothing, one takes so
many requests a minute and tells in its headers, and two take so many input tokens a minute, of which one tells; these are asked
about documents of 3,000 to 9,000 tokens on OpenAI's wire, where all of them count, twice about each. The limits change twice. The
ideal is what the limits allow. With `--curator`, bespoke curator (installed for that interpreter, as a user finds it, with no
limits given by hand) asks the first server beside us in the same run.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from record import store

from longalign_data.identity import draw_index
from longalign_data.recipe import TeacherChoice
from longalign_data.teachers.anthropic import AnthropicTeacher
from longalign_data.teachers.base import Connection, TeacherRequest
from longalign_data.teachers.openai import OpenAITeacher

PHASE_S = 30.0
WARM_UP_S = 10.0
LATENCY_S = 0.8
SCENARIOS: dict[str, list[dict[str, Any]]] = {
    "so many at once, told nothing": [{"concurrent": n, "tell": False} for n in (16, 8, 24)],
    "so many a minute, told in headers": [{"requests_per_minute": n, "burst_s": 2} for n in (1200, 600, 1800)],
    "so many tokens a minute, told in headers": [
        {"input_tokens_per_minute": n, "burst_s": 10} for n in (6_000_000, 3_000_000, 9_000_000)
    ],
    "so many tokens a minute, told nothing": [
        {"input_tokens_per_minute": n, "burst_s": 10, "tell": False} for n in (6_000_000, 3_000_000, 9_000_000)
    ],
}
SENTENCE = "The pumps were inspected. Nobody found anything. "


def ideal_per_second(limits: dict[str, Any]) -> float:
    """Requests, or input tokens where these are limited."""
    if "concurrent" in limits:
        return float(limits["concurrent"]) / LATENCY_S
    return float(limits.get("requests_per_minute") or limits["input_tokens_per_minute"]) / 60


async def ask_for(url: str, seconds: float, *, with_documents: bool, ceiling: int = 64) -> None:
    choice = TeacherChoice(provider="openai" if with_documents else "anthropic", model="fake-1")
    connection = Connection(api_key="fake", base_url=f"{url}/v1" if with_documents else url, concurrency=ceiling)
    teacher = OpenAITeacher(choice, connection) if with_documents else AnthropicTeacher(choice, connection)
    end = time.monotonic() + seconds

    async def work(worker: int) -> None:
        number = 0
        while time.monotonic() < end:
            instruction = f"Tell me something. {worker}.{number}"
            document = SENTENCE * 4
            if with_documents:
                drawn = draw_index(1, "sentences", f"{worker}.{number // 2}", 500)
                document = f"Report {worker}.{number // 2}. " + SENTENCE * (250 + drawn)
            await teacher.ask(
                TeacherRequest(model="fake-1", document=document, instruction=instruction, max_tokens=100)
            )
            number += 1

    await asyncio.gather(*(work(worker) for worker in range(ceiling)))
    await teacher.close()


def curator(python: str, url: str, seconds: float, folder: Path) -> None:
    environment = os.environ | {"OPENAI_API_KEY": "fake", "CURATOR_CACHE_DIR": str(folder / "curator")}
    environment |= {"CURATOR_VIEWER": "0", "TELEMETRY_ENABLED": "0", "HF_DATASETS_CACHE": str(folder / "hf")}
    said = folder / "curator.log"
    with said.open("w") as output:
        client = subprocess.Popen(
            [python, str(Path(__file__).with_name("curator_client.py")), url, "5000"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    log = folder / "log.jsonl"
    while '"status": 200' not in log.read_text(encoding="utf-8"):
        if client.poll() is not None:
            last = said.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            sys.exit(f"curator ended before its first answer: {last}")
        time.sleep(0.2)
    time.sleep(seconds)
    client.kill()
    client.wait()


def measure(
    name: str, phases: list[dict[str, Any]], folder: Path, ask: Callable[[str, float], None], client: str
) -> list[dict[str, Any]]:
    import yaml

    scenario = {
        "latency_s": LATENCY_S,
        "limits": phases[0],
        "changes": [{"after_s": PHASE_S * n, "limits": limits} for n, limits in enumerate(phases[1:], 1)],
    }
    (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario), encoding="utf-8")
    log = folder / "log.jsonl"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "longalign_data", "fake-provider", "--port", "0"]
    command += ["--scenario", str(folder / "scenario.yaml"), "--log", str(log)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[3]
        ask(url, PHASE_S * len(phases))
    finally:
        server.kill()
        server.wait()
    calls = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    began = next(call["t"] for call in calls if call["status"] == 200) - LATENCY_S
    rows = []
    for number, limits in enumerate(phases):
        # What is known of the phase before is warm-up of this one.
        start, stop = began + PHASE_S * number + WARM_UP_S, began + PHASE_S * (number + 1)
        inside = [call for call in calls if start <= call["t"] < stop]
        seen = Counter(call["status"] for call in inside)
        answered = seen[200]
        if "input_tokens_per_minute" in limits:
            kinds = ("input", "cache_write", "cache_read")
            answered = sum(call["usage"][kind] for call in inside if call["status"] == 200 for kind in kinds)
        ideal = ideal_per_second(limits)
        rows.append(
            {
                "client": client,
                "server": name,
                "limits": ", ".join(f"{key} {value}" for key, value in limits.items() if key != "tell"),
                "answered_per_s": round(answered / (stop - start), 2),
                "ideal_per_s": round(ideal, 2),
                "share_of_ideal": round(answered / (stop - start) / ideal, 3),
                "refused_share": round(seen[429] / max(1, seen.total()), 4),
            }
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--curator", help="an interpreter that has bespokelabs-curator")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        # First, since it may not start: it wants a file of tiktoken's, which it fetches or finds by TIKTOKEN_CACHE_DIR.
        beside: list[dict[str, Any]] = []
        if given.curator:
            name, phases = next(iter(SCENARIOS.items()))
            code = "import importlib.metadata as m; print(m.version('bespokelabs-curator'))"
            version = subprocess.check_output([given.curator, "-c", code], text=True).strip()
            beside = measure(name, phases, place, partial(curator, given.curator, folder=place), f"curator {version}")
        for name, phases in SCENARIOS.items():
            with_documents = "input_tokens_per_minute" in phases[0]

            def ours(url: str, seconds: float, with_documents: bool = with_documents) -> None:
                asyncio.run(ask_for(url, seconds, with_documents=with_documents))

            rows += measure(name, phases, place, ours, "longalign")
    store("throttle", [*rows, *beside], packages=("anthropic", "openai"))

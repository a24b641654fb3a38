"""Sixty-four prompts of 64,000 tokens at once: memory of the process, and how long its event loop stands still.

python benchmarks/live.py

The whole generate stage in a process of its own, against the fake provider in another; a heartbeat inside the loop asks to be
woken every 5 ms and notes by how much it is late, and how long the loop's own thread has worked meanwhile (`busy`: what it
did itself, whatever else this machine was doing). Hashing, encoding, compressing and the ledger are all in there.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpora
from record import peak_rss_mib, store

from longalign_data.build.pipeline import build, prepare
from longalign_data.engine import RunOptions, Silent
from longalign_data.recipe import load_recipe
from longalign_data.teachers.base import UNWATCHED, Raw, Teacher, TeacherRequest, Watch
from longalign_data.teachers.table import load_teacher

NUM, TOKENS = 64, 64_000
BEAT_S = 0.005
LATENCY_S = 3.0
"""Long enough for all prompts to be on their way together."""


class Watched:
    """A teacher that watches the loop that it is asked in."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._beat: asyncio.Task[None] | None = None
        self.late_s: list[float] = []
        self.busy_s: list[float] = []
        self.inside = self.most_inside = 0

    async def _watch(self) -> None:
        while True:
            due, used = time.monotonic() + BEAT_S, time.thread_time()
            await asyncio.sleep(BEAT_S)
            self.late_s.append(max(0.0, time.monotonic() - due))
            self.busy_s.append(time.thread_time() - used)

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        self._beat = self._beat or asyncio.create_task(self._watch())
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            return await self._teacher.ask(request, watch=watch)
        finally:
            self.inside -= 1

    async def close(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        await self._teacher.close()

    def status(self) -> str:
        return self._teacher.status()


def child(recipe: Path, output: Path, url: str) -> None:
    loaded = load_recipe(recipe)
    teacher = Watched(load_teacher(loaded.recipe.generate.teacher, api_key="fake", base_url=url, concurrency=NUM))
    run = RunOptions(concurrency=NUM)
    build(loaded, output, run=run, progress=Silent(), teacher=lambda: teacher, only="generate")
    late, busy = sorted(teacher.late_s), sorted(teacher.busy_s)
    row = {
        "most_prompts_at_once": teacher.most_inside,
        "resident_mb": round(peak_rss_mib() * (1 << 20) / 1e6),
        "loop_busy_max_ms": round(1e3 * busy[-1], 1),
        "loop_busy_p999_ms": round(1e3 * busy[int(0.999 * len(busy))], 1),
        "loop_late_max_ms": round(1e3 * late[-1], 1),
        "loop_late_p999_ms": round(1e3 * late[int(0.999 * len(late))], 1),
        "loop_late_p99_ms": round(1e3 * late[int(0.99 * len(late))], 1),
        "beats": len(late),
    }
    print(json.dumps(row))


def main(folder: Path) -> None:
    recipe = corpora.write(folder, [TOKENS] * NUM)
    output = folder / "out"
    prepare(load_recipe(recipe), output, run=RunOptions(), progress=Silent())
    (folder / "scenario.yaml").write_text(f"latency_s: {LATENCY_S}\n", encoding="utf-8")
    command = [sys.executable, "-m", "longalign_data", "fake-provider", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--scenario", str(folder / "scenario.yaml")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[3]
        command = [sys.executable, __file__, str(recipe), str(output), url]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    finally:
        server.kill()
        server.wait()
    store("live", [{"prompts": 2 * NUM, "tokens_each": TOKENS} | json.loads(said)], packages=("anthropic",))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))

"""Ingest and sample on a real Ray cluster of two nodes, one of which is killed in the middle.

Ray takes 127.0.0.1 for the machine's own outer address, so the nodes stand at 127.0.0.2 and 127.0.0.3.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from longalign_data.engine import RunOptions, Silent
from longalign_data.recipe import load_recipe
from longalign_data.records import Selected
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_records
from longalign_data.shards.stage import read_report
from longalign_data.sources.ingest import ingest

pytest.importorskip("ray")

ROOT = Path(__file__).parents[1]
HEAD, OTHER = "127.0.0.2", "127.0.0.3"

DRIVER = """
import sys, time
from pathlib import Path
import ray
from longalign_data.engine import RunOptions, Silent
from longalign_data.recipe import load_recipe
from longalign_data.shards.folder import BuildFolder
from longalign_data.sources.ingest import ingest

if __name__ == "__main__":
    recipe, root, address = sys.argv[1:]
    ray.init(address=address, _node_ip_address="127.0.0.2", log_to_driver=False)
    while len([node for node in ray.nodes() if node["Alive"]]) < 2:
        time.sleep(0.2)
    print("two nodes", flush=True)
    options = RunOptions(ray_address=address)
    ingest(load_recipe(Path(recipe)), BuildFolder(Path(root)), fingerprint="f", run=options, progress=Silent())
    print(len([node for node in ray.nodes() if node["Alive"]]), "left", flush=True)
"""


def free_port() -> int:
    # Ray keeps 10002-19999 for its workers.
    for port in random.sample(range(23_000, 29_000), 50):
        with socket.socket() as probe:
            try:
                probe.bind((HEAD, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
    }


@pytest.fixture
def nodes(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a cluster of two nodes of one CPU, and the process of the second; each has a session of its own."""
    # The paths of Ray's sockets must stay below 107 bytes.
    place = Path(f"/tmp/la-ray-{os.getpid()}")
    port = free_port()
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--block", "--disable-usage-stats"]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start"]
    head = [
        *ray,
        "--head",
        f"--node-ip-address={HEAD}",
        f"--port={port}",
        "--include-dashboard=false",
        f"--temp-dir={place}",
    ]
    other = [*ray, f"--address={HEAD}:{port}", f"--node-ip-address={OTHER}"]
    started = []
    try:
        for command in (head, other):
            log = (tmp_path_factory.mktemp("log") / "ray.log").open("wb")
            with log:
                process = subprocess.Popen(
                    [*command, *common], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
            started.append(process)
            wait_for_port(port)
        yield f"{HEAD}:{port}", started[1]
    finally:
        for process in started:
            kill(process)
        subprocess.run(["rm", "-rf", str(place)], check=False)


def wait_for_port(port: int) -> None:
    end = time.monotonic() + 300
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((HEAD, port)) == 0:
                return
        assert time.monotonic() < end, "the head node did not start"
        time.sleep(0.2)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a node with all its processes, which belong to its session, by their numbers."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
            except ProcessLookupError:
                continue
    process.wait()


@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs more than one loopback address and /proc, as on Linux")
def test_a_cluster_that_loses_a_node_gives_the_same_rows_bit_for_bit(
    tmp_path: Path, nodes: tuple[str, subprocess.Popen[bytes]], environment: dict[str, str]
) -> None:
    write_recipe(tmp_path, num_files=16, num_documents=3, num_words=40_000)
    (tmp_path / "driver.py").write_text(DRIVER)
    address, other = nodes
    build = BuildFolder(tmp_path / "ray")
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "recipe.yaml"), str(build.root), address]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as driver:
        try:
            end = time.monotonic() + 400
            while driver.poll() is None and not list(build.work("ingest").glob("*.json")):
                assert time.monotonic() < end, "nothing was finished"
                time.sleep(0.02)
            assert driver.poll() is None, driver.stderr and driver.stderr.read()
            kill(other)
            out, errors = driver.communicate(timeout=400)
        finally:
            driver.kill()
    assert driver.returncode == 0, errors
    assert out.startswith("two nodes\n")
    assert "the task will be retried" in out
    assert out.endswith("1 left\n")
    ingest(
        load_recipe(tmp_path / "recipe.yaml"),
        BuildFolder(tmp_path / "one"),
        fingerprint="f",
        run=RunOptions(),
        progress=Silent(),
    )
    clustered, alone = read_report(build, "ingest"), read_report(BuildFolder(tmp_path / "one"), "ingest")
    assert clustered is not None
    assert alone is not None
    assert clustered.num_out == 48
    assert clustered.shards == alone.shards
    assert clustered.details == alone.details


def command_line(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "longalign_data", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def write_recipe(folder: Path, *, num_files: int, num_documents: int, num_words: int) -> Path:
    """A corpus of so many files, documents a file and words a document, and the recipe that reads it."""
    rng = random.Random(1)
    words = [f"word{n}" for n in range(3000)]
    (folder / "c").mkdir()
    for part in range(num_files):
        texts = (" ".join(rng.choices(words, k=num_words)) for _ in range(num_documents))
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"c/{part:02d}.jsonl").write_text("".join(lines))
    source = {"id": "s", "title": "S", "lang": "en", "license": "CC0-1.0", "path": "c", "reader": {"kind": "jsonl"}}
    recipe = {
        "name": "test",
        "version": "1.0.0",
        "sources": [source],
        "ingest": {"min_tokens": 100, "max_tokens": 1_000_000},
        "sample": {"count": 4, "strategy": "none"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs more than one loopback address and /proc, as on Linux")
def test_the_commands_of_both_stages_run_on_the_cluster_of_their_address(
    tmp_path: Path, nodes: tuple[str, subprocess.Popen[bytes]], environment: dict[str, str]
) -> None:
    recipe = str(write_recipe(tmp_path, num_files=3, num_documents=5, num_words=400))
    address, _ = nodes
    drawn = []
    for name, engine in (("ray", ["--engine", "ray", "--address", address]), ("local", [])):
        for stage in ("ingest", "sample"):
            done = command_line(environment, stage, recipe, "--output", str(tmp_path / name), *engine)
            assert done.returncode == 0, done.stderr
        (root,) = (tmp_path / name / "test").iterdir()
        drawn.append(list(iter_records(BuildFolder(root).shards("selection"), Selected)))
    assert len(drawn[0]) == 4
    assert drawn[0] == drawn[1]


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["ingest", "sample"])
def test_an_address_at_which_no_cluster_can_be_is_said_plainly(
    stage: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    recipe = str(write_recipe(tmp_path, num_files=3, num_documents=5, num_words=400))
    if stage == "sample":
        done = command_line(environment, "ingest", recipe, "--output", str(tmp_path / "b"))
        assert done.returncode == 0, done.stderr
    done = command_line(
        environment, stage, recipe, "--output", str(tmp_path / "b"), "--engine", "ray", "--address", "nonsense"
    )
    assert done.returncode == 2
    assert "no Ray cluster at 'nonsense': " in done.stderr
    assert "expected host:port of a running head node" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("answer", [None, b"", b"SSH-2.0-OpenSSH_9.6\r\n"])
def test_an_address_where_no_head_node_answers_is_refused_before_ray_waits_for_it(
    answer: bytes | None, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Nothing listens there; what listens says nothing; what answers is another service."""
    taken: list[socket.socket] = []

    def serve(listening: socket.socket, words: bytes) -> None:
        with suppress(OSError):
            while True:
                taken.append(listening.accept()[0])
                taken[-1].sendall(words)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if answer is not None:
            listening.listen()
            threading.Thread(target=serve, args=(listening, answer), daemon=True).start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        options = ("--output", str(tmp_path / "b"), "--engine", "ray", "--address", address)
        done = command_line(
            environment, "ingest", str(write_recipe(tmp_path, num_files=3, num_documents=5, num_words=400)), *options
        )
    for connection in taken:
        connection.close()
    assert done.returncode == 2
    assert f"no Ray cluster at '{address}': " in done.stderr
    assert "expected host:port of a running head node" in done.stderr
    expected = {None: "refused", b"": "does not answer within 5 s"}.get(
        answer, "no Ray head node (it begins with b'SSH-2.0"
    )
    assert expected in done.stderr
    assert "Traceback" not in done.stderr

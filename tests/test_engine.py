import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longalign_data.engine import map_ordered

ROOT = Path(__file__).parents[1]

# Worker processes import the function by its module's name, so it stands in a file of its own.
JOBS = """
import os, signal, time
from pathlib import Path

def square(number):
    time.sleep(0.02 * (number % 3))
    return number * number, os.getpid()

def fail_at_five(number):
    if number == 5:
        raise ValueError("five")
    return number

def touch_and_wait(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)

def die_once(place):
    path = Path(place)
    if path.name == "07" and not path.exists():
        path.touch()
        os._exit(9)
    time.sleep(0.02)
    return path.name

def die(place):
    os._exit(9)

def end_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number

def touch(place):
    Path(place).touch()
    return place
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "engine_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    return "engine_jobs"


def run(program: str, *, timeout: float = 300) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_jobs(jobs: str, workers: int) -> None:
    program = f"""
import os
from {jobs} import square
from longalign_data.engine import map_ordered
if __name__ == "__main__":
    found = list(map_ordered(square, range(20), workers={workers}))
    assert [value for value, _ in found] == [n * n for n in range(20)]
    print(len({{pid for _, pid in found}} - {{os.getpid()}}))
"""
    others = int(run(program))
    assert others == 0 if workers == 1 else 1 <= others <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_is_raised_at_its_place(jobs: str, workers: int) -> None:
    program = f"""
from {jobs} import fail_at_five
from longalign_data.engine import map_ordered
if __name__ == "__main__":
    seen = []
    try:
        for value in map_ordered(fail_at_five, range(50), workers={workers}):
            seen.append(value)
    except ValueError as error:
        print(seen, error)
"""
    assert run(program).strip() == "[0, 1, 2, 3, 4] five"


def test_a_worker_that_the_system_ended_is_an_error_with_a_way_out(jobs: str) -> None:
    program = f"""
from {jobs} import end_at_three
from longalign_data.engine import map_ordered
from longalign_data.errors import BuildError
if __name__ == "__main__":
    try:
        list(map_ordered(end_at_three, range(50), workers=2))
    except BuildError as error:
        print(error)
"""
    assert "--workers" in run(program)


def test_only_a_few_results_wait_for_a_slow_reader(jobs: str, tmp_path: Path) -> None:
    places = tmp_path / "places"
    places.mkdir()
    program = f"""
import os, time
from {jobs} import touch
from longalign_data.engine import map_ordered
if __name__ == "__main__":
    results = map_ordered(touch, (r"{places}/%02d" % n for n in range(40)), workers=2)
    next(results)
    time.sleep(1)
    print(len(os.listdir(r"{places}")))
    results.close()
    print(len(os.listdir(r"{places}")))
"""
    begun, at_the_end = map(int, run(program).split())
    assert 1 <= begun <= 5
    assert at_the_end <= 5


def test_jobs_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def source() -> object:
        for number in range(10):
            taken.append(number)
            yield number

    results = map_ordered(str, source(), workers=1)  # type: ignore[arg-type] # a generator of integers
    assert [next(results), next(results)] == ["0", "1"]
    assert taken == [0, 1]


def test_workers_end_when_their_parent_is_killed(jobs: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    program = f"""
from {jobs} import touch_and_wait
from longalign_data.engine import map_ordered
if __name__ == "__main__":
    list(map_ordered(touch_and_wait, [r"{pids}"] * 2, workers=2))
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        wait_until(lambda: len(list(pids.iterdir())) == 2, "the workers did not begin")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    workers = [int(path.name) for path in pids.iterdir()]
    try:
        wait_until(lambda: not any(map(is_alive, workers)), f"workers {workers} outlived their parent")
    finally:
        for pid in filter(is_alive, workers):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: object, what: str) -> None:
    end = time.monotonic() + 300
    while not condition():  # type: ignore[operator] # a function without arguments
        assert time.monotonic() < end, what
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its reaper does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_lost_worker_is_replaced_and_its_jobs_are_done_again(jobs: str, tmp_path: Path) -> None:
    program = f"""
from {jobs} import die_once
from longalign_data.engine import map_ordered
if __name__ == "__main__":
    places = [r"{tmp_path}/%02d" % n for n in range(20)]
    assert list(map_ordered(die_once, places, workers=2)) == ["%02d" % n for n in range(20)]
"""
    run(program)
    assert (tmp_path / "07").exists()


def test_workers_that_are_lost_over_and_over_end_the_map_with_a_reason(jobs: str, tmp_path: Path) -> None:
    program = f"""
from {jobs} import die
from longalign_data.engine import map_ordered
from longalign_data.errors import BuildError
if __name__ == "__main__":
    try:
        list(map_ordered(die, ["x"] * 4, workers=2))
    except BuildError as error:
        print(error)
"""
    assert "ended worker processes 3 times in a row" in run(program)

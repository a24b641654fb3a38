"""What a trial paid for is not bought again by the whole build: the real command, the fake provider's log and meter."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from longalign_data.build.pipeline import build
from longalign_data.cli.main import app
from longalign_data.engine import RunOptions, Silent
from longalign_data.errors import BudgetError, UserError
from longalign_data.generation.budget import Spending
from longalign_data.generation.ledger import Call, Ledger
from longalign_data.generation.submissions import Submissions
from longalign_data.recipe import limited, load_recipe
from longalign_data.records import Document
from longalign_data.shards.folder import BuildFolder
from longalign_data.teachers.base import TeacherRequest
from longalign_data.teachers.fake import FakeServer
from longalign_data.teachers.prices import load_prices
from longalign_data.teachers.table import load_teacher
from tests.asked import KEY, PRICES, Asked, address, log_of, longalign, rows, texts, wait_for_a_batch
from tests.generation.small_builds import document, recipe, run_generate, samples_of, stand

QUICK = {"seconds": 0.1}
OFFLINE = recipe(provider="extractive")


@pytest.fixture
def prices(tmp_path: Path) -> str:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES, encoding="utf-8")
    return str(path)


def made(
    asked: Asked,
    url: str,
    output: Path,
    *,
    schedule: Literal["live", "batch"] = "live",
    limit: int | None = None,
    max_usd: float | None = None,
) -> None:
    """A build up to its samples, or with `limit` a trial of it, in this process."""
    if not output.exists():
        shutil.copytree(asked.prepared, output)
    loaded = load_recipe(asked.recipe)
    loaded = loaded if limit is None else limited(loaded, limit)
    prices = asked.recipe.parent.parent / "prices.yaml"
    choice = loaded.recipe.generate.teacher
    for stage in ("ingest", "sample", "generate"):
        build(
            loaded,
            output,
            run=RunOptions(schedule=schedule),
            progress=Silent(),
            teacher=lambda: load_teacher(choice, api_key=KEY, base_url=url),
            only=stage,
            spending=Spending(prices=load_prices(prices if prices.exists() else None), max_usd=max_usd),
        )


def asked_for(log: list[dict[str, Any]]) -> Counter[str]:
    """How often each request reached the provider, alone or in a batch."""
    alone = [line["key"] for line in log if line["event"] == "call" and "batch" not in line]
    return Counter(alone + [item["key"] for line in log if line["event"] == "batch" for item in line["items"]])


def cost_of(output: Path, name: str = "asked") -> dict[str, Any]:
    report = json.loads((output / name / "1.0.0/state/generate.json").read_text(encoding="utf-8"))
    cost: dict[str, Any] = report["details"]["cost"]
    return cost


@pytest.mark.parametrize(("provider", "schedule"), [("anthropic", "live"), ("openai", "batch")])
def test_what_a_trial_paid_for_is_taken_over_and_the_samples_are_the_same(
    corpus: Callable[..., Asked],
    serve: Callable[..., FakeServer],
    tmp_path: Path,
    prices: str,
    provider: str,
    schedule: Literal["live", "batch"],
) -> None:
    asked, output, whole = corpus(provider), tmp_path / "out", tmp_path / "whole"
    options = ("--schedule", schedule, "--prices", prices)
    server, other = (serve(batches=QUICK, faults=[{"kind": "refusal", "share": 0.2}]) for _ in range(2))
    made(asked, address(server, provider), output, schedule=schedule, limit=6)
    paid = server.state.usd()
    said = asked.build(address(server, provider), output, *options)
    made(asked, address(other, provider), whole, schedule=schedule)
    assert texts(output) == texts(whole) != []
    assert rows(output, "rejects") == rows(whole, "rejects")
    assert [row["cost_usd"] for row in rows(output, "samples")] == pytest.approx(
        [row["cost_usd"] for row in rows(whole, "samples")], rel=0.3 if schedule == "live" else 1e-9
    ), "live, what is read from the cache may differ"
    times = asked_for(log_of(tmp_path))
    assert set(times.values()) == {1}
    assert times == asked_for(log_of(tmp_path, 1))
    # Of a batch the tiny question that goes ahead is the trial's own.
    assert server.state.meter == other.state.meter or schedule == "live"
    taken = cost_of(output)["taken_over"]
    assert [(each["build"], each["replies"] >= 8) for each in taken] == [("asked-limit-6", True)]
    assert taken[0]["usd"] == pytest.approx(paid, abs=0.0005 if schedule == "batch" else 1e-6)
    assert cost_of(output)["ledger_usd"] == pytest.approx(server.state.usd(), abs=0.0005)
    assert f"{taken[0]['replies']} replies taken over from asked-limit-6, {taken[0]['usd']:,.4f} USD" in said
    shown = longalign("ledger", str(output / "asked/1.0.0"), "--prices", prices)
    assert f"taken over from asked-limit-6: {taken[0]['replies']} replies, {taken[0]['usd']:,.4f} USD" in shown
    assert "sent more than once" not in shown


def test_a_trial_takes_over_from_a_smaller_one_and_a_limit_counts_what_was_paid(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    asked, server, output = corpus("anthropic"), serve(), tmp_path / "out"
    made(asked, server.url, output, limit=3)
    first = server.state.usd()
    made(asked, server.url, output, limit=6)
    assert cost_of(output, "asked-limit-6")["taken_over"] == [
        {"build": "asked-limit-3", "replies": 6, "usd": pytest.approx(first, abs=1e-6)}
    ]
    paid = server.state.usd()
    said = longalign("estimate", str(asked.recipe), "-o", str(output), "--prices", prices, "--teacher-url", server.url)
    assert "the usage of 12 replies in the ledger of asked-limit-3, the ledger of asked-limit-6" in said
    assert f"paid already by asked-limit-3 for these documents: 6 replies, {first:,.4f} USD" in said
    assert f"paid already by asked-limit-6 for these documents: 6 replies, {paid - first:,.4f} USD" in said
    with pytest.raises(BudgetError, match="is used up"):
        made(asked, server.url, output, max_usd=paid * 0.99)
    assert server.state.usd() == paid
    # Requests go out as files as well; what the trials have is not among them.
    files = (str(asked.recipe), "-o", str(output), "--export", str(tmp_path / "requests.jsonl"))
    assert ": 10 requests (10 for questions, 0 for answers)" in longalign("ledger", *files)
    with Ledger(output / "asked/1.0.0/ledger.sqlite") as ledger:
        taken = Counter(entry.taken_from for entry in ledger.entries() if entry.raw is not None)
    assert taken == {"asked-limit-3": 6, "asked-limit-6": 6}
    assert set(asked_for(log_of(tmp_path)).values()) == {1}


def num_taken(path: Path) -> int:
    try:
        ledger = sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    try:
        count: int = ledger.execute("SELECT count(*) FROM taken_over").fetchone()[0]
    except sqlite3.OperationalError:
        return 0  # no tables yet
    finally:
        ledger.close()
    return count


def test_what_is_out_in_a_batch_of_a_trial_is_fetched_there_and_not_bought_here(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    asked, server, output = corpus("anthropic"), serve(batches={"seconds": 600.0}), tmp_path / "out"
    process = asked.start(server.url, output, "--limit", "6", "--schedule", "batch", stage="build")
    wait_for_a_batch(process, output / "asked-limit-6/1.0.0/ledger.sqlite")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=300)
    (batch,) = server.state.batches.values()
    with pytest.raises(
        UserError, match=f"6 requests of this build are out in batch {batch.batch_id} of the trial asked-limit-6"
    ):
        made(asked, server.url, output)
    with pytest.raises(UserError, match="longalign build RECIPE --limit 6 --schedule batch"):
        made(asked, server.url, output, schedule="batch")
    assert asked_for(log_of(tmp_path)).total() == 1 + 6, "the tiny question and the batch"
    settings = server.state.scenario.batches.model_copy(update={"seconds": 0.1})
    server.state.scenario = server.state.scenario.model_copy(update={"batches": settings})
    batch.ready = 0.0
    made(asked, server.url, output, schedule="batch", limit=6)
    made(asked, server.url, output)
    assert set(asked_for(log_of(tmp_path)).values()) == {1}
    assert len(texts(output)) == 16


def test_what_a_mended_server_may_answer_now_is_asked_again(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    asked, cutting, whole = corpus("openai"), serve(faults=[{"kind": "cut-prompt"}]), serve()
    made(asked, address(cutting, "openai"), tmp_path / "out", limit=2)
    assert {row["reason"] for row in rows(tmp_path / "out", "rejects", "asked-limit-2")} == {"document-cut"}
    made(asked, address(whole, "openai"), tmp_path / "out")
    assert len(texts(tmp_path / "out")) == 16
    assert "taken_over" not in cost_of(tmp_path / "out")


def reports(count: int) -> list[Document]:
    """Documents of which the offline teacher can make questions and answers."""
    return [
        document(
            "\n\n".join(
                f"Section {k}\n\nOn day {k} the inspectors of site {n} found {(n * 31 + k * 17) % 997} units. "
                f"The foreman Adeline{n}x{k} signed the sheet."
                for k in range(12)
            )
        )
        for n in range(count)
    ]


class Heard(Silent):
    """Progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, words: str) -> None:
        self.lines.append(words)


@pytest.fixture
def trial(tmp_path: Path) -> BuildFolder:
    """A trial of three documents by the offline teacher, beside a build of nine that has asked nothing yet."""
    documents = reports(9)
    stand(tmp_path / "small/1.0.0", documents)
    folder = stand(tmp_path / "small-limit-3/1.0.0", documents[:3])
    run_generate(folder, OFFLINE)
    return folder


def build_beside(trial: BuildFolder) -> tuple[list[str], int]:
    """What the whole build says, and how many replies it took over. Its samples are those of a build without a trial, and
    nothing in the trial's folder changes."""
    before = {path: path.read_bytes() for path in trial.root.rglob("*") if path.is_file()}
    whole = BuildFolder(trial.root.parent.parent / "small/1.0.0")
    heard = Heard()
    run_generate(whole, OFFLINE, progress=heard)
    alone = stand(trial.root.parent.parent / "alone/1.0.0", reports(9))
    run_generate(alone, OFFLINE)
    assert samples_of(whole) == samples_of(alone)
    assert {path: path.read_bytes() for path in trial.root.rglob("*") if path.is_file()} == before
    return heard.lines, num_taken(whole.ledger)


def test_a_trial_of_a_free_teacher_is_taken_over_without_a_word_of_money(trial: BuildFolder) -> None:
    assert build_beside(trial) == (["6 replies taken over from small-limit-3"], 6)


def no_database(path: Path) -> None:
    path.write_bytes(b"this is no database, though it is as long as one. " * 200)


def torn(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 3)
        file.write(b"\x00" * (size // 2))


def changed(path: Path, statement: str) -> None:
    ledger = sqlite3.connect(path)
    ledger.execute(statement)
    ledger.commit()
    ledger.close()


DAMAGES: dict[str, tuple[Callable[[Path], None], int]] = {
    "file is not a database": (no_database, 0),
    "damaged": (torn, 0),
    "found 99": (lambda path: changed(path, "PRAGMA user_version = 99"), 0),
    "is damaged": (lambda path: changed(path, "UPDATE replies SET raw = x'00' WHERE rowid = 1"), 5),
    "no such table": (lambda path: changed(path, "DROP TABLE replies"), 0),
}


@pytest.mark.parametrize("words", DAMAGES)
def test_a_trial_whose_ledger_cannot_be_read_is_named_and_the_build_goes_on(trial: BuildFolder, words: str) -> None:
    damage, most_taken = DAMAGES[words]
    damage(trial.ledger)
    said, count = build_beside(trial)
    assert count <= most_taken
    assert words in said[0]
    assert "taken over from small-limit-3" in said[0]
    assert str(trial.ledger) in said[0]


def test_the_command_goes_on_without_a_trial_that_is_damaged_and_takes_no_rehearsal_into_files(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    asked, output = corpus("openai", count=4), tmp_path / "out"
    server = address(serve(), "openai")
    made(asked, server, output, limit=2)
    # What goes out as files is answered by whoever reads them, and the trial was a rehearsal.
    files = (str(asked.recipe), "-o", str(output), "--export", str(tmp_path / "requests.jsonl"))
    assert ": 4 requests (4 for questions, 0 for answers)" in longalign("ledger", *files)
    no_database(output / "asked-limit-2/1.0.0/ledger.sqlite")
    assert "nothing is taken over from asked-limit-2" in asked.build(server, output)


def test_a_batch_of_a_trial_that_was_half_fetched_keeps_out_only_what_waits(trial: BuildFolder) -> None:
    with Ledger(trial.ledger) as ledger:
        Submissions(ledger)
    changed(trial.ledger, "INSERT INTO submissions VALUES ('s', 'p', 'm', 'open', 'b-7', 6, 1, 1, 1.0, NULL)")
    changed(trial.ledger, "INSERT INTO submission_items SELECT 's', request_id FROM requests")
    refused, missing = "kind = 'answer' ORDER BY request_id LIMIT 1", "kind = 'answer' ORDER BY request_id DESC LIMIT 1"
    one = "(SELECT request_id FROM requests WHERE {})"
    changed(trial.ledger, f"UPDATE requests SET state = 'refused' WHERE request_id = {one.format(refused)}")
    changed(trial.ledger, f"UPDATE replies SET failure = 'bad-request' WHERE request_id = {one.format(refused)}")
    changed(trial.ledger, f"DELETE FROM replies WHERE request_id = {one.format(missing)}")
    changed(trial.ledger, f"UPDATE requests SET state = 'sent' WHERE request_id = {one.format(missing)}")
    with pytest.raises(UserError, match="1 requests of this build are out in batch b-7"):
        build_beside(trial)
    whole = BuildFolder(trial.root.parent.parent / "small/1.0.0")
    with Ledger(whole.ledger) as ledger:
        taken = {entry.request_id for entry in ledger.entries() if entry.taken_from is not None}
        assert len(taken) == 4
        assert ledger.in_batches() == taken, "they cost what a batch costs"
        Submissions(ledger)
    with Ledger(trial.ledger) as ledger:
        (waiting,) = (entry for entry in ledger.entries() if entry.state == "sent")
    # Out in a batch of the build's own as well, it is waited for there: neither build keeps the other from fetching.
    values = (waiting.request_id, waiting.document_id)
    changed(
        whole.ledger,
        f"INSERT INTO requests VALUES ('{values[0]}', '{values[1]}', 'answer', 'p', 'm', '{{}}', 1, 'i', 'sent', 1, 'now')",
    )
    changed(whole.ledger, "INSERT INTO submissions VALUES ('s', 'p', 'm', 'open', 'b-8', 1, 1, 1, 1.0, NULL)")
    changed(whole.ledger, f"INSERT INTO submission_items VALUES ('s', '{values[0]}')")
    with pytest.raises(UserError, match="has no batch API"):
        run_generate(whole, OFFLINE, schedule="batch")


def test_the_ledger_of_a_trial_is_named_by_its_limit(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    asked, output = corpus("anthropic", count=4), tmp_path / "out"
    made(asked, serve().url, output, limit=2)
    trial = ("ledger", str(asked.recipe), "-o", str(output), "--limit", "2")
    assert "asked-limit-2/1.0.0/ledger.sqlite" in longalign(*trial, "--prices", prices)
    said = longalign(*trial, "--forget", "rehearsal")
    assert f"4 requests are asked again: longalign build {asked.recipe} --output {output} --limit 2" in said


def test_where_a_trial_cannot_be_copied_nothing_is_bought_again(
    trial: BuildFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"ledger\.sqlite: cannot be copied to be read .*TMPDIR"):
        build_beside(trial)


def test_where_the_ledger_that_is_asked_about_cannot_be_copied_its_folder_is_not_to_be_removed(
    trial: BuildFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    done = CliRunner().invoke(app, ["ledger", str(trial.root)])
    assert "cannot be copied to be read" in str(done.exception)
    assert "TMPDIR" in str(done.exception)
    assert "remove" not in str(done.exception)


def test_an_empty_ledger_has_nothing_to_take_over(trial: BuildFolder) -> None:
    trial.ledger.write_bytes(b"")
    assert build_beside(trial) == ([], 0)


def test_replies_that_stand_in_the_log_of_a_trial_at_work_are_taken_over_and_it_is_said(trial: BuildFolder) -> None:
    writer = sqlite3.connect(trial.ledger, isolation_level=None)
    try:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE requests SET created = 'now'")
        writer.execute("BEGIN EXCLUSIVE")
        assert trial.ledger.with_name("ledger.sqlite-wal").stat().st_size
        with trial.lock():
            said, count = build_beside(trial)
    finally:
        writer.close()
    assert count == 6
    assert "small-limit-3: a build is at work there" in said[1]


def test_a_trial_of_the_first_version_is_taken_over(trial: BuildFolder) -> None:
    for table in ("unheard", "taken_over", "submissions", "submission_items", "submission_bounds"):
        changed(trial.ledger, f"DROP TABLE IF EXISTS {table}")
    changed(trial.ledger, "PRAGMA user_version = 1")
    assert build_beside(trial)[1] == 6


def test_what_a_killed_run_had_under_way_stays_counted_when_the_reply_is_taken_over(tmp_path: Path) -> None:
    request = TeacherRequest(model="m", document="d", instruction="i", max_tokens=5)
    call = Call(request_id="r", document_id="d", kind="question", provider="anthropic", request=request)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.sending(call, num_tokens=100)
        ledger.taken_over(call, build="asked-limit-6", was_in_batch=True)
        ledger.answered(call, {"content": []})
        assert [attempts.num_attempts for attempts in ledger.unheard()] == [1]
        (entry,) = ledger.entries()
        assert (entry.state, entry.times_sent, entry.taken_from, entry.was_in_batch) == (
            "answered",
            1,
            "asked-limit-6",
            True,
        )
        ledger.forget(["r"])
        (entry,) = ledger.entries()
        assert (entry.state, entry.taken_from, entry.was_in_batch) == ("sent", None, False)


def test_kills_while_replies_are_taken_over_lose_and_change_nothing(tmp_path: Path) -> None:
    documents = reports(48)
    whole = stand(tmp_path / "small/1.0.0", documents)
    run_generate(stand(tmp_path / "small-limit-45/1.0.0", documents[:45]), OFFLINE)
    again = "from tests.generation.test_trials import *; run_generate(BuildFolder(Path(sys.argv[1])), OFFLINE)"
    seen: list[int] = []
    for wanted in (1, 40):
        process = subprocess.Popen([sys.executable, "-c", f"import sys; {again}", str(whole.root)])
        while process.poll() is None and num_taken(whole.ledger) < wanted:
            time.sleep(0.001)
        process.kill()
        process.wait()
        seen.append(num_taken(whole.ledger))
    assert seen == sorted(seen)
    run_generate(whole, OFFLINE)
    alone = stand(tmp_path / "alone/1.0.0", documents)
    run_generate(alone, OFFLINE)
    assert samples_of(whole) == samples_of(alone)
    with Ledger(whole.ledger) as ledger:
        entries = list(ledger.entries())
    # Only the three documents that the trial does not have were ever asked about here.
    assert Counter((entry.taken_from, entry.times_sent > 0) for entry in entries) == {
        ("small-limit-45", False): 90,
        (None, True): 6,
    }

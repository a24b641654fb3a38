"""The real command against the fake provider over real HTTP: the same rows however the teacher is asked, and every fault
ends as a sample or a named reject."""

import json
import re
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from longalign_data.build.pipeline import build
from longalign_data.engine import Progress, RunOptions, Silent
from longalign_data.errors import TeacherError, UserError
from longalign_data.generation import batching
from longalign_data.generation.ledger import Ledger
from longalign_data.recipe import load_recipe
from longalign_data.teachers.fake import FakeServer
from longalign_data.teachers.fake import server as fake_server
from longalign_data.teachers.fake.scenario import BATCH_ONLY, LIVE_ONLY, FaultKind
from longalign_data.teachers.fake.state import Refused
from longalign_data.teachers.table import load_teacher
from tests.asked import KEY, PRICES, Asked, address, log_of, longalign, rows, texts, wait_for_a_batch
from tests.generation.small_builds import recipe, run_generate, some_documents, stand

QUICK = {"seconds": 0.2}


def test_results_that_end_early_are_bought_once(
    tmp_path: Path, serve: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    stands, server = stand(tmp_path / "small" / "1.0.0", some_documents(8)), serve(batches=QUICK)
    send = fake_server._Handler._send_bytes

    def torn(self: Any, body: bytes, content_type: str, *more: Any) -> Any:
        return send(self, body[: len(body) * 4 // 10] if "jsonl" in content_type else body, content_type, *more)

    with monkeypatch.context() as patch:
        patch.setattr(fake_server._Handler, "_send_bytes", torn)
        with pytest.raises(TeacherError, match=r"results that end early: \d whole lines of 8"):
            run_generate(stands, recipe(), server.url, retry_s=0.0, schedule="batch")
    with Ledger(stands.ledger) as ledger:
        assert 0 < len(ledger.documents_of("answered")) - 1 < 8, "what came is kept"
    run_generate(stands, recipe(), server.url, schedule="batch", fingerprint="again")
    bought = [item.custom_id for batch in server.state.batches.values() for item in batch.items]
    assert len(bought) == len(set(bought)) > 8


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_live_and_batch_give_the_same_samples_in_the_same_order(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, provider: str
) -> None:
    asked, server = corpus(provider), serve(batches=QUICK)
    asked.build(address(server, provider), tmp_path / "live", "--concurrency", "3")
    asked.build(address(server, provider), tmp_path / "batch", "--schedule", "batch")
    assert texts(tmp_path / "live") == texts(tmp_path / "batch")
    assert len(texts(tmp_path / "live")) == 16
    assert server.state.meter["batch_replies"] == 32
    assert server.state.meter["live_replies"] == 32 + 1, "a tiny question goes ahead of the first batch"
    waves = [len(line["items"]) for line in log_of(tmp_path) if line["event"] == "batch"]
    assert waves == [16, 16]


def test_live_calls_read_each_document_from_the_cache_and_a_batch_costs_half(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked = corpus("anthropic", size=60)
    live, batch, naive = (serve(batches=QUICK) for _ in range(3))
    asked.build(live.url, tmp_path / "live")
    asked.build(batch.url, tmp_path / "batch", "--schedule", "batch")
    samples = rows(tmp_path / "live", "samples")
    assert all(sample["usage"]["cache_read_tokens"] == sample["usage"]["cache_write_tokens"] > 0 for sample in samples)
    prices = naive.state.scenario.prices
    meter = live.state.meter
    num_input = meter["input_tokens"] + meter["cache_write_tokens"] + meter["cache_read_tokens"]
    plain = (num_input * prices.input + meter["output_tokens"] * prices.output) / 1e6
    assert live.state.usd() < 0.75 * plain
    assert batch.state.usd() < 0.53 * plain


ENDS = {
    "refusal": "refusal",
    "max-tokens": "max-tokens",
    "context-exceeded": "context-exceeded",
    "invalid": "bad-request",
    "too-long": "context-exceeded",
    "too-large": "context-exceeded",
    "cut-prompt": "document-cut",
    "thinking-first": None,
    "several-blocks": None,
}
"""What becomes of a document whose every attempt meets a fault; an empty reply ends it by which call it was of. The other
faults pass."""
EMPTY = {"empty-answer", "no-questions"}
PASSING = set(get_args(FaultKind)) - ENDS.keys() - {"empty"}


def kinds_met(server: FakeServer, log: Sequence[dict[str, Any]]) -> set[str]:
    """The faults that calls and batch items met; a call refused for a limit of the server's is none of them."""
    found = {line["fault"] for line in log if line["event"] == "call" and line["fault"]}
    for batch in server.state.batches.values():
        for item in batch.items:
            if isinstance(item.result, str):
                found.add(item.result)
            elif item.result is not None and item.result.fault is not None:
                found.add(item.result.fault.kind)
    return found


@pytest.mark.parametrize("schedule", ["live", "batch"])
def test_every_fault_ends_as_a_sample_or_a_named_reject_and_the_counts_add_up(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, schedule: str
) -> None:
    brief = {"attempts": 1, "retry_after_s": 0.1, "seconds": 0.2}
    shares: dict[str, dict[str, Any]] = {kind: {"share": 0.1, **brief} for kind in sorted(PASSING)}
    shares |= {kind: {"share": 0.06} for kind in (*ENDS, "empty")}
    faults = [{"kind": kind, **how} for kind, how in shares.items()]
    asked, server = corpus("anthropic", count=48, size=12), serve(seed=0, batches=QUICK, faults=faults)
    asked.build(server.url, tmp_path / "out", "--schedule", schedule)
    elsewhere = BATCH_ONLY if schedule == "live" else LIVE_ONLY
    # In batch the tiny question that goes ahead is a call like any other.
    assert kinds_met(server, log_of(tmp_path)) - elsewhere == set(get_args(FaultKind)) - elsewhere
    samples, rejects = rows(tmp_path / "out", "samples"), rows(tmp_path / "out", "rejects")
    assert len(samples) + len(rejects) == 48
    expected = {reason for kind, reason in ENDS.items() if kind not in elsewhere and reason is not None}
    assert {reject["reason"] for reject in rejects} - EMPTY == expected
    assert EMPTY & {reject["reason"] for reject in rejects}
    report = json.loads((tmp_path / "out/asked/1.0.0/state/generate.json").read_text(encoding="utf-8"))
    assert report["num_in"] == report["num_out"] + report["num_rejected"] == 48
    assert report["rejected"] == Counter(reject["reason"] for reject in rejects)


def test_the_same_faulty_provider_gives_both_schedules_the_same_rows(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    faults = [{"kind": kind, "share": 0.1} for kind in ("refusal", "max-tokens", "several-blocks", "empty")]
    faults += [{"kind": "expired", "share": 0.3, "attempts": 1}, {"kind": "overloaded", "share": 0.3, "attempts": 1}]
    asked, server = corpus("anthropic"), serve(seed=2, batches=QUICK, faults=faults)
    asked.build(server.url, tmp_path / "live")
    asked.build(server.url, tmp_path / "batch", "--schedule", "batch")
    assert texts(tmp_path / "live") == texts(tmp_path / "batch")
    assert rows(tmp_path / "live", "rejects") == rows(tmp_path / "batch", "rejects") != []


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_submission_whose_reply_was_lost_is_found_and_not_sent_twice(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, provider: str
) -> None:
    asked, server = corpus(provider), serve(batches={"seconds": 0.5, "lost_replies": 2})
    asked.build(address(server, provider), tmp_path / "out", "--schedule", "batch")
    assert [line["lost_reply"] for line in log_of(tmp_path) if line["event"] == "batch"] == [True, True]
    assert len(texts(tmp_path / "out")) == 16


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_submission_whose_reply_was_lost_is_found_though_the_clock_here_is_ahead(
    corpus: Callable[..., Asked],
    serve: Callable[..., FakeServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
) -> None:
    clock = time.time
    # The provider runs in this process, two hours behind the build in one of its own.
    monkeypatch.setattr(time, "time", lambda: clock() - 7_200.0)
    asked, server = corpus(provider), serve(batches={"seconds": 0.5, "lost_replies": 2})
    asked.build(address(server, provider), tmp_path / "out", "--schedule", "batch")
    keys = Counter(item["key"] for line in log_of(tmp_path) if line["event"] == "batch" for item in line["items"])
    assert set(keys.values()) == {1}
    assert len(texts(tmp_path / "out")) == 16


def test_batches_are_cut_to_the_tokens_that_the_provider_lets_wait(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked, server = corpus("openai"), serve(batches={"seconds": 0.1, "enqueued_tokens": 16_000})
    asked.build(address(server, "openai"), tmp_path / "out", "--schedule", "batch")
    submitted = [line for line in log_of(tmp_path) if line["event"] == "batch"]
    assert submitted[0]["failed"]
    keys = Counter(item["key"] for line in submitted if not line["failed"] for item in line["items"])
    assert set(keys.values()) == {1}
    assert len(texts(tmp_path / "out")) == 16


def here(asked: Asked, server: FakeServer, output: Path, progress: Progress, *, schedule: str = "batch") -> None:
    """The generate stage, in this process."""
    if not output.exists():
        shutil.copytree(asked.prepared, output)
    loaded = load_recipe(asked.recipe)
    choice = loaded.recipe.generate.teacher
    run = RunOptions(schedule="batch" if schedule == "batch" else "live")
    build(
        loaded,
        output,
        run=run,
        progress=progress,
        teacher=lambda: load_teacher(choice, api_key=KEY, base_url=address(server, choice.provider)),
        only="generate",
    )


class Notes(Silent):
    """What was said to somebody who watches."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        self.notes.append(note)


def test_a_request_that_alone_does_not_fit_into_the_queue_is_named_and_the_others_are_answered(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, server = corpus("openai", count=8), serve()
    here(asked, server, tmp_path / "live", Silent(), schedule="live")
    sizes = [
        sum(line["usage"].values()) - line["usage"]["output"] for line in log_of(tmp_path) if line["event"] == "call"
    ]
    monkeypatch.setattr(batching, "FIRST_WAIT_S", 0.02)
    narrow = serve(batches={"seconds": 0.05, "enqueued_tokens": max(sizes) - 1})
    with pytest.raises(
        TeacherError, match=r"1 of 8 documents .* 5 batches each: Enqueued token limit .*--schedule live"
    ):
        here(asked, narrow, tmp_path / "out", notes := Notes())
    assert any("takes no further batch (Enqueued token limit" in note for note in notes.notes)
    assert narrow.state.meter["batch_replies"] in {14, 15}
    assert len(narrow.state.batches) < 60
    here(asked, narrow, tmp_path / "out", Silent(), schedule="live")
    assert texts(tmp_path / "out") == texts(tmp_path / "live")


def test_a_queue_that_stays_full_ends_the_run_and_one_that_was_full_for_a_moment_is_filled_again(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, server = corpus("openai", count=8), serve(batches={"seconds": 0.05, "enqueued_tokens": 10})
    monkeypatch.setattr(batching, "FIRST_WAIT_S", 0.02)
    with monkeypatch.context() as patch:
        patch.setattr(batching, "PATIENCE_S", 0.2)
        with pytest.raises(TeacherError, match=r"Enqueued token limit .* run the same command again") as caught:
            here(asked, server, tmp_path / "out", Silent())
    assert caught.value.retryable
    assert not server.state.meter["batch_replies"]

    class Widened(Notes):
        """The queue is free once a request alone did not fit."""

        def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
            if "takes no further batch" in note:
                wide = server.state.scenario.batches.model_copy(update={"enqueued_tokens": None})
                server.state.scenario = server.state.scenario.model_copy(update={"batches": wide})

    before = len(server.state.batches)
    here(asked, server, tmp_path / "out", Widened())
    assert len(texts(tmp_path / "out")) == 8
    waves = [len(batch.items) for batch in list(server.state.batches.values())[before:] if batch.failed is None]
    assert max(waves) >= 4, "batches grow again"


def test_a_rehearsal_is_not_taken_for_what_the_model_wrote(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked, server = corpus("anthropic", count=4), serve()
    for options in ((), ("--schedule", "live")):
        asked.build(server.url, tmp_path / "out", *options)  # with the fake provider it goes on
    report = json.loads((tmp_path / "out/asked/1.0.0/state/generate.json").read_text(encoding="utf-8"))
    assert report["details"]["rehearsed"] == 8
    for said in (asked.build(server.url, tmp_path / "out"), longalign("stats", str(tmp_path / "out/asked/1.0.0"))):
        assert "This is a rehearsal: 8 replies came from longalign fake-provider" in " ".join(said.split())
    longalign("report", str(tmp_path / "out/asked/1.0.0"), "--out", str(tmp_path / "report.html"))
    assert "This is a rehearsal: 8 replies" in (tmp_path / "report.html").read_text(encoding="utf-8")
    said = asked.build("http://127.0.0.1:9", tmp_path / "out", code=2)
    assert "8 replies are of a rehearsal with longalign fake-provider" in said
    assert "would be taken for fake-1's" in said
    with Ledger(tmp_path / "out/asked/1.0.0/ledger.sqlite") as ledger:
        assert len(ledger.rehearsed("anthropic", "fake-1")) == 8
        assert not ledger.rehearsed("anthropic", "another")
    files = (str(asked.recipe), "-o", str(tmp_path / "out"), "--forget", "rehearsal")
    assert "8 requests are asked again" in longalign("ledger", *files)
    asked.build(server.url, tmp_path / "out")
    assert server.state.meter["live_replies"] == 16
    assert len(texts(tmp_path / "out")) == 4
    # A refusal of the fake's has no mark, and is none of the model's.
    odd = serve(faults=[{"kind": "invalid", "share": 0.5}])
    asked.build(odd.url, tmp_path / "odd")
    with Ledger(tmp_path / "odd/asked/1.0.0/ledger.sqlite") as ledger:
        refused = ledger.refused_for("bad-request")
    assert refused
    longalign("ledger", str(asked.recipe), "-o", str(tmp_path / "odd"), "--forget", "rehearsal")
    with Ledger(tmp_path / "odd/asked/1.0.0/ledger.sqlite") as ledger:
        assert not any(ledger.reply(name) for name in refused)


def test_a_batch_that_the_provider_does_not_know_ends_the_run_until_it_is_given_up_by_name(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked, first, second = corpus("openai", count=4), serve(batches={"seconds": 600.0}), serve(batches=QUICK)

    class Leaving(Silent):
        def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
            if "are out" in note:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        here(asked, first, tmp_path / "out", Leaving())
    (batch,) = first.state.batches
    for _ in range(2):
        with pytest.raises(TeacherError, match=f"key is of another account.*--forget {batch}; it counts as paid"):
            here(asked, second, tmp_path / "out", Silent())
    assert not second.state.batches
    files = (str(asked.recipe), "-o", str(tmp_path / "out"))
    assert f"or a batch that is out: {batch}" in longalign("ledger", *files, "--forget", "batch_other", code=2)
    assert "4 requests are asked again" in longalign("ledger", *files, "--forget", batch)
    here(asked, second, tmp_path / "out", Silent())
    assert len(texts(tmp_path / "out")) == 4
    assert f"batch paid for and not fetched: 4 requests ({batch})" in longalign("ledger", *files)


def test_a_batch_that_may_not_have_arrived_is_given_up_by_the_name_it_is_shown_under(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    # While a batch of that size is running, nobody can tell whether it is this one: there are no labels.
    asked, server = corpus("anthropic", count=4), serve(batches={"seconds": 600.0, "lost_replies": 1})

    class Leaving(Silent):
        def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
            if "perhaps not arrived" in note:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        here(asked, server, tmp_path / "out", Leaving())
    with pytest.raises(UserError, match="a batch that may not have arrived") as caught:
        here(asked, server, tmp_path / "out", Silent(), schedule="live")
    (name,) = re.findall(r"--forget ([^ ;]+)", str(caught.value))
    files = (str(asked.recipe), "-o", str(tmp_path / "out"))
    assert f"batch out: 4 requests ({name}, perhaps not arrived, " in longalign("ledger", *files)
    assert "4 requests are asked again" in longalign("ledger", *files, "--forget", name)
    assert f"batch paid for and not fetched: 4 requests ({name})" in longalign("ledger", *files)
    here(asked, server, tmp_path / "out", Silent(), schedule="live")
    assert len(texts(tmp_path / "out")) == 4


@pytest.mark.parametrize("schedule", ["live", "batch"])
def test_a_batch_that_failed_as_a_whole_ends_the_run_and_the_next_one_asks_again(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, schedule: str
) -> None:
    asked, server = corpus("openai", count=4), serve(batches={"seconds": 0.1, "failures": 1})
    said = asked.build(address(server, "openai"), tmp_path / "out", "--schedule", "batch", code=1)
    assert "The batch failed. [billing_hard_limit_reached]" in said
    asked.build(address(server, "openai"), tmp_path / "out", "--schedule", schedule)
    assert len(texts(tmp_path / "out")) == 4
    replies = server.state.meter
    assert replies["live_replies"] + replies["batch_replies"] == 8 + 1


def leave_with_a_batch_out(
    asked: Asked, server: FakeServer, output: Path, number: signal.Signals, provider: str = "anthropic"
) -> tuple[int, str]:
    """Starts a build, and sends it a signal once it knows of its first batch; exit code and standard error. From then on
    batches take a moment."""
    process = asked.start(address(server, provider), output, "--schedule", "batch")
    wait_for_a_batch(process, output / "asked/1.0.0/ledger.sqlite")
    process.send_signal(number)
    _, err = process.communicate(timeout=300)  # the batch takes ten minutes, leaving does not
    settings = server.state.scenario.batches.model_copy(update={"seconds": 0.2})
    server.state.scenario = server.state.scenario.model_copy(update={"batches": settings})
    return process.returncode, err


def test_ctrl_c_leaves_at_once_and_the_same_command_fetches_what_was_done_meanwhile(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked, server = corpus("anthropic"), serve(batches={"seconds": 600.0})
    code, err = leave_with_a_batch_out(asked, server, tmp_path / "out", signal.SIGINT)
    assert code == 130
    assert "the same command goes on" in err
    (batch,) = server.state.batches.values()
    shown = longalign("ledger", str(tmp_path / "out/asked/1.0.0"))
    assert f"batch out: 16 requests ({batch.batch_id}, " in shown
    assert "fetch them before 20" in shown
    batch.ready = 0.0
    asked.build(server.url, tmp_path / "out", "--schedule", "batch")
    keys = Counter(item["key"] for line in log_of(tmp_path) if line["event"] == "batch" for item in line["items"])
    assert set(keys.values()) == {1}
    assert len(texts(tmp_path / "out")) == 16


def test_what_is_out_in_a_batch_is_not_bought_again_in_another_way(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked, server = corpus("anthropic"), serve(batches={"seconds": 600.0})
    leave_with_a_batch_out(asked, server, tmp_path / "out", signal.SIGKILL)
    (batch,) = server.state.batches.values()
    num_live = server.state.meter["live_replies"]
    said = asked.build(server.url, tmp_path / "out", code=2)
    assert "16 requests of this build are out in" in said
    assert "--schedule batch" in said
    exported = tmp_path / "requests.jsonl"
    files = (str(asked.recipe), "-o", str(tmp_path / "out"), "--export", str(exported))
    assert "--schedule batch" in longalign("ledger", *files, code=2)
    assert not exported.exists()
    batch.ready = 0.0
    asked.build(server.url, tmp_path / "out", "--schedule", "batch")
    assert server.state.meter["live_replies"] == num_live
    assert server.state.meter["batch_replies"] == 2 * 16
    asked.build(server.url, tmp_path / "out")


class LeftError(Exception):
    pass


class Leaving(Silent):
    """Ends the run as soon as a batch is out."""

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        if "requests are out" in note:
            raise LeftError


class Hearing(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, words: str) -> None:
        self.said.append(words)


@pytest.mark.parametrize("other", [{"model": "teacher-2"}, {"provider": "openai"}])
def test_a_batch_of_another_teacher_is_left_alone_until_its_own_recipe_fetches_it(
    tmp_path: Path, serve: Callable[..., FakeServer], other: dict[str, str]
) -> None:
    stands, server = stand(tmp_path / "small/1.0.0", some_documents(4)), serve(batches={"seconds": 600.0})
    with pytest.raises(LeftError):
        run_generate(stands, recipe(), server.url, schedule="batch", progress=Leaving())
    (first,) = server.state.batches.values()
    server.state.scenario = server.state.scenario.model_copy(
        update={"batches": server.state.scenario.batches.model_copy(update=QUICK)}
    )
    url, heard = address(server, other.get("provider", "anthropic")), Hearing()
    report = run_generate(stands, recipe(**other), url, schedule="batch", fingerprint="other", progress=heard)
    assert report.num_in == 4
    (line,) = (words for words in heard.said if first.batch_id in words)
    assert "4 requests of this build are out" in line
    assert "of anthropic teacher-1" in line
    first.ready = 0.0
    report = run_generate(stands, recipe(), server.url, schedule="batch", fingerprint="again")
    assert report.num_in == 4
    assert first.settled
    bought = [item.custom_id for batch in server.state.batches.values() for item in batch.items]
    assert len(bought) == len(set(bought)) > 12


def test_a_request_that_takes_longer_than_it_may_is_sent_again(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked, server = corpus("openai", count=4), serve(faults=[{"kind": "timeout", "attempts": 1, "seconds": 3_600.0}])
    asked.build(address(server, "openai"), tmp_path / "out", "--timeout", "1")  # nobody waits for the server
    assert len(texts(tmp_path / "out")) == 4


def test_a_document_that_was_cut_is_asked_again_once_that_is_taken_back(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked, cutting, whole = corpus("openai", count=4), serve(faults=[{"kind": "cut-prompt"}]), serve()
    asked.build(address(cutting, "openai"), tmp_path / "out")
    assert {row["reason"] for row in rows(tmp_path / "out", "rejects") if row["stage"] == "generate"} == {
        "document-cut"
    }
    forget = (str(asked.recipe), "-o", str(tmp_path / "out"), "--forget", "document-cut")
    assert "4 requests are asked again" in longalign("ledger", *forget)
    asked.build(address(whole, "openai"), tmp_path / "out")
    assert len(texts(tmp_path / "out")) == 4


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_results_that_are_no_longer_kept_are_asked_for_again(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, provider: str
) -> None:
    asked, server = corpus(provider), serve(batches={"seconds": 600.0})
    leave_with_a_batch_out(asked, server, tmp_path / "out", signal.SIGKILL, provider)
    (batch,) = server.state.batches.values()
    batch.ready, batch.created = 0.0, batch.created - 30 * 86_400
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES, encoding="utf-8")
    options = ("--schedule", "batch", "--prices", str(prices))
    said = asked.build(address(server, provider), tmp_path / "out", *options)
    ledger = sqlite3.connect(tmp_path / "out/asked/1.0.0/ledger.sqlite")
    states = [row[0] for row in ledger.execute("SELECT state FROM submissions ORDER BY created")]
    ledger.close()
    assert states == ["gone", "done", "done"]
    assert "its 16 requests were paid for and are asked again" in said
    report = json.loads((tmp_path / "out/asked/1.0.0/state/generate.json").read_text(encoding="utf-8"))
    cost = report["details"]["cost"]
    assert cost["not_fetched"]["requests"] == 16
    # The provider charged for the batch that nobody fetched; its tokens are known from our own count alone.
    assert cost["ledger_usd"] - cost["not_fetched"]["usd"] < server.state.usd() < 1.2 * cost["ledger_usd"]
    assert f"about {cost['not_fetched']['usd']:,.4f} USD" in said


def test_what_a_provider_restricts_is_said_once_and_not_where_the_recipe_states_its_terms(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked, server = corpus("anthropic", count=4), serve()
    notice = "Anthropic's terms restrict training"
    assert notice in asked.build(server.url, tmp_path / "out")
    assert notice not in asked.build(server.url, tmp_path / "out")
    text = asked.recipe.read_text(encoding="utf-8")
    asked.recipe.write_text(text.replace("model: fake-1", "model: fake-1, terms: by contract 7"), encoding="utf-8")
    assert notice not in asked.build(server.url, tmp_path / "stated")
    assert {row["teacher"]["terms"] for row in rows(tmp_path / "stated", "samples")} == {"by contract 7"}


@pytest.mark.parametrize("schedule", ["live", "batch"])
def test_a_key_that_is_refused_ends_the_run_and_stands_nowhere(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, schedule: str
) -> None:
    asked, server = corpus("anthropic"), serve(key="another")
    said = asked.build(server.url, tmp_path / "out", "--schedule", schedule, code=1)
    assert "HTTP 401" in said
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("schedule", ["live", "batch"])
def test_a_parameter_that_the_model_does_not_take_ends_the_run_before_it_costs_anything(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, schedule: str
) -> None:
    asked, server = corpus("anthropic"), serve()
    text = asked.recipe.read_text(encoding="utf-8")
    asked.recipe.write_text(text.replace("model: fake-1", "model: fake-1, parameters: {top_p: 0.9}"), encoding="utf-8")
    said = asked.build(server.url, tmp_path / "out", "--schedule", schedule, "--concurrency", "4", code=1)
    assert "top_p" in said
    assert "refuses every request" in said
    assert not server.state.batches
    assert server.state.usd() == 0


@pytest.mark.parametrize("schedule", ["live", "batch"])
def test_an_account_whose_limit_is_reached_ends_the_run_and_a_raised_limit_goes_on(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, schedule: str
) -> None:
    asked, server = corpus("anthropic", count=8), serve(batches=QUICK, usage_limit_usd=0.02)
    said = asked.build(server.url, tmp_path / "out", "--schedule", schedule, code=1)
    assert "reached your specified API usage limits" in said
    assert "run the same command again" in said
    num_paid = server.state.meter["live_replies"] + server.state.meter["batch_replies"]
    assert 0 < num_paid < 16
    server.state.scenario = server.state.scenario.model_copy(update={"usage_limit_usd": None})
    asked.build(server.url, tmp_path / "out", "--schedule", schedule)
    assert len(texts(tmp_path / "out")) == 8
    assert not [row for row in rows(tmp_path / "out", "rejects") if row["stage"] == "generate"]
    assert server.state.meter["live_replies"] + server.state.meter["batch_replies"] <= 16 + 1, "nothing is paid twice"


def test_a_batch_refused_in_words_that_nobody_knows_is_held_against_no_document_while_all_is_refused(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, server = corpus("anthropic", count=8), serve(batches=QUICK)
    closed = Refused(status=400, kind="invalid_request_error", message="No. Ask again some other day.")
    with monkeypatch.context() as patch:
        patch.setattr(server.state, "check", lambda asked: closed if server.state.meter["batch_replies"] >= 5 else None)
        said = asked.build(server.url, tmp_path / "out", "--schedule", "batch", code=1)
    assert "refuses every request: HTTP 400: No. Ask again some other day." in said
    asked.build(server.url, tmp_path / "out", "--schedule", "batch")
    assert len(texts(tmp_path / "out")) == 8
    keys = Counter(item["key"] for line in log_of(tmp_path) if line["event"] == "batch" for item in line["items"])
    assert sorted(keys.values()) == [1] * (5 + 8) + [2] * 3


def test_a_teacher_without_a_batch_api_says_so(corpus: Callable[..., Asked], tmp_path: Path) -> None:
    asked = corpus("extractive")
    assert "no batch API" in asked.build("http://127.0.0.1:9", tmp_path / "out", "--schedule", "batch", code=2)


def test_no_key_stands_in_any_file_of_a_build(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked, server = corpus("anthropic", count=8), serve(batches=QUICK, faults=[{"kind": "drop", "attempts": 1}])
    asked.build(server.url, tmp_path / "out", "--schedule", "batch")
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path

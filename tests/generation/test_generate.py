"""Whole runs of the generate stage, against servers that speak the real wire formats, and with the offline teacher."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from longalign_data.engine import Silent
from longalign_data.errors import BuildError, RecipeError, TeacherError, UserError
from longalign_data.generation.account import account, sources_of, tasks_of
from longalign_data.generation.asking import _Asker, ask_trial
from longalign_data.generation.documents import SelectedDocuments
from longalign_data.generation.exchange import Plan
from longalign_data.generation.forgetting import forget
from longalign_data.generation.ledger import Call, Ledger
from longalign_data.identity import digest, document_id
from longalign_data.records import Document, Reject, Usage
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_records, to_row
from longalign_data.tasks.templates import load_templates
from longalign_data.teachers.base import UNWATCHED, Raw, Teacher, TeacherRequest, Watch
from longalign_data.teachers.prices import load_prices
from longalign_data.teachers.retry import reply_without
from longalign_data.teachers.table import PROVIDERS, load_teacher
from longalign_data.tokenizers import count_tokens, load_tokenizer
from tests.generation.small_builds import (
    KEY,
    document,
    recipe,
    run_generate,
    samples_of,
    some_documents,
    stand,
)
from tests.teachers.fake_servers import (
    Answer,
    FakeServer,
    completion,
    document_of,
    instruction_of,
    message,
    refused,
    teaches,
    text,
    thinking,
    wants_questions,
)

REPOSITORY = Path(__file__).parents[2]


def rejects_of(build: BuildFolder) -> list[Reject]:
    return list(iter_records(sorted((build.root / "rejects").glob("generate-*.parquet")), Reject))


def rows_of(build: BuildFolder) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return [to_row(sample) for sample in samples_of(build)], [to_row(reject) for reject in rejects_of(build)]


def shard_bytes(build: BuildFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in build.root.glob("*/*.parquet")}


class Counting:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int | None, str]] = []
        self.items = 0
        self.tokens = 0
        self.notes: list[str] = []

    def start(self, label: str, total: int | None, unit: str) -> None:
        self.started.append((label, total, unit))

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        self.notes.append(note)
        self.items += items
        self.tokens += tokens


def test_every_selected_document_becomes_a_sample_in_the_order_of_ranks(tmp_path: Path) -> None:
    documents = some_documents(12)
    build = stand(tmp_path, documents)
    progress = Counting()
    with FakeServer(teaches).running() as server:
        report = run_generate(build, recipe(), server.url, progress=progress)
    samples = samples_of(build)
    assert [sample.doc_ids for sample in samples] == [(each.doc_id,) for each in reversed(documents)]
    assert (report.num_in, report.num_out, report.num_rejected) == (12, 12, 0)
    assert progress.started == [("generate", 12, "documents")]
    assert (progress.items, progress.tokens) == (12, sum(each.num_tokens for each in documents))
    assert len(server.seen) == 24
    assert max(server.answered().values()) == 1


def test_a_sample_holds_what_was_asked_and_answered_and_where_it_comes_from(tmp_path: Path) -> None:
    (each,) = some_documents(1)
    build = stand(tmp_path, [each])
    with FakeServer(teaches).running() as server:
        run_generate(build, recipe(terms="our terms"), server.url)
    (sample,) = samples_of(build)
    user, assistant = sample.messages
    question = sample.questions[sample.question_index]
    assert (user.role, assistant.role) == ("user", "assistant")
    assert user.content == f"{each.text}\n\n{question}"
    assert assistant.content == f"It is this: {question}"
    (span,) = sample.document_spans
    assert user.content[span.start : span.end] == each.text
    assert list(sample.questions) == [f"What is thing {number} of doc0?" for number in range(1, 6)]
    assert sample.teacher.terms == "our terms"
    assert (sample.teacher.provider, sample.teacher.model) == ("anthropic", "teacher-1")
    assert sample.usage == Usage(
        input_tokens=22, cache_write_tokens=200, cache_read_tokens=14, output_tokens=40, thinking_tokens=6
    )
    assert sample.cost_usd is None
    assert sample.stop_reason == "end_turn"
    assert (sample.source, sample.lang, sample.license) == ("made", "en", "CC0-1.0")
    num_user, num_answer = count_tokens(load_tokenizer("qwen"), [user.content, assistant.content])
    assert (sample.num_tokens, sample.num_answer_tokens) == (num_user + num_answer, num_answer)
    # The answer call is about the same document and carries the drawn question.
    asked, answered = server.seen
    assert document_of(asked.body) == document_of(answered.body) == each.text
    assert instruction_of(answered.body) == question
    assert (asked.body["max_tokens"], answered.body["max_tokens"]) == (1024, 2048)


def test_question_and_answer_of_a_document_follow_each_other_so_that_its_cache_is_warm(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(6))
    with FakeServer(teaches).running() as server:
        run_generate(build, recipe(), server.url, concurrency=1)
    names = [document_of(entry.body).split()[0] for entry in server.seen]
    assert names[::2] == names[1::2]
    assert [wants_questions(entry.body) for entry in server.seen] == [True, False] * 6


def test_tasks_and_questions_are_drawn_by_document_and_all_come_up(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(60))
    with FakeServer(teaches).running() as server:
        report = run_generate(build, recipe(), server.url, concurrency=16)
    samples = samples_of(build)
    assert set(Counter(sample.task for sample in samples)) == {"general", "summary", "reasoning", "extraction"}
    assert {sample.question_index for sample in samples} == {0, 1, 2, 3, 4}
    assert report.details["tasks"] == dict(Counter(sorted(sample.task for sample in samples)))
    assert report.details["usage"]["output_tokens"] == 60 * 40
    assert report.num_tokens == sum(sample.num_tokens for sample in samples)


def uneven(body: dict[str, Any], times: int) -> Answer:
    """Replies that overtake each other, with faults that pass."""
    number = sum(map(ord, document_of(body))) + len(instruction_of(body))
    if number % 5 == 0 and times == 0:
        return refused(529, "overloaded_error", "Overloaded")
    answer = teaches(body, times)
    return Answer(answer.body, delay_s=(number * 7 % 11) / 200)


def test_the_rows_are_the_same_for_every_concurrency_and_shard_size(tmp_path: Path) -> None:
    documents = some_documents(14)
    rows = []
    for name, concurrency in (("one", 1), ("eight", 8)):
        build = stand(tmp_path / name, documents)
        with FakeServer(uneven).running() as server:
            run_generate(build, recipe(), server.url, concurrency=concurrency)
        assert max(server.answered().values()) == 1
        rows.append(rows_of(build))
    assert rows[0] == rows[1]
    assert len(rows[0][0]) == 14
    # Without a server: the ledger holds all that is needed.
    small = tmp_path / "one"
    run_generate(BuildFolder(small), recipe(), "http://127.0.0.1:9", fingerprint="other", shard_bytes=3000, workers=2)
    assert len(BuildFolder(small).shards("samples")) > 2
    assert rows_of(BuildFolder(small)) == rows[0]


def test_a_second_run_asks_nothing_and_changes_no_byte(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(5))
    with FakeServer(teaches).running() as server:
        run_generate(build, recipe(), server.url)
        before = shard_bytes(build)
        run_generate(build, recipe(), server.url)
    assert len(server.seen) == 10
    assert shard_bytes(build) == before


def test_a_document_whose_replies_are_all_there_is_not_read_to_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = stand(tmp_path, some_documents(6))
    read: list[str] = []
    whole = SelectedDocuments.document

    def watched(self: SelectedDocuments, doc_id: str) -> Document:
        read.append(doc_id)
        return whole(self, doc_id)

    with FakeServer(teaches).running() as server:
        run_generate(build, recipe(), server.url)
        rows, samples = rows_of(build), samples_of(build)
        build.clear("generate")
        ledger = sqlite3.connect(build.ledger)
        with ledger:
            ledger.execute("DELETE FROM replies WHERE request_id = ?", [samples[4].request_ids[-1]])
        ledger.close()
        monkeypatch.setattr(SelectedDocuments, "document", watched)
        run_generate(build, recipe(), server.url)
    # One to ask about, and then each for the table.
    assert read == [*samples[4].doc_ids, *(doc_id for sample in samples for doc_id in sample.doc_ids)]
    assert rows_of(build) == rows


def test_hashes_of_texts_are_kept_for_the_very_shards_that_they_are_of(tmp_path: Path) -> None:
    # Composed or not, these are one document to the build and two to a teacher.
    texts = ["caf\u00e9 " * 20, "cafe\u0301 " * 20]
    found = [dict(SelectedDocuments(stand(tmp_path, [document(text)])).text_hashes) for text in texts]
    (name,) = found[0]
    assert found == [{name: digest(text)} for text in texts]
    (tmp_path / "state" / "text-hashes.json").write_text('{"of": 1}')
    assert SelectedDocuments(BuildFolder(tmp_path)).text_hashes == found[1]
    assert SelectedDocuments(BuildFolder(tmp_path)).text_hashes == found[1]


def test_a_changed_instruction_asks_the_calls_of_its_task_again_and_no_others(tmp_path: Path) -> None:
    prompts = tmp_path / "mine.yaml"
    prompts.write_text('task: summary\nversion: 2\ninstructions: {en: "Ask five.\\n1: a\\n2: b"}\n')
    build = stand(tmp_path / "build", some_documents(20))
    with FakeServer(teaches).running() as server:
        run_generate(build, recipe(), server.url)
        tasks = Counter(sample.task for sample in samples_of(build))
        first = len(server.seen)
        run_generate(build, recipe(templates=[str(prompts)]), server.url, fingerprint="other")
    again = [entry.body for entry in server.seen[first:]]
    # The questions happen to be the same, and with them the answer calls.
    assert len(again) == tasks["summary"] > 0
    assert all(instruction_of(body).startswith("Ask five.") for body in again)


def test_the_account_of_a_build_knows_the_tasks_of_its_own_prompts(tmp_path: Path) -> None:
    prompts = tmp_path / "mine.yaml"
    prompts.write_text('task: poems\nversion: 1\ninstructions: {en: "Ask five.\\n1: a\\n2: b"}\n')
    build = stand(tmp_path / "build", some_documents(3))
    own = recipe(templates=[str(prompts)], tasks={"poems": 1.0})
    with FakeServer(scripted(Answer(message(text("Nothing to ask."))))).running() as server:
        run_generate(build, own, server.url)
    sources, tasks = sources_of(build), tasks_of(build)
    request = TeacherRequest(model="teacher-1", document="d", instruction="i", max_tokens=5)
    trial = Call(request_id="t", document_id="d", kind="trial", provider="anthropic", request=request)
    with Ledger(build.ledger) as ledger:
        ledger.begin(trial)
        ledger.answered(trial, message(stop="refusal"))
        # Of a build without its recipe only the package's own prompts are known.
        found = account(ledger, load_prices(), templates=load_templates(), sources=sources, tasks=tasks, num_selected=3)
    assert {name: line.num_replies for name, line in found.by_task.items()} == {"poems": 5, "(tiny question)": 1}
    assert found.failures == {reject.reason: 1 for reject in rejects_of(build)} == {"no-questions": 1}


def test_a_document_of_which_two_models_were_asked_counts_once_in_the_account(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        for model in ("teacher-1", "teacher-2"):
            request = TeacherRequest(model=model, document="d", instruction="i", max_tokens=5)
            call = Call(request_id=model, document_id="d", kind="question", provider="anthropic", request=request)
            ledger.begin(call)
            ledger.answered(call, message(text("1. Why?\n2. How?")))
        found = account(ledger, load_prices(), templates=load_templates(), sources={}, tasks={}, num_selected=1)
    assert found.questioned == {"d"}
    assert found.states == {("question", "answered"): 2}


def start(build: BuildFolder, url: str, concurrency: int) -> "subprocess.Popen[bytes]":
    script = REPOSITORY / "tests" / "generation" / "small_builds.py"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(script), str(build.root), url, str(concurrency)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(condition: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_that_is_killed_goes_on_and_buys_no_received_reply_twice(tmp_path: Path) -> None:
    documents = some_documents(16)
    whole = stand(tmp_path / "whole", documents)
    with FakeServer(teaches).running() as server:
        run_generate(whole, recipe(), server.url)
    build = stand(tmp_path / "killed", documents)
    killed = threading.Event()

    def script(body: dict[str, Any], times: int) -> Answer:
        # From the target on nobody is answered before the kill: it comes in the middle however late it comes.
        if len(server.seen) >= target:
            assert killed.wait(300)
        return Answer(teaches(body, times).body, delay_s=0.05)

    with (server := FakeServer(script)).running():
        for target in (5, 19):
            killed.clear()
            process = start(build, server.url, 3)
            wait_for(lambda target=target: len(server.seen) >= target)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed.set()
            assert process.returncode == -signal.SIGKILL
            kept, num_open = answered_in(build)
            assert len(kept) >= target - 2 * 3
            assert num_open <= 3
            seen = len(server.seen)
            wait_for(lambda: server.idle)
        assert seen < 32
        process = start(build, server.url, 3)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output.decode()
        asked_after = {(document_id(document_of(each.body)), instruction_of(each.body)) for each in server.seen[seen:]}
        run_generate(build, recipe(), server.url, fingerprint="again")
    assert not kept & asked_after
    assert len(kept) + len(asked_after) == 32
    assert rows_of(build) == rows_of(whole)


def answered_in(build: BuildFolder) -> tuple[set[tuple[str, str]], int]:
    """What the ledger of a build holds replies to, as (document, instruction), and how many requests have none."""
    ledger = sqlite3.connect(build.ledger)
    try:
        assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = ledger.execute(
            "SELECT document_id, instruction FROM requests JOIN replies USING (request_id)"
        ).fetchall()
        (num_open,) = ledger.execute("SELECT count(*) FROM requests WHERE state = 'sent'").fetchone()
    finally:
        ledger.close()
    return set(kept), num_open


def test_a_run_that_is_interrupted_ends_at_once_and_goes_on(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(24))
    has_left = threading.Event()

    def script(body: dict[str, Any], times: int) -> Answer:
        # From the fourth answer on nobody gets one before the run has ended: it is interrupted in its middle.
        if sum(server.answered().values()) >= 4:
            assert has_left.wait(600)
        return teaches(body, times)

    with (server := FakeServer(script)).running():
        process = start(build, server.url, 2)
        wait_for(lambda: sum(server.answered().values()) >= 4)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=300)
        has_left.set()
        assert process.returncode != 0
        assert b"KeyboardInterrupt" in output
        assert b"never retrieved" not in output
        assert not samples_of(build)
        run_generate(build, recipe(), server.url, concurrency=8)
    assert len(samples_of(build)) == 24
    assert sum(server.answered().values()) <= 48 + 2


def scripted(question: Answer | None = None, answer: Answer | None = None, *, only: str = "doc1 ") -> Any:
    """A teacher that fails one document in one of its calls."""

    def script(body: dict[str, Any], times: int) -> Answer:
        if document_of(body).startswith(only):
            chosen = question if wants_questions(body) else answer
            if chosen is not None:
                return chosen
        return teaches(body, times)

    return script


QUESTIONS = message(text("1: What?\n2: Why?"))


@pytest.mark.parametrize(
    ("question", "answer", "reason", "detail"),
    [
        (Answer(message(stop="refusal")), None, "refusal", "question call"),
        (None, Answer(message(stop="refusal", stop_details={"category": "bio"})), "refusal", "answer call.*bio"),
        (Answer(message(text("1: Wh"), stop="max_tokens")), None, "max-tokens", "question call"),
        (None, Answer(message(text("It"), stop="max_tokens")), "max-tokens", "answer call"),
        (None, Answer(message(thinking("hm"), stop="max_tokens")), "max-tokens", "answer call"),
        (Answer(message(text("I would rather not."))), None, "no-questions", "rather not"),
        (Answer(message()), None, "no-questions", ""),
        (None, Answer(message(thinking("hm"))), "empty-answer", "to the question"),
        (None, Answer(message(text("  \n"))), "empty-answer", "to the question"),
        (None, Answer(message(text("x"), stop="pause_turn")), "stopped-early", "pause_turn"),
        (None, Answer(message(text("x"), stop="model_context_window_exceeded")), "context-exceeded", "answer call"),
        (refused(400, "invalid_request_error", "prompt is too long"), None, "context-exceeded", "prompt is too long"),
        (refused(413, "request_too_large", "Request too large"), None, "context-exceeded", "HTTP 413"),
        (refused(400, "invalid_request_error", "odd bytes"), None, "bad-request", "odd bytes"),
        (Answer({"type": "surprise"}), None, "teacher-error", "content"),
    ],
)
def test_every_reply_that_is_no_finished_answer_is_a_named_reject_and_not_asked_again(
    tmp_path: Path, question: Answer | None, answer: Answer | None, reason: str, detail: str
) -> None:
    build = stand(tmp_path, some_documents(3))
    with FakeServer(scripted(question, answer)).running() as server:
        report = run_generate(build, recipe(), server.url, concurrency=1)
        calls = len(server.seen)
        run_generate(build, recipe(), server.url, fingerprint="other")
        assert len(server.seen) == calls
    (reject,) = rejects_of(build)
    assert reject.reason == reason
    assert re.search(detail, reject.detail), reject.detail
    assert reject.id == some_documents(3)[1].doc_id
    assert (report.num_in, report.num_out, report.rejected) == (3, 2, {reason: 1})


def test_a_reply_in_no_known_format_can_be_forgotten_and_is_asked_for_again(tmp_path: Path) -> None:
    build, loaded = stand(tmp_path, some_documents(3)), recipe()
    with FakeServer(scripted(None, Answer({"type": "surprise"}))).running() as server:
        run_generate(build, loaded, server.url)
    (reject,) = rejects_of(build)
    assert "--forget teacher-error" in reject.detail
    plan = Plan(recipe=loaded.recipe, templates=load_templates(), read=PROVIDERS["anthropic"].read)
    with Ledger(build.ledger) as ledger:
        assert forget(build, plan, ledger, "teacher-error") == 1
    with FakeServer(teaches).running() as server:
        assert run_generate(build, loaded, server.url).num_out == 3
        assert len(server.seen) == 1


def test_thinking_first_and_several_text_blocks_make_one_answer(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(1))
    many = Answer(message(thinking("let me see"), text("One. "), text("Two.")))
    with FakeServer(scripted(None, many, only="doc0 ")).running() as server:
        run_generate(build, recipe(), server.url)
    assert samples_of(build)[0].messages[1].content == "One. Two."


@pytest.mark.parametrize("in_parts", [False, True])
def test_thoughts_never_become_questions_or_answers(tmp_path: Path, in_parts: bool) -> None:
    thoughts = "Five questions, then.\n1. Perhaps the pump?\n2. Or the bridge?"

    def script(body: dict[str, Any], times: int) -> Answer:
        said = "1: Which pump was inspected?" if wants_questions(body) else "The second one."
        if not in_parts:
            return Answer(completion(f"<think>\n{thoughts}\n</think>\n\n{said}"))
        reply = completion(None)
        reply["choices"][0]["message"]["content"] = [{"type": "thinking", "thinking": [text(thoughts)]}, text(said)]
        return Answer(reply)

    build = stand(tmp_path, some_documents(2))
    with FakeServer(script).running() as server:
        report = run_generate(build, recipe(provider="openai"), server.url + "/v1")
    assert (report.num_out, report.num_rejected) == (2, 0)
    for sample in samples_of(build):
        assert list(sample.questions) == ["Which pump was inspected?"]
        assert sample.messages[1].content == "The second one."


GUJARATI = "પ્રતિષ્ઠા અને અધિકારોની દૃષ્ટિએ સર્વ માનવો જન્મથી સ્વતંત્ર અને સમાન હોય છે. "
"""20 of these are 2,280 tokens of `qwen`, the recipe's tokenizer, and 542 of `o200k`."""


@pytest.mark.parametrize(("given", "num_samples"), [(542, 1), (240, 0), (0, 1)])
def test_a_tokenizer_that_knows_a_script_better_than_the_recipes_does_not_make_its_documents_cut(
    tmp_path: Path, given: int, num_samples: int
) -> None:
    written = document(20 * GUJARATI, lang="gu")
    assert written.num_tokens == 2280

    def script(body: dict[str, Any], times: int) -> Answer:
        is_answer = body["messages"][0]["content"].endswith("Which pump?")
        reply = completion("The second one." if is_answer else "1: Which pump?")
        return Answer(reply | {"usage": {"prompt_tokens": given, "completion_tokens": 5}})

    build = stand(tmp_path, [written])
    with FakeServer(script).running() as server:
        run_generate(build, recipe(provider="openai"), server.url + "/v1")
    assert len(samples_of(build)) == num_samples
    assert [reject.reason for reject in rejects_of(build)] == ["document-cut"] * (1 - num_samples)


def test_halves_of_surrogate_pairs_do_not_break_the_table(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(1))
    odd = Answer(
        '{"content": [{"type": "text", "text": "a\\ud83db \\ud83d\\ude00"}], "stop_reason": "end_turn", "usage": {}}'
    )
    with FakeServer(scripted(None, odd, only="doc0 ")).running() as server:
        run_generate(build, recipe(), server.url)
    assert samples_of(build)[0].messages[1].content == "a\ufffdb \U0001f600"


def test_a_bad_key_ends_the_run_with_a_clear_message_and_rejects_nothing(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(9))
    with FakeServer(lambda body, times: refused(401, "authentication_error", "invalid x-api-key")).running() as server:
        with pytest.raises(
            TeacherError, match=r"refuses every request: HTTP 401: invalid x-api-key\. Check the key"
        ) as caught:
            run_generate(build, recipe(), server.url, concurrency=2)
        assert caught.value.reason == "unauthorized"
        assert len(server.seen) <= 2
    assert not rejects_of(build)
    with FakeServer(teaches).running() as server:
        assert run_generate(build, recipe(), server.url).num_out == 9


def test_a_parameter_that_the_model_does_not_take_ends_the_run_instead_of_rejecting_every_document(
    tmp_path: Path,
) -> None:
    build = stand(tmp_path, some_documents(9))
    said = "temperature: Extra inputs are not permitted"
    with FakeServer(lambda body, times: refused(400, "invalid_request_error", said)).running() as server:
        with pytest.raises(TeacherError, match="Extra inputs"):
            run_generate(build, recipe(parameters={"temperature": 1.0}), server.url, concurrency=1)
        assert len(server.seen) == 2, "one of its requests, and a tiny question"
    with FakeServer(teaches).running() as server:
        assert run_generate(build, recipe(parameters={"temperature": 1.0}), server.url).num_out == 9


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("You have reached your specified API usage limits. You will regain access on 2026-12-01.", "unpaid"),
        ("This organization has been disabled.", "unauthorized"),
        ("Nobody has ever seen these words before.", "bad-request"),
    ],
)
def test_a_refusal_of_every_request_after_answers_ends_the_run_and_is_held_against_no_document(
    tmp_path: Path, said: str, reason: str
) -> None:
    build = stand(tmp_path, some_documents(8))

    def closed(body: dict[str, Any], times: int) -> Answer:
        num_answered = sum(entry.whole for entry in server.seen)
        return refused(400, "invalid_request_error", said) if num_answered >= 5 else teaches(body, times)

    with (server := FakeServer(closed)).running():
        with pytest.raises(TeacherError, match=re.escape(said)) as caught:
            run_generate(build, recipe(), server.url, concurrency=2)
        assert (caught.value.reason, caught.value.retryable) == (reason, False)
        assert not rejects_of(build)
        server.script = teaches
        assert run_generate(build, recipe(), server.url).num_out == 8
        assert max(server.answered().values()) == 1


def test_odd_documents_before_the_first_answer_are_rejected(tmp_path: Path) -> None:
    # Ranks run backwards: doc4 and doc3 come first.
    odd = refused(400, "invalid_request_error", "odd bytes")
    build = stand(tmp_path, some_documents(5))

    def script(body: dict[str, Any], times: int) -> Answer:
        return odd if document_of(body).startswith(("doc4 ", "doc3 ")) else teaches(body, times)

    progress = Counting()
    with FakeServer(script).running() as server:
        report = run_generate(build, recipe(), server.url, concurrency=1, progress=progress)
    assert (report.num_out, report.rejected) == (3, {"bad-request": 2})
    assert progress.items == 5


def test_over_long_documents_before_the_first_answer_do_not_end_the_run(tmp_path: Path) -> None:
    # Ranks run backwards: doc6 to doc4 come first. So llama.cpp says it.
    said = "request (1834 tokens) exceeds the available context size (512 tokens), try increasing it"
    build = stand(tmp_path, some_documents(7))

    def script(body: dict[str, Any], times: int) -> Answer:
        too_long = document_of(body).startswith(("doc6 ", "doc5 ", "doc4 "))
        return refused(400, "exceed_context_size_error", said) if too_long else teaches(body, times)

    with FakeServer(script).running() as server:
        report = run_generate(build, recipe(), server.url, concurrency=1)
    assert (report.num_out, report.rejected) == (4, {"context-exceeded": 3})


def test_documents_that_could_not_be_asked_end_the_stage_and_are_asked_by_the_next_run(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(6))
    away = scripted(refused(529, "overloaded_error", "Overloaded"), None, only="doc2 ")
    with FakeServer(away).running() as server:
        with pytest.raises(
            TeacherError, match=r"1 of 6 documents could not be asked: HTTP 529: Overloaded .* run the same"
        ) as caught:
            run_generate(build, recipe(), server.url, retry_s=0.2)
        assert caught.value.retryable
        assert not build.report("generate").exists()
        server.script = teaches
        report = run_generate(build, recipe(), server.url)
    assert (report.num_in, report.num_out) == (6, 6)
    assert max(server.answered().values()) == 1


def test_a_teacher_that_is_away_is_not_asked_about_every_document(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(30))
    with FakeServer(lambda body, times: refused(503, "api_error", "down")).running() as server:
        with pytest.raises(TeacherError, match="30 of 30 documents could not be asked"):
            run_generate(build, recipe(), server.url, concurrency=4, retry_s=0.0)
        assert len(server.seen) <= 8


def test_while_a_teacher_is_away_the_progress_says_so_and_why(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(2))
    progress = Counting()

    def said() -> list[str]:
        return [note for note in progress.notes if "no answer for" in note]

    with FakeServer(
        lambda body, times: teaches(body, times) if said() else refused(503, "api_error", "down")
    ).running() as server:
        report = run_generate(build, recipe(), server.url, progress=progress, retry_s=60.0)
    assert report.num_out == 2
    assert "HTTP 503: down" in said()[-1]
    assert "asking again, 60 s long at most" in said()[-1]


def test_no_key_is_in_any_file_of_the_build_or_in_any_message(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(4))
    progress = Counting()

    def script(body: dict[str, Any], times: int) -> Answer:
        given = server.seen[-1].headers["authorization"]
        echo = f"cannot read the header Authorization: {given}"
        if document_of(body).startswith("doc1 "):
            return refused(400, "invalid_request_error", echo)
        if document_of(body).startswith("doc2 ") and times == 0:
            return refused(503, "api_error", echo)
        return Answer({"error": echo}) if times == 0 else teaches(body, times)

    server = FakeServer(script)
    with server.running():
        report = run_generate(build, recipe(), server.url, progress=progress)
        assert all(KEY in entry.headers["authorization"] for entry in server.seen)
        assert (report.num_out, report.rejected) == (3, {"bad-request": 1})
        server.script = lambda body, times: refused(401, "authentication_error", f"no such key: {KEY}")
        with pytest.raises(TeacherError, match=r"no such key: \[API key\]") as caught:
            run_generate(stand(tmp_path / "again", some_documents(1)), recipe(), server.url)
    assert KEY not in repr(caught.getrepr(style="long"))
    assert KEY not in "".join(progress.notes)
    (reject,) = rejects_of(build)
    assert "cannot read the header Authorization: Bearer [API key]" in reject.detail
    with Ledger(build.ledger) as book:
        assert KEY not in "".join(json.dumps(entry.raw) for entry in book.entries())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert build.ledger in files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    ledger = sqlite3.connect(build.ledger)
    dump = "\n".join(ledger.iterdump())
    ledger.close()
    assert KEY not in dump


def test_the_time_of_a_stage_is_that_of_its_asking_too(tmp_path: Path) -> None:
    slow = scripted(Answer(QUESTIONS, delay_s=0.4), only="doc0 ")
    with FakeServer(slow).running() as server:
        assert run_generate(stand(tmp_path, some_documents(1)), recipe(), server.url).seconds >= 0.4


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_server_without_a_batch_api_is_named_before_anything_is_asked(tmp_path: Path, provider: str) -> None:
    with FakeServer(teaches).running() as server:
        with pytest.raises(UserError, match=r"no batch API; take --schedule live \(HTTP 501"):
            run_generate(stand(tmp_path, some_documents(2)), recipe(provider=provider), server.url, schedule="batch")
        assert not server.seen


def test_an_openai_compatible_server_teaches_as_well(tmp_path: Path) -> None:
    def script(body: dict[str, Any], times: int) -> Answer:
        del times
        listed = "1. What?\n2. Why?\n3. When?"
        return Answer(completion(listed if wants_questions(body) else f"Because: {instruction_of(body)}"))

    build = stand(tmp_path, some_documents(4))
    with FakeServer(script).running() as server:
        report = run_generate(build, recipe(provider="openai"), f"{server.url}/v1")
    assert report.num_out == 4
    for sample in samples_of(build):
        assert sample.messages[1].content == f"Because: {sample.questions[sample.question_index]}"
        assert sample.usage == Usage(input_tokens=222, cache_read_tokens=14, output_tokens=40, thinking_tokens=6)


ENGLISH = "\n\n".join(
    f"The {number}th keeper of the mill lived {number + 30} years in the valley. He never sold flour number {number + 400} to "
    f"a stranger. In the end his brother wrote {number + 7} letters about it."
    for number in range(30)
)
CHINESE = "\n\n".join(
    f"第{number}位守林人在山谷里住了{number + 30}年，从来没有离开过一天。他写下的第{number + 400}封信一直留在抽屉里。"
    for number in range(30)
)


def test_the_offline_teacher_makes_samples_with_true_evidence_at_no_cost(tmp_path: Path) -> None:
    documents = [document(ENGLISH), document(CHINESE, "zh"), document("Nothing.")]
    build = stand(tmp_path, documents)
    report = run_generate(build, recipe(provider="extractive"))
    samples = {sample.lang: sample for sample in samples_of(build)}
    assert report.rejected == {"no-questions": 1}
    assert set(samples) == {"en", "zh"}
    for sample, each in ((samples["en"], documents[0]), (samples["zh"], documents[1])):
        assert sample.cost_usd == 0.0
        assert "no model wrote" in sample.teacher.terms
        assert sample.checks.evidence
        for span in sample.checks.evidence:
            assert span.doc_id == each.doc_id
            assert each.text[span.start : span.end] in sample.messages[1].content
    assert any("\u4e00" <= letter <= "\u9fff" for letter in samples["zh"].messages[1].content)


def test_answers_that_there_is_no_question_for_are_rejected_by_name_and_counted(tmp_path: Path) -> None:
    documents = some_documents(3)

    def frugal(body: dict[str, Any], times: int) -> Answer:
        if wants_questions(body) and document_of(body).startswith("doc1 "):
            return Answer(message(text("1: What is it?\n2: Where is it?\n3: Whose is it?")))
        return teaches(body, times)

    build = stand(tmp_path, documents)
    with FakeServer(frugal).running() as server:
        report = run_generate(build, recipe(answers_per_document=5), server.url)
    assert (report.num_in, report.num_out, report.rejected) == (15, 13, {"too-few-questions": 2})
    assert {reject.id for reject in rejects_of(build)} == {documents[1].doc_id}
    assert {reject.detail for reject in rejects_of(build)} == {"answers_per_document is 5; questions in the reply: 3"}


def test_a_language_without_instructions_is_asked_in_english_and_counted(tmp_path: Path) -> None:
    build = stand(tmp_path, [document(ENGLISH, "fr"), document(ENGLISH + " More.", "en")])
    report = run_generate(build, recipe(provider="extractive"))
    assert report.details["other_languages"] == {"fr": 1}
    assert report.num_out == 2


def test_a_stage_cut_off_while_writing_goes_on_with_the_same_rows_and_figures(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(12))
    with FakeServer(teaches).running() as server:
        report = run_generate(build, recipe(), server.url, shard_bytes=2500)
    rows, first = rows_of(build), json.loads(build.report("generate").read_text())
    assert len(build.shards("samples")) >= 3
    # What a run leaves that was killed after its second shard.
    kept = [dict(shard) for shard in first["shards"]["samples"][:2]]
    cursor = sum(shard["rows"] for shard in kept)
    state = {
        "fingerprint": "g",
        "cursor": cursor,
        "counts": {
            "num_in": cursor,
            "num_out": cursor,
            "num_tokens": sum(shard["tokens"] for shard in kept),
            "seconds": 1.0,
            "rejected": {},
            "left_out": {},
            "figures": {},
        },
        "shards": {"samples": kept, "rejects": []},
    }
    build.report("generate").unlink()
    build.progress("generate").write_text(json.dumps(state))
    again = run_generate(build, recipe(), "http://127.0.0.1:9", shard_bytes=2500)
    assert rows_of(build) == rows
    assert (again.details, again.num_tokens, again.num_out) == (report.details, report.num_tokens, report.num_out)


def test_a_task_without_a_prompt_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(1))
    with pytest.raises(RecipeError, match="no prompt file for 'poetry'"):
        run_generate(build, recipe(tasks={"poetry": 1.0}), "http://127.0.0.1:9")
    assert not build.ledger.exists()


def test_a_selection_without_its_documents_is_told(tmp_path: Path) -> None:
    build = stand(tmp_path, some_documents(3))
    for path in build.shards("documents"):
        path.unlink()
    with pytest.raises(BuildError, match=r"3 selected documents are not in the documents table .* longalign ingest"):
        run_generate(build, recipe(), "http://127.0.0.1:9")


def test_a_key_that_is_a_word_stays_in_what_a_teacher_says() -> None:
    raw = {"content": "He did not say anything about sk-live-12345678."}
    assert reply_without(raw, "anything") == raw
    assert reply_without(raw, "sk-live-12345678") == {"content": "He did not say anything about [API key]."}


class Away:
    """A teacher that answers nobody, or everybody out of itself."""

    def __init__(self, teacher: Teacher | None = None) -> None:
        self.teacher = teacher
        self.num_asked = 0

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        self.num_asked += 1
        await asyncio.sleep(0.01)
        if self.teacher is None:
            raise TeacherError("away", reason="unavailable", retryable=True)
        return await self.teacher.ask(request, watch=watch)

    async def close(self) -> None:
        pass

    def status(self) -> str:
        return ""


def test_whether_a_teacher_takes_other_requests_is_asked_once_while_it_is_away_and_booked_each_time(
    tmp_path: Path,
) -> None:
    loaded = recipe(provider="extractive")
    choice = loaded.recipe.generate.teacher
    plan = Plan(recipe=loaded.recipe, templates=load_templates(), read=PROVIDERS["extractive"].read)
    request = TeacherRequest(model=choice.model, document="d", instruction="i", max_tokens=100)
    calls = [
        Call(request_id=str(n), document_id="d", kind="question", provider="extractive", request=request)
        for n in range(8)
    ]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        away = Away()
        asker = _Asker(plan=plan, ledger=ledger, teacher=away, progress=Silent(), patience=8)

        async def all_at_once() -> list[bool]:
            return await asyncio.gather(*(asker._takes_others(call) for call in calls))

        assert asyncio.run(all_at_once()) == [False] * 8
        assert (away.num_asked, asker.num_failed_in_row) == (1, 8)
        there = Away(load_teacher(choice))
        for _ in range(3):
            asyncio.run(ask_trial(there, ledger, plan, calls[0], after="0"))
        assert sum(entry.kind == "trial" and entry.raw is not None for entry in ledger.entries()) == 3

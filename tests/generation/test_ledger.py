"""The ledger by itself."""

import dataclasses
import sqlite3
import zlib
from pathlib import Path

import pytest

from longalign_data.errors import BuildError
from longalign_data.generation.ledger import Call, Ledger, request_id
from longalign_data.generation.submissions import Submission, Submissions
from longalign_data.records import Usage
from longalign_data.teachers.base import TeacherRequest


def call(instruction: str = "What?", **changes: object) -> Call:
    fields = {"model": "m", "document": "d", "instruction": instruction, "max_tokens": 5, "parameters": {}} | changes
    request = TeacherRequest(**fields)  # type: ignore[arg-type]  # each test gives what it means
    identity = request_id("anthropic", request, document_hash="h")
    return Call(request_id=identity, document_id="doc", kind="question", provider="anthropic", request=request)


def test_a_reply_comes_back_as_it_was_given_after_the_file_was_closed(tmp_path: Path) -> None:
    raw = {"content": [{"type": "text", "text": "文\ud83d\u0000"}], "n": 1.5, "none": None}
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.begin(call())
        assert ledger.reply(call().request_id) is None
        ledger.answered(call(), raw)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        stored = ledger.reply(call().request_id)
        assert stored is not None
        assert (stored.raw, stored.failure) == (raw, None)
        assert ledger.has_answers(call("another"))
        assert not ledger.has_answers(call(parameters={"temperature": 1.0}))
    assert [path.name for path in tmp_path.iterdir()] == ["l.sqlite"]


def test_the_first_reply_stands(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.begin(call())
        ledger.answered(call(), {"n": 1})
        ledger.answered(call(), {"n": 2})
        ledger.refused(call(), reason="bad-request", message="no")
        stored = ledger.reply(call().request_id)
        assert stored is not None
        assert (stored.raw, stored.failure) == ({"n": 1}, None)


def test_what_was_sent_how_often_and_what_it_used_can_be_queried(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        for _ in range(3):
            ledger.begin(call())
        ledger.answered(call(), {})
        ledger.note_usage(call(), Usage(input_tokens=3, output_tokens=4))
        ledger.begin(call("unanswered"))
        ledger.begin(call("too long"))
        ledger.refused(call("too long"), reason="context-exceeded", message="HTTP 400")
    db = sqlite3.connect(tmp_path / "l.sqlite")
    query = (
        "SELECT instruction, state, times_sent, failure, input_tokens, output_tokens "
        "FROM requests LEFT JOIN replies USING (request_id) ORDER BY instruction"
    )
    rows = db.execute(query).fetchall()
    db.close()
    assert rows == [
        ("What?", "answered", 3, None, 3, 4),
        ("too long", "refused", 1, "context-exceeded", None, None),
        ("unanswered", "sent", 1, None, None, None),
    ]


def test_everything_that_decides_about_a_reply_is_in_the_identity_of_its_request() -> None:
    base = call().request
    ids = {request_id("anthropic", base, document_hash="h")}
    ids.add(request_id("openai", base, document_hash="h"))
    ids.add(request_id("anthropic", base, document_hash="other"))
    for changed in (call("Why?"), call(model="n"), call(max_tokens=6), call(parameters={"temperature": 1.0})):
        ids.add(changed.request_id)
    assert len(ids) == 7
    assert call().request_id in ids


def test_the_order_of_parameters_does_not_matter(tmp_path: Path) -> None:
    one, other = call(parameters={"a": 1, "b": 2}), call(parameters={"b": 2, "a": 1})
    assert one.request_id == other.request_id
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.begin(one)
        ledger.answered(one, {})
        assert ledger.has_answers(other)


def test_a_file_that_is_no_ledger_or_of_another_version_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, by any means; " * 50)
    with pytest.raises(BuildError, match="text: the ledger cannot be used: file is not a database"):
        Ledger(tmp_path / "text")
    db = sqlite3.connect(tmp_path / "other")
    db.execute("CREATE TABLE mine (x)")
    db.execute("INSERT INTO mine VALUES (1)")
    db.commit()
    db.close()
    with pytest.raises(BuildError, match=r"other: not a ledger of this version \(found 0, expected 2\)"):
        Ledger(tmp_path / "other")
    db = sqlite3.connect(tmp_path / "other")
    assert db.execute("SELECT * FROM mine").fetchall() == [(1,)]
    db.close()


FIRST_VERSION = """
CREATE TABLE requests (request_id TEXT PRIMARY KEY, document_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('question', 'answer')), provider TEXT NOT NULL, model TEXT NOT NULL,
    parameters TEXT NOT NULL, max_tokens INTEGER NOT NULL, instruction TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'refused')), times_sent INTEGER NOT NULL, created TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_document ON requests (document_id);
CREATE TABLE replies (request_id TEXT PRIMARY KEY REFERENCES requests, received TEXT NOT NULL, failure TEXT, raw BLOB NOT NULL,
    input_tokens INTEGER, cache_write_tokens INTEGER, cache_read_tokens INTEGER, output_tokens INTEGER, thinking_tokens INTEGER
) STRICT;
CREATE TABLE submissions (submission_id TEXT PRIMARY KEY, provider TEXT NOT NULL, model TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sending', 'open', 'done', 'lost')), batch_id TEXT, num_requests INTEGER NOT NULL,
    num_bytes INTEGER NOT NULL, num_tokens INTEGER NOT NULL, created REAL NOT NULL, kept_until REAL) STRICT, WITHOUT ROWID;
CREATE TABLE submission_items (submission_id TEXT NOT NULL REFERENCES submissions, request_id TEXT NOT NULL REFERENCES requests,
    PRIMARY KEY (submission_id, request_id)) STRICT, WITHOUT ROWID;
INSERT INTO submissions VALUES ('s', 'anthropic', 'm', 'open', 'b', 1, 10, 20, 1.0, 2.0);
PRAGMA user_version = 1;
"""


def test_a_ledger_of_the_first_version_keeps_everything_and_takes_the_new_kinds(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    db = sqlite3.connect(path)
    db.executescript(FIRST_VERSION)
    question, check = call(), dataclasses.replace(call("more"), kind="judge")
    values = (
        question.request_id,
        question.document_id,
        "question",
        "anthropic",
        "m",
        "{}",
        9,
        "i",
        "answered",
        1,
        "now",
    )
    db.execute(f"INSERT INTO requests VALUES ({', '.join('?' * 11)})", values)
    raw = zlib.compress(b'{"content": "paid"}')
    db.execute("INSERT INTO replies (request_id, received, raw) VALUES (?, 'now', ?)", (question.request_id, raw))
    db.execute("INSERT INTO submission_items VALUES ('s', ?)", (question.request_id,))
    db.commit()
    db.close()
    for _ in range(2):
        with Ledger(path) as ledger:
            stored = ledger.reply(question.request_id)
            assert stored is not None
            assert stored.raw == {"content": "paid"}
            ledger.begin(check)
            ledger.answered(check, {"content": "new"})
            submissions = Submissions(ledger)
            assert submissions.requests("s") == {question.request_id}
            submissions.closed("s", "gone")
            assert [batch.batch_id for batch in submissions.gone()] == ["b"]
            with ledger.together() as inside:
                assert inside.execute("PRAGMA foreign_key_check").fetchall() == []


def test_what_a_batch_brought_back_unanswered_is_no_request_of_the_batch_when_it_is_asked_live(tmp_path: Path) -> None:
    answered, expired = call(instruction="first"), call(instruction="second")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        submissions = Submissions(ledger)
        batch = Submission(
            submission_id="s",
            provider="anthropic",
            model="m",
            state="open",
            batch_id="b",
            num_requests=2,
            num_bytes=2,
            num_tokens=2,
            created=0.0,
            kept_until=None,
        )
        submissions.begin(batch, [answered, expired])
        ledger.answered(answered, {})
        submissions.closed("s", "done")
        ledger.sending(expired, num_tokens=1)
        ledger.answered(expired, {})
        assert ledger.in_batches() == {answered.request_id}


def test_a_damaged_reply_is_told_with_its_request(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.begin(call())
        ledger.answered(call(), {})
    db = sqlite3.connect(tmp_path / "l.sqlite")
    db.execute("UPDATE replies SET raw = x'00'")
    db.commit()
    db.close()
    with (
        Ledger(tmp_path / "l.sqlite") as ledger,
        pytest.raises(BuildError, match=f"request {call().request_id} is damaged"),
    ):
        ledger.reply(call().request_id)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="the ledger cannot be used"):
        Ledger(tmp_path / "file" / "l.sqlite")

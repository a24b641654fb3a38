"""Every request to a teacher and every reply, on disk before anything else happens to it.

A request is committed before it is sent, a reply before it is read; a request that has a reply is never sent again.
Documents are not kept here, only the hash of each is part of its requests' ids. The file is SQLite and may be looked at
with any tool:

    select kind, state, count(*), sum(output_tokens) from requests left join replies using (request_id) group by all;

Replies are zlib-compressed JSON, exactly what the provider sent.
"""

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from pydantic import JsonValue

from longalign_data.errors import BuildError
from longalign_data.identity import digest
from longalign_data.records import Usage
from longalign_data.teachers.base import REHEARSED, Raw, TeacherRequest

SCHEMA = 2

Kind = Literal["question", "answer", "closed-book", "judge", "trial"]
"""What a request is for: the two calls of a sample, the paid checks of its answer, and the tiny one that goes ahead of a
batch."""

_REQUESTS = """
CREATE TABLE requests (
    request_id  TEXT PRIMARY KEY,
    document_id TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('question', 'answer', 'closed-book', 'judge', 'trial')),
    provider    TEXT NOT NULL,
    model       TEXT NOT NULL,
    parameters  TEXT NOT NULL,
    max_tokens  INTEGER NOT NULL,
    instruction TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'refused')),
    times_sent  INTEGER NOT NULL,
    created     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_document ON requests (document_id);
"""
_REPLIES = """
CREATE TABLE replies (
    request_id         TEXT PRIMARY KEY REFERENCES requests,
    received           TEXT NOT NULL,
    failure            TEXT,
    raw                BLOB NOT NULL,
    input_tokens       INTEGER,
    cache_write_tokens INTEGER,
    cache_read_tokens  INTEGER,
    output_tokens      INTEGER,
    thinking_tokens    INTEGER
) STRICT;
"""


_UNHEARD = """
CREATE TABLE IF NOT EXISTS unheard (
    request_id  TEXT PRIMARY KEY REFERENCES requests,
    most_tokens INTEGER NOT NULL,
    num_lost    INTEGER NOT NULL,
    under_way   INTEGER NOT NULL CHECK (under_way IN (0, 1))
) STRICT, WITHOUT ROWID;
"""
"""Live requests that may be billed and whose replies are not here: under way, or lost so many times; a reply that does not
name its tokens counts as lost. What is out in a batch stands here with no attempt, for the tokens of its prompt."""

_REHEARSED = """
CREATE TABLE IF NOT EXISTS rehearsed (
    request_id TEXT PRIMARY KEY REFERENCES requests
) STRICT, WITHOUT ROWID;
"""
"""Requests that the fake provider answered."""

_TAKEN_OVER = """
CREATE TABLE IF NOT EXISTS taken_over (
    request_id   TEXT PRIMARY KEY REFERENCES requests,
    build        TEXT NOT NULL,
    was_in_batch INTEGER NOT NULL CHECK (was_in_batch IN (0, 1))
) STRICT, WITHOUT ROWID;
"""
"""Requests that another build has paid for, with its name; `trials` writes it."""

SUBMISSIONS = """
CREATE TABLE IF NOT EXISTS submissions (
    submission_id TEXT PRIMARY KEY,
    provider      TEXT NOT NULL,
    model         TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('sending', 'open', 'done', 'lost', 'gone')),
    batch_id      TEXT,
    num_requests  INTEGER NOT NULL,
    num_bytes     INTEGER NOT NULL,
    num_tokens    INTEGER NOT NULL,
    created       REAL NOT NULL,
    kept_until    REAL
) STRICT, WITHOUT ROWID;
"""
"""Made by the first batch; `submissions` reads and writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request with its identity and its place: the document it is about, and what it is for."""

    request_id: str
    document_id: str
    kind: Kind
    provider: str
    request: TeacherRequest


class Named(Protocol):
    """A request, by its identity alone: a `Call`, or one that an earlier run has begun."""

    @property
    def request_id(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What came back for a request: the raw reply, or with `failure` the reason for which the provider refused it (then
    `raw` holds its words under `message`)."""

    raw: Raw
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """Attempts at one request that may have been billed without a reply, one of them under way when the ledger was written
    last or none. Its prompt has at most `most_tokens` tokens, and `prompt_tokens` where a later reply tells; `is_unnamed` when the
    last of them was answered, and the reply does not name its tokens."""

    request_id: str
    provider: str
    model: str
    num_attempts: int
    num_under_way: int
    most_tokens: int
    prompt_tokens: int | None
    max_tokens: int
    is_unnamed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request as the ledger has it. `state` is `sent` (no reply yet), `answered` or `refused`; `raw` and `failure` are as
    in `Stored`, None without a reply; `was_in_batch` when the reply came out of a batch of ours or of the build `taken_from`,
    whose reply it was (None: asked by this build)."""

    request_id: str
    document_id: str
    kind: Kind
    provider: str
    model: str
    instruction: str
    state: str
    times_sent: int
    raw: Raw | None
    failure: str | None
    was_in_batch: bool
    taken_from: str | None


def request_id(provider: str, request: TeacherRequest, *, document_hash: str) -> str:
    """The identity of a request: everything that decides about its reply, `document_hash` in place of the document."""
    return digest(
        {
            "provider": provider,
            "model": request.model,
            "parameters": dict(request.parameters),
            "max_tokens": request.max_tokens,
            "document": document_hash,
            "instruction": request.instruction,
        }
    )


class Ledger:
    """The ledger of one build, for one process at a time; a context manager.

    `durable` makes every commit wait for the disk, so that not even a power failure loses a reply that was paid for.
    Without it a power failure may take back the last commits, whole ones; a killed process loses nothing either way.
    `of` is the file that errors name where `path` is a copy of it. Raises BuildError when the file is not a ledger or cannot
    be written.
    """

    def __init__(self, path: Path, *, durable: bool = True, of: Path | None = None) -> None:
        self._path = of or path
        with self._guard():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None)
        try:
            with self._guard():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._prepare()
                self._db.execute(_UNHEARD)
                self._db.execute(_REHEARSED)
                self._db.execute(_TAKEN_OVER)
                self._db.execute("PRAGMA foreign_keys = ON")
        except BuildError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if version == 0 and tables == 0:
                self._make(_REQUESTS + _REPLIES)
            elif version == 1:
                self._widen()
            elif version != SCHEMA:
                raise BuildError(
                    f"{self._path}: not a ledger of this version (found {version}, expected {SCHEMA}); move it away to "
                    "start a new one, or use the release that wrote it"
                )

    def _make(self, tables: str) -> None:
        for statement in tables.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    def _widen(self) -> None:
        """The first version knew two kinds of request and no batch whose results were gone; SQLite changes a CHECK by copying."""
        for name, made in (("requests", _REQUESTS), ("submissions", SUBMISSIONS)):
            (has,) = self._db.execute("SELECT count(*) FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
            if not has:
                continue
            self._db.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {name}")  # noqa: S608 - a name of ours
            self._db.execute(f"DROP TABLE {name}")
            self._make(made)
            self._db.execute(f"INSERT INTO {name} SELECT * FROM kept")  # noqa: S608 - a name of ours
            self._db.execute("DROP TABLE kept")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; what was committed is in it."""
        self._db.close()

    def begin(self, call: Call) -> None:
        """Notes that a request is about to be sent."""
        self._note(call, times_sent=1)

    def _note(self, call: Call, *, times_sent: int) -> None:
        request = call.request
        with self._transaction():
            self._db.execute(
                "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'sent', ?, ?) "
                "ON CONFLICT (request_id) DO UPDATE SET times_sent = times_sent + excluded.times_sent",
                (
                    call.request_id,
                    call.document_id,
                    call.kind,
                    call.provider,
                    request.model,
                    _canonical(request.parameters),
                    request.max_tokens,
                    request.instruction,
                    times_sent,
                    _now(),
                ),
            )

    def taken_over(self, call: Call, *, build: str, was_in_batch: bool) -> None:
        """Notes that a request was never sent by this build because another one has its reply, which is to be kept in the same
        commit. An attempt of ours that was under way when a process ended stays lost."""
        with self._transaction():
            self._note(call, times_sent=0)
            self._db.execute(
                "UPDATE unheard SET num_lost = num_lost + under_way, under_way = 0 WHERE request_id = ?",
                (call.request_id,),
            )
            self._db.execute(
                "INSERT INTO taken_over VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (call.request_id, build, was_in_batch)
            )

    def sending(self, call: Call, *, num_tokens: int) -> None:
        """Notes that a request is about to be sent live, with at most so many tokens, and may be billed from now on. What an
        earlier process left under way counts as lost."""
        with self._transaction():
            self.begin(call)
            self._db.execute(
                "INSERT INTO unheard VALUES (?, ?, 0, 1) "
                "ON CONFLICT (request_id) DO UPDATE SET num_lost = num_lost + under_way, under_way = 1",
                (call.request_id, num_tokens),
            )

    def lost(self, call: Named) -> None:
        """An attempt at a request that is under way may have been billed, and its reply is lost."""
        with self._transaction():
            self._db.execute("UPDATE unheard SET num_lost = num_lost + 1 WHERE request_id = ?", (call.request_id,))

    def in_batch(self, call: Call, *, num_tokens: int) -> None:
        """Notes that the prompt of a request that goes out in a batch has at most so many tokens, should its reply not tell."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO unheard VALUES (?, ?, 0, 0) ON CONFLICT DO NOTHING", (call.request_id, num_tokens)
            )

    def unnamed(self, call: Named, *, num_tokens: int | None) -> None:
        """The reply that comes now for a request does not name its tokens, of which the prompt has at most so many (None: as
        `in_batch` noted): it counts as a lost attempt."""
        with self._transaction():
            if num_tokens is None:
                self.lost(call)
                return
            self._db.execute(
                "INSERT INTO unheard VALUES (?, ?, 1, 0) ON CONFLICT (request_id) DO UPDATE SET num_lost = num_lost + 1",
                (call.request_id, num_tokens),
            )

    def over(self, call: Named) -> None:
        """No attempt at a request is under way any more."""
        with self._transaction():
            self._db.execute("UPDATE unheard SET under_way = 0 WHERE request_id = ?", (call.request_id,))
            self._db.execute("DELETE FROM unheard WHERE request_id = ? AND num_lost = 0", (call.request_id,))

    def unheard(self) -> Sequence[Attempts]:
        """The requests with attempts that may have been billed without a reply."""
        with self._guard():
            rows = self._db.execute(
                "SELECT request_id, provider, model, num_lost + under_way, under_way, most_tokens, "
                "input_tokens + cache_write_tokens + cache_read_tokens, max_tokens, "
                "state = 'answered' AND coalesce(input_tokens + cache_write_tokens + cache_read_tokens, 0) = 0 "
                "FROM unheard JOIN requests USING (request_id) LEFT JOIN replies USING (request_id) "
                "WHERE num_lost + under_way > 0 ORDER BY request_id"
            ).fetchall()
        names = Attempts.__dataclass_fields__
        return [Attempts(**dict(zip(names, row, strict=True))) for row in rows]

    def answered(self, call: Named, raw: Raw) -> None:
        """Keeps the reply of a request that was begun. The first reply stands; a second one is not stored."""
        self._keep(call, "answered", raw, failure=None)

    def refused(self, call: Named, *, reason: str, message: str) -> None:
        """Keeps the refusal of a request that was begun, so that it is not sent again."""
        self._keep(call, "refused", {"message": message}, failure=reason)

    def _keep(self, call: Named, state: str, raw: Raw, *, failure: str | None) -> None:
        packed = zlib.compress(json.dumps(raw, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        with self._transaction():
            self.over(call)
            stored = self._db.execute(
                "INSERT INTO replies (request_id, received, failure, raw) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (call.request_id, _now(), failure, packed),
            )
            if stored.rowcount and REHEARSED in raw:
                self._db.execute("INSERT OR IGNORE INTO rehearsed VALUES (?)", (call.request_id,))
            if stored.rowcount:
                self._db.execute("UPDATE requests SET state = ? WHERE request_id = ?", (state, call.request_id))

    def note_usage(self, call: Named, usage: Usage) -> None:
        """Puts the tokens of a reply beside it, for queries; the raw reply stays the source."""
        with self._transaction():
            self._db.execute(
                "UPDATE replies SET input_tokens = ?, cache_write_tokens = ?, cache_read_tokens = ?, output_tokens = ?, "
                "thinking_tokens = ? WHERE request_id = ?",
                (
                    usage.input_tokens,
                    usage.cache_write_tokens,
                    usage.cache_read_tokens,
                    usage.output_tokens,
                    usage.thinking_tokens,
                    call.request_id,
                ),
            )

    def rehearsed(self, provider: str, model: str) -> set[str]:
        """The requests to a model that the fake provider answered in its place."""
        with self._guard():
            rows = self._db.execute(
                "SELECT request_id FROM rehearsed JOIN requests USING (request_id) WHERE provider = ? AND model = ?",
                (provider, model),
            )
            return {identity for (identity,) in rows}

    def call(self, request_id: str) -> Call:
        """A request that was begun, with no document in it."""
        with self._guard():
            row = self._db.execute(
                "SELECT document_id, kind, provider, model, instruction, max_tokens, parameters FROM requests "
                "WHERE request_id = ?",
                (request_id,),
            ).fetchone()
        assert row is not None, request_id
        document_id, kind, provider, model, instruction, max_tokens, parameters = row
        request = TeacherRequest(
            model=model,
            document="",
            instruction=instruction,
            max_tokens=max_tokens,
            parameters=json.loads(parameters),
        )
        return Call(request_id=request_id, document_id=document_id, kind=kind, provider=provider, request=request)

    def reply(self, request_id: str) -> Stored | None:
        """What came back for a request, or None while nothing has."""
        with self._guard():
            row = self._db.execute("SELECT raw, failure FROM replies WHERE request_id = ?", (request_id,)).fetchone()
        return None if row is None else Stored(raw=self._unpacked(request_id, row[0]), failure=row[1])

    def entries(self) -> Iterator[Entry]:
        """Every request, by document and kind."""
        batched = self.in_batches()
        with self._guard():
            rows = self._db.execute(
                "SELECT request_id, document_id, kind, provider, model, instruction, state, times_sent, raw, failure, build "
                "FROM requests LEFT JOIN replies USING (request_id) LEFT JOIN taken_over USING (request_id) "
                "ORDER BY document_id, kind DESC, request_id"
            )
            for (
                identity,
                document_id,
                kind,
                provider,
                model,
                instruction,
                state,
                times_sent,
                packed,
                failure,
                build,
            ) in rows:
                yield Entry(
                    request_id=identity,
                    document_id=document_id,
                    kind=kind,
                    provider=provider,
                    model=model,
                    instruction=instruction,
                    state=state,
                    times_sent=times_sent,
                    raw=None if packed is None else self._unpacked(identity, packed),
                    failure=failure,
                    was_in_batch=identity in batched,
                    taken_from=build,
                )

    def asked(self) -> Mapping[str, str]:
        """The instruction by which the questions about each document were asked for, the last one where a prompt was edited."""
        with self._guard():
            return dict(
                self._db.execute(
                    "SELECT document_id, instruction FROM requests WHERE kind = 'question' ORDER BY created"
                )
            )

    def documents_of(self, state: str) -> Mapping[str, str]:
        """The requests in a state, each with the id of its document."""
        with self._guard():
            return dict(self._db.execute("SELECT request_id, document_id FROM requests WHERE state = ?", (state,)))

    def require_whole(self) -> None:
        """Raises BuildError where the file's structure is damaged, anywhere in it."""
        with self._guard():
            (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise BuildError(f"{self._path}: the ledger is damaged: {found}")

    def refused_for(self, reason: str) -> set[str]:
        """The requests that were refused for a reason."""
        with self._guard():
            return {row[0] for row in self._db.execute("SELECT request_id FROM replies WHERE failure = ?", (reason,))}

    def forget(self, request_ids: Iterable[str]) -> None:
        """Removes what came back for these requests, as if it had not: they can be sent again."""
        fetched = self._fetched()
        with self._transaction():
            for request_id in request_ids:
                self._db.execute("DELETE FROM replies WHERE request_id = ?", (request_id,))
                self._db.execute(
                    "DELETE FROM unheard WHERE request_id IN (SELECT request_id FROM rehearsed WHERE request_id = ?)",
                    (request_id,),
                )
                self._db.execute("DELETE FROM rehearsed WHERE request_id = ?", (request_id,))
                self._db.execute("DELETE FROM taken_over WHERE request_id = ?", (request_id,))
                self._db.execute("UPDATE requests SET state = 'sent' WHERE request_id = ?", (request_id,))
                if request_id in fetched:
                    # The next reply has a price of its own.
                    self._db.execute(
                        "DELETE FROM submission_items WHERE request_id = ? AND submission_id IN "
                        "(SELECT submission_id FROM submissions WHERE state = 'done')",
                        (request_id,),
                    )

    @property
    def num_changes(self) -> int:
        """Rows written so far by this connection; the same number, the same ledger."""
        return self._db.total_changes

    def in_batches(self) -> frozenset[str]:
        """The requests of every batch whose results were fetched, here or by a build that they were taken over from."""
        with self._guard():
            taken = self._db.execute("SELECT request_id FROM taken_over WHERE was_in_batch").fetchall()
        return self._fetched().union(identity for (identity,) in taken)

    def _fetched(self) -> frozenset[str]:
        with self._guard():
            (has_batches,) = self._db.execute(
                "SELECT count(*) FROM sqlite_schema WHERE name = 'submission_items'"
            ).fetchone()
            if not has_batches:
                return frozenset()
            rows = self._db.execute(
                "SELECT request_id FROM submission_items JOIN submissions USING (submission_id) WHERE state = 'done'"
            )
            return frozenset(identity for (identity,) in rows)

    def _unpacked(self, request_id: str, packed: bytes) -> Raw:
        try:
            raw: Raw = json.loads(zlib.decompress(packed).decode("utf-8", "surrogatepass"))
        except (zlib.error, ValueError) as error:
            raise BuildError(f"{self._path}: the reply to request {request_id} is damaged: {error}") from None
        return raw

    def has_answers(self, call: Call) -> bool:
        """Whether this provider, model and set of parameters has ever answered."""
        with self._guard():
            row = self._db.execute(
                "SELECT 1 FROM requests WHERE state = 'answered' AND provider = ? AND model = ? AND parameters = ? LIMIT 1",
                (call.provider, call.request.model, _canonical(call.request.parameters)),
            ).fetchone()
        return row is not None

    @contextlib.contextmanager
    def together(self) -> Iterator[sqlite3.Connection]:
        """Makes everything inside one commit: all of it is on disk afterwards, or none."""
        with self._transaction():
            yield self._db

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._db.in_transaction:
            yield
            return
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise BuildError(f"{self._path}: the ledger cannot be used: {error}") from error


def rehearsed_in(path: Path, provider: str, model: str) -> int:
    """How many requests to a model the fake provider answered in a ledger's file, which is not changed; 0 where it cannot be
    read, of which whoever needs it will hear more."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            found = db.execute(
                "SELECT count(*) FROM rehearsed JOIN requests USING (request_id) WHERE provider = ? AND model = ?",
                (provider, model),
            ).fetchone()
    except sqlite3.DatabaseError:
        return 0
    return int(found[0])


def _canonical(parameters: Mapping[str, JsonValue]) -> str:
    return json.dumps(dict(parameters), sort_keys=True, ensure_ascii=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

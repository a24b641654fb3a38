"""Batches in the ledger: which requests went out together, under which of the provider's ids, and until when to fetch them.

A submission is `sending` from before the provider is told of it, `open` once the provider's id is known, and `done` when
its results are in. One that never arrived or failed as a whole is `lost`, one that was answered and paid for but whose results
the provider no longer keeps is `gone`: the requests of both are free to be sent again. A request stands in at most one
submission that is sending or open.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from longalign_data.errors import UserError
from longalign_data.generation.ledger import SUBMISSIONS, Call, Ledger
from longalign_data.recipe import Recipe, TeacherChoice, limit_words

State = Literal["sending", "open", "done", "lost", "gone"]

_ITEMS = """
CREATE TABLE IF NOT EXISTS submission_items (
    submission_id TEXT NOT NULL REFERENCES submissions,
    request_id    TEXT NOT NULL REFERENCES requests,
    PRIMARY KEY (submission_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS submission_items_by_request ON submission_items (request_id);
CREATE TABLE IF NOT EXISTS submission_bounds (
    submission_id TEXT PRIMARY KEY REFERENCES submissions,
    newer_than    REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One batch. `created` and `kept_until` are Unix seconds of this machine's clock; `newer_than` is, by the provider's clock,
    when its newest batch before this one was created (0: none, or not noted). `num_tokens` is an estimate."""

    submission_id: str
    provider: str
    model: str
    state: State
    batch_id: str | None
    num_requests: int
    num_bytes: int
    num_tokens: int
    created: float
    kept_until: float | None
    newer_than: float = 0.0

    @property
    def known_as(self) -> str:
        """The provider's id, or our own as long as there is none: what it is given up by."""
        return self.batch_id or self.submission_id

    @property
    def words(self) -> str:
        """How to speak of it."""
        return (
            f"batch {self.batch_id}" if self.batch_id else f"a batch that may not have arrived ({self.submission_id})"
        )


class Submissions:
    """The batches of a ledger. Raises BuildError as the ledger does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        with ledger.together() as db:
            for statement in (SUBMISSIONS + _ITEMS).split(";"):
                db.execute(statement)

    def begin(self, submission: Submission, calls: Sequence[Call]) -> None:
        """Notes a batch and its requests before the provider is told."""
        with self._ledger.together() as db:
            for call in calls:
                self._ledger.begin(call)
            db.execute(
                "INSERT INTO submissions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    submission.submission_id,
                    submission.provider,
                    submission.model,
                    submission.state,
                    submission.batch_id,
                    submission.num_requests,
                    submission.num_bytes,
                    submission.num_tokens,
                    submission.created,
                    submission.kept_until,
                ),
            )
            db.execute("INSERT INTO submission_bounds VALUES (?, ?)", (submission.submission_id, submission.newer_than))
            db.executemany(
                "INSERT INTO submission_items VALUES (?, ?)",
                [(submission.submission_id, call.request_id) for call in calls],
            )

    def opened(self, submission_id: str, batch_id: str, *, kept_s: float) -> None:
        """The provider has the batch under this id, and keeps its results so long."""
        with self._ledger.together() as db:
            db.execute(
                "UPDATE submissions SET state = 'open', batch_id = ?, kept_until = ? WHERE submission_id = ?",
                (batch_id, time.time() + kept_s, submission_id),
            )

    def closed(self, submission_id: str, state: Literal["done", "lost", "gone"]) -> None:
        """The batch is over for us. Of one that is done, requests that came back without an answer are taken out: if they are
        asked live now, they cost what live requests cost."""
        with self._ledger.together() as db:
            db.execute("UPDATE submissions SET state = ? WHERE submission_id = ?", (state, submission_id))
            if state == "done":
                db.execute(
                    "DELETE FROM submission_items WHERE submission_id = ? "
                    "AND NOT EXISTS (SELECT 1 FROM replies WHERE replies.request_id = submission_items.request_id)",
                    (submission_id,),
                )

    def unfinished(self) -> list[Submission]:
        """Those that are sending or open, oldest first."""
        return [*self._in_state("sending"), *self._in_state("open")]

    def unfinished_of(self, choice: TeacherChoice) -> list[Submission]:
        """Of the unfinished those of this teacher's provider and model."""
        return [each for each in self.unfinished() if (each.provider, each.model) == (choice.provider, choice.model)]

    def require_none_out(self, recipe: Recipe) -> None:
        """Raises UserError while a batch of the recipe's teacher is out: what is in it is paid for, and asking in another way would
        pay for it again."""
        for batch in self.unfinished_of(recipe.generate.teacher):
            raise UserError(
                f"{batch.num_requests:,} requests of this build are out in {batch.words}, and would be bought a second time; "
                "fetch them first: the same build with --schedule batch. Where that cannot find them, give them up: longalign "
                f"ledger RECIPE{limit_words(recipe.name)} --forget {batch.known_as}; they count as paid"
            )

    def gone(self) -> list[Submission]:
        """Those that were paid for and whose results nobody fetched in time, oldest first."""
        return self._in_state("gone")

    def _in_state(self, state: State) -> list[Submission]:
        with self._ledger.together() as db:
            rows = db.execute(
                "SELECT submissions.*, coalesce(newer_than, 0.0) FROM submissions LEFT JOIN submission_bounds "
                "USING (submission_id) WHERE state = ? ORDER BY created, submission_id",
                (state,),
            ).fetchall()
        return [_submission(row) for row in rows]

    def batch_ids(self) -> set[str]:
        """Every id that the provider has given us."""
        with self._ledger.together() as db:
            return {row[0] for row in db.execute("SELECT batch_id FROM submissions WHERE batch_id IS NOT NULL")}

    def requests(self, submission_id: str) -> set[str]:
        """The ids of a batch's requests."""
        with self._ledger.together() as db:
            return {
                row[0]
                for row in db.execute(
                    "SELECT request_id FROM submission_items WHERE submission_id = ?", (submission_id,)
                )
            }

    def in_flight(self) -> set[str]:
        """The requests of every batch that is sending or open."""
        with self._ledger.together() as db:
            return {
                row[0]
                for row in db.execute(
                    "SELECT request_id FROM submission_items JOIN submissions USING (submission_id) "
                    "WHERE state IN ('sending', 'open')"
                )
            }


def _submission(row: sqlite3.Row | tuple[object, ...]) -> Submission:
    names = Submission.__dataclass_fields__
    return Submission(**dict(zip(names, row, strict=True)))

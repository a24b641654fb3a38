"""What trials of a recipe have paid for, taken over: the whole build buys none of it again.

In: the ledgers of `longalign build RECIPE --limit N`, which stand beside the build's own. Out: in the build's ledger every reply
of theirs that the build would ask for, as the provider sent it, so with its usage and cost, and the name of the trial.
Requests are known by their content, so nothing else can be mistaken for one of the build's.

Not taken over is what asking again may mend (`exchange.AGAIN`), and what is out in a batch of the build itself. A trial's
folder is not touched: its ledger is copied, and the copy is read.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from longalign_data.engine import Progress
from longalign_data.errors import BuildError, UserError
from longalign_data.generation.asking import keep
from longalign_data.generation.budget import entry_cost, reply_cost
from longalign_data.generation.documents import SelectedDocuments
from longalign_data.generation.exchange import Plan, can_be_mended, waiting
from longalign_data.generation.ledger import Ledger
from longalign_data.generation.submissions import Submission, Submissions
from longalign_data.recipe import Recipe, trials_of
from longalign_data.records import Document
from longalign_data.shards.folder import BuildFolder
from longalign_data.teachers.base import REHEARSED, Raw
from longalign_data.teachers.prices import Prices

_TRIES, _PAUSE_S = 20, 0.1


def trial_builds(recipe: Recipe, build: BuildFolder) -> Sequence[BuildFolder]:
    """The trials of a recipe beside its build that have a ledger, by name, without the build itself."""
    pattern = f"{trials_of(recipe.name)}/{recipe.version}/{build.ledger.name}"
    found = sorted(build.root.parent.parent.glob(pattern))
    return [BuildFolder(path.parent) for path in found if path != build.ledger and path.is_file()]


@contextlib.contextmanager
def copied_ledger(path: Path, *, is_own: bool = False) -> Iterator[Ledger]:
    """The ledger of another build, or of the one that is asked about (`is_own`), as it stands, while a build may be at work there;
    nothing is written beside it. Raises BuildError when it is damaged, no ledger, or of a newer version, and UserError when it
    cannot be copied: what passes must not let anything be bought again."""
    with contextlib.ExitStack() as stack:
        try:
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
            _copy(path, copy)
        except OSError as error:
            said = f"{path}: cannot be copied to be read ({error})"
            where = "TMPDIR says where the copy goes"
            if is_own:
                raise UserError(f"{said}; {where}") from error
            raise UserError(
                f"{said}, and what it paid for would be bought again; mend that ({where}), or remove its folder"
            ) from error
        ledger = stack.enter_context(Ledger(copy, durable=False, of=path))
        ledger.require_whole()
        yield ledger


def _copy(path: Path, copy: Path) -> None:
    """Copies the file and its log of what is not in it yet. A log that is torn at its end loses the last commits; a file that
    changes meanwhile takes in what its log had, so both are copied again."""
    log, log_copy = (each.with_name(f"{each.name}-wal") for each in (path, copy))
    for _ in range(_TRIES):
        before = path.stat()
        log_copy.unlink(missing_ok=True)
        shutil.copyfile(path, copy)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(log, log_copy)
        after = path.stat()
        if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
            return
        time.sleep(_PAUSE_S)
    raise UserError(f"{path}: is being written all the time, and cannot be read; wait until the build there ends")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What a trial has for this build and the build has not: replies by their request, those that came out of batches, and the
    batches that are out with their requests, each with its document."""

    build: BuildFolder
    replies: Mapping[str, Raw]
    in_batches: Set[str]
    out: Sequence[tuple[Submission, Set[str]]]
    documents: Mapping[str, str]

    @property
    def name(self) -> str:
        return _name(self.build)


def take_over(
    build: BuildFolder,
    documents: SelectedDocuments,
    plan: Plan,
    ledger: Ledger,
    *,
    prices: Prices,
    progress: Progress,
    rehearsed: bool = True,
) -> None:
    """Afterwards every reply that trials of the recipe have and the build needs stands in its ledger, each document's in one
    commit; without `rehearsed`, not what the fake provider answered. A trial's ledger that cannot be read is named and left out.
    Raises UserError where what the build would ask for
    next is out in a batch of a trial: it is paid for, and asking for it here would pay for it again."""
    trials: list[_Trial] = []
    for folder in trial_builds(plan.recipe, build):
        is_at_work = folder.is_at_work()
        try:
            trial = _read(folder, documents, ledger, progress)
            if not rehearsed:
                trial = _without_rehearsal(trial)
        except BuildError as error:
            progress.say(f"nothing is taken over from {_name(folder)}: {error}")
            continue
        trials.append(trial)
        num_taken, usd = _take(trial, documents, plan, ledger, prices)
        if num_taken:
            paid = f", {usd:,.4f} USD" if usd else ""
            progress.say(f"{num_taken:,} replies taken over from {trial.name}{paid}")
        if is_at_work:
            progress.say(f"{trial.name}: a build is at work there; what it asks from now on may be bought here as well")
    for trial in trials:
        _require_none_out(trial, documents, plan, ledger)


def _read(folder: BuildFolder, documents: SelectedDocuments, ledger: Ledger, progress: Progress) -> _Trial:
    replies: dict[str, Raw] = {}
    with copied_ledger(folder.ledger) as theirs:
        answered = theirs.documents_of("answered")
        for request_id, document_id in answered.items():
            if document_id not in documents.measures or ledger.reply(request_id) is not None:
                continue
            try:
                found = theirs.reply(request_id)
            except BuildError as error:
                progress.say(f"not taken over from {_name(folder)}: {error}")
                continue
            if found is not None:
                replies[request_id] = found.raw
        batches = Submissions(theirs)
        sent = theirs.documents_of("sent")
        now = time.time()
        out = [
            (batch, batches.requests(batch.submission_id) & sent.keys())
            for batch in batches.unfinished()
            if batch.kept_until is None or batch.kept_until > now
        ]
        return _Trial(
            build=folder,
            replies=replies,
            # A batch that is fetched in part cost what a batch costs, too.
            in_batches=theirs.in_batches() | batches.in_flight(),
            out=out,
            documents={**answered, **sent},
        )


def _without_rehearsal(trial: _Trial) -> _Trial:
    return replace(trial, replies={name: raw for name, raw in trial.replies.items() if REHEARSED not in raw})


def _take(
    trial: _Trial, documents: SelectedDocuments, plan: Plan, ledger: Ledger, prices: Prices
) -> tuple[int, float | None]:
    """How many replies were taken, and what the trial paid for them; None where no price is known."""
    choice = plan.recipe.generate.teacher
    own_batches = Submissions(ledger).in_flight()
    left = dict(trial.replies)
    num_taken, usd = 0, 0.0
    is_priced = True
    for document in _selected(trial.replies, trial, documents):
        with ledger.together():
            while True:
                calls = [call for call in waiting(document, plan, ledger) if call.request_id in left]
                for call in calls:
                    raw, was_in_batch = left.pop(call.request_id), call.request_id in trial.in_batches
                    if call.request_id in own_batches or can_be_mended(call, raw, document, plan):
                        continue
                    ledger.taken_over(call, build=trial.name, was_in_batch=was_in_batch)
                    keep(ledger, call, raw, plan)
                    num_taken += 1
                    cost = reply_cost(choice.provider, choice.model, raw, prices, was_in_batch=was_in_batch)
                    is_priced = is_priced and cost is not None
                    usd += cost or 0.0
                if not calls:
                    break
    return num_taken, usd if is_priced else None


def _require_none_out(trial: _Trial, documents: SelectedDocuments, plan: Plan, ledger: Ledger) -> None:
    # What is out in a batch of the build's own is waited for here and not sent again.
    own = Submissions(ledger).in_flight()
    for batch, requests in trial.out:
        num_needed = sum(
            call.request_id in requests and call.request_id not in own
            for document in _selected(requests, trial, documents)
            for call in waiting(document, plan, ledger)
        )
        if num_needed:
            raise UserError(
                f"{num_needed:,} requests of this build are out in {batch.words} of the trial {trial.name}, and would be bought a "
                f"second time; fetch them first: longalign build RECIPE --limit {trial.name.rpartition('-')[2]} --schedule batch. "
                f"To buy them again all the same, delete {trial.build.root}"
            )


def _selected(requests: Iterable[str], trial: _Trial, documents: SelectedDocuments) -> Iterator[Document]:
    """The selected documents that these requests are about."""
    wanted = {trial.documents[request_id] for request_id in requests}
    return (documents.document(doc_id) for doc_id in documents.measures if doc_id in wanted)


def _name(build: BuildFolder) -> str:
    return build.root.parent.name


def taken(ledger: Ledger, prices: Prices) -> Mapping[str, tuple[int, float]]:
    """The replies in a ledger that were taken over from other builds, by the build: how many, and dollars paid for them; those
    of models without a price count nothing."""
    found: dict[str, tuple[int, float]] = {}
    for entry in ledger.entries():
        if entry.taken_from is not None:
            count, usd = found.get(entry.taken_from, (0, 0.0))
            found[entry.taken_from] = (count + 1, usd + (entry_cost(entry, prices) or 0.0))
    return found

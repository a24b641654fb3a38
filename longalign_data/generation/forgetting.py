"""Taking back what a teacher refused or read only in part, so that the next build asks again.

A refusal is final for the ledger, and may be mended all the same: a server gets a longer context, a fault of the provider's is
repaired. A batch that the provider does not know any more would be waited for without end.
"""

from longalign_data.errors import UserError
from longalign_data.generation.documents import SelectedDocuments
from longalign_data.generation.exchange import AGAIN, Finished, Plan, Rejected
from longalign_data.generation.ledger import Ledger
from longalign_data.generation.submissions import Submissions
from longalign_data.shards.folder import STAGES, BuildFolder

REHEARSAL = "rehearsal"
"""In place of a reason: what the fake provider answered."""


def forget(build: BuildFolder, plan: Plan, ledger: Ledger, reason: str) -> int:
    """Removes every outcome of a build with this reason from the ledger, and the tables that were made of the ledger; how many
    outcomes these were. With what a batch that is out is `known_as` in place of a reason: gives the batch up, which counts as paid
    for from then on; how many requests it holds. With `rehearsal`: removes what the fake provider answered. Raises
    UserError for a reason that asking again cannot mend."""
    submissions = Submissions(ledger)
    out = {batch.known_as: batch for batch in submissions.unfinished()}
    if reason in out:
        submissions.closed(out[reason].submission_id, "gone")
        return out[reason].num_requests
    if reason == REHEARSAL:
        choice = plan.recipe.generate.teacher
        found = set(ledger.rehearsed(choice.provider, choice.model))
        if found:
            # Refusals carry no mark, and cost nothing to ask again.
            found = found.union(*(ledger.refused_for(name) for name in AGAIN))
    elif reason in AGAIN:
        found = ledger.refused_for(reason)
        for _, step in SelectedDocuments(build).endings(plan, ledger):
            ends = step.answers if isinstance(step, Finished) else [step]
            found |= {end.request_id for end in ends if isinstance(end, Rejected) and end.reason == reason}
        found.discard("")
    else:
        batches = f"; or a batch that is out: {', '.join(out)}" if out else ""
        raise UserError(f"--forget {reason}: can be asked again are: {', '.join(AGAIN)}, {REHEARSAL}{batches}")
    if found:
        names = list(STAGES)
        # Their fingerprints tell of the recipe, not of the ledger: they would be taken for complete.
        for stage in reversed(names[names.index("generate") :]):
            if stage != "mix":
                build.clear(stage)
        ledger.forget(found)
    return len(found)

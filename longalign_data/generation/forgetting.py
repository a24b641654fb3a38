"""Taking back what a teacher refused or read only in part, so that the next build asks again.

A refusal is final for the ledger, and may be mended all the same: a server gets a longer context, a fault of the provider's is
repaired.
"""

from longalign_data.errors import UserError
from longalign_data.generation.documents import SelectedDocuments
from longalign_data.generation.exchange import AGAIN, Finished, Plan, Rejected
from longalign_data.generation.ledger import Ledger
from longalign_data.shards.folder import STAGES, BuildFolder


def forget(build: BuildFolder, plan: Plan, ledger: Ledger, reason: str) -> int:
    """Removes every outcome of a build with this reason from the ledger, and the tables that were made of the ledger; how many
    outcomes these were. Raises UserError for a reason that asking again cannot mend."""
    if reason not in AGAIN:
        raise UserError(f"--forget {reason}: can be asked again are: {', '.join(AGAIN)}")
    found = ledger.refused_for(reason)
    for _, step in SelectedDocuments(build).endings(plan, ledger):
        ends = step.answers if isinstance(step, Finished) else [step]
        found |= {end.request_id for end in ends if isinstance(end, Rejected) and end.reason == reason}
    found.discard("")
    if found:
        names = list(STAGES)
        # Their fingerprints tell of the recipe, not of the ledger: they would be taken for complete.
        for stage in reversed(names[names.index("generate") :]):
            if stage != "mix":
                build.clear(stage)
        ledger.forget(found)
    return len(found)

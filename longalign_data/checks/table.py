"""Every check there is, in the order in which they run."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from longalign_data.checks import copying, form, grounding, language, wording
from longalign_data.checks.base import Check
from longalign_data.records import Score

CHECKS: dict[str, Check] = {
    "wording": wording.check,
    "form": form.check,
    "language": language.check,
    "copying": copying.check,
    "grounding": grounding.check,
}


class Verdict(NamedTuple):
    """What all checks found: scores in the order of the checks, evidence, and the first fault (empty where there is none)."""

    scores: Sequence[Score]
    evidence: Sequence[tuple[int, int]]
    fault: str
    detail: str


NO_VERDICT = Verdict((), (), "", "")


def run_checks(
    document: str,
    question: str,
    answer: str,
    *,
    run: Collection[str],
    reject: Collection[str],
    min_grounding: float = 0.0,
) -> Verdict:
    """Runs the checks named in `run`. A fault counts when `reject` names it; `ungrounded` is the fault of an answer with
    at least three claims of which a smaller share than `min_grounding` is found in the document."""
    scores: list[Score] = []
    evidence: list[tuple[int, int]] = []
    fault = detail = ""
    for name, check in CHECKS.items():
        if name not in run:
            continue
        finding = check(document, question, answer)
        scores += [Score(name=key, value=value) for key, value in finding.scores.items()]
        evidence += finding.evidence
        if not fault and finding.fault in reject and finding.fault is not None:
            fault, detail = finding.fault, finding.detail
    by_name = {score.name: score.value for score in scores}
    if not fault and by_name.get("num_claims", 0.0) >= 3 and by_name.get("grounding", 1.0) < min_grounding:
        fault = "ungrounded"
        detail = f"{by_name['grounding']:.2f} of {by_name['num_claims']:.0f} claims are in the document"
    return Verdict(scores=scores, evidence=evidence, fault=fault, detail=detail)

"""What a check is.

In: the document, the question and the answer, as texts. Out: a `Finding`, for instance

    Finding(scores={"grounding": 0.75, "num_claims": 4.0}, evidence=[(1204, 1210), ...], fault=None)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`scores` are numbers that go into the sample. `evidence` are characters (start inclusive, end exclusive) of the
    document that support the answer. `fault` is the reason for which the sample may be rejected, one of the check's own,
    with `detail` for a person; None where the answer shows no clear fault."""

    scores: Mapping[str, float] = field(default_factory=dict)
    evidence: Sequence[tuple[int, int]] = ()
    fault: str | None = None
    detail: str = ""


Check: TypeAlias = Callable[[str, str, str], Finding]
"""`check(document, question, answer)`: depends on nothing else and raises nothing."""

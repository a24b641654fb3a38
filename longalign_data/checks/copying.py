"""How much of the answer stands in the document word for word.

`copied` is that share, in pieces of at least `PIECE` characters. Copying is no fault in itself (an extraction should
copy); `document-copied` is the fault of an answer that gives back most of the document, `question-echo` of one that is
the question again.
"""

from longalign_data.checks.base import Finding

PIECE = 48
WHOLE_DOCUMENT = 0.8


def check(document: str, question: str, answer: str) -> Finding:
    """Score `copied` in [0, 1]; faults `document-copied` and `question-echo`."""
    if _plain(answer) == _plain(question):
        return Finding(fault="question-echo", detail="the answer is the question again")
    copied = _copied_share(document, answer)
    scores = {"copied": round(copied, 4)}
    if len(answer) >= WHOLE_DOCUMENT * len(document) and copied >= WHOLE_DOCUMENT:
        share = len(answer) / max(1, len(document))
        return Finding(
            scores=scores,
            fault="document-copied",
            detail=f"the answer is a copy as long as {share:.0%} of the document",
        )
    return Finding(scores=scores)


def _copied_share(document: str, answer: str) -> float:
    if not answer:
        return 0.0
    if len(answer) <= PIECE:
        return float(answer in document)
    copied = bytearray(len(answer))
    for start in range(0, len(answer) - PIECE + 1, PIECE // 4):
        if answer[start : start + PIECE] in document:
            copied[start : start + PIECE] = b"\x01" * PIECE
    if answer[-PIECE:] in document:
        copied[-PIECE:] = b"\x01" * PIECE
    return sum(copied) / len(copied)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .?!。？！\"'“”")

"""Plain documents to sequences, for continual pre-training: every token is a target, long documents become windows.

    document     BOS a b c d e f EOS           (BOS and EOS where the vocabulary has them)
    windows of 4 [BOS a b c] [c d e f] [f EOS]

A window begins with the last token of the one before it, which stands there as context and is no target: so every
token of a document but its first is a target exactly once, and none is predicted out of nothing.
"""

import numpy as np
import pyarrow as pa

from longalign_data.encoding.rows import Encoded, Labels, assemble
from longalign_data.encoding.templates import Segment
from longalign_data.identity import digest
from longalign_data.records import Reject
from longalign_data.tokenizers import TokenIds, Tokenizer

VERSION = 1
"""Raised when the windows of the same document change; part of the identity."""


class Windower:
    """Documents to windows of at most `max_tokens` tokens with one tokenizer."""

    columns = ("doc_id", "source", "text")
    template = "plain"

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self.identity = digest(["windows", VERSION, tokenizer.identity, max_tokens])
        self._before = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self._after = [] if tokenizer.eos_id is None else [tokenizer.eos_id]

    def encode_rows(self, rows: pa.Table) -> Encoded:
        """The windows of each document, in order; a document of fewer than two tokens is a reject."""
        labels = Labels(sequence_ids=[], sample_ids=[], sources=[], tasks=[], truncated_tokens=[])
        sequences: list[list[Segment]] = []
        rejects: list[Reject] = []
        ids, sources, texts = (rows.column(name).to_pylist() for name in self.columns)
        for doc_id, source, tokens in zip(ids, sources, self._tokenizer.encode_arrays(texts), strict=True):
            windows = self.windows(tokens)
            if not windows:
                detail = "the document has no token that another stands before"
                rejects.append(Reject(id=doc_id, stage="encode", reason="no-targets", detail=detail))
            for number, window in enumerate(windows):
                sequences.append([Segment(window, True)])
                labels.sequence_ids.append(digest([doc_id, self.identity, number]))
                labels.sample_ids.append(doc_id)
                labels.sources.append(source)
                labels.tasks.append("")
                labels.truncated_tokens.append(0)
        return Encoded(table=assemble(labels, sequences), rejects=rejects, num_in=len(sequences) + len(rejects))

    def windows(self, tokens: TokenIds) -> list[TokenIds]:
        """The windows of one document's tokens; each has at least two."""
        whole = np.concatenate((self._before, tokens, self._after)).astype(np.int32)
        return [whole[at : at + self._max_tokens] for at in range(0, len(whole) - 1, self._max_tokens - 1)]

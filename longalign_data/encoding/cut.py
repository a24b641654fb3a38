"""Shortening a conversation: the middle of its documents goes, nothing else.

In: the messages of a sample, where its documents stand in them, and how many tokens are too many. Out: the messages
without so many tokens. A document keeps its head and its tail, half and half, because that is where titles, abstracts
and conclusions are; several documents lose in proportion to their lengths. Answers are never touched.
"""

from collections.abc import Sequence

from longalign_data.records import DocumentSpan, Message
from longalign_data.tokenizers import Tokenizer


class Cutter:
    """The documents of one sample, tokenised once. Spans that are empty, outside their message or in an answer are not
    documents that can be cut."""

    def __init__(self, messages: Sequence[Message], spans: Sequence[DocumentSpan], tokenizer: Tokenizer) -> None:
        self._messages = messages
        self._tokenizer = tokenizer
        self._spans = sorted(
            (
                span
                for span in spans
                if 0 <= span.message_index < len(messages)
                and messages[span.message_index].role != "assistant"
                and 0 <= span.start < span.end <= len(messages[span.message_index].content)
            ),
            key=lambda span: (span.message_index, span.start),
        )
        self._ids = [tokenizer.encode(self._text(span)) for span in self._spans]
        self.num_tokens = sum(len(ids) for ids in self._ids)

    def without(self, excess: int) -> list[Message]:
        """The messages after `excess` tokens, at most `num_tokens`, were cut out of the documents. Text around a cut may
        be tokenised anew, so the whole can shrink by a token less."""
        assert 0 <= excess <= self.num_tokens
        contents = [message.content for message in self._messages]
        goes_before = 0
        tokens_before = 0
        cuts: list[tuple[DocumentSpan, int, int]] = []
        for span, ids in zip(self._spans, self._ids, strict=True):
            tokens_before += len(ids)
            goes_until = excess * tokens_before // self.num_tokens
            head, tail = self._borders(self._text(span), ids, goes_until - goes_before)
            goes_before = goes_until
            cuts.append((span, head, tail))
        for span, head, tail in reversed(cuts):
            text = contents[span.message_index]
            contents[span.message_index] = text[: span.start + head] + text[span.end - tail :]
        return [
            Message(role=message.role, content=content)
            for message, content in zip(self._messages, contents, strict=True)
        ]

    def _text(self, span: DocumentSpan) -> str:
        return self._messages[span.message_index].content[span.start : span.end]

    def _borders(self, text: str, ids: Sequence[int], num_cut: int) -> tuple[int, int]:
        """How many characters stay at the head and at the tail when `num_cut` tokens go."""
        if not num_cut:
            return len(text), 0
        stay = len(ids) - num_cut
        head, tail = stay - stay // 2, stay // 2
        # A token may end inside a character; the replacement character that stands for its part is dropped.
        before = self._tokenizer.decode(ids[:head]).rstrip("\ufffd") if head else ""
        after = self._tokenizer.decode(ids[len(ids) - tail :]).lstrip("\ufffd") if tail else ""
        # A tokenizer that normalises does not give its text back; then characters stand in for tokens.
        num_before = len(before) if text.startswith(before) else len(text) * head // len(ids)
        num_after = len(after) if text.endswith(after) else len(text) * tail // len(ids)
        return num_before, min(num_after, len(text) - num_before)

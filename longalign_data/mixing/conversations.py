"""One record of a set as a conversation, whatever form it has.

messages        [{"role": "user", "content": "..."}, ...]            what SFT trainers read
conversations   [{"from": "human", "value": "..."}, ...]             ShareGPT's form
"""

from collections.abc import Mapping
from typing import Any

from longalign_data.mixing.files import Bad
from longalign_data.records import DocumentSpan, Message

FORMS = {"messages": ("role", "content"), "conversations": ("from", "value")}
"""The field that holds the turns, and the names of speaker and text in a turn."""

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
}
"""Who a speaker is, by the names that public sets use."""


def conversation_of(record: Mapping[str, Any], where: str) -> list[Message] | Bad:
    """The turns of a record. Refused are, with their reasons: `missing-field` (no form is there), `bad-turn` (a turn is
    not a speaker with a text), `unknown-role`, `bad-utf8`, `no-reply` (no assistant turn) and `empty-reply` (one that says
    nothing; LongAlign leaves these conversations out, section 4.1)."""
    form = next((name for name in FORMS if isinstance(record.get(name), list)), None)
    if form is None:
        keys = ", ".join(sorted(map(str, record))[:12])
        return Bad(
            "missing-field", f"{where}: expected a list under {' or '.join(FORMS)}. Fields here: {keys or 'none'}"
        )
    speaker_key, text_key = FORMS[form]
    turns: list[Message] = []
    for number, turn in enumerate(record[form]):
        place = f"{where}: {form}[{number}]"
        speaker, text = (turn.get(speaker_key), turn.get(text_key)) if isinstance(turn, dict) else (None, None)
        if not isinstance(speaker, str) or not isinstance(text, str):
            return Bad("bad-turn", f"{place}: expected {speaker_key!r} and {text_key!r} with text")
        role = ROLES.get(speaker)
        if role is None:
            return Bad("unknown-role", f"{place}: {speaker!r}; known are: {', '.join(ROLES)}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return Bad("bad-utf8", f"{place}: not Unicode at character {error.start}")
        turns.append(Message(role=role, content=text))
    replies = [turn.content for turn in turns if turn.role == "assistant"]
    if not replies:
        return Bad("no-reply", f"{where}: nobody answers")
    if not all(reply.strip() for reply in replies):
        return Bad("empty-reply", f"{where}: an answer is empty")
    return turns


def document_span(turns: list[Message]) -> list[DocumentSpan]:
    """Where the document stands in a conversation of LongAlign's form, document first and question last: the first user
    turn up to its last blank line; nothing when it has none."""
    for index, turn in enumerate(turns):
        if turn.role == "user":
            end = turn.content.rstrip().rfind("\n\n")
            return [DocumentSpan(message_index=index, start=0, end=end)] if end > 0 else []
    return []

"""Chat templates: how a conversation becomes token ids, and which of them are targets.

    chatml       <|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n
    llama-inst   <s>[INST]{text}[/INST]{answer}</s>, once for each pair of turns; a system text goes into the first
                 [INST] between <<SYS>> and <</SYS>> as Llama 2 has it
    chatglm      [gMASK]sop[Round 1]\n\n问：{text}\n\n答：{answer}</s>\n\n[Round 2] and so on, the form of the paper's
                 ChatGLM; the prefix is what of it the vocabulary has, else its BOS; a system text stands before round 1
    tokenizer    the chat template that a Hugging Face tokenizer carries

In: conversations. Out: for each a list of `Segment`s, or a `Refusal`. Targets are an answer and the token that ends it,
because the model has to learn to stop; an empty answer is no target. Which tokens are targets is known from building the
conversation, never from searching it: a document may spell `<|im_end|>` or `[/INST]`, and it stays text.

What stands before an answer is tokenised in one piece, as it will be at inference.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from longalign_data.errors import RecipeError, TokenizerError
from longalign_data.identity import digest
from longalign_data.records import Message
from longalign_data.tokenizers import HubTokenizer, TokenIds, Tokenizer

VERSION = 1
"""Raised when a built-in template changes what it gives; part of every template's identity."""


class Segment(NamedTuple):
    """Some token ids in a row, all of them targets or none. The array may be read-only and shared. (A tuple, because a
    million chats have ten million of them.)"""

    ids: TokenIds
    is_target: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a template cannot render a conversation: a `reason` out of a small set, and a `detail` for a person."""

    reason: str
    detail: str


Rendered: TypeAlias = list[Segment] | Refusal
Encoded: TypeAlias = tuple[list[int], list[tuple[int, int]]]
"""Token ids, and the characters from and to which each stands."""


class Template(Protocol):
    """`identity` is a hash of everything that decides the output, the vocabulary apart."""

    name: str
    identity: str

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[Rendered]:
        """The segments of each conversation, in order."""
        ...


def load_template(name: str, tokenizer: Tokenizer) -> Template:
    """The template of that name over that vocabulary. Raises RecipeError for an unknown name, and TokenizerError when the
    vocabulary lacks a special token that the template needs, saying what to use instead."""
    if name not in TEMPLATES:
        raise RecipeError(f"unknown template {name!r}; there are: {', '.join(TEMPLATES)}")
    return TEMPLATES[name](tokenizer)


class _Piece(NamedTuple):
    """Text to tokenise, or token ids as they are."""

    content: str | TokenIds
    is_target: bool = False


class BuiltinTemplate:
    """A template that is written down here, as a function from messages to pieces."""

    def __init__(
        self, name: str, tokenizer: Tokenizer, layout: Callable[[Sequence[Message]], list[_Piece] | Refusal]
    ) -> None:
        self.name = name
        self.identity = digest(["template", VERSION, name])
        self._tokenizer = tokenizer
        self._layout = layout

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[Rendered]:
        layouts = [self._layout(messages) for messages in conversations]
        texts = [
            content
            for layout in layouts
            if not isinstance(layout, Refusal)
            for content, _ in layout
            if isinstance(content, str)
        ]
        encoded = iter(self._tokenizer.encode_arrays(texts))
        return [
            layout
            if isinstance(layout, Refusal)
            else [
                Segment(next(encoded) if isinstance(content, str) else content, is_target)
                for content, is_target in layout
            ]
            for layout in layouts
        ]


def _chatml(tokenizer: Tokenizer) -> Template:
    start, end = tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")
    if start is None or end is None:
        raise TokenizerError(
            f"template 'chatml' needs the special tokens <|im_start|> and <|im_end|>, which tokenizer {tokenizer.spec!r} lacks; "
            f"use encode.template: {_others('chatml', tokenizer)}"
        )

    opening, newline = _Piece(_one(start)), tokenizer.encode("\n")
    answers = _Piece(_ids([start, *tokenizer.encode("assistant\n")]))
    ends = {learn: _Piece(_one(end), learn) for learn in (False, True)}
    closing, after = _Piece(_ids([end, *newline])), _Piece(_ids(newline))

    def layout(messages: Sequence[Message]) -> list[_Piece] | Refusal:
        pieces: list[_Piece] = []
        for message in messages:
            role = message.role
            if role == "assistant":
                learn = _is_answer(message)
                pieces += (answers, _Piece(message.content, learn), ends[learn], after)
            elif role in _ROLES:
                pieces += (opening, _Piece(f"{role}\n{message.content}"), closing)
            else:
                return _unknown_role(message)
        return pieces

    return BuiltinTemplate("chatml", tokenizer, layout)


def _llama_inst(tokenizer: Tokenizer) -> Template:
    begin, end = tokenizer.bos_id, tokenizer.eos_id
    if begin is None or end is None:
        raise TokenizerError(
            f"template 'llama-inst' needs tokens that begin and end a sequence, which tokenizer {tokenizer.spec!r} lacks; "
            f"use encode.template: {_others('llama-inst', tokenizer)}"
        )

    opening = _Piece(_one(begin))
    ends = {learn: _Piece(_one(end), learn) for learn in (False, True)}

    def layout(messages: Sequence[Message]) -> list[_Piece] | Refusal:
        paired = _paired("llama-inst", messages)
        if isinstance(paired, Refusal):
            return paired
        system, turns = paired
        if system is not None:
            system = f"<<SYS>>\n{system}\n<</SYS>>\n\n"
        pieces: list[_Piece] = []
        for message in turns:
            if message.role == "user":
                pieces += (opening, _Piece(f"[INST]{system or ''}{message.content}[/INST]"))
                system = None
            else:
                learn = _is_answer(message)
                pieces += (_Piece(message.content, learn), ends[learn])
        return pieces

    return BuiltinTemplate("llama-inst", tokenizer, layout)


def _chatglm(tokenizer: Tokenizer) -> Template:
    end = tokenizer.eos_id
    if end is None:
        raise TokenizerError(
            f"template 'chatglm' needs a token that ends a sequence, which tokenizer {tokenizer.spec!r} lacks; "
            f"use encode.template: {_others('chatglm', tokenizer)}"
        )
    prefix = [index for name in ("[gMASK]", "sop") if (index := tokenizer.special_id(name)) is not None]
    if not prefix and tokenizer.bos_id is not None:
        prefix = [tokenizer.bos_id]
    opening = [_Piece(_ids(prefix))] if prefix else []
    ends = {learn: _Piece(_one(end), learn) for learn in (False, True)}

    def layout(messages: Sequence[Message]) -> list[_Piece] | Refusal:
        paired = _paired("chatglm", messages)
        if isinstance(paired, Refusal):
            return paired
        system, turns = paired
        pieces = list(opening)
        before = f"{system}\n\n" if system is not None else ""
        for index, message in enumerate(turns):
            if message.role == "user":
                pieces.append(_Piece(f"{before}[Round {index // 2 + 1}]\n\n问：{message.content}\n\n答："))
                before = "\n\n"
            else:
                learn = _is_answer(message)
                pieces += (_Piece(message.content, learn), ends[learn])
        return pieces

    return BuiltinTemplate("chatglm", tokenizer, layout)


def _paired(name: str, messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]] | Refusal:
    """The system text and the turns, of a template that knows user and assistant in alternation alone."""
    system = messages[0].content if messages and messages[0].role == "system" else None
    turns = messages if system is None else messages[1:]
    for index, message in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if message.role not in _ROLES:
            return _unknown_role(message)
        if message.role != expected:
            return Refusal(
                "template",
                f"{name} has user and assistant turns in alternation, after at most one system turn; turn {index} is of "
                f"{message.role!r} where {expected!r} belongs",
            )
    return system, turns


def _one(index: int) -> TokenIds:
    return _ids([index])


def _ids(ids: Sequence[int]) -> TokenIds:
    return np.asarray(ids, np.int32)


class HubTemplate:
    """The chat template of a Hugging Face tokenizer.

    With generation marks in the template, targets are what stands between them, no more. Without, they are found by
    rendering the conversation up to each answer with the generation prompt, and up to after the answer: the second must
    begin with the first, and the whole conversation with the second; what is between is the target, up to the token that
    ends the turn. A template that writes earlier turns anew (one that drops old reasoning, say) is refused.

    The rendered text is tokenised whole. Special tokens that a message spells are hidden from the tokenizer's search for
    special tokens, so only those of the template count. A template that asks for today's date is told `DATE`.
    """

    name = "tokenizer"
    DATE = "26 Jul 2024"

    def __init__(self, tokenizer: HubTokenizer) -> None:
        hub = tokenizer.hub_tokenizer
        try:
            source = hub.get_chat_template()
        except ValueError as error:
            raise TokenizerError(
                f"tokenizer {tokenizer.spec!r} carries no usable chat template: {str(error).splitlines()[0]}; "
                f"use encode.template: {_others('tokenizer', tokenizer)}"
            ) from None
        if not hub.is_fast:
            raise TokenizerError(
                f"tokenizer {tokenizer.spec!r} does not say where its tokens stand in the text (it is not a fast one); "
                f"use encode.template: {_others('tokenizer', tokenizer)}"
            )
        self.identity = digest(["template", VERSION, self.name, source])
        if "strftime_now" in source:
            # The same recipe must give the same data tomorrow; a macro of the template stands before the global function.
            source = "{%- macro strftime_now(format) -%}" + self.DATE + "{%- endmacro -%}" + source
        self._source = source
        self._marked = re.search(r"\{%-?\s*generation\s*-?%\}", source) is not None
        self._hub = hub
        added = {token.content for token in hub.added_tokens_decoder.values() if token.special}
        specials = sorted(added | set(hub.all_special_tokens), key=lambda token: (-len(token), token))
        self._specials: dict[str, int] = {token: hub.convert_tokens_to_ids(token) for token in specials if token}
        self._swallows = {
            token.content: (token.lstrip, token.rstrip) for token in hub.added_tokens_decoder.values() if token.special
        }
        self._special = re.compile("|".join(map(re.escape, self._specials)) or r"(?!)")

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[Rendered]:
        laid_out = [self._lay_out(messages) for messages in conversations]
        plain = [text for text in laid_out if isinstance(text, _Text) and not text.hidden]
        encoded = iter(self._encode([text.text for text in plain], split=False))
        rendered: list[Rendered] = []
        for text in laid_out:
            if isinstance(text, Refusal):
                rendered.append(text)
            else:
                ids, spans = self._encode_pieces(text) if text.hidden else next(encoded)
                rendered.append(_segments(ids, spans, text.targets))
        return rendered

    def _lay_out(self, messages: Sequence[Message]) -> "_Text | Refusal":
        for message in messages:
            if message.role not in _ROLES:
                return _unknown_role(message)
        hidden, turns = self._hide(messages)
        if isinstance(turns, Refusal):
            return turns
        answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
        text, marks = self._write(turns)
        if isinstance(text, Refusal):
            return text
        if self._marked:
            ranges = marks
            learn = [_is_answer(messages[index]) for index in answers]
            if len(ranges) == len(answers):
                ranges = [span for span, wanted in zip(ranges, learn, strict=True) if wanted]
            else:
                ranges = [(start, end) for start, end in ranges if self._special.sub("", text[start:end]).strip()]
        else:
            ranges = []
            for index in answers:
                before, _ = self._write(turns[:index], prompt=True)
                after, _ = self._write(turns[: index + 1])
                if isinstance(before, Refusal):
                    return before
                if isinstance(after, Refusal):
                    return after
                after = self._own_turn(after, len(before), text, turns[: index + 1])
                if not after.startswith(before) or not text.startswith(after):
                    return Refusal(
                        "template-rewrites-turns",
                        f"the chat template writes what stands before answer {index} differently once the conversation goes on, so "
                        "its targets cannot be told; give it generation marks or use another template",
                    )
                if _is_answer(messages[index]):
                    ranges.append((len(before), self._turn_end(after, len(before))))
        return _Text(text=text.translate(hidden), shielded=text, hidden=bool(hidden), targets=ranges)

    def _hide(self, messages: Sequence[Message]) -> tuple[dict[int, str], list[dict[str, str]] | Refusal]:
        """The messages with the first letter of every special token they spell exchanged for a letter that occurs
        nowhere, and the way back. One letter for one, so no place in the text moves."""
        contents = [message.content for message in messages]
        letters: dict[str, str] = {}
        while any(self._special.search(content) for content in contents):
            everything = "".join(contents)
            for content in contents:
                for match in self._special.finditer(content):
                    letter = match[0][0]
                    if letter not in letters:
                        used = set(letters.values())
                        free = (chr(c) for c in range(0xE000, 0xF900) if chr(c) not in used)
                        letters[letter] = next((c for c in free if c not in everything and c not in self._source), "")
                        if not letters[letter]:
                            return {}, Refusal("template", "the conversation uses every private letter of Unicode")
            contents = [
                self._special.sub(lambda match: letters[match[0][0]] + match[0][1:], content) for content in contents
            ]
        turns = [
            {"role": message.role, "content": content} for message, content in zip(messages, contents, strict=True)
        ]
        return {ord(stand_in): letter for letter, stand_in in letters.items()}, turns

    def _write(
        self, turns: Sequence[dict[str, str]], *, prompt: bool = False
    ) -> tuple[str | Refusal, list[tuple[int, int]]]:
        """The conversation as text, and the ranges between generation marks."""
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        if not turns:
            # Templates read messages[0]; an answer with nothing before it has no prompt to learn from.
            return Refusal("template", "the conversation begins with an answer"), []
        try:
            result: Any = render_jinja_template(
                conversations=[list(turns)],
                chat_template=self._source,
                return_assistant_tokens_mask=self._marked and not prompt,
                add_generation_prompt=prompt,
                **self._hub.special_tokens_map,
            )
        except (*_TEMPLATE_FAULTS, TemplateError) as error:
            cause = str(error) or type(error).__name__
            return Refusal("template", f"the tokenizer's chat template refuses this conversation: {cause}"), []
        texts, ranges = result
        text: str = texts[0]
        marked: list[tuple[int, int]] = ranges[0] if ranges else []
        return text, [(int(start), int(end)) for start, end in marked]

    def _own_turn(self, after: str, start: int, text: str, turns: Sequence[dict[str, str]]) -> str:
        """`after`, the conversation up to an answer that begins at `start`, without what the template writes behind the last
        turn alone (as Phi-3's does its end of text): special tokens and white space that another turn would not leave
        there."""
        closing = list(self._special.finditer(after, start))
        if len(closing) < 2:
            return after
        following: str | Refusal = text
        if len(text) <= len(after):
            following, _ = self._write([*turns, {"role": "user", "content": "-"}])
        if isinstance(following, Refusal) or following.startswith(after):
            return after
        for match in reversed(closing):
            if self._special.sub("", after[match.end() :]).strip():
                break
            if following.startswith(after[: match.end()]):
                return after[: match.end()]
        return after

    def _turn_end(self, text: str, start: int) -> int:
        """Where generation stops: white space after the special token that ends the turn is the template's own."""
        end = len(text.rstrip())
        closing = any(text.endswith(token, start, end) for token in self._specials)
        return end if closing else len(text)

    def _encode(self, texts: Sequence[str], *, split: bool) -> list[Encoded]:
        if not texts:
            return []
        encoded = self._hub(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=split,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))

    def _encode_pieces(self, text: "_Text") -> Encoded:
        """Tokens of a text in which messages spell special tokens: the template's own are taken out first."""
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        at = 0
        for match in [*self._special.finditer(text.shielded), None]:
            end = match.start() if match else len(text.text)
            left, right = self._swallows.get(match[0], (False, False)) if match else (False, False)
            if left:
                end = at + len(text.text[at:end].rstrip())
            for piece_ids, piece_spans in self._encode([text.text[at:end]] if end > at else [], split=True):
                ids += piece_ids
                spans += [(at + first, at + last) for first, last in piece_spans]
            if match:
                ids.append(self._specials[match[0]])
                spans.append(match.span())
                rest = text.text[match.end() :]
                at = match.end() + (len(rest) - len(rest.lstrip()) if right else 0)
        return ids, spans


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """A rendered conversation: `text` as it is, `shielded` with the special tokens of its messages hidden (`hidden` says
    whether there are any), and the ranges of characters that are targets."""

    text: str
    shielded: str
    hidden: bool
    targets: Sequence[tuple[int, int]]


def _segments(ids: Sequence[int], spans: Sequence[tuple[int, int]], targets: Sequence[tuple[int, int]]) -> Rendered:
    """Cuts the ids where targets begin and end. A token belongs to a range when it covers a character of it; an empty one
    (some tokenizers report white space so) when it stands in it."""
    segments: list[Segment] = []
    at = 0
    for start, end in sorted(targets):
        first = at
        while first < len(ids) and not (spans[first][1] > start or spans[first][0] >= start):
            first += 1
        last = first
        while last < len(ids) and spans[last][0] < end:
            last += 1
        segments += [Segment(_ids(ids[at:first]), False), Segment(_ids(ids[first:last]), True)]
        at = last
    segments.append(Segment(_ids(ids[at:]), False))
    return [segment for segment in segments if len(segment.ids)]


def _hub(tokenizer: Tokenizer) -> Template:
    if not isinstance(tokenizer, HubTokenizer):
        raise TokenizerError(
            f"template 'tokenizer' is the one that a Hugging Face tokenizer carries, and {tokenizer.spec!r} is none; give "
            f"encode.tokenizer as hf:<folder or id>, or use encode.template: {_others('tokenizer', tokenizer)}"
        )
    return HubTemplate(tokenizer)


TEMPLATES: dict[str, Callable[[Tokenizer], Template]] = {
    "chatml": _chatml,
    "llama-inst": _llama_inst,
    "chatglm": _chatglm,
    "tokenizer": _hub,
}
"""Every template by name."""

_TEMPLATE_FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What the expressions of a chat template may raise on a conversation, besides Jinja's own errors."""

_ROLES = ("system", "user", "assistant")


def _is_answer(message: Message) -> bool:
    return bool(message.content.strip())


def _unknown_role(message: Message) -> Refusal:
    return Refusal("template", f"a turn is of the unknown role {message.role!r}; expected one of: {', '.join(_ROLES)}")


def _others(name: str, tokenizer: Tokenizer) -> str:
    """The templates that this vocabulary can serve."""
    able: list[str] = []
    if tokenizer.special_id("<|im_start|>") is not None and tokenizer.special_id("<|im_end|>") is not None:
        able.append("chatml")
    if tokenizer.bos_id is not None and tokenizer.eos_id is not None:
        able.append("llama-inst")
    if tokenizer.eos_id is not None:
        able.append("chatglm")
    if isinstance(tokenizer, HubTokenizer) and tokenizer.hub_tokenizer.chat_template:
        able.append("tokenizer")
    fitting = [other for other in able if other != name]
    return " or ".join(fitting) if fitting else "none fits this vocabulary; choose another encode.tokenizer"

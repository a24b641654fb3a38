"""What a data set will cost, before anything is asked.

In: the selected documents with their lengths in the recipe's tokens, prices, and what is known of the teacher's own
tokenizer. Out: for each way of asking, and one to five answers a document, dollars with an interval and days.

How many tokens of the teacher's one token of the recipe is, is known from its own counts: a pilot through the provider's
free counting endpoint, or the usage of replies that the ledger has already. Without either a rule of thumb stands in, with
a wide interval. The ways of asking:

    live           two calls a document, each with the whole document, and what the recipe's paid checks add
    live+cache     the first call writes the document to the provider's cache, the others read it
    batch          two waves, at the provider's batch price; marks for a cache do not pay there
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from longalign_data.generation.documents import Measured, SelectedDocuments
from longalign_data.generation.exchange import task_of
from longalign_data.generation.ledger import Kind, Ledger
from longalign_data.generation.paid import CheckKind
from longalign_data.recipe import Recipe, TeacherChoice
from longalign_data.records import Usage
from longalign_data.tasks.templates import Templates
from longalign_data.teachers.prices import Rate
from longalign_data.teachers.table import PROVIDERS
from longalign_data.tokenizers import Tokenizer, count_tokens

Way = Literal["live", "live+cache", "batch"]
WAYS: tuple[Way, ...] = ("live", "live+cache", "batch")
MAX_ANSWERS = 5

ENOUGH_OBSERVATIONS = 5
"""So many prompts of a language, and its own ratio is used; below it, that of all languages together."""

_SIGMAS = 1.96

QUESTION_TOKENS = 40
"""Of one drawn question in the answer call; nothing beside the document."""
JUDGE_TOKENS = 280
"""Of the judge's instruction without question and answer."""


@dataclass(frozen=True, slots=True)
class Range:
    """A likely value and how far it may be off either way (95%)."""

    likely: float
    off: float

    @property
    def low(self) -> float:
        return max(0.0, self.likely - self.off)

    @property
    def high(self) -> float:
        return self.likely + self.off


PRIOR_RATIO: dict[str, Range] = {"anthropic": Range(1.5, 0.3), "openai": Range(1.0, 0.2)}
"""Tokens of the teacher for one of the recipe. For `anthropic` from what is published on its newer tokenizers against
`cl100k` (15 to 20 percent more for the older ones, 30 more again for the newer)."""
PRIOR_OUT: Mapping[Kind, Range] = {
    "question": Range(250.0, 150.0),
    "answer": Range(400.0, 300.0),
    "closed-book": Range(200.0, 200.0),
    "judge": Range(150.0, 100.0),
}
"""Output tokens of the calls without thinking, which a pilot cannot know and replies can."""

PREFILL_TOKENS_PER_S = 5_000.0
OUTPUT_TOKENS_PER_S = 60.0
CALL_OVERHEAD_S = 1.5
"""Speed of a live call as hosted models have it; only the days depend on it."""
WAVE_DAYS = (1 / 24, 1.0)
"""A batch takes from an hour, most do, to the day after which it expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One prompt that the teacher counted: its language, the recipe's tokens and the teacher's."""

    lang: str
    recipe_tokens: int
    teacher_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What is known of the teacher. `ratios` by language, `outputs` by what a call is for; `origin` says in words where it
    comes from."""

    ratios: Mapping[str, Range]
    outputs: Mapping[Kind, Range]
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way of asking with `answers` answers a document: dollars for everything and for one sample, and days from the
    least to the most."""

    way: Way
    answers: int
    usd: Range
    usd_per_sample: float
    days: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`tokens` are the teacher's tokens of all documents by language, once; `chars_per_token` of each."""

    num_documents: int
    tokens: Mapping[str, Range]
    chars_per_token: Mapping[str, float]
    calibration: Calibration
    offers: Sequence[Offer]


def estimate(
    documents: Sequence[Measured],
    *,
    instruction_tokens: Mapping[str, int],
    rate: Rate,
    calibration: Calibration,
    concurrency: int,
    checks: Sequence[CheckKind] = (),
) -> Estimate:
    """The table of offers. `instruction_tokens` is what the recipe's tokenizer makes of the instruction that asks about a
    document, by its id; `concurrency` calls are on their way at once in live; `checks` are made of every answer."""
    tokens: dict[str, Range] = {}
    chars: dict[str, int] = defaultdict(int)
    for document in documents:
        ratio = calibration.ratios[document.lang]
        so_far = tokens.get(document.lang, Range(0.0, 0.0))
        tokens[document.lang] = Range(
            so_far.likely + ratio.likely * document.num_tokens, so_far.off + ratio.off * document.num_tokens
        )
        chars[document.lang] += document.num_chars
    offers = [
        _offer(way, answers, documents, instruction_tokens, rate, calibration, concurrency, checks)
        for way in WAYS
        for answers in range(1, MAX_ANSWERS + 1)
    ]
    return Estimate(
        num_documents=len(documents),
        tokens=dict(sorted(tokens.items())),
        chars_per_token={lang: chars[lang] / tokens[lang].likely for lang in sorted(tokens) if tokens[lang].likely},
        calibration=calibration,
        offers=offers,
    )


def _offer(
    way: Way,
    answers: int,
    documents: Sequence[Measured],
    instruction_tokens: Mapping[str, int],
    rate: Rate,
    calibration: Calibration,
    concurrency: int,
    checks: Sequence[CheckKind],
) -> Offer:
    def dollars(known: Calibration) -> float:
        return sum(
            _document_cost(way, answers, document, instruction_tokens[document.doc_id], rate, known, checks)
            for document in documents
        )

    likely = dollars(calibration)
    # Languages may be off together, tokenizers are; inputs and outputs are off independently.
    more_in = replace(calibration, ratios={lang: Range(r.high, 0.0) for lang, r in calibration.ratios.items()})
    more_out = replace(calibration, outputs={kind: Range(r.high, 0.0) for kind, r in calibration.outputs.items()})
    off = math.hypot(dollars(more_in) - likely, dollars(more_out) - likely)
    return Offer(
        way=way,
        answers=answers,
        usd=Range(likely, off),
        usd_per_sample=likely / max(1, len(documents) * answers),
        days=_days(way, answers, documents, calibration, concurrency, checks),
    )


def _document_cost(
    way: Way,
    answers: int,
    document: Measured,
    instruction: int,
    rate: Rate,
    known: Calibration,
    checks: Sequence[CheckKind],
) -> float:
    ratio = known.ratios[document.lang].likely
    out = {kind: round(tokens.likely) for kind, tokens in known.outputs.items()}
    size, asking, asked = (round(ratio * n) for n in (document.num_tokens, instruction, QUESTION_TOKENS))

    def call(kind: Kind, given: int, *, whole: bool = True) -> float:
        usage = Usage(input_tokens=given + whole * size, output_tokens=out[kind])
        if whole and way == "live+cache":
            written, read = (size, 0) if kind == "question" else (0, size)
            usage = replace(usage, input_tokens=given, cache_write_tokens=written, cache_read_tokens=read)
        return rate.cost(usage, batch=way == "batch")

    of_answer = call("answer", asked)
    if "closed-book" in checks:
        of_answer += call("closed-book", asked, whole=False)
    if "judge" in checks:
        of_answer += call("judge", round(ratio * JUDGE_TOKENS) + asked + out["answer"])
    return call("question", asking) + answers * of_answer


def _days(
    way: Way,
    answers: int,
    documents: Sequence[Measured],
    known: Calibration,
    concurrency: int,
    checks: Sequence[CheckKind],
) -> tuple[float, float]:
    if way == "batch":
        waves = 3 if checks else 2
        return waves * WAVE_DAYS[0], waves * WAVE_DAYS[1]
    read = sum(known.ratios[document.lang].likely * document.num_tokens for document in documents)
    prompts = 1 if way == "live+cache" else 1 + answers * (1 + ("judge" in checks))
    kinds: Sequence[Kind] = ("answer", *checks)
    of_answer = sum(known.outputs[kind].likely for kind in kinds)
    written = len(documents) * (known.outputs["question"].likely + answers * of_answer)
    seconds = prompts * read / PREFILL_TOKENS_PER_S + written / OUTPUT_TOKENS_PER_S
    seconds += len(documents) * (1 + answers * (1 + len(checks))) * CALL_OVERHEAD_S
    days = seconds / max(1, concurrency) / 86_400
    return days / 2, days * 2


def instructions_of(documents: Iterable[Measured], recipe: Recipe, templates: Templates) -> dict[str, str]:
    """The instruction that asks for each document's questions, by its id."""
    return {
        document.doc_id: templates.instruction(task_of(document.doc_id, recipe), document.lang)
        for document in documents
    }


def measure(texts: Mapping[str, str], tokenizer: Tokenizer) -> dict[str, int]:
    """Tokens of each text; equal texts are counted once."""
    distinct = sorted(set(texts.values()))
    known = dict(zip(distinct, count_tokens(tokenizer, distinct, threads=1), strict=True))
    return {key: known[text] for key, text in texts.items()}


def spread_over(documents: Sequence[Measured], count: int) -> Sequence[Measured]:
    """`count` documents for a pilot: in each language by its share (at least one), evenly over the lengths."""
    by_lang: dict[str, list[Measured]] = defaultdict(list)
    for document in documents:
        by_lang[document.lang].append(document)
    chosen: list[Measured] = []
    for lang in sorted(by_lang):
        ordered = sorted(by_lang[lang], key=lambda document: (document.num_tokens, document.doc_id))
        wanted = min(len(ordered), max(1, round(count * len(ordered) / len(documents))))
        chosen += [ordered[int((n + 0.5) * len(ordered) / wanted)] for n in range(wanted)]
    return chosen


def calibrate(
    recipe: Recipe,
    langs: Iterable[str],
    *,
    observations: Sequence[Observation],
    outputs: Mapping[Kind, Sequence[int]],
    origin: str,
) -> Calibration:
    """From prompts that the teacher counted and from the output tokens of its replies by kind; either may be empty, then the
    rules of thumb stand in."""
    teacher = recipe.generate.teacher
    prior = PRIOR_RATIO.get(teacher.provider, Range(1.0, 0.2))
    of_all = _ratio(observations) if observations else None
    ratios: dict[str, Range] = {}
    for lang in sorted(set(langs)):
        own = [seen for seen in observations if seen.lang == lang]
        if len(own) >= ENOUGH_OBSERVATIONS:
            ratios[lang] = _ratio(own)
        else:
            ratios[lang] = of_all or prior
    return Calibration(
        ratios=ratios,
        outputs={
            kind: _mean(outputs.get(kind, ()), _within(prior_out, _LIMITS[kind](teacher)))
            for kind, prior_out in PRIOR_OUT.items()
        },
        origin=origin if of_all else "rules of thumb; narrow them with --pilot 50",
    )


_LIMITS: Mapping[Kind, Callable[[TeacherChoice], int]] = {
    "question": lambda teacher: teacher.max_question_tokens,
    "answer": lambda teacher: teacher.max_answer_tokens,
    "closed-book": lambda teacher: teacher.max_answer_tokens,
    "judge": lambda teacher: teacher.max_question_tokens,
}


def _within(prior: Range, limit: int) -> Range:
    """A rule of thumb under a limit that the recipe sets."""
    return prior if prior.high <= limit else Range(min(prior.likely, limit), min(prior.off, limit / 2))


def lengths_known(outputs: Mapping[Kind, Sequence[int]], origin: str) -> str:
    """Where the lengths of questions and answers come from, in words: from `origin`, or too few replies are there."""
    kinds: Mapping[Kind, str] = {"question": "questions", "answer": "answers"}
    few = [words for kind, words in kinds.items() if len(outputs.get(kind, ())) < ENOUGH_OBSERVATIONS]
    thumb = (
        f"lengths of {' and '.join(few)} by rules of thumb, of fewer than {ENOUGH_OBSERVATIONS} replies" if few else ""
    )
    return "; ".join(filter(None, [f"lengths of replies from {origin}" if len(few) < len(kinds) else "", thumb]))


def _ratio(seen: Sequence[Observation]) -> Range:
    """The ratio estimator: sum over sum, with the standard error of its residuals."""
    total = sum(one.recipe_tokens for one in seen)
    ratio = sum(one.teacher_tokens for one in seen) / total
    residuals = sum((one.teacher_tokens - ratio * one.recipe_tokens) ** 2 for one in seen)
    error = math.sqrt(residuals / max(1, len(seen) - 1) / len(seen)) / (total / len(seen))
    # Two or three that agree by chance promise nothing.
    return Range(ratio, max(_SIGMAS * error, 0.0 if len(seen) >= ENOUGH_OBSERVATIONS else 0.2 * ratio))


def _mean(values: Sequence[int], prior: Range) -> Range:
    if len(values) < ENOUGH_OBSERVATIONS:
        return prior
    mean = sum(values) / len(values)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    return Range(mean, _SIGMAS * error)


def observed(
    ledger: Ledger, documents: SelectedDocuments, recipe: Recipe, tokenizer: Tokenizer, counted: set[str]
) -> tuple[Sequence[Observation], Mapping[Kind, Sequence[int]]]:
    """What the replies in a ledger tell of this recipe's teacher, without those of the requests `counted`, to which its own are
    added: a trial has the replies that it took over from another one too."""
    choice = recipe.generate.teacher
    read = PROVIDERS[choice.provider].read
    seen: list[Observation] = []
    outputs: dict[Kind, list[int]] = defaultdict(list)
    lengths: dict[str, int] = {}
    for entry in ledger.entries():
        document = documents.measures.get(entry.document_id)
        if (
            document is None
            or entry.raw is None
            or entry.request_id in counted
            or entry.failure
            or (entry.provider, entry.model) != (choice.provider, choice.model)
        ):
            continue
        try:
            usage = read(entry.raw).usage
        except ValueError:
            continue
        prompt_tokens = usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens
        if not prompt_tokens:
            continue
        counted.add(entry.request_id)
        outputs[entry.kind].append(usage.output_tokens)
        if entry.kind == "closed-book":
            continue  # tells nothing of the document's tokens
        if entry.instruction not in lengths:
            lengths[entry.instruction] = count_tokens(tokenizer, [entry.instruction], threads=1)[0]
        base = document.num_tokens + lengths[entry.instruction]
        seen.append(Observation(lang=document.lang, recipe_tokens=base, teacher_tokens=prompt_tokens))
    return seen, outputs

"""No check rejects an answer that was read off its document."""

import inspect
import json.decoder
import pydoc_data.topics
import textwrap
from collections.abc import Iterator

from longalign_data.checks.table import CHECKS, run_checks
from longalign_data.recipe import ReplyChecks
from longalign_data.teachers.extractive.teacher import PROSE_KINDS, make_questions, respond


def documents() -> Iterator[tuple[str, str]]:
    for module in (textwrap, json.decoder):
        yield inspect.getsource(module), "en"
    for topic in ("assignment", "calls", "formatstrings", "import"):
        yield pydoc_data.topics.topics[topic], "en"
    yield (
        "\n\n".join(
            f"第{k}节 检查记录\n编号7的设备在第{k}天由第{k % 7}组检查，读数为{(259 + k * 11) % 1000}。记录员确认无误。"
            for k in range(60)
        ),
        "zh",
    )


def test_the_offline_teachers_answers_pass_every_check_and_are_mostly_grounded() -> None:
    defaults = ReplyChecks()
    grounding: list[float] = []
    num_answers = 0
    for document, lang in documents():
        for task in PROSE_KINDS:
            for question in make_questions(document, task, lang):
                raw = respond(document, question)
                assert raw["stop_reason"] == "end_turn"
                verdict = run_checks(document, question, raw["text"], run=CHECKS, reject=defaults.reject)
                assert verdict.fault == "", (question, raw["text"][:200], verdict)
                num_answers += 1
                grounding += [score.value for score in verdict.scores if score.name == "grounding"]
    assert num_answers > 80
    # Some answers count or compare; their numbers do not stand in the document.
    assert sum(grounding) / len(grounding) > 0.8

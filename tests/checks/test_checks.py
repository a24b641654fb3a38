"""What the free checks say of answers, right ones and wrong ones."""

import json
from pathlib import Path

import pytest

from longalign_data.checks.duplicates import SeenQuestions
from longalign_data.checks.table import CHECKS, run_checks
from longalign_data.recipe import ReplyChecks

DOCUMENT = (
    "The lighthouse of Sandray was finished in 1871 by Murdo Maclean. Its lamp is 1,240 feet above the sea. "
    + "The keepers wrote down the weather every morning, and nothing else happened for years. " * 40
    + "In 1998 Ailsa Craigie switched the lamp to “automatic running”, as the report of the Northern Board says."
)
QUESTION = "Who built the lighthouse, and what became of it?"
DEFAULTS = ReplyChecks()


def scores(answer: str, *, document: str = DOCUMENT, question: str = QUESTION) -> dict[str, float]:
    verdict = run_checks(document, question, answer, run=CHECKS, reject=DEFAULTS.reject)
    return {score.name: score.value for score in verdict.scores}


def fault(answer: str, *, document: str = DOCUMENT, question: str = QUESTION) -> str:
    return run_checks(document, question, answer, run=CHECKS, reject=DEFAULTS.reject).fault


GOOD = "It was finished in 1871 by Murdo Maclean; in 1998 Ailsa Craigie had it switched to “automatic running”."


def test_a_right_answer_has_no_fault_and_is_wholly_grounded() -> None:
    assert fault(GOOD) == ""
    found = scores(GOOD)
    assert found["grounding"] == 1.0
    assert found["num_claims"] == 5.0
    assert found["meta_phrases"] == found["unanswered"] == found["truncated"] == 0.0


def test_evidence_is_where_the_claims_stand_in_the_document() -> None:
    verdict = run_checks(DOCUMENT, QUESTION, GOOD, run=CHECKS, reject=())
    assert {DOCUMENT[start:end] for start, end in verdict.evidence} == {
        "1871",
        "Murdo Maclean",
        "1998",
        "Ailsa Craigie",
        "automatic running",
    }
    assert scores(GOOD)["evidence_spread"] > 0.9


def test_what_came_from_nowhere_lowers_the_grounding() -> None:
    invented = "It was finished in 1742 by Murdo Maclean and burnt down under Joanna Pembroke."
    assert scores(invented)["grounding"] == pytest.approx(1 / 3, abs=1e-3)
    verdict = run_checks(DOCUMENT, QUESTION, invented, run=CHECKS, reject=(), min_grounding=0.5)
    assert verdict.fault == "ungrounded"
    assert run_checks(DOCUMENT, QUESTION, invented, run=CHECKS, reject=()).fault == ""


@pytest.mark.parametrize(
    ("claim", "is_found"),
    [
        ("The lamp is 1240 feet up.", True),
        ("The lamp is 124 feet up.", False),
        ("The lamp is 240 feet up.", False),
        ("It was built by MURDO Maclean.", True),
        ("It was built by Murdo Mac.", False),
        ("They call it “automatic\nrunning”.".replace("\n", "  "), True),
    ],
)
def test_numbers_and_names_are_found_whole_or_not_at_all(claim: str, is_found: bool) -> None:
    assert scores(claim)["grounding"] == float(is_found)


@pytest.mark.parametrize("claim", ["①②③④", "¹²³⁴", "7" * 5_000, "１２４０"])
def test_digits_of_every_kind_are_claims_that_are_looked_up(claim: str) -> None:
    answer = f"It says “{claim[:300]}”, that is: {claim}."
    assert scores(answer)["grounding"] == float(claim == "１２４０")
    assert scores(answer, document=f"{DOCUMENT} “{claim[:300]}” and {claim}.")["grounding"] == 1.0


def test_what_the_question_says_is_no_claim_and_list_numbers_are_none() -> None:
    asked = "What happened in 1998?"
    assert scores("In 1998 nothing happened.", question=asked)["num_claims"] == 0.0
    assert scores("10. it shone\n11. it stopped")["num_claims"] == 0.0


def test_chinese_answers_are_grounded_by_their_numbers_and_titles() -> None:
    document = "《航海志》记载，灯塔建于1871年，高37米。" + "守塔人每天早晨记录天气。" * 50
    found = scores("根据《航海志》，灯塔建于1871年，高42米。", document=document, question="灯塔是什么时候建的？")
    assert found["num_claims"] == 3.0
    assert found["grounding"] == pytest.approx(2 / 3, abs=1e-3)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot provide an answer to this question.",
        "As an AI language model, I have no opinion on lighthouses.",
        "很抱歉，我无法回答这个问题。",
        "作为一个人工智能助手，我没有看法。",
    ],
)
def test_refusals_are_rejected(answer: str) -> None:
    assert fault(answer) == "refusal-text"


def test_a_document_about_refusals_may_be_quoted() -> None:
    document = DOCUMENT + " The bot said: I'm sorry, but I can't do that."
    assert fault("The bot said: I'm sorry, but I can't do that.", document=document) == ""


def test_talk_about_the_prompt_and_missing_answers_are_marked_and_kept() -> None:
    found = scores("According to the text above, it was Maclean. The document does not mention the year.")
    assert found["meta_phrases"] == 1.0
    assert found["unanswered"] == 1.0
    assert fault("According to the text above, it was Maclean.") == ""
    assert scores("根据上述文本，灯塔由他建成。")["meta_phrases"] == 1.0


def test_text_that_goes_round_in_circles_is_rejected_and_rulers_are_not() -> None:
    assert fault("The lamp shone. " + "It shone and shone. " * 30) == "repeated-text"
    assert fault("\n".join(["the same line, over and over again"] * 30 + ["and an end"])) == "repeated-text"
    assert fault("A table:\n" + "-" * 400) == ""
    assert fault("\n".join(f"{n}. the keeper wrote down the weather of day {n}" for n in range(60))) == ""


def test_a_text_that_stops_in_the_middle_is_marked() -> None:
    long = "The keepers of the island wrote down the weather. " * 6
    assert scores(long)["truncated"] == 0.0
    assert scores(long + "And then they")["truncated"] == 1.0
    assert scores(long + "\n```python\nprint(1)")["truncated"] == 1.0


def test_an_answer_in_the_wrong_script_is_rejected_and_a_quotation_is_not() -> None:
    chinese = "灯塔建于一八七一年，由默多主持修建，后来改为自动运行，守塔人也就离开了这座岛。"
    assert fault(chinese) == "wrong-language"
    assert fault(chinese, question="灯塔是谁建的？") == ""
    assert fault(chinese, document=chinese * 10) == ""
    assert fault("Maclean. 灯塔") == ""


def test_echoes_and_copies_of_the_whole_document_are_rejected_and_extracts_are_not() -> None:
    assert fault(QUESTION.upper()) == "question-echo"
    assert fault(DOCUMENT) == "document-copied"
    extract = DOCUMENT[:300]
    assert fault(extract) == ""
    assert scores(extract)["copied"] == 1.0


def test_a_check_that_is_not_named_does_not_run() -> None:
    verdict = run_checks(DOCUMENT, QUESTION, "I cannot help you.", run=["form"], reject=DEFAULTS.reject)
    assert verdict.fault == ""
    assert {score.name for score in verdict.scores} == {"truncated"}


@pytest.mark.parametrize("name", sorted(CHECKS))
@pytest.mark.parametrize(
    "texts",
    [("", "", ""), ("x", "", "\x00"), ("a" * 10, "b", "\ud800"), ("12" * 500, "?", "12 " * 500), ("(", ")", "[*+?")],
)
def test_every_check_bears_every_text(name: str, texts: tuple[str, str, str]) -> None:
    finding = CHECKS[name](*texts)
    assert all(0 <= start < end <= len(texts[0]) for start, end in finding.evidence)


def test_the_recipe_names_every_check_and_every_fault() -> None:
    assert set(DEFAULTS.run) == {*CHECKS, "duplicates"}
    source = "".join(path.read_text() for path in Path(__file__).parents[2].glob("longalign_data/checks/*.py"))
    assert all(json.dumps(name) in source for name in DEFAULTS.reject)


def test_questions_that_return_are_recognised_and_different_ones_are_not() -> None:
    seen = SeenQuestions()
    assert seen.add("What did the inspectors find on the third day of the inquiry?") == 0.0
    assert seen.add("Who signed the sheet on the day when the pumps stopped?") == 0.0
    assert seen.add("what did the inspectors find on the third day of the inquiry") == 1.0
    assert 0.8 <= seen.add("What did the inspectors find on the third day of the inquiries?") < 1.0
    assert seen.add("检查人员在第三天发现了什么？") == 0.0
    assert seen.add("检查人员在第三天发现了什么") == 1.0

"""Reading questions out of replies, however they are numbered."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longalign_data.tasks.questions import MAX_QUESTIONS, parse_questions
from longalign_data.teachers.extractive.teacher import numbered


@pytest.mark.parametrize(
    "reply",
    [
        "1: Who?\n2: Why?",
        "1. Who?\n2. Why?",
        "1) Who?\n2) Why?",
        "1：Who?\n2：Why?",
        "１：Who?\n２：Why?",
        "（1）Who?\n（2）Why?",
        "(1) Who?\n(2) Why?",
        "[1] Who?\n[2] Why?",
        "1、Who?\n2、Why?",
        "①Who?\n②Why?",
        "① : Who?\n②：Why?",
        "Q1: Who?\nQ2: Why?",
        "Question 1: Who?\n\nQuestion 2: Why?",
        "问题1：Who?\n问题2：Why?",
        "第1题：Who?\n第2题：Why?",
        "第1个问题：Who?\n第2个问题：Why?",
        "**1.** Who?\n**2.** Why?",
        "**1. Who?**\n**2. Why?**",
        "**1:** **Who?**\n**2:** **Why?**",
        "### 1. Who?\n### 2. Why?",
        "- 1: Who?\n- 2: Why?",
        "```\n1: Who?\n2: Why?\n```",
        "```text\n1: Who?\n2: Why?\n```\n",
        "Here are the questions:\n\n1: Who?\n2: Why?\n\nLet me know if you need more!",
        "1: Who?\r\n2: Why?\r\n",
        "  1: Who?  \n\n\n  2: Why?  ",
        "1:\nWho?\n2:\n\nWhy?",
        "1: Who?\n2: Why?\n3:\n",
        "1: Who?\n2: Why?\n3: Who?",
        "Who?\nWhy?",
        "- Who?\n* Why?",
        "一、Who?\n二、Why?",
        "问题一：Who?\n问题二：Why?",
        "（一）Who?\n（二）Why?",
        "第一题：Who?\n第二题：Why?",
        "好的：\n\n**一、Who?**\n\n**二、** Why?",
        "1️⃣ Who?\n2️⃣ Why?",
        "1⃣Who?\n2⃣Why?",
        "1: Who? 2: Why?",
        "(1) Who? (2) Why?",
        "1. Who?2. Why?",
        "①Who?②Why?",
        "Here they are:\n1: Who? 2: Why? 3:",
        "Q1: Who? Q2: Why?",
        "**1.** Who? **2.** Why?",
        "1️⃣ Who? 2️⃣ Why?",
        "１：Who?２：Why?",
        '["Who?", "Why?"]',
        '```json\n["Who?", "Why?"]\n```',
        '{"questions": ["1. Who?", "2. Why?"]}',
        '[{"question": "Who?"}, {"question": "Why?", "kind": "cause"}, {"kind": "none"}, 3]',
        '{"1": "Who?", "2": "Why?"}',
        '{"Question 1": "Who?", "answer 1": "Bob", "Question 2": "Why?"}',
        '{"reasoning": "The text is about a pump.", "question1": "Who?", "question2": "Why?"}',
        '{"topic": "pumps", "questions": {"1": "Who?", "2": "Why?"}}',
        '["① Who?", "② Why?"]',
        '["1️⃣ Who?", "2️⃣ Why?"]',
    ],
)
def test_two_questions_are_found_in_every_way_of_numbering(reply: str) -> None:
    assert parse_questions(reply) == ["Who?", "Why?"]


def test_a_question_may_run_over_lines_and_past_a_blank_line_after_a_colon() -> None:
    assert parse_questions("1: Which of these\n   is true:\n\na) this\nb) that\n\nSo much for that.\n2: Why?") == [
        "Which of these\nis true:\na) this\nb) that",
        "Why?",
    ]


def test_chinese_numerals_are_parts_of_a_question_that_has_digits() -> None:
    assert parse_questions("1：哪项正确？\n一、这个\n二、那个\n2：为什么？") == [
        "哪项正确？\n一、这个\n二、那个",
        "为什么？",
    ]


def test_headings_in_chinese_are_no_numbers_of_questions() -> None:
    for reply, questions in (
        ("一、关于水泵\n谁检查了？\n为什么？\n二、关于桥\n什么时候？", ["谁检查了？", "为什么？", "什么时候？"]),
        ("一、水泵怎样？\n谁检查了？", ["一、水泵怎样？", "谁检查了？"]),
        ("第二、谁？", ["第二、谁？"]),
    ):
        assert parse_questions(reply) == questions


def test_a_line_is_split_only_where_the_numbers_run_on_behind_question_marks() -> None:
    assert parse_questions("1: a? 2: b? 3: c? 4: d? 5: e? 6: f?") == ["a?", "b?", "c?", "d?", "e?"]
    for whole in (
        "Who of the 2: Anna or Bell?",
        "Was it in 1? 3: or in 2?",
        "Is it so? 2.5 million say it is.",
        "Is [2] right?",
        "What does `x ? 2 : 3` return?",
        "What does `x ? 2: 3` return?",
        "What does x ? 2: 3 return?",
        "What is `?? 2:` or `a? 2: b`?",
        "Which? (2) is meant?",
        "Which? 2) is meant?",
        "Which? 2: The second.",
    ):
        assert parse_questions(f"1: {whole}") == [whole]


def test_a_question_in_json_may_have_several_lines() -> None:
    assert parse_questions('["1. Which is\\ntrue?\\na) this", "2. Why?"]') == ["Which is\ntrue?\na) this", "Why?"]


def test_a_number_at_the_head_of_a_question_in_json_stays_unless_it_counts_the_questions() -> None:
    for reply in (
        ["3. Quartal: wie hoch?"],
        ["1. Quartal: wie hoch?", "Why?"],
        ["2: 0 was the score of which match?", "Why?"],
    ):
        assert parse_questions(json.dumps(reply)) == reply


def test_of_an_object_in_json_only_what_is_named_a_question_is_one() -> None:
    assert parse_questions('{"question": "Who?", "answer": "Bob"}') == ["Who?"]
    for reply in (
        '{"language": "en", "items": ["pumps", "bridges"]}',
        '{"task": "qa", "list": ["Who?"]}',
        '{"reasoning": "The text is about a pump.", "questions_list": ["Who?"]}',
        '{"title": "Pumps", "text": "They pump."}',
    ):
        assert parse_questions(reply) == []


def test_json_that_holds_no_list_of_questions_is_no_question() -> None:
    for reply in ("[]", "{}", '{"questions": 3}', "[[1]]", '{"a": {"b": 1}}', "[" * 100_000, '[{"text": "no"}]'):
        assert parse_questions(reply) == []


def test_numbers_inside_a_text_are_no_questions() -> None:
    assert parse_questions("1: How many of the\n1.5 million came at\n12:30?\n2: Why?") == [
        "How many of the\n1.5 million came at\n12:30?",
        "Why?",
    ]


def test_a_reply_of_blanks_is_read_at_once() -> None:
    """Where blanks are given back, each of these takes longer than anyone waits."""
    for begins in ("", "1", "1 题", "- ", "**", "（", "①", "1: Who?", "Who?"):
        assert len(parse_questions(begins + 100_000 * " " + "x")) <= 1


def test_more_than_five_questions_are_cut_to_five() -> None:
    reply = "\n".join(f"{number}: Question {number}?" for number in range(1, 9))
    assert parse_questions(reply) == [f"Question {number}?" for number in range(1, 6)]


@pytest.mark.parametrize(
    "reply", ["", "\n\n", "I cannot do that.", "```\n```", "1:\n2:\n3:", "No questions here: none."]
)
def test_a_reply_without_questions_gives_none(reply: str) -> None:
    assert parse_questions(reply) == []


LINE = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="*_`~"), min_size=1, max_size=60
).map(str.strip)


@given(st.lists(LINE.filter(bool), min_size=1, max_size=MAX_QUESTIONS, unique=True))
def test_every_list_of_questions_survives_being_written_and_read(questions: list[str]) -> None:
    assert parse_questions(numbered(questions)) == questions


@given(st.text())
def test_every_text_is_read_without_an_error_into_at_most_five_nonempty_questions(reply: str) -> None:
    questions = parse_questions(reply)
    assert len(questions) <= MAX_QUESTIONS
    assert all(question == question.strip() != "" for question in questions)


@given(
    st.lists(
        st.sampled_from(["1", "2: ", "**", "\n", "Q", "：", "（", "）", "x", "?", "```", " ", "第", "题"]), max_size=40
    )
)
def test_every_jumble_of_markers_is_read_without_an_error(parts: list[str]) -> None:
    questions = parse_questions("".join(parts))
    assert len(set(questions)) == len(questions) <= MAX_QUESTIONS

"""Reading questions out of replies, however they are numbered."""

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
    ],
)
def test_two_questions_are_found_in_every_way_of_numbering(reply: str) -> None:
    assert parse_questions(reply) == ["Who?", "Why?"]


def test_a_question_may_run_over_lines_and_past_a_blank_line_after_a_colon() -> None:
    assert parse_questions("1: Which of these\n   is true:\n\na) this\nb) that\n\nSo much for that.\n2: Why?") == [
        "Which of these\nis true:\na) this\nb) that",
        "Why?",
    ]


def test_numbers_inside_a_text_are_no_questions() -> None:
    assert parse_questions("1: How many of the\n1.5 million came at\n12:30?\n2: Why?") == [
        "How many of the\n1.5 million came at\n12:30?",
        "Why?",
    ]


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

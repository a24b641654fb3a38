"""Paid checks: asked of the same teacher, on the same ledger, in every way of asking; scored, counted and paid for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longalign_data.checks.judge import load_prompt, read_judgement
from longalign_data.errors import RecipeError
from longalign_data.generation.paid import Checked, score
from longalign_data.recipe import load_recipe
from longalign_data.teachers.fake import FakeServer
from tests.asked import PATHS, PRICES, Asked, address, answer_elsewhere, log_of, longalign, rows, texts

BOTH = "generate: {paid_checks: {closed_book: {}, judge: {}}, "


def with_checks(asked: Asked, checks: str = BOTH) -> Asked:
    text = asked.recipe.read_text(encoding="utf-8")
    asked.recipe.write_text(text.replace("generate: {", checks, 1), encoding="utf-8")
    return asked


def scores(sample: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {score["name"]: score for score in sample["checks"]["scores"]}


@pytest.fixture
def prices(tmp_path: Path) -> str:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES, encoding="utf-8")
    return str(path)


def test_every_answer_is_checked_on_the_same_bill_and_alike_in_every_schedule(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    asked, live, batch = corpus("anthropic", count=8, size=60), serve(), serve(batches={"seconds": 0.2})
    asked.build(live.url, tmp_path / "plain")
    before = live.state.meter["live_replies"]
    with_checks(asked)
    said = asked.build(live.url, tmp_path / "plain", "--prices", prices)
    assert live.state.meter["live_replies"] == before + 2 * 8, "only the checks were asked"
    asked.build(batch.url, tmp_path / "batch", "--schedule", "batch", "--prices", prices)
    assert texts(tmp_path / "plain") == texts(tmp_path / "batch")
    waves = [len(line["items"]) for line in log_of(tmp_path, 1) if line["event"] == "batch"]
    assert waves == [8, 8, 16]
    for sample in rows(tmp_path / "plain", "samples"):
        found = scores(sample)
        assert found["judge"]["value"] in range(1, 6)
        assert found["judge"]["detail"] == "The answer was compared with the text."
        assert found["closed_book"]["value"] == 0.0, "the fake knows nothing without the text"
        assert len(sample["request_ids"]) == 4
    state = json.loads((tmp_path / "plain/asked/1.0.0/state/generate.json").read_text(encoding="utf-8"))
    assert state["details"]["cost"]["usd"] == pytest.approx(live.state.usd(), abs=1e-6)
    assert sum(row["cost_usd"] for row in rows(tmp_path / "plain", "samples")) == pytest.approx(live.state.usd())
    assert "judged-low" in said


def test_low_marks_reject_where_the_recipe_says_so_and_a_check_that_fails_costs_no_sample(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked = with_checks(corpus("openai", count=12), "generate: {paid_checks: {judge: {min_score: 3}}, ")
    server = serve()
    asked.build(server.url + "/v1", tmp_path / "out")
    kept, rejects = rows(tmp_path / "out", "samples"), rows(tmp_path / "out", "rejects")
    assert len(kept) + len(rejects) == 12
    assert {reject["reason"] for reject in rejects} == {"judged-low"}
    assert all(scores(sample)["judge"]["value"] >= 3 for sample in kept)
    refusing = serve(faults=[{"kind": "refusal", "share": 0.4}])
    with_checks(asked, "generate: {answers_per_document: 1, ")
    asked.build(refusing.url + "/v1", tmp_path / "refused")
    unchecked = [sample for sample in rows(tmp_path / "refused", "samples") if "unchecked" in scores(sample)]
    assert unchecked
    assert all("judge: " in scores(sample)["unchecked"]["detail"] for sample in unchecked)


def test_the_estimate_knows_the_paid_checks(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    asked, server = with_checks(corpus("anthropic", count=8, size=60)), serve(batches={"seconds": 0.1})
    common = [str(asked.recipe), "-o", str(tmp_path / "out"), "--prices", prices]
    asked.build(server.url, tmp_path / "out", "--prices", prices, "--schedule", "batch")
    said = longalign("estimate", *common)
    assert "with the paid checks of every answer: closed-book, judge" in said
    line = next(line for line in said.splitlines() if line.startswith("batch") and " 1 <" in line)
    assert float(line.replace("<", " ").split()[3]) == pytest.approx(server.state.usd(), rel=0.05)


def test_the_offline_teacher_is_no_judge(corpus: Callable[..., Asked]) -> None:
    asked = with_checks(corpus("extractive"))
    with pytest.raises(RecipeError, match="cannot judge"):
        load_recipe(asked.recipe)


@pytest.mark.parametrize("provider", sorted(PATHS))
def test_checks_through_files_are_a_third_round(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, provider: str
) -> None:
    asked, server = corpus(provider, count=4), serve()
    asked.build(address(server, provider), tmp_path / "out")
    with_checks(asked)
    exported, replies = tmp_path / "left.jsonl", tmp_path / "replies.jsonl"
    files = (str(asked.recipe), "-o", str(tmp_path / "out"))
    said = longalign("ledger", *files, "--export", str(exported))
    assert "8 requests (0 for questions, 0 for answers, 8 for checks)" in said
    lines = [json.loads(line) for line in exported.read_text("utf-8").splitlines()]
    contents = [(line.get("body") or line["params"])["messages"][0]["content"] for line in lines]
    prompts = [text if isinstance(text, str) else "".join(block["text"] for block in text) for text in contents]
    assert sum("[[3]]" in prompt for prompt in prompts) == 4
    assert sum(len(prompt) < 1_000 and not prompt.startswith("\n") for prompt in prompts) == 4, "without the document"
    answer_elsewhere(exported, replies, server, provider)
    assert "8 replies taken" in longalign("ledger", *files, "--import", str(replies))


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("Right in all. [[5]]", 5),
        ("The form is [[3]], and here:\n[[2]]", 2),
        ("Score: [[4/5]]", 4),
        ("[[ 1 ]]", 1),
        ("[[7]]", None),
        ("[[" + "5" * 5000 + "]]", None),
        ("4 out of 5", None),
        ("", None),
    ],
)
def test_the_last_number_in_double_brackets_is_the_score(reply: str, value: int | None) -> None:
    assert read_judgement(reply).score == value


def test_the_judge_is_told_question_and_answer_once_and_in_the_documents_language() -> None:
    told = load_prompt().instruction("Is {answer} a blank?", "No: {question} is.", "zh")
    assert "Is {answer} a blank?" in told
    assert "No: {question} is." in told
    assert "问题：" in told
    assert "Question:" in load_prompt().instruction("q", "a", "fr")


def test_what_the_teacher_knows_anyway_is_the_share_of_the_answer_that_it_repeats() -> None:
    question, answer = "Who built the tower?", "The tower was built by Odette Marsh in 1871 for 4,200 guilders."
    known = Checked(kind="closed-book", request_id="r", text="I believe Odette Marsh built it in 1871.")
    assert score(known, question, answer).value == pytest.approx(2 / 3, abs=0.01)
    unknown = Checked(kind="closed-book", request_id="r", text="I do not know that tower.")
    assert score(unknown, question, answer).value == 0.0

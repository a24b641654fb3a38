"""Requests as a file and replies as a file: the same data set as the one that was asked for live."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longalign_data.teachers.fake import FakeServer
from tests.asked import PATHS, PRICES, address, answer_elsewhere

ROOT = Path(__file__).parent.parent.parent


def longalign(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "longalign_data", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def table(output: Path, name: str) -> list[dict[str, Any]]:
    shards = sorted((output / "asked/1.0.0" / name).glob("*.parquet"))
    rows = [row for path in shards for row in pq.read_table(path).to_pylist()]
    return [{k: v for k, v in row.items() if k not in {"usage", "cost_usd"}} for row in rows]


@pytest.mark.parametrize("provider", sorted(PATHS))
def test_a_data_set_made_through_files_is_the_one_that_was_asked_live(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path, provider: str
) -> None:
    server = serve()
    asked = corpus(provider, count=8)
    asked.recipe.write_text(
        asked.recipe.read_text(encoding="utf-8").replace("generate: {", "generate: {answers_per_document: 2, "),
        encoding="utf-8",
    )
    asked.build(server.url + ("/v1" if provider == "openai" else ""), tmp_path / "live")
    files = [str(asked.recipe), "-o", str(tmp_path / "files")]
    requests, replies = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl"
    counts = []
    for _ in range(2):
        longalign("ledger", *files, "--export", str(requests))
        counts.append(answer_elsewhere(requests, replies, server, provider))
        said = longalign("ledger", *files, "--import", str(replies))
        assert f"{counts[-1]} replies taken" in said
    assert counts == [8, 16]
    assert f"nothing is left to ask: longalign build {asked.recipe} --output {tmp_path / 'files'}" in said
    assert "0 requests" in longalign("ledger", *files, "--export", str(requests))
    asked_before = dict(server.state.meter)
    longalign("build", *files, "--teacher-url", address(server, provider))
    assert server.state.meter == asked_before
    assert table(tmp_path / "files", "samples") == table(tmp_path / "live", "samples")


def test_an_imported_reply_that_does_not_name_its_tokens_counts_with_the_most_that_it_can_have_cost(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    asked = corpus("openai", count=8)
    files = [str(asked.recipe), "-o", str(tmp_path / "files")]
    requests, replies, prices = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl", tmp_path / "prices.yaml"
    longalign("ledger", *files, "--export", str(requests))
    answer_elsewhere(requests, replies, serve(), "openai")
    first, *others = map(json.loads, replies.read_text(encoding="utf-8").splitlines())
    first["response"]["body"]["usage"] = None
    replies.write_text("".join(json.dumps(line) + "\n" for line in (first, *others)), encoding="utf-8")
    assert "8 replies taken" in longalign("ledger", *files, "--import", str(replies))
    prices.write_text(PRICES, encoding="utf-8")
    said = longalign("ledger", str(tmp_path / "files/asked/1.0.0"), "--prices", str(prices))
    assert "perhaps billed, and its usage is not known (replies that name none: 1): 1 attempts, at most 0.0" in said


def test_lines_that_are_torn_failed_or_foreign_are_counted_and_their_requests_stay(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    server = serve()
    asked = corpus("openai", count=8)
    files = [str(asked.recipe), "-o", str(tmp_path / "files")]
    requests, replies = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl"
    longalign("ledger", *files, "--export", str(requests))
    answer_elsewhere(requests, replies, server, "openai")
    lines = replies.read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line)["custom_id"] for line in lines]
    failed = {"error": {"message": "the server was busy", "code": "server_error"}}
    lines[0] = json.dumps({"custom_id": ids[0], "response": {"status_code": 500, "body": failed}})
    lines[1] = json.dumps({"custom_id": ids[1], "response": None, "error": {"message": "expired"}})
    lines[2] = json.dumps({"custom_id": "f" * 32, "response": {"status_code": 200, "body": {}}})
    lines[3] = json.dumps({"custom_id": ids[3], "response": {"status_code": 200, "body": {"choices": []}}})
    lines[4] = json.dumps(
        {"custom_id": ids[4], "response": {"status_code": 200, "body": {"choices": [{"error": failed}]}}}
    )
    lines[5] = json.dumps({"custom_id": ids[5], "x": 0}).replace("0", "[" * 100_000)
    lines[7] = lines[7][:50]
    replies.write_text("\n".join(lines), encoding="utf-8")
    said = longalign("ledger", *files, "--import", str(replies))
    for words in (
        "8 lines, 1 replies taken",
        "2 unreadable line",
        f"{replies}:8",
        "3 unavailable",
        "1 another build",
        "1 not in the provider's format",
        # Seven questions wait again, and one document waits for its answer.
        "8 requests wait for a reply",
    ):
        assert words in said, said
    again = longalign("ledger", *files, "--import", str(replies))
    assert "0 replies taken, 1 known before" in again


REFUSED = {
    "context-exceeded": "This model's maximum context length is 8 tokens",
    "bad-request": "the text holds a token that the model does not take",
}


@pytest.mark.parametrize("reason", sorted(REFUSED))
def test_a_document_that_was_refused_elsewhere_ends_and_the_others_are_finished(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path, reason: str
) -> None:
    server = serve()
    asked = corpus("openai", count=4)
    files = [str(asked.recipe), "-o", str(tmp_path / "files")]
    requests, replies = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl"
    for turn in range(2):
        longalign("ledger", *files, "--export", str(requests))
        answer_elsewhere(requests, replies, server, "openai")
        if turn == 0:
            lines = replies.read_text(encoding="utf-8").splitlines()
            body = {"error": {"message": REFUSED[reason]}}
            custom_id = json.loads(lines[0])["custom_id"]
            lines[0] = json.dumps({"custom_id": custom_id, "response": {"status_code": 400, "body": body}})
            replies.write_text("\n".join(lines), encoding="utf-8")
        longalign("ledger", *files, "--import", str(replies))
    longalign("build", *files, "--teacher-url", address(server, "openai"))
    assert len(table(tmp_path / "files", "samples")) == 3
    rejects = [row for row in table(tmp_path / "files", "rejects") if row["stage"] == "generate"]
    assert [row["reason"] for row in rejects] == [reason]
    assert f"--forget {reason}" in rejects[0]["detail"]
    assert "1 requests are asked again" in longalign("ledger", *files, "--forget", reason)
    for _ in range(2):
        longalign("ledger", *files, "--export", str(requests))
        assert answer_elsewhere(requests, replies, server, "openai") == 1
        longalign("ledger", *files, "--import", str(replies))
    longalign("build", *files, "--teacher-url", address(server, "openai"))
    assert len(table(tmp_path / "files", "samples")) == len(table(tmp_path / "files", "sequences")) == 4
    assert not [row for row in table(tmp_path / "files", "rejects") if row["stage"] == "generate"]


def test_what_cannot_be_exported_or_imported_is_said(corpus: Callable[..., Any], tmp_path: Path) -> None:
    asked = corpus("openai", count=4)
    files = [str(asked.recipe), "-o", str(tmp_path / "files")]
    assert "cannot be read" in longalign("ledger", *files, "--import", str(tmp_path / "nothing.jsonl"), code=2)
    build = str(tmp_path / "files/asked/1.0.0")
    assert "can be asked again are" in longalign("ledger", *files, "--forget", "refusal", code=2)
    assert "need the recipe" in longalign("ledger", build, "--export", str(tmp_path / "x"), code=2)
    text = asked.recipe.read_text(encoding="utf-8")
    asked.recipe.write_text(text.replace("provider: openai, model: fake-1", "provider: extractive"), encoding="utf-8")
    assert "answers by itself" in longalign("ledger", *files, "--export", str(tmp_path / "x"), code=2)
    asked.recipe.write_text(
        text.replace("model: fake-1", "model: fake-1, parameters: {stream: true}"), encoding="utf-8"
    )
    for command in (["ledger", *files, "--export", str(tmp_path / "x")], ["estimate", *files]):
        said = longalign(*command, code=2)
        assert re.search(r"recipe\.yaml:\d+: generate\.teacher\.parameters: .*stream is set by the stage itself", said)
    assert not (tmp_path / "x").exists()

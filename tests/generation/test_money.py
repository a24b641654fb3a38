"""Bills against the fake provider's meter: what samples cost, what a limit allows, what an estimate says."""

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from longalign_data.errors import BudgetError, BuildError
from longalign_data.generation.asking import keep
from longalign_data.generation.budget import (
    BatchBudget,
    Budget,
    booked,
    most_cost,
    most_given,
    most_tokens,
    spent,
    told_usage,
    unheard,
)
from longalign_data.generation.estimate import Observation, calibrate, lengths_known
from longalign_data.generation.exchange import Plan
from longalign_data.generation.ledger import Call, Ledger
from longalign_data.generation.submissions import Submission
from longalign_data.recipe import Recipe
from longalign_data.records import Usage
from longalign_data.tasks.templates import load_templates
from longalign_data.teachers import openai
from longalign_data.teachers.base import TeacherRequest
from longalign_data.teachers.fake import FakeServer, openai_wire
from longalign_data.teachers.prices import Rate, Tier, load_prices
from longalign_data.tokenizers import load_tokenizer
from tests.asked import PRICES, RECIPE, address, longalign
from tests.generation.small_builds import recipe, run_generate, some_documents, stand
from tests.teachers import fake_servers


@pytest.fixture
def prices(tmp_path: Path) -> str:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES, encoding="utf-8")
    return str(path)


def report(output: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((output / "asked/1.0.0/state/generate.json").read_text(encoding="utf-8"))
    return state


@pytest.mark.parametrize(
    ("provider", "schedule"), [("anthropic", "live"), ("anthropic", "batch"), ("openai", "live"), ("openai", "batch")]
)
def test_what_samples_cost_is_what_the_provider_metered(
    corpus: Callable[..., Any],
    serve: Callable[..., FakeServer],
    tmp_path: Path,
    prices: str,
    provider: str,
    schedule: str,
) -> None:
    server = serve(batches={"seconds": 0.1})
    out = tmp_path / "builds"
    said = corpus(provider, count=8).build(
        address(server, provider), out, "--prices", prices, "--schedule", schedule, "--concurrency", "4"
    )
    cost = report(out)["details"]["cost"]
    assert report(out)["num_rejected"] == 0
    assert cost["ledger_usd"] == pytest.approx(server.state.usd(), abs=1e-6)
    # The tiny question that goes ahead of the first batch belongs to no sample.
    trial = 0.0005 if schedule == "batch" else 1e-6
    assert 0 <= server.state.usd() - cost["usd"] + 1e-6 < trial + 1e-6
    for parts in ("by_source", "by_task", "by_model"):
        assert sum(cost[parts].values()) == pytest.approx(cost["usd"], abs=1e-4)
    assert f"{cost['usd']:,.4f} USD" in said
    assert f"{cost['ledger_usd']:,.4f}" in longalign("ledger", str(out / "asked/1.0.0"), "--prices", prices)


@pytest.mark.parametrize("schedule", ["live", "batch"])
def test_a_limit_is_never_passed_and_a_larger_one_goes_on(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path, prices: str, schedule: str
) -> None:
    server = serve(batches={"seconds": 0.1}, latency_s=0.02)
    asked = corpus("anthropic", count=12, size=60)
    options = ["--prices", prices, "--schedule", schedule, "--concurrency", "6", "--max-usd"]
    whole = tmp_path / "whole"
    asked.build(server.url, whole, *options, "100")
    bill = server.state.usd()

    second = serve(batches={"seconds": 0.1}, latency_s=0.02)
    limit = 0.6 * bill
    said = asked.build(second.url, tmp_path / "limited", *options, f"{limit:.6f}", code=2)
    assert "the budget of" in said
    assert "--max-usd goes on from here" in said
    assert 0 < second.state.usd() <= limit
    asked.build(second.url, tmp_path / "limited", *options, f"{2 * bill:.6f}")
    assert second.state.usd() == pytest.approx(bill, rel=0.3)
    assert samples(tmp_path / "limited") == samples(whole)
    if schedule == "batch":
        # Every request went out once in both, so what is noted of the batches adds up to the same.
        assert sent_in_batches(tmp_path / "limited") == sent_in_batches(whole)


def sent_in_batches(output: Path) -> tuple[int, int, int]:
    """Requests, bytes and tokens of all batches, as the ledger has them."""
    with contextlib.closing(sqlite3.connect(output / "asked/1.0.0/ledger.sqlite")) as db:
        found = db.execute("SELECT sum(num_requests), sum(num_bytes), sum(num_tokens) FROM submissions").fetchone()
    return tuple(found)


@pytest.mark.parametrize("name", ["qwen", "mistral-v1"])
def test_no_prompt_has_more_tokens_than_a_limit_reckons_with(name: str) -> None:
    drawn = random.Random(7)

    def letters(*ranges: tuple[int, int], count: int = 4000) -> str:
        known = [chr(code) for first, last in ranges for code in range(first, last + 1)]
        return "".join(drawn.choices(known, k=count))

    texts = {
        "digits": letters((0x30, 0x39)),
        "table": "0;18;0\n" * 600,
        "punctuation": letters((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
        "line breaks": "\r\n\t\n" * 1000,
        "small letters": letters((0x61, 0x7A)),
        "capitals": letters((0x41, 0x5A)),
        "hexadecimal": drawn.randbytes(2000).hex(),
        "letters between digits": "".join(letters((0x61, 0x7A), count=1) + str(n % 10) for n in range(2000)),
        "printable": letters((0x20, 0x7E)),
        "Chinese": letters((0x4E00, 0x9FFF)),
        "rare Chinese": letters((0x20000, 0x2A6D0)),
        "emoji": letters((0x1F300, 0x1F64F)),
        "Tamil": letters((0x0B85, 0x0BB9)),
        "Cherokee": letters((0x13A0, 0x13F4)),
        "cuneiform": letters((0x12000, 0x12300)),
        "long under NFKC": "\ufdfa" * 1000,
    }
    tokenizer = load_tokenizer(name)
    for kind, text in texts.items():
        # One more: SentencePiece begins with a blank.
        assert len(tokenizer.encode(text)) <= most_tokens(text) + 1, kind
    prose = "The pumps were inspected in May, and nobody found anything that was worth a line in the report. " * 40
    assert most_tokens(prose) < 0.75 * len(prose)


def test_the_end_of_a_budget_sends_nothing_that_would_be_thrown_away() -> None:
    large = TeacherRequest(model="m", document="word " * 2000, instruction="What?", max_tokens=1000)
    small = dataclasses.replace(large, document="", max_tokens=10)
    rate = Rate(tiers=[Tier(input=2.0, output=10.0)], cache_write=1.25, cache_read=0.1, batch=0.5)
    most = most_cost(large, rate)

    async def end() -> list[float | BaseException]:
        budget = Budget(1.0001 * most, rate)
        first = await budget.reserve(large)
        waiting = [asyncio.create_task(budget.reserve(request)) for request in (large, small)]
        await asyncio.sleep(0)
        await budget.settle(first, Usage(output_tokens=int(0.5 * most * 1e5)))
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)

    assert [type(outcome) for outcome in asyncio.run(end())] == [BudgetError] * 2


def test_a_ledger_that_has_not_changed_is_not_read_again_to_know_what_is_left(tmp_path: Path, prices: str) -> None:
    known = load_prices(Path(prices))
    request = TeacherRequest(model="fake-1", document="d", instruction="What?", max_tokens=5)
    calls = [
        Call(request_id=name, document_id="d", kind="question", provider="openai", request=request) for name in "ab"
    ]
    raw = {"choices": [], "usage": {"completion_tokens": 10}}
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.begin(calls[0])
        ledger.answered(calls[0], raw)
        budget = BatchBudget(1.0, known.require("openai", "fake-1"), ledger, known)
        left = budget.left([])
        with contextlib.closing(sqlite3.connect(tmp_path / "l.sqlite")) as other:
            other.execute("UPDATE replies SET raw = x'00'")
            other.commit()
        assert budget.left([]) == left
        ledger.begin(calls[1])
        with pytest.raises(BuildError, match="damaged"):
            budget.left([])


def test_batches_that_are_out_are_bound_at_the_prices_of_their_own_model(tmp_path: Path) -> None:
    known = load_prices()
    dear, cheap = (known.require("anthropic", model) for model in ("claude-opus-5", "claude-sonnet-5"))
    out = [
        Submission(
            submission_id=f"s-{name}", provider="anthropic", model=model, state="sent", batch_id=batch, num_requests=1, num_bytes=9,
            num_tokens=100_000, created=0.0, kept_until=None,
        )
        for name, model, batch in (("a", "claude-sonnet-5", "msgbatch_1"), ("b", "claude-opus-5", None))
    ]  # fmt: skip
    with Ledger(tmp_path / "l.sqlite") as ledger:
        budget = BatchBudget(10.0, dear, ledger, known)
        bound = [rate.cost(Usage(input_tokens=300_000), batch=True) for rate in (cheap, dear)]
        assert bound[0] < bound[1] / 2
        assert budget.left(out) == pytest.approx(10.0 - sum(bound))
        said = str(budget.used_up(1.0, out))
    assert f"{bound[0]:,.4f} USD are bound by batch msgbatch_1 of anthropic claude-sonnet-5" in said
    assert f"{bound[1]:,.4f} USD are bound by batch s-b of anthropic claude-opus-5" in said


def test_replies_that_were_lost_count_against_the_limit(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    server = serve(faults=[{"kind": "lost-reply", "attempts": 1}])
    asked = corpus("openai", count=8, size=60)
    plain = serve()
    asked.build(address(plain, "openai"), tmp_path / "whole", "--prices", prices)
    limit = 1.2 * plain.state.usd()
    options = ("--prices", prices, "--max-usd", f"{limit:.6f}")
    assert "the budget of" in asked.build(address(server, "openai"), tmp_path / "lossy", *options, code=2)
    assert 0 < server.state.usd() <= limit
    # A second run has no more money than the first one left.
    assert "the budget of" in asked.build(address(server, "openai"), tmp_path / "lossy", *options, code=2)
    assert server.state.usd() <= limit
    said = longalign("ledger", str(tmp_path / "lossy/asked/1.0.0"), "--prices", prices)
    assert re.search(r"perhaps billed, and no reply came: \d+ attempts, at most 0\.\d+ USD", said)


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": 200}, {"prompt_tokens": "many"}])
def test_a_usage_without_the_prompt_tells_no_cost(usage: dict[str, Any] | None) -> None:
    assert told_usage(openai.read, fake_servers.completion("x") | {"usage": usage}) is None


def test_replies_that_name_no_usage_count_against_the_limit(
    corpus: Callable[..., Any], tmp_path: Path, prices: str
) -> None:
    def script(body: dict[str, Any], times: int) -> fake_servers.Answer:
        said = "1: What?" if fake_servers.wants_questions(body) else "An answer."
        return fake_servers.Answer(fake_servers.completion(said) | {"usage": None})

    asked, out = corpus("openai", count=8, size=12), tmp_path / "builds"
    options = ("--prices", prices, "--concurrency", "1", "--max-usd")
    with fake_servers.FakeServer(script).running() as server:
        assert "the budget of" in asked.build(server.url + "/v1", out, *options, "0.1", code=2)
        num_first = len(server.seen)
        # What the first run left does not suffice for another request.
        assert "the budget of" in asked.build(server.url + "/v1", out, *options, "0.1", code=2)
        assert len(server.seen) == num_first
        said = asked.build(server.url + "/v1", out, *options, "5")
    assert 0 < num_first < len(server.seen)
    assert f"{len(server.seen)} attempts whose replies never came or name no usage ({len(server.seen)})" in said
    with Ledger(out / "asked/1.0.0/ledger.sqlite") as ledger:
        known = load_prices(Path(prices))
        silent = unheard(ledger, known)
        assert silent.num_attempts == silent.num_unnamed == len(server.seen)
        assert booked(ledger, known) == silent.most_usd > 0.1
    words = longalign("ledger", str(out / "asked/1.0.0"), "--prices", prices)
    assert f"perhaps billed, and its usage is not known (replies that name none: {len(server.seen)})" in words
    assert "--max-usd counts" not in longalign("ledger", str(out / "asked/1.0.0")), "without a price there is no limit"


@pytest.mark.parametrize("usage", [{}, {"completion_tokens": 3}])
def test_replies_out_of_batches_that_name_no_usage_count_as_well(
    tmp_path: Path,
    serve: Callable[..., FakeServer],
    prices: str,
    usage: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = openai_wire.result_line

    def unnamed(*given: Any) -> dict[str, Any]:
        found = line(*given)
        found["response"]["body"]["usage"] = usage
        return found

    monkeypatch.setattr(openai_wire, "result_line", unnamed)
    stands, server = stand(tmp_path / "small/1.0.0", some_documents(6)), serve(batches={"seconds": 0.1})
    known, choice = load_prices(Path(prices)), {"provider": "openai", "model": "fake-1", "max_answer_tokens": 3_000}
    for fingerprint in ("one", "two"):
        run_generate(stands, recipe(**choice), server.url + "/v1", schedule="batch", fingerprint=fingerprint)
    num_bought = server.state.meter["batch_replies"]
    with Ledger(stands.ledger) as ledger:
        silent = unheard(ledger, known)
        assert silent.num_attempts == silent.num_unnamed == num_bought > 6
        rate = known.require("openai", "fake-1")
        texts = {each.doc_id: each.text for each in some_documents(6)}
        most = 0.0
        for request_id, doc_id in ledger.documents_of("answered").items():
            call = ledger.call(request_id)
            if call.kind != "trial":
                most += most_cost(dataclasses.replace(call.request, document=texts[doc_id]), rate, batch=True)
        assert silent.most_usd == pytest.approx(most)
        trial = booked(ledger, known) - silent.most_usd
        assert 0 < trial < 0.001, "the tiny question is the only one that tells"


def test_a_reply_that_names_only_its_output_counts_once(tmp_path: Path, prices: str) -> None:
    request = TeacherRequest(model="fake-1", document="d" * 4_000, instruction="What?", max_tokens=2_000)
    call = Call(request_id="r", document_id="d", kind="answer", provider="openai", request=request)
    known = load_prices(Path(prices))
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.sending(call, num_tokens=most_given(request))
        raw = fake_servers.completion("x") | {"usage": {"completion_tokens": 2_000}}
        for _ in range(2):
            keep(ledger, call, raw, Plan(recipe=recipe().recipe, templates=load_templates(), read=openai.read))
        assert booked(ledger, known) == pytest.approx(most_cost(request, known.require("openai", "fake-1")))


def test_what_was_under_way_when_a_run_was_killed_counts_until_it_is_asked_again_and_after(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    slow, quick = serve(latency_s=600), serve()
    asked, out = corpus("anthropic", count=6), tmp_path / "builds"
    process = asked.start(slow.url, out, "--prices", prices)
    end = time.monotonic() + 300
    while slow.state.num_http < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    known = load_prices(Path(prices))
    with Ledger(out / "asked/1.0.0/ledger.sqlite") as ledger:
        at_most = unheard(ledger, known)
        assert (at_most.num_attempts, spent(ledger, known)) == (4, 0.0)
    tight = ("--prices", prices, "--max-usd", f"{1.01 * at_most.most_usd:.6f}")
    assert "the budget of" in asked.build(quick.url, out, *tight, code=2)
    assert quick.state.usd() == 0.0
    asked.build(quick.url, out, "--prices", prices, "--max-usd", "1")
    with Ledger(out / "asked/1.0.0/ledger.sqlite") as ledger:
        after = unheard(ledger, known)
        # Their replies tell now how long the prompts were.
        assert after.num_attempts == 4
        assert 0 < after.most_usd < at_most.most_usd
        assert booked(ledger, known) == pytest.approx(quick.state.usd() + after.most_usd)


def samples(output: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    shards = sorted((output / "asked/1.0.0/samples").glob("*.parquet"))
    rows = [row for path in shards for row in pq.read_table(path).to_pylist()]
    return [{k: v for k, v in row.items() if k not in {"usage", "cost_usd"}} for row in rows]


def test_a_limit_on_a_model_without_a_price_asks_for_the_price(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    server = serve()
    said = corpus("openai", count=4).build(address(server, "openai"), tmp_path / "builds", "--max-usd", "1", code=2)
    assert "no price is known for the model 'fake-1'" in said
    assert server.state.usd() == 0.0


def test_a_limit_without_a_price_is_refused_before_the_corpus_is_read(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    process = corpus("openai", count=4).start(
        address(serve(), "openai"), tmp_path / "new", "--max-usd", "1", stage="build"
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "no price is known for the model 'fake-1'" in err
    assert not list((tmp_path / "new").rglob("*.parquet"))


def test_a_complete_build_takes_a_limit_without_a_price_since_it_sends_nothing(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    server, asked, out = serve(), corpus("openai", count=2), tmp_path / "builds"
    asked.build(address(server, "openai"), out, "--prices", prices, "--max-usd", "1")
    bill = server.state.usd()
    asked.build(address(server, "openai"), out, "--max-usd", "1")
    assert server.state.usd() == bill


def test_without_a_price_the_build_runs_and_says_so(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    server = serve()
    said = corpus("openai", count=4).build(address(server, "openai"), tmp_path / "builds")
    assert "no price is known for this teacher" in said
    assert {row["cost_usd"] for row in rows(tmp_path / "builds")} == {None}


def rows(output: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    shards = sorted((output / "asked/1.0.0/samples").glob("*.parquet"))
    return [row for path in shards for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize(("schedule", "way"), [("live", "live+cache"), ("batch", "batch")])
def test_the_estimate_from_a_pilot_is_near_the_meter(
    corpus: Callable[..., Any],
    serve: Callable[..., FakeServer],
    tmp_path: Path,
    prices: str,
    schedule: str,
    way: str,
) -> None:
    server = serve(batches={"seconds": 0.1}, cache={"min_tokens": 1})
    asked = corpus("anthropic", count=12, size=60)
    common = [str(asked.recipe), "-o", str(tmp_path / "builds"), "--prices", prices, "--teacher-url", server.url]
    before = longalign("estimate", *common, "--pilot", "6")
    assert server.state.usd() == 0.0, "an estimate is free"
    assert "documents that anthropic counted" in before
    low, high = bounds(before, way)
    asked.build(server.url, tmp_path / "builds", "--prices", prices, "--schedule", schedule)
    bill = server.state.usd()
    # The fake's answers are shorter than any model's, which no pilot can know.
    assert 0.8 * low <= bill <= high
    after = longalign("estimate", *common)
    assert "replies in this build's ledger" in after
    assert likely(after, way) == pytest.approx(bill, rel=0.05)


def test_what_a_build_at_work_has_under_way_is_not_yet_lost(tmp_path: Path, prices: str) -> None:
    request = TeacherRequest(model="fake-1", document="d", instruction="i", max_tokens=5)
    call = Call(request_id="r", document_id="d", kind="question", provider="anthropic", request=request)
    known = load_prices(Path(prices))
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.sending(call, num_tokens=1_000)
        assert unheard(ledger, known, is_at_work=True).num_attempts == 0
        assert unheard(ledger, known).num_attempts == 1
        ledger.sending(call, num_tokens=1_000)  # a second process; what the first one had is lost
        at_work = unheard(ledger, known, is_at_work=True)
    assert at_work.num_attempts == 1
    assert at_work.most_usd == pytest.approx((1_000 * 2.5 + 5 * 10) / 1e6)


def test_a_log_shows_long_names_and_sums_whole(tmp_path: Path) -> None:
    model = "claude-of-a-name-that-does-not-fit-between-the-numbers-5-5"
    with Ledger(tmp_path / "builds/quickstart/1.0.0/ledger.sqlite") as ledger:
        request = TeacherRequest(model=model, document="d", instruction="i", max_tokens=5)
        ledger.begin(Call(request_id="r", document_id="d", kind="question", provider="anthropic", request=request))
    (tmp_path / "builds/quickstart/1.0.0/state").mkdir()
    # A recipe by its name, as `longalign build quickstart` takes it.
    said = longalign("ledger", "quickstart", "-o", str(tmp_path / "builds"), columns=80)
    assert f"anthropic {model}" in said


def test_a_pilot_of_one_document_is_used_and_said_to_be_uncertain() -> None:
    recipe = Recipe.model_validate(
        yaml.safe_load(RECIPE.replace("COUNT", "4").replace("PROVIDER", "anthropic, model: m"))
    )
    seen = [Observation(lang="en", recipe_tokens=100, teacher_tokens=80)]
    known = calibrate(recipe, ["en"], observations=seen, outputs={}, origin="one document")
    assert (known.ratios["en"].likely, known.origin) == (0.8, "one document")
    assert known.ratios["en"].off == pytest.approx(0.16)


def test_two_prompts_that_agree_are_uncertain_too() -> None:
    recipe = Recipe.model_validate(
        yaml.safe_load(RECIPE.replace("COUNT", "4").replace("PROVIDER", "anthropic, model: m"))
    )
    for count, off in ((2, 0.16), (5, 0.0)):
        seen = [Observation(lang="en", recipe_tokens=100, teacher_tokens=80)] * count
        known = calibrate(recipe, ["en"], observations=seen, outputs={}, origin="pilot")
        assert known.ratios["en"].off == pytest.approx(off)


def test_lengths_of_which_few_replies_tell_are_said_to_be_rules_of_thumb() -> None:
    few, many = [100] * 4, [100] * 5
    assert lengths_known({"question": many, "answer": many}, "a trial") == "lengths of replies from a trial"
    assert lengths_known({"question": many, "answer": few}, "a trial") == (
        "lengths of replies from a trial; lengths of answers by rules of thumb, of fewer than 5 replies"
    )
    assert lengths_known({"question": few}, "a trial") == (
        "lengths of questions and answers by rules of thumb, of fewer than 5 replies"
    )


def test_no_reply_is_estimated_longer_than_the_recipe_allows() -> None:
    recipe = Recipe.model_validate(
        yaml.safe_load(RECIPE.replace("COUNT", "4").replace("PROVIDER", "openai, model: m, max_answer_tokens: 50"))
    )
    known = calibrate(recipe, ["en"], observations=[], outputs={}, origin="")
    assert {kind: found.likely for kind, found in known.outputs.items()} == {
        "question": 250, "answer": 50, "closed-book": 50, "judge": 150
    }  # fmt: skip


def test_a_trial_tells_the_estimate_how_long_replies_are(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    server = serve()
    asked = corpus("anthropic", count=12)
    process = asked.start(server.url, tmp_path / "builds", "--prices", prices, "--limit", "6", stage="build")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    files = [str(asked.recipe), "-o", str(tmp_path / "builds")]
    assert "nothing was asked in this folder yet" in longalign("ledger", *files, "--forget", "bad-request", code=2)
    ledger = tmp_path / "builds/asked/1.0.0/ledger.sqlite"
    assert not ledger.exists()
    Ledger(ledger).close()  # as an import of nothing leaves it
    said = longalign("estimate", *files, "--prices", prices, "--teacher-url", server.url, "--pilot", "6")
    assert "lengths of replies from the usage of 12 replies in the ledger of asked-limit-6" in said
    assert "a reply: 250 tokens" not in said, "which is the rule of thumb"
    assert f"paid already by asked-limit-6 for these documents: 12 replies, {server.state.usd():,.4f} USD" in said


def line_of(said: str, way: str) -> list[str]:
    line = next(line for line in said.splitlines() if re.match(rf"{re.escape(way)}\s+1 <", line))
    return line.removeprefix(way).replace("<", " ").split()


def likely(said: str, way: str) -> float:
    return float(line_of(said, way)[2])


def bounds(said: str, way: str) -> tuple[float, float]:
    low, high = line_of(said, way)[3:5]
    return float(low) - 0.005, float(high) + 0.005


def test_five_answers_a_document_cost_less_each_and_the_bill_still_adds_up(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    one, five = serve(cache={"min_tokens": 1}), serve(cache={"min_tokens": 1})
    asked = corpus("anthropic", count=8, size=60)
    asked.build(one.url, tmp_path / "one", "--prices", prices)
    text = asked.recipe.read_text(encoding="utf-8")
    asked.recipe.write_text(text.replace("generate: {", "generate: {answers_per_document: 5, "), encoding="utf-8")
    asked.build(five.url, tmp_path / "five", "--prices", prices)
    single, several = rows(tmp_path / "one"), rows(tmp_path / "five")
    assert len(single) == 8
    by_document: dict[str, list[dict[str, Any]]] = {}
    for row in several:
        by_document.setdefault(row["doc_ids"][0], []).append(row)
    for row in single:
        same = by_document[row["doc_ids"][0]]
        indices = [other["question_index"] for other in same]
        assert len(set(indices)) == len(indices) == min(5, len(row["questions"]))
        # The first of several is the one that is drawn alone.
        assert {k: same[0][k] for k in ("sample_id", "messages")} == {k: row[k] for k in ("sample_id", "messages")}
    assert len({row["sample_id"] for row in several}) == len(several)
    assert sum(row["cost_usd"] for row in several) == pytest.approx(five.state.usd(), rel=1e-6)
    assert five.state.usd() / len(several) < 0.45 * one.state.usd() / len(single)
    done = report(tmp_path / "five")
    assert done["num_in"] == done["num_out"] + done["num_rejected"] + done["num_left_out"]


def test_the_ledger_names_failures_and_the_cache(
    corpus: Callable[..., Any], serve: Callable[..., FakeServer], tmp_path: Path, prices: str
) -> None:
    server = serve(cache={"min_tokens": 1}, faults=[{"kind": "refusal", "share": 0.3}])
    asked = corpus("anthropic", count=12)
    asked.build(server.url, tmp_path / "builds", "--prices", prices)
    rejected = report(tmp_path / "builds")["rejected"]["refusal"]
    said = longalign("ledger", str(asked.recipe), "-o", str(tmp_path / "builds"), "--prices", prices)
    assert f"failed: refusal {rejected}" in said
    estimated = longalign("estimate", str(asked.recipe), "-o", str(tmp_path / "builds"), "--prices", prices)
    assert "a build keeps what the recipe as it is can use of them, and asks for the rest again" in estimated
    assert "of the prompt tokens were read from it" in said
    for name in ("lines", "zeilen", "anthropic fake-1"):
        assert name in said

"""Sets of conversations from real files, in every form, through the real stage."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from longalign_data.engine import RunOptions, Silent
from longalign_data.errors import RecipeError, SourceError
from longalign_data.mixing.mix import mix, mix_inputs
from longalign_data.recipe import LoadedRecipe, load_recipe
from longalign_data.records import Sample
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_records
from longalign_data.shards.stage import StageReport


def messages(number: int, reply: str = "Yes, {}.") -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"Is {number} a number?"},
            {"role": "assistant", "content": reply.format(number)},
        ]
    }


def sharegpt(number: int) -> dict[str, Any]:
    turns = [("system", "Be kind."), ("human", f"What is {number}?"), ("gpt", f"It is {number}.")]
    return {"id": f"x_{number}", "conversations": [{"from": who, "value": text} for who, text in turns]}


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def load(folder: Path, sets: str, seed: int = 1) -> LoadedRecipe:
    path = folder / "recipe.yaml"
    path.write_text(f"name: mixed\nversion: 1.0.0\nseed: {seed}\nmix:\n{sets}", encoding="utf-8")
    return load_recipe(path)


def run(folder: Path, loaded: LoadedRecipe, name: str = "build") -> tuple[StageReport, list[Sample], BuildFolder]:
    build = BuildFolder(folder / name)
    report = mix(loaded, build, fingerprint="f", run=RunOptions(), progress=Silent())
    return report, list(iter_records(build.shards("chats"), Sample)), build


def rejects(build: BuildFolder) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [row for path in build.shards("rejects") for row in pq.read_table(path).to_pylist()]
    return rows


LINES = "- {id: chat, lang: en, license: CC0-1.0, path: data.jsonl}\n"


def texts(samples: Sequence[Sample]) -> list[list[tuple[str, str]]]:
    return [[(message.role, message.content) for message in sample.messages] for sample in samples]


def test_every_form_and_file_kind_gives_the_same_conversations(tmp_path: Path) -> None:
    records = [sharegpt(0), messages(1), sharegpt(2)]
    write_lines(tmp_path / "a.jsonl", records)
    (tmp_path / "b.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    with gzip.open(tmp_path / "c.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, records)))
    (tmp_path / "d.json.zst").write_bytes(zstandard.compress(b"\xef\xbb\xbf" + (tmp_path / "b.json").read_bytes()))
    with gzip.open(tmp_path / "e.json.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, records)))
    found = []
    for name in ("a.jsonl", "b.json", "c.jsonl.gz", "d.json.zst", "e.json.gz"):
        _, samples, _ = run(tmp_path, load(tmp_path, LINES.replace("data.jsonl", name)), name[0])
        found.append(texts(samples))
    assert all(other == found[0] for other in found)
    assert found[0][0] == [("system", "Be kind."), ("user", "What is 0?"), ("assistant", "It is 0.")]
    pq.write_table(pa.Table.from_pylist([messages(n) | {"other": 1} for n in range(3)]), tmp_path / "d.parquet")
    _, samples, _ = run(tmp_path, load(tmp_path, LINES.replace("data.jsonl", "d.parquet")), "d")
    assert texts(samples)[2] == [("user", "Is 2 a number?"), ("assistant", "Yes, 2.")]


def test_a_large_json_array_is_read_piece_by_piece(tmp_path: Path) -> None:
    long = messages(7, reply="word " * 600_000)
    (tmp_path / "data.json").write_text(json.dumps([messages(1), long, messages(2)]), encoding="utf-8")
    report, samples, _ = run(tmp_path, load(tmp_path, LINES.replace("data.jsonl", "data.json")))
    assert report.num_out == 3
    assert samples[1].messages[1].content == "word " * 600_000


def test_a_table_without_conversations_is_named_with_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"prompt": "a", "reply": "b"}]), tmp_path / "data.parquet")
    with pytest.raises(
        SourceError, match=r"data\.parquet: no column of conversations.*prompt, reply; expected messages or"
    ):
        run(tmp_path, load(tmp_path, LINES.replace("data.jsonl", "data.parquet")))


def test_an_object_over_several_lines_is_one_reject(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps(messages(1), indent=1), encoding="utf-8")
    _, samples, build = run(tmp_path, load(tmp_path, LINES.replace("data.jsonl", "data.json")))
    (reject,) = rejects(build)
    assert (samples, reject["reason"]) == ([], "bad-json")
    assert "expected an array, or one object a line" in reject["detail"]


def test_a_sample_says_where_it_came_from_and_how_long_it_is(tmp_path: Path) -> None:
    write_lines(tmp_path / "data.jsonl", [messages(5)])
    _, (sample,), _ = run(tmp_path, load(tmp_path, LINES))
    assert (sample.source, sample.task, sample.lang, sample.license) == ("chat", "general-chat", "en", "CC0-1.0")
    assert (sample.question_index, sample.doc_ids, sample.cost_usd) == (-1, (), 0.0)
    assert 0 < sample.num_answer_tokens < sample.num_tokens


def test_what_cannot_be_used_is_a_stored_reject_and_the_rest_goes_on(tmp_path: Path) -> None:
    bad: list[tuple[str, bytes]] = [
        ("bad-json", b'{"messages": ['),
        ("not-an-object", b"[1, 2]"),
        ("missing-field", b'{"text": "x"}'),
        ("bad-turn", b'{"messages": [{"role": "user"}]}'),
        ("bad-turn", b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}'),
        ("unknown-role", b'{"messages": [{"role": "tool", "content": "x"}]}'),
        ("no-reply", b'{"messages": [{"role": "user", "content": "x"}]}'),
        ("empty-reply", json.dumps(messages(1, reply=" \n")).encode()),
        ("bad-utf8", b'{"messages": [{"role": "user", "content": "\\ud800"}]}'),
        ("bad-utf8", b'{"messages": [{"role": "user", "content": "\xff"}]}'),
    ]
    lines = [line for _, line in bad] + [json.dumps(messages(n)).encode() for n in (1, 2, 1)]
    (tmp_path / "data.jsonl").write_bytes(b"\n".join(lines))
    report, samples, build = run(tmp_path, load(tmp_path, LINES))
    assert [row["reason"] for row in rejects(build)] == [reason for reason, _ in bad]
    assert [row["id"] for row in rejects(build)][:2] == ["chat/data.jsonl:1", "chat/data.jsonl:2"]
    assert len(samples) == 2
    assert report.left_out == {"duplicate": 1}
    assert report.num_in == report.num_out + report.num_rejected + report.num_left_out == 13


def test_damage_inside_an_array_is_told_and_what_stood_before_it_stays(tmp_path: Path) -> None:
    text = json.dumps([messages(1), messages(2)])
    (tmp_path / "data.json").write_text(text[:-20], encoding="utf-8")
    report, samples, build = run(tmp_path, load(tmp_path, LINES.replace("data.jsonl", "data.json")))
    assert report.num_out == len(samples) == 1
    assert rejects(build)[0]["reason"] == "bad-json"
    assert "the rest of the file is left out" in rejects(build)[0]["detail"]


def test_a_packed_file_that_is_cut_off_or_asks_for_too_much_memory_is_told(tmp_path: Path) -> None:
    data = "".join(json.dumps(messages(n)) + "\n" for n in range(400)).encode()
    for name, packed in (("data.jsonl.zst", zstandard.compress(data)), ("data.jsonl.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(packed[:-9])
        with pytest.raises(
            SourceError, match=rf"mix set 'chat': .*{name}: cannot be read to its end: .*fetch the file again"
        ):
            run(tmp_path, load(tmp_path, LINES.replace("data.jsonl", name)), f"build {name}")
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=30)
    place = tmp_path / "data.jsonl.zst"
    with (
        place.open("wb") as file,
        zstandard.ZstdCompressor(compression_params=parameters).stream_writer(file) as writer,
    ):
        writer.write(data)
    with pytest.raises(SourceError, match=r"a window of more than 512 MiB; pack it anew: zstd -dc"):
        run(tmp_path, load(tmp_path, LINES.replace("data.jsonl", "data.jsonl.zst")), "window")


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_lines(tmp_path / "set" / "a.jsonl", [messages(1)])
    (tmp_path / "set" / "notes.txt").symlink_to(tmp_path / "nothing")
    loaded = load(tmp_path, LINES.replace("data.jsonl", "set"))
    assert len(run(tmp_path, loaded)[1]) == 1
    (tmp_path / "set" / "b.jsonl").symlink_to(tmp_path / "nothing")
    with pytest.raises(SourceError, match=r"mix set 'chat': .*b\.jsonl: a symbolic link that leads nowhere"):
        mix_inputs(loaded, BuildFolder(tmp_path / "other"))


def test_counts_and_shares_are_honoured_and_a_smaller_count_is_a_part_of_a_larger(tmp_path: Path) -> None:
    write_lines(tmp_path / "data.jsonl", [messages(n) for n in range(100)])
    taken: dict[str, set[str]] = {}
    for asked, expected in (("count: 10", 10), ("count: 40", 40), ("share: 0.25", 25), ("count: 200", 100)):
        loaded = load(tmp_path, LINES.replace("}", f", {asked}}}"))
        report, samples, _ = run(tmp_path, loaded, asked)
        assert len(samples) == expected
        assert report.left_out.get("not-drawn", 0) == 100 - expected
        taken[asked] = {sample.sample_id for sample in samples}
        (details,) = report.details["sets"]
        assert (details["usable"], details["taken"]) == (100, expected)
        assert details["asked"] == (200 if asked == "count: 200" else expected)
    assert taken["count: 10"] < taken["share: 0.25"] < taken["count: 40"]
    other_seed = run(tmp_path, load(tmp_path, LINES.replace("}", ", count: 40}"), seed=2), "other")[1]
    assert {sample.sample_id for sample in other_seed} != taken["count: 40"]


def test_the_order_of_files_and_other_records_do_not_change_who_is_drawn(tmp_path: Path) -> None:
    records = [messages(n) for n in range(60)]
    for name, parts in (("one", [records]), ("two", [records[40:][::-1], records[:40]])):
        (tmp_path / name).mkdir()
        for number, part in enumerate(parts):
            write_lines(tmp_path / name / f"{number}.jsonl", part)
    sets = [LINES.replace("data.jsonl}", f"{name}, count: 20}}") for name in ("one", "two")]
    first, second = (run(tmp_path, load(tmp_path, text), f"b{n}")[1] for n, text in enumerate(sets))
    assert {sample.sample_id for sample in first} == {sample.sample_id for sample in second}


class StopAfter(Silent):
    def __init__(self, items: int) -> None:
        self.left = items

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        del tokens, note
        self.left -= items
        if self.left < 0:
            raise KeyboardInterrupt


def test_a_cut_off_run_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [messages(n % 50) for n in range(70)])
    write_lines(tmp_path / "b.jsonl", [sharegpt(n) for n in range(50)])
    sets = "- {id: a, lang: en, license: X, path: a.jsonl, count: 30}\n- {id: b, lang: en, license: X, path: b.jsonl}\n"
    loaded = load(tmp_path, sets)
    whole, samples, _ = run(tmp_path, loaded, "whole")
    build = BuildFolder(tmp_path / "cut")
    small = RunOptions(shard_bytes=2_000, row_group_bytes=500)
    for after in (40, 60, 30):
        with pytest.raises(KeyboardInterrupt):
            mix(loaded, build, fingerprint="f", run=small, progress=StopAfter(after))
    report = mix(loaded, build, fingerprint="f", run=small, progress=Silent())
    assert list(iter_records(build.shards("chats"), Sample)) == samples
    assert (report.num_in, report.num_out, report.left_out) == (whole.num_in, whole.num_out, whole.left_out)
    assert report.details == whole.details


def test_long_samples_of_longalign_can_lose_their_document_and_never_their_question(tmp_path: Path) -> None:
    text = "First part.\n\nSecond part.\n\nWhat is told?"
    write_lines(
        tmp_path / "data.jsonl",
        [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Parts."}]}],
    )
    _, (sample,), _ = run(tmp_path, load(tmp_path, LINES.replace("}", ", document: before-last-blank-line}")))
    (span,) = sample.document_spans
    assert sample.messages[span.message_index].content[span.start : span.end] == "First part.\n\nSecond part."


def test_a_dataset_of_the_hub_library_is_streamed(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    write_lines(tmp_path / "set" / "train.jsonl", [messages(n) for n in range(4)])
    sets = f"- {{id: hub, lang: en, license: X, dataset: {tmp_path / 'set'}, revision: {'a' * 40}, count: 3}}\n"
    report, samples, _ = run(tmp_path, load(tmp_path, sets))
    assert report.num_in == 4
    assert len(samples) == 3


def test_the_identity_of_a_set_is_its_content_not_its_place(tmp_path: Path) -> None:
    write_lines(tmp_path / "data.jsonl", [messages(1)])
    (tmp_path / "moved").mkdir()
    write_lines(tmp_path / "moved" / "data.jsonl", [messages(1)])
    build = BuildFolder(tmp_path / "build")
    before = mix_inputs(load(tmp_path, LINES), build)
    assert mix_inputs(load(tmp_path, LINES.replace("data.jsonl", "moved/data.jsonl")), build) == before
    assert mix_inputs(load(tmp_path, LINES.replace("CC0-1.0", "X")), build) != before
    write_lines(tmp_path / "data.jsonl", [messages(2)])
    assert mix_inputs(load(tmp_path, LINES), build) != before


def test_a_set_that_is_not_there_or_named_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"mix set 'chat': .*data\.jsonl: no file of conversations"):
        mix_inputs(load(tmp_path, LINES), BuildFolder(tmp_path / "build"))
    with pytest.raises(RecipeError, match=r"recipe\.yaml:6: mix\[1\]\.id: 'chat' stands twice"):
        load(tmp_path, LINES + LINES)
    with pytest.raises(RecipeError, match="give `count` or `share`, not both"):
        load(tmp_path, LINES.replace("}", ", count: 1, share: 0.5}"))
    with pytest.raises(RecipeError, match="give either `path`"):
        load(tmp_path, LINES.replace(", path: data.jsonl", ""))
    with pytest.raises(RecipeError, match="sources: missing: where documents come from"):
        load(tmp_path, "  []\n")


def test_a_share_that_comes_to_less_than_one_conversation_is_said(tmp_path: Path) -> None:
    write_lines(tmp_path / "data.jsonl", [messages(n) for n in range(20)])
    sets = "".join(
        f"- {{id: {name}, lang: en, license: CC0-1.0, path: data.jsonl{more}}}\n"
        for name, more in (("all", ""), ("few", ", share: 0.01"))
    )
    recipe = tmp_path / "recipe.yaml"
    shape = "encode: {template: chatml, max_tokens: 512}\npack: {capacity: 512, packs_per_step: 2}\n"
    recipe.write_text(f"name: shares\nversion: 1.0.0\nmix:\n{sets}{shape}", encoding="utf-8")
    command = [sys.executable, "-m", "longalign_data", "build", str(recipe), "--output", str(tmp_path / "builds")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "mix set few: nothing was taken, its share of 20" in done.stdout + done.stderr
    assert "mix set all" not in done.stdout + done.stderr

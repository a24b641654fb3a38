import datetime
import sqlite3
from pathlib import Path

import pytest

from longalign_data.errors import BuildError
from longalign_data.explore.calls import BANDS, calls_over_time
from longalign_data.generation.ledger import Call, Ledger
from longalign_data.records import Usage
from longalign_data.shards.folder import BuildFolder
from longalign_data.teachers.base import TeacherRequest
from longalign_data.teachers.prices import ModelPrice, Prices, ProviderPrices, Tier

PRICES = Prices(
    dated=datetime.date(2026, 1, 1),
    providers={
        "openai": ProviderPrices(cache_read=0.1, models={"small": ModelPrice(tiers=[Tier(input=1.0, output=2.0)])})
    },
)


def write_ledger(build: BuildFolder, times: list[str]) -> None:
    with Ledger(build.ledger) as ledger:
        for number, _ in enumerate(times):
            call = Call(
                request_id=f"{number:032x}",
                document_id="d",
                kind="answer",
                provider="openai",
                request=TeacherRequest(
                    model="small" if number else "unpriced", document="", instruction="", max_tokens=1, parameters={}
                ),
            )
            ledger.begin(call)
            ledger.answered(call, {"id": number})
            ledger.note_usage(call, Usage(input_tokens=100_000, cache_read_tokens=900_000, output_tokens=500_000))
    with sqlite3.connect(build.ledger) as db:
        for number, time in enumerate(times):
            db.execute("UPDATE replies SET received = ? WHERE request_id = ?", (time, f"{number:032x}"))
    db.close()


def test_replies_are_summed_over_spans_of_time_and_priced_where_a_price_is_known(tmp_path: Path) -> None:
    build = BuildFolder(tmp_path)
    times = ["2026-05-01T10:00:01+00:00", "2026-05-01T10:00:02+00:00", "2026-05-01T10:30:00+00:00"]
    write_ledger(build, times)
    bands = calls_over_time(build, PRICES)
    assert len(bands) <= BANDS
    assert {band.seconds for band in bands} == {60.0}
    assert bands[0].begin == datetime.datetime(2026, 5, 1, 10, tzinfo=datetime.UTC)
    assert [(number, band.replies) for number, band in enumerate(bands) if band.replies] == [(0, 2), (30, 1)]
    # 0.1 M at 1 dollar, 0.9 M at a tenth of it, 0.5 M at 2 dollars.
    assert [band.usd for band in bands if band.replies] == [pytest.approx(1.19), pytest.approx(1.19)]
    assert (bands[0].prompt_tokens, bands[0].cached_tokens, bands[0].output_tokens) == (2_000_000, 1_800_000, 1_000_000)


@pytest.mark.parametrize("days", [0, 1, 400, 4000])
def test_any_length_of_time_fits(days: int, tmp_path: Path) -> None:
    build = BuildFolder(tmp_path)
    begin = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)
    write_ledger(build, [begin.isoformat(), (begin + datetime.timedelta(days=days)).isoformat()])
    bands = calls_over_time(build, PRICES)
    assert sum(band.replies for band in bands) == 2
    assert len(bands) <= BANDS + 1
    assert bands[0].begin <= begin


def test_a_ledger_is_not_changed_by_looking_at_it(tmp_path: Path) -> None:
    build = BuildFolder(tmp_path)
    write_ledger(build, ["2026-05-01T10:00:01+00:00"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls_over_time(build, PRICES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_a_ledger_there_is_nothing_to_tell_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    build = BuildFolder(tmp_path)
    assert calls_over_time(build, PRICES) == []
    build.ledger.write_text("no ledger")
    with pytest.raises(BuildError, match=r"ledger.sqlite: the ledger cannot be read"):
        calls_over_time(build, PRICES)

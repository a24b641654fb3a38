"""Progress where nobody watches: lines for a log."""

import io

from rich.console import Console

from longalign_data.cli.progress import TerminalProgress


def told(*, every_s: float) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    with TerminalProgress(console, every_s=every_s) as progress:
        progress.start("generate", 1_200, "documents")
        for _ in range(3):
            progress.advance(1, 2_000, note="4 under way, no answer for 12 s (HTTP 503: down)")
        progress.say("something [of] note")
    return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def test_a_log_gets_a_line_with_numbers_and_notes_now_and_then() -> None:
    first, *lines, last = told(every_s=0.0)
    assert first == "generate, 1,200 documents"
    assert [line.split(",")[0] for line in lines] == [f"generate {n} of 1" for n in (1, 2, 3)]
    assert lines[-1].startswith("generate 3 of 1,200 documents, ")
    assert lines[-1].endswith("4 under way, no answer for 12 s (HTTP 503: down)")
    assert last == "something [of] note"


def test_a_stage_that_is_quickly_done_leaves_one_line() -> None:
    assert told(every_s=30.0) == ["generate, 1,200 documents", "something [of] note"]

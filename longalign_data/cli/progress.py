"""Progress in the terminal: one bar a stage, with rate, tokens and time left."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TerminalProgress:
    """An `engine.Progress` that draws on standard error, so that standard output stays clean for pipes. Where nobody
    watches (no terminal), each stage leaves a line when it starts, and one every `every_s` seconds while it lasts."""

    def __init__(self, console: Console, *, every_s: float = 30.0) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description:<9}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._tokens = 0
        self._every_s = every_s
        self._next_line = 0.0

    def __enter__(self) -> "TerminalProgress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def start(self, label: str, total: int | None, unit: str) -> None:
        """A stage begins; the bar of the one before goes."""
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._tokens = 0
        self._bar.add_task(label, total=total, unit=unit, rate="", note="")
        self._next_line = time.monotonic() + self._every_s
        if not self._console.is_terminal:
            expected = f", {total:,} {unit}" if total is not None else ""
            self._console.print(f"{label}{expected}", highlight=False, markup=False)

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        """Moves the bar and shows items and tokens per second."""
        if not self._bar.task_ids:
            return
        task_id = self._bar.task_ids[-1]
        self._tokens += tokens
        task = self._bar.tasks[-1]
        elapsed = task.elapsed or 0.0
        rate = f"{self._tokens:,} tokens" if self._tokens else ""
        if elapsed > 0.5:
            rate = f"{(task.completed + items) / elapsed:,.1f}/s" + (
                f"  {self._tokens / elapsed / 1e6:.2f}M tokens/s" if self._tokens else ""
            )
        self._bar.update(task_id, advance=items, rate=rate, note=note or task.fields["note"])
        if not self._console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._every_s
            of = "" if task.total is None else f" of {task.total:,.0f}"
            words = [f"{task.description} {task.completed:,.0f}{of} {task.fields['unit']}", rate, task.fields["note"]]
            self.say(", ".join(filter(None, words)))

    def say(self, words: str) -> None:
        """A line of its own, above the bar."""
        self._console.print(words, highlight=False, markup=False, soft_wrap=True)

"""What the trainer's commands share: options, exit codes. Light: no torch."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from longalign_data.errors import LongAlignError, MissingExtraError, UserError


class Parser(argparse.ArgumentParser):
    """One line for a wrong option, no usage; the text of `description` and `epilog` stays as it is."""

    def __init__(self, command: str, description: str | None, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"python -m {command}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    def add_build(self) -> None:
        """Which packs."""
        published = "a build, here or published (hf://datasets/ORG/NAME@VERSION): its tables packs/ and plan/ are read"
        self.add_argument("--build", required=True, metavar="FOLDER", help=published)

    def add_model(self) -> None:
        """Which model, and whether from random weights."""
        random = "random weights; the model folder needs no more than a config.json"
        self.add_argument(
            "--model", required=True, help="a Hugging Face model folder, or a hub id, with @revision if wanted"
        )
        self.add_argument("--random-init", action="store_true", help=random)

    def add_config(self, default: str | None = None) -> None:
        """How to train; `default` says what is done where no file is given."""
        told = "how to train; see recipes/train/" + (f" (default: {default})" if default else "")
        self.add_argument("--config", type=Path, required=default is None, metavar="YAML", help=told)


def exit_code(work: Callable[[], None], *, rank: int = 0) -> int:
    """Does the work; 0, or what its error stands for, which is told on standard error: 2 for what a person can mend, else 1."""
    try:
        work()
    except LongAlignError as error:
        where = f" (rank {rank})" if rank else ""
        sys.stderr.write(f"error{where}: {error}\n")
        return 2 if isinstance(error, UserError | MissingExtraError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def check_folder(output: Path) -> None:
    """Raises UserError where no folder `output` can be, because a file stands there or on the way, or nothing can be written
    there. Leaves nothing behind."""
    try:
        place = next(place for place in (output, *output.absolute().parents) if place.exists() or place.is_symlink())
        if place.is_dir():
            with tempfile.TemporaryDirectory(prefix=".longalign-", dir=place):
                return
    except OSError as error:
        raise UserError(
            f"--output {output}: nothing can be written there: {error.strerror or error}; give another folder, or mend this one"
        ) from error
    what = "a file" if place.exists() else "a link to nothing"
    raise UserError(f"--output {output}: {place} is {what}; a folder was expected, or a name for one")


def check_new_file(output: Path) -> None:
    """Raises UserError where there is something at `output` already, or no folder can be that holds it."""
    if output.exists():
        raise UserError(f"{output}: exists already; give another --output")
    check_folder(output.parent)


def positive(text: str) -> int:
    """The type of an option that counts."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """The type of an option that counts from 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, found {text!r}")
    return int(text)

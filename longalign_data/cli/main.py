"""The command line `longalign`. Heavy imports stand inside the commands, so that `longalign --help` answers at once.

Exit codes: 0 done; 2 something the user gave or can mend; 1 a teacher or a machine failed; 130 stopped by Ctrl-C.
"""

import errno
import os
import sys
from typing import Annotated

import typer

import longalign_data
from longalign_data.cli import bill, build, catalog, decontam, export, fake, look, plan, publish, versions
from longalign_data.errors import LongAlignError, MissingExtraError, UserError

app = typer.Typer(
    name="longalign",
    help="Long-context instruction data from your own documents, packed and weighted for training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (build, bill, look, plan, versions, publish, catalog, decontam, export, fake)
"""The modules that bring the commands, in the order of `--help`; each adds its own in `register`."""

STOPPED = "stopped; the same command goes on where this one was"

for module in COMMANDS:
    module.register(app)


_STORAGE_FAULTS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE}
)


def main() -> None:
    """Runs the command line; every error a person can meet becomes one message and an exit code."""
    try:
        try:
            app(prog_name="longalign")
        finally:
            # Here and not at the interpreter's end, where a closed pipe could only be complained about.
            sys.stdout.flush()
    except BrokenPipeError:
        _leave_closed_pipe()
    except (UserError, MissingExtraError) as error:
        _fail(str(error), 2)
    except LongAlignError as error:
        _fail(str(error), 1)
    except OSError as error:
        if error.errno not in _STORAGE_FAULTS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _fail(
            f"{place}cannot be written or read: {error.strerror or error}; mend that, and run the same command again", 1
        )
    except KeyboardInterrupt:
        _fail(STOPPED, 130)
    except SystemExit as end:
        # Typer turns Ctrl-C into the exit code 130, and Typer and rich a closed pipe into 1, before either gets here.
        if end.code == 130:
            _fail(STOPPED, 130)
        if isinstance(end.__context__, BrokenPipeError):
            _leave_closed_pipe()
        raise


def _leave_closed_pipe() -> None:
    """The reader has what it wanted; what is still buffered goes nowhere, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


def _fail(message: str, code: int) -> None:
    typer.echo(f"longalign: {message}", err=True)
    raise SystemExit(code)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"longalign-data {longalign_data.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version

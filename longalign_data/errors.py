"""What can go wrong, as a tree.

    LongAlignError
      UserError (also ValueError)     something a person gave or can mend; the command line prints it and exits with 2
        RecipeError                   a recipe, card or trainer configuration, with file and line
        SourceError                   a corpus that cannot be opened or read at all
        TokenizerError                a tokenizer specification that names nothing usable
        BuildError                    a build folder that is locked, foreign, torn or not far enough
        BudgetError                   the money that a run may spend is used up
      TeacherError                    a teacher call that failed for good; carries the provider's own words
      MissingExtraError               an optional package is absent; carries the line that installs it

One record that fails is not an exception at all: it becomes a `records.Reject`, stored and counted.
"""


class LongAlignError(Exception):
    """Base of every error that this package raises on purpose."""


class UserError(LongAlignError, ValueError):
    """Something a person gave or can mend. The message names the thing, where it stands, what was expected and what to do."""


class RecipeError(UserError):
    """A recipe, source card or trainer configuration is wrong; the message names file, line and key."""


class SourceError(UserError):
    """A corpus cannot be opened, or is not in the format its card states."""


class TokenizerError(UserError):
    """A tokenizer specification names nothing usable."""


class BuildError(UserError):
    """A build folder is in use, belongs to another recipe, is torn, or has not reached the stage that is asked for."""


class BudgetError(UserError):
    """The money that a run may spend is used up. What was received is kept, and a larger budget goes on from there."""


class TeacherError(LongAlignError):
    """A teacher call failed for good. `retryable` is False for errors that asking again cannot mend (4xx)."""

    def __init__(self, message: str, *, reason: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class MissingExtraError(LongAlignError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed; run: pip install 'longalign-data[{extra}]'"
        )
        self.package = package
        self.extra = extra

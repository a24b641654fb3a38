"""Optional packages, imported where they are used; what is absent is answered with the line that installs it."""

import importlib
from typing import Any

from longalign_data.errors import MissingExtraError


def extra(module: str, *, package: str, extra: str, purpose: str) -> Any:
    """The module. Raises MissingExtraError when its package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(package, extra=extra, purpose=purpose) from None

"""What the libraries below raise, told in one line.

In: an exception of torch, Transformers, peft or DeepSpeed. Out: the line that goes into our own message.
"""

import torch


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, with the next one where it only announces that; the kind of an error
    that says nothing. Never empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or the CPU. `guard.memory` says what helps, so nobody may take it for another fault."""
    # The last is what torch says where the CPU's memory ends.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)

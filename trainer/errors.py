"""What the libraries below raise, told in one line.

In: an exception of torch, Transformers, peft or DeepSpeed. Out: the line that goes into our own message.
"""

import torch

MEMORY_ENDS = ("out of memory", "allocate memory", "_status_alloc_failed")
"""What is told by whom torch's own allocator does not serve: CUDA for pinned memory, NCCL's buffers, the CPU's allocator, files
mapped into memory, the handles of cuBLAS and cuDNN."""


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, with the next one where it only announces that; the kind of an error
    that says nothing. Never empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or the CPU. `guard.memory` says what helps, so nobody may take it for another fault."""
    told = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in told for words in MEMORY_ENDS)

"""The one line of a library's error that goes into ours."""

import pytest
import torch

from longalign_data.errors import LongAlignError, MissingExtraError, UserError
from trainer.errors import first_line, out_of_memory
from trainer.options import exit_code

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  heads do not divide\nsee the manual"), "heads do not divide"),
        (
            RuntimeError("Error(s) in loading:\n\tsize mismatch for x\n\tand y"),
            "Error(s) in loading: size mismatch for x",
        ),
        (RuntimeError("announced:"), "announced:"),
        # `raise NotImplementedError` has no text at all.
        (NotImplementedError(), "NotImplementedError"),
        (ValueError(" \n "), "ValueError"),
    ],
)
def test_an_error_is_told_in_one_line_that_is_never_empty(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_memory_that_ran_out_is_told_from_other_faults() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 60)
    assert out_of_memory(found.value)
    for told in (
        getattr(torch, "AcceleratorError", RuntimeError)(
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.distributed.DistBackendError("NCCL error in: ...\nLast error:\nCuda failure 2 'out of memory'"),
        RuntimeError("unable to mmap 4096 bytes from file <weights>: Cannot allocate memory (12)"),
    ):
        assert out_of_memory(told)
    with pytest.raises(RuntimeError) as found:
        torch.ones(2) @ torch.ones(3)
    assert not out_of_memory(found.value)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("wrong"), 2),
        (MissingExtraError("torch", extra="train", purpose="This"), 2),
        (LongAlignError("it could not go on"), 1),
    ],
)
def test_what_a_person_can_mend_ends_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], error: LongAlignError, code: int
) -> None:
    def work() -> None:
        raise error

    assert exit_code(work) == code
    assert capsys.readouterr().err == f"error: {error}\n"

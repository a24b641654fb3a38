"""The command line: `python -m trainer`, or the same under `torchrun -m trainer` and `deepspeed --module trainer`.

Exit codes: 0 trained, 2 something a person can mend (one message, no traceback), 1 training could not go on.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from longalign_data.errors import MissingExtraError
from trainer.measure.logs import TRACKERS
from trainer.options import Parser, check_folder, exit_code, positive

EXAMPLES = """\
examples:
  one process   python -m trainer --build builds/quickstart/1.0.0 --model recipes/train/tiny-llama --random-init \\
                  --config recipes/train/tiny-cpu.yaml
  eight GPUs    torchrun --nproc_per_node 8 -m trainer --build BUILD --model MODEL --config recipes/train/llama-7b-64k.yaml
  or            deepspeed --num_gpus 8 --module trainer --build BUILD --model MODEL --config ...
"""


def parser() -> argparse.ArgumentParser:
    """The options; their help is the reference."""
    found = Parser(
        "trainer",
        "Trains a stock Hugging Face causal language model on the packs of a build, with the plan's exact loss.",
        EXAMPLES,
    )
    found.add_build()
    found.add_model()
    found.add_config()
    add = found.add_argument
    add("--output", type=Path, metavar="FOLDER", help="where the run goes (default: runs/<name of the configuration>)")
    add("--max-steps", type=positive, metavar="N", help="stop after step N; the schedule stays that of the whole run")
    add("--resume", action="store_true", help="go on from the last checkpoint in the output folder, if there is one")
    add(
        "--export",
        action="store_true",
        help="train no step: write the model of the last checkpoint, on one rank or more",
    )
    add("--log", action="append", default=[], choices=TRACKERS, help="a tracker beside metrics.jsonl; may be repeated")
    # The deepspeed launcher adds this one; LOCAL_RANK says the same.
    add("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    return found


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Runs one rank; returns the exit code."""
    asked = parser().parse_args(arguments)
    rank, ranks = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    try:
        code = exit_code(lambda: _train(asked, rank=rank, ranks=ranks, environment=environment), rank=rank)
    except Exception as error:
        # Even of what nobody foresaw the other ranks must hear; here it is told as the interpreter would.
        if _has_peers():
            sys.excepthook(type(error), error, error.__traceback__)
            _leave(1)
        raise
    if code and _has_peers():
        _leave(code)
    return code


def _train(asked: argparse.Namespace, *, rank: int, ranks: int, environment: Mapping[str, str]) -> None:
    from trainer.config import load_config

    output = asked.output or Path("runs") / asked.config.stem
    check_folder(output)
    config, settings = load_config(asked.config)
    try:
        import torch.distributed

        if config.engine == "deepspeed":
            # DeepSpeed reads these itself; without a launcher nobody has set them.
            for name in ("RANK", "LOCAL_RANK"):
                os.environ.setdefault(name, "0")
            os.environ.setdefault("WORLD_SIZE", "1")
            if not torch.cuda.is_available():
                os.environ.setdefault("DS_ACCELERATOR", "cpu")
            import deepspeed  # noqa: F401 - found missing here rather than in the middle of a run

        from trainer import loop
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", extra="train", purpose="The trainer") from None
    local_rank = int(environment.get("LOCAL_RANK", asked.local_rank or 0))
    loop.run(
        loop.Run(
            build=asked.build,
            model=asked.model,
            output=output,
            config=config,
            deepspeed=settings,
            random_init=asked.random_init,
            resume=asked.resume,
            stop_after=asked.max_steps,
            export_only=asked.export,
            trackers=tuple(dict.fromkeys(asked.log)),
        ),
        rank=rank,
        ranks=ranks,
        local_rank=local_rank,
    )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _has_peers() -> bool:
    """Whether other ranks may be waiting for this one."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized() and distributed.get_world_size() > 1


def _leave(code: int) -> NoReturn:
    """Ends a rank that failed, at once: with NCCL, to leave the process group in order would wait for ranks that wait for us."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())

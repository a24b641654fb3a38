"""A run: the plan's steps, one after the other, with metrics, checkpoints and an exported model.

In: a build, a model, a configuration. Out: one folder,

    metrics.jsonl                  one line a step; each step once, also after a resume
    run.json                       what was run: model, build, configuration, ranks
    checkpoints/step-00000040/     parameters and optimizer after 40 steps; `trainer.json` in it is written last
    model/                         the trained model, as `from_pretrained` reads it; replaced as a whole by the next export

A step is a number: to resume is to load a checkpoint and ask the plan for the next step. Random numbers (dropout) are seeded
anew in every step, so a resumed run draws what the uninterrupted one drew.
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

from longalign_data.errors import UserError
from longalign_data.packing.reader import PackReader, open_packs
from longalign_data.shards.files import write_json, write_text
from trainer import model
from trainer.batch import micro_batch
from trainer.checkpoints import find_start, load_checkpoint, make_universal, save_checkpoint
from trainer.config import TrainConfig, learning_rate
from trainer.engine import DeepSpeedEngine, Engine, TorchEngine, deepspeed_settings, loss_scale
from trainer.guard import BadStepError, Guard, memory
from trainer.measure import logs
from trainer.measure.metrics import Meter
from trainer.objective import Objective, compute_dtype, load_objective, load_shape
from trainer.probe import calibrate, probe
from trainer.settings import check_settings, load_adam
from trainer.world import World, join


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the command line asks for. `stop_after` ends this run early without changing its schedule;
    `export_only` trains no step and writes the model of the last checkpoint."""

    build: Path | str
    model: str
    output: Path
    config: TrainConfig
    deepspeed: dict[str, Any]
    random_init: bool = False
    resume: bool = False
    stop_after: int | None = None
    export_only: bool = False
    trackers: Sequence[str] = ()


def run(asked: Run, *, rank: int, ranks: int, local_rank: int) -> None:
    """Trains from the first step, or from the last checkpoint, to the end; every rank calls it. Raises UserError for what a
    person can mend, before the first step where it can be known, and LongAlignError when training cannot go on."""
    config = asked.config
    logs.check_installed(asked.trackers)
    reader = open_packs(asked.build)
    if reader.num_steps == 0:
        raise UserError(f"{asked.build}: its plan has no step; nothing to train on")
    # An export reads no pack, so nothing is to be shared.
    parts = 1 if asked.export_only else config.sequence_parallel
    if ranks % parts:
        raise UserError(f"sequence_parallel: {parts}: does not divide the {ranks} ranks of this run")
    accumulation = max(1, reader.packs_per_step // (ranks // parts))
    if not asked.export_only:
        reader.check_split(ranks // parts, accumulation)
    num_steps = steps_of(reader, config.epochs or reader.num_epochs)
    num_steps = min(num_steps, config.max_steps or num_steps)
    if config.warmup_steps > num_steps and not asked.export_only:
        raise UserError(
            f"warmup_steps: {config.warmup_steps}: this run has {num_steps} steps, by the build's plan, epochs and max_steps, and "
            "would never reach its learning_rate; write a smaller number"
        )
    facts = {
        "plan": plan_hash(reader),
        "model": str(Path(asked.model).resolve()) if Path(asked.model).is_dir() else asked.model,
        "rope_base_factor": config.rope_base_factor,
        "max_positions": config.max_positions,
        "dtype": config.dtype,
        "engine": config.engine,
        "num_steps": num_steps,
        "ranks": ranks,
        "sequence_parallel": parts,
    }
    facts["lora"] = config.lora and config.lora.model_dump(exclude={"export"})
    if config.engine == "deepspeed":
        facts["zero_stage"] = config.zero_stage
    start = find_start(asked.output, asked.resume or asked.export_only, facts)
    if asked.export_only and start.checkpoint is None:
        raise UserError(f"{asked.output}: no checkpoint to export; --export writes the model of the last one")
    if asked.stop_after is not None and asked.stop_after < start.step and not asked.export_only:
        raise UserError(
            f"--max-steps {asked.stop_after}: the run in {asked.output} has taken {start.step} steps already; give a larger "
            "number, or write the model of its last checkpoint with --export"
        )
    universal = start.other_ranks and config.engine == "deepspeed" and config.zero_stage > 0
    shape = load_shape(asked.model, config, weights=not asked.random_init)
    model.check_fits(shape, capacity=reader.capacity, parts=parts)
    # Now, because nobody wants to hear at the end that a hub does not answer.
    tokenizer = model.tokenizer_files(asked.model) if rank == 0 else []
    settings = deepspeed_settings(config, asked.deepspeed, accumulation, universal=universal)
    if config.deepspeed is not None:
        check_settings(settings, config.deepspeed)
        load_adam(settings, config.deepspeed, tell=local_rank == 0)
    world = join(config.engine, rank=rank, ranks=ranks, local_rank=local_rank, parts=parts)
    if not asked.export_only:
        reader.check_files(rank, ranks)
    world.wait()  # nobody writes before everybody has looked

    with memory("set-up", rank):
        objective, attention_name = _objective(asked, shape, world, settings)

        def make(module: nn.Module) -> Engine:
            if config.engine == "torch":
                return TorchEngine(module, config, world)
            return DeepSpeedEngine(module, config, world, settings)

        if not asked.export_only:
            calibrate(make, world, accumulation, tolerance=2e-2 if config.dtype == "bf16" else 1e-4)
        worker = make(objective)
        if not asked.export_only:
            probe(objective, worker, world, longest=reader.capacity)
        if start.checkpoint is not None:
            if universal:
                make_universal(start.checkpoint, world)
            load_checkpoint(worker, start.checkpoint, universal=universal)
    guard = Guard(config, start.recent_losses)
    stop = start.step if asked.export_only else min(num_steps, asked.stop_after or num_steps)
    vocabulary = objective.model.config.get_text_config().vocab_size
    meter = Meter(objective, reader, world, config)
    described = _described(asked, world, reader, facts, attention_name) | {"peak_flops": meter.peak}
    kept = start.step

    def keep(done: int) -> None:
        noted = facts | {"step": done, "recent_losses": list(guard.recent)}
        save_checkpoint(worker, asked.output, world, noted, keep=config.keep_checkpoints)

    with _reporting(asked, world, described, start.step, stop) as report:
        for step in range(start.step, stop):
            try:
                metrics = train_step(
                    worker,
                    reader,
                    world,
                    guard,
                    meter,
                    step=step,
                    rate=learning_rate(config, step, num_steps),
                    seed=config.seed,
                    vocabulary=vocabulary,
                )
            except BadStepError:
                # Without ZeRO, DeepSpeed has taken a step whose gradient is found bad.
                if step != kept and not (config.engine == "deepspeed" and config.zero_stage == 0):
                    keep(step)
                raise
            report(metrics)
            done = step + 1
            if done == stop or (config.checkpoint_every and done % config.checkpoint_every == 0):
                keep(done)
                kept = done
    weights = worker.weights(objective.model)
    if world.rank == 0:
        model.export(tokenizer, objective.model, weights, asked.output / "model", config.lora)
        if not tokenizer:
            sys.stderr.write(f"{asked.output / 'model'}: without a tokenizer, as none stands beside {asked.model}\n")
    world.wait()


def train_step(
    worker: Engine,
    reader: PackReader,
    world: World,
    guard: Guard,
    meter: Meter,
    *,
    step: int,
    rate: float,
    seed: int,
    vocabulary: int,
) -> dict[str, Any]:
    """One optimizer step over all packs of plan step `step` (modulo the plan's length); returns its metrics, the same on every
    rank. `loss` is Eq. 2 of LongAlign: sum(w * CE) over the whole step / Z. A step that `guard` rejects changes no weight, and
    its metrics say why in `skipped`; or LongAlignError is raised."""
    began = time.perf_counter()
    plan_step = step % reader.num_steps
    info = reader.step(plan_step)
    pack_ids = reader.pack_ids(plan_step)
    rank, ranks = world.reader
    accumulation = reader.packs_per_step // ranks
    torch.manual_seed((seed << 32) + step * world.ranks + world.rank)
    of_packs = torch.zeros(2, reader.packs_per_step, dtype=torch.float64, device=world.device)
    skipped: str | None = None

    def sound(loss: torch.Tensor) -> bool:
        """Asked before the last backward, so that a step that would spoil the weights never becomes one."""
        nonlocal skipped
        of_packs[0, micro * ranks + rank] = loss
        if micro == accumulation - 1:
            losses = world.sum(of_packs)[0]
            skipped = guard.judge(step, float(losses.sum()) / info.normalizer, pack_ids, losses)
        return skipped is None

    meter.begin(step)
    for micro in range(accumulation):
        pack = reader.batch(plan_step, rank, ranks, micro, accumulation)
        batch = micro_batch(pack, world.device, vocabulary, part=world.part, parts=world.parts)
        of_packs[1, micro * ranks + rank] = 0 if pack is None else pack.num_tokens / world.parts
        with memory("pack", world.rank, step, pack), meter.under(micro):
            worker.accumulate(batch, loss_scale(world, info.normalizer), last=micro == accumulation - 1, sound=sound)
        meter.add(pack, batch)
    with memory("update", world.rank, step):
        norm = worker.step(rate)
    if skipped is None and norm is not None and not math.isfinite(norm):
        skipped = guard.reject(step, f"the norm of the gradient is {norm}", pack_ids)
    seconds = time.perf_counter() - began
    total, tokens = of_packs.sum(dim=1).tolist()
    if skipped is None:
        guard.accept(total / info.normalizer)
    return {
        "step": step,
        "loss": total / info.normalizer if math.isfinite(total) else None,
        "learning_rate": rate,
        "grad_norm": norm if norm is not None and math.isfinite(norm) else None,
        "num_tokens": int(tokens),
        "tokens_per_second": round(tokens / seconds, 1),
        "seconds": round(seconds, 4),
        "num_sequences": info.num_sequences,
        "normalizer": info.normalizer,
        "num_packs": info.num_packs,
        **meter.finish(plan_step, seconds),
        **({"skipped": skipped} if skipped else {}),
    }


def steps_of(reader: PackReader, epochs: int) -> int:
    """How many steps so many passes over the data are, by a plan that holds one of them or several."""
    rounds, rest = divmod(epochs, reader.num_epochs)
    return rounds * reader.num_steps + sum(reader.step(step).epoch < rest for step in range(reader.num_steps))


def plan_hash(reader: PackReader) -> str:
    """What of a plan decides the course of a run: K and every step's M, Z and packs, whose ids say what is in them."""
    steps = [(reader.step(step), reader.pack_ids(step)) for step in range(reader.num_steps)]
    return hashlib.sha256(repr((reader.packs_per_step, steps)).encode()).hexdigest()[:16]


def keep_metrics(path: Path, start: int) -> None:
    """Drops the lines of steps that will be run again, and a line that was cut off."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] < start:
                kept.append(line)
        except ValueError:
            break
    write_text(path, "".join(f"{line}\n" for line in kept))


def _objective(asked: Run, shape: PretrainedConfig, world: World, settings: dict[str, Any]) -> tuple[Objective, str]:
    """Model and loss; under ZeRO-3 pretrained weights are sharded while they are read."""
    config = asked.config
    sharded = None
    if config.engine == "deepspeed" and config.zero_stage == 3 and not asked.random_init:
        from transformers.integrations.deepspeed import HfDeepSpeedConfig

        # Transformers shards for as long as this object lives.
        sharded = HfDeepSpeedConfig(settings)
    # Under torch autocast the weights themselves stay fp32; DeepSpeed keeps its own fp32 copy beside bf16 weights.
    stored = torch.float32 if config.engine == "torch" else compute_dtype(config)
    found = load_objective(asked.model, shape, config, world, dtype=stored, random_init=asked.random_init)
    del sharded
    return found


@contextmanager
def _reporting(asked: Run, world: World, described: dict[str, Any], start: int, stop: int) -> Iterator[logs.Report]:
    """Rank 0 notes the run and reports its steps; the others have nothing to say, nor has an export, which takes none."""
    if world.rank != 0 or asked.export_only:
        yield lambda metrics: None
        return
    write_json(asked.output / "run.json", described)
    keep_metrics(asked.output / "metrics.jsonl", start)
    with logs.reporting(asked.output, trackers=asked.trackers, described=described, start=start, stop=stop) as report:
        yield report


def _described(asked: Run, world: World, reader: PackReader, facts: dict[str, Any], backend: str) -> dict[str, Any]:
    return facts | {
        "build": str(asked.build),
        "random_init": asked.random_init,
        "packs_per_step": reader.packs_per_step,
        "capacity": reader.capacity,
        "attention": backend,
        "device": world.device.type,
        "torch": torch.__version__,
        "config": asked.config.model_dump(),
        "deepspeed": asked.deepspeed,
    }

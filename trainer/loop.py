"""A run: the plan's steps, one after the other, with metrics, checkpoints and an exported model.

In: a build, a model, a configuration. Out: one folder,

    metrics.jsonl                  one line a step; each step once, also after a resume
    run.json                       what was run: model, build, configuration, ranks
    checkpoints/step-00000040/     parameters and optimizer after 40 steps; `trainer.json` in it is written last
    model/                         the trained model, as `from_pretrained` reads it

A step is a number: to resume is to load a checkpoint and ask the plan for the next step. Random numbers (dropout) are seeded
anew in every step, so a resumed run draws what the uninterrupted one drew.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from longalign_data.errors import LongAlignError, UserError
from longalign_data.packing.reader import PackReader, open_packs
from trainer import attention, engine, logs, model
from trainer.batch import micro_batch
from trainer.config import TrainConfig, learning_rate
from trainer.engine import DeepSpeedEngine, Engine, TorchEngine, World
from trainer.loss import Objective
from trainer.metrics import Meter
from trainer.probe import probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the command line asks for. `stop_after` ends this run early without changing its schedule."""

    build: Path
    model: str
    output: Path
    config: TrainConfig
    deepspeed: dict[str, Any]
    random_init: bool = False
    resume: bool = False
    stop_after: int | None = None
    trackers: Sequence[str] = ()


def run(asked: Run, *, rank: int, ranks: int, local_rank: int) -> None:
    """Trains from the first step, or from the last checkpoint, to the end; every rank calls it. Raises UserError for what a
    person can mend, before the first step where it can be known, and LongAlignError when training cannot go on."""
    config = asked.config
    logs.check_installed(asked.trackers)
    reader = open_packs(asked.build)
    if reader.num_steps == 0:
        raise UserError(f"{asked.build}: its plan has no step; nothing to train on")
    accumulation = max(1, reader.packs_per_step // ranks)
    reader.check_split(ranks, accumulation)
    num_steps = reader.num_steps * config.epochs
    num_steps = min(num_steps, config.max_steps or num_steps)
    facts = {"plan": plan_hash(reader), "ranks": ranks, "engine": config.engine, "num_steps": num_steps}
    if config.engine == "deepspeed":
        facts["zero_stage"] = config.zero_stage
    start, checkpoint = find_start(asked.output, asked.resume, facts)
    world = engine.join(config.engine, rank=rank, ranks=ranks, local_rank=local_rank)
    world.wait()  # nobody writes before everybody has looked

    settings = engine.deepspeed_settings(config, asked.deepspeed, accumulation)
    objective, attention_name = _objective(asked, world, settings, reader.capacity)

    def make(module: nn.Module) -> Engine:
        if config.engine == "torch":
            return TorchEngine(module, config, world)
        return DeepSpeedEngine(module, config, world, settings)

    engine.calibrate(make, world, accumulation, tolerance=2e-2 if config.dtype == "bf16" else 1e-4)
    worker = make(objective)
    probe(objective, worker, world.device)
    if checkpoint is not None:
        worker.load(checkpoint)
    stop = min(num_steps, asked.stop_after or num_steps)
    vocabulary = objective.model.config.get_text_config().vocab_size
    meter = Meter(objective, reader, world, config)
    described = _described(asked, world, reader, facts, attention_name) | {"peak_flops": meter.peak}
    with _reporting(asked, world, described, start, stop) as report:
        for step in range(start, stop):
            metrics = train_step(
                worker,
                reader,
                world,
                meter,
                step=step,
                rate=learning_rate(config, step, num_steps),
                seed=config.seed,
                vocabulary=vocabulary,
            )
            report(metrics)
            done = step + 1
            if done == stop or (config.checkpoint_every and done % config.checkpoint_every == 0):
                save_checkpoint(worker, asked.output, world, facts | {"step": done}, keep=config.keep_checkpoints)
    weights = worker.weights(objective.model)
    if world.rank == 0:
        model.export(objective.model, weights, asked.output / "model")
    world.wait()


def train_step(
    worker: Engine,
    reader: PackReader,
    world: World,
    meter: Meter,
    *,
    step: int,
    rate: float,
    seed: int,
    vocabulary: int,
) -> dict[str, Any]:
    """One optimizer step over all packs of plan step `step` (modulo the plan's length); returns its metrics, the same on every
    rank. `loss` is Eq. 2 of LongAlign: sum(w * CE) over the whole step / Z. Raises LongAlignError before the update when
    the loss is not finite."""
    began = time.perf_counter()
    plan_step = step % reader.num_steps
    info = reader.step(plan_step)
    accumulation = reader.packs_per_step // world.ranks
    torch.manual_seed((seed << 32) + step * world.ranks + world.rank)
    totals = torch.zeros(2, dtype=torch.float64, device=world.device)
    meter.begin(step)
    for micro in range(accumulation):
        pack = reader.batch(plan_step, world.rank, world.ranks, micro, accumulation)
        batch = micro_batch(pack, world.device, vocabulary)
        try:
            with meter.under(micro):
                loss = worker.accumulate(batch, world.ranks / info.normalizer, last=micro == accumulation - 1)
        except torch.OutOfMemoryError as error:
            name, longest, tokens = (pack.pack_id, pack.max_seqlen, pack.num_tokens) if pack else ("none", 2, 2)
            raise LongAlignError(
                f"out of memory in step {step} on rank {world.rank}: pack {name} of {tokens} tokens, longest sequence {longest}. "
                "Try activation_checkpointing: true, a smaller loss_chunk_rows, zero_stage: 3, offload in the DeepSpeed "
                f"file, or packs of smaller capacity ({str(error).splitlines()[0]})"
            ) from None
        meter.add(pack, batch)
        totals[0] += loss.double()
        totals[1] += 0 if pack is None else pack.num_tokens
    world.sum(totals)
    total, tokens = totals.tolist()
    if not math.isfinite(total):
        raise LongAlignError(
            f"step {step}: the loss is {total}, so training stops; the weights are still those before this step. "
            f"Its packs are those of step {plan_step} in the build's plan"
        )
    norm = worker.step(rate)
    seconds = time.perf_counter() - began
    return {
        "step": step,
        "loss": total / info.normalizer,
        "learning_rate": rate,
        "grad_norm": norm,
        "num_tokens": int(tokens),
        "tokens_per_second": round(tokens / seconds, 1),
        "seconds": round(seconds, 4),
        "num_sequences": info.num_sequences,
        "normalizer": info.normalizer,
        "num_packs": info.num_packs,
        **meter.finish(plan_step, seconds),
    }


def plan_hash(reader: PackReader) -> str:
    """What of a plan decides the course of a run: K and every step's M, Z and number of packs."""
    steps = [reader.step(step) for step in range(reader.num_steps)]
    return hashlib.sha256(repr((reader.packs_per_step, steps)).encode()).hexdigest()[:16]


def find_start(output: Path, resume: bool, facts: dict[str, Any]) -> tuple[int, Path | None]:
    """The first step to run and the checkpoint to load. Raises UserError when the folder holds a run that is not to be
    resumed, or whose last checkpoint is of another plan, engine or number of ranks."""
    done = sorted(path.parent for path in (output / "checkpoints").glob("step-*/trainer.json"))
    if not resume:
        if done or (output / "metrics.jsonl").exists():
            raise UserError(f"{output}: holds a run already; go on with --resume, or give another --output")
        return 0, None
    if not done:
        return 0, None
    stored = json.loads((done[-1] / "trainer.json").read_text(encoding="utf-8"))
    for key, value in facts.items():
        if stored.get(key) != value:
            raise UserError(
                f"{done[-1]}: was written with {key} {stored.get(key)!r}, this run has {value!r}; "
                "a run goes on with what it began with"
            )
    return int(stored["step"]), done[-1]


def save_checkpoint(worker: Engine, output: Path, world: World, facts: dict[str, Any], *, keep: int) -> None:
    """Writes checkpoints/step-N, complete once `trainer.json` stands in it, and removes all but the last `keep`."""
    folder = output / "checkpoints" / f"step-{facts['step']:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    worker.save(folder)
    world.wait()
    if world.rank == 0:
        _write_json(folder / "trainer.json", facts)
        complete = sorted(path.parent for path in (output / "checkpoints").glob("step-*/trainer.json"))
        for old in complete[:-keep]:
            # Without its note a folder is no checkpoint, so a torn removal is never loaded.
            (old / "trainer.json").unlink()
            shutil.rmtree(old)
    world.wait()


def keep_metrics(path: Path, start: int) -> None:
    """Drops the lines of steps that will be run again, and a line that was cut off."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] < start:
                kept.append(line)
        except ValueError:
            break
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _objective(asked: Run, world: World, settings: dict[str, Any], capacity: int) -> tuple[Objective, str]:
    """Model and loss, with packed attention; under ZeRO-3 pretrained weights are sharded while they are read."""
    config = asked.config
    sharded = None
    if config.engine == "deepspeed":
        engine.prepare_deepspeed(world.device)
        if config.zero_stage == 3 and not asked.random_init:
            from transformers.integrations.deepspeed import HfDeepSpeedConfig

            # Transformers shards for as long as this object lives.
            sharded = HfDeepSpeedConfig(settings)
    compute = torch.bfloat16 if config.dtype == "bf16" else torch.float32
    name, registered = attention.install(config.attention, world.device, compute)
    # Under torch autocast the weights themselves stay fp32; DeepSpeed keeps its own fp32 copy beside bf16 weights.
    stored = torch.float32 if config.engine == "torch" else compute
    causal_lm = model.load_model(
        asked.model, random_init=asked.random_init, dtype=stored, attention=registered, seed=config.seed
    )
    del sharded
    model.check_fits(causal_lm, capacity)
    if config.activation_checkpointing:
        model.checkpoint_activations(causal_lm)
    return Objective(causal_lm, chunk_rows=config.loss_chunk_rows), name


@contextmanager
def _reporting(asked: Run, world: World, described: dict[str, Any], start: int, stop: int) -> Iterator[logs.Report]:
    """Rank 0 notes the run and reports its steps; the others have nothing to say."""
    if world.rank != 0:
        yield lambda metrics: None
        return
    _write_json(asked.output / "run.json", described)
    keep_metrics(asked.output / "metrics.jsonl", start)
    with logs.reporting(asked.output, trackers=asked.trackers, described=described, start=start, stop=stop) as report:
        yield report


def _described(asked: Run, world: World, reader: PackReader, facts: dict[str, Any], backend: str) -> dict[str, Any]:
    return facts | {
        "build": str(asked.build),
        "model": asked.model,
        "random_init": asked.random_init,
        "packs_per_step": reader.packs_per_step,
        "capacity": reader.capacity,
        "attention": backend,
        "device": world.device.type,
        "torch": torch.__version__,
        "config": asked.config.model_dump(),
        "deepspeed": asked.deepspeed,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)

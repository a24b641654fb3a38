"""Runs the stages of a recipe in one folder: skips what stands complete, goes on where it was cut, writes the manifest last.

recipe.yaml -> builds/<name>/<version>/ {documents, selection, samples, sequences, packs, plan, rejects, manifest.json, README.md}
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longalign_data.build.card import write_card
from longalign_data.build.fingerprints import fingerprints
from longalign_data.build.manifest import write_manifest
from longalign_data.encoding.encode import encode, make_encoder
from longalign_data.engine import Progress, RunOptions
from longalign_data.errors import BuildError
from longalign_data.generation.generate import generate
from longalign_data.packing.pack import pack
from longalign_data.recipe import LoadedRecipe
from longalign_data.sampling.sample import sample
from longalign_data.shards.folder import STAGES, BuildFolder
from longalign_data.shards.stage import StageReport, read_report, require
from longalign_data.sources.ingest import ingest, snapshot
from longalign_data.tasks.templates import Templates, load_templates
from longalign_data.teachers.base import Teacher
from longalign_data.tokenizers import load_tokenizer

INPUTS: dict[str, tuple[str, ...]] = {
    "ingest": (),
    "sample": ("documents",),
    "generate": ("documents", "selection"),
    "encode": ("samples",),
    "pack": ("sequences",),
}
"""The tables that each stage reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A stage of this run: its report, and whether it `ran` now or stood complete."""

    report: StageReport
    ran: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The folder and what happened to each stage, in order."""

    folder: BuildFolder
    outcomes: Sequence[Outcome]


def build_folder(loaded: LoadedRecipe, output: Path) -> BuildFolder:
    """The folder of a recipe's build below `output`."""
    return BuildFolder(output / loaded.recipe.name / loaded.recipe.version)


def build(
    loaded: LoadedRecipe,
    output: Path,
    *,
    run: RunOptions,
    progress: Progress,
    teacher: Callable[[], Teacher],
    only: str | None = None,
) -> Built:
    """Brings the build up to date with the recipe; with `only`, that one stage, on what stands before it.

    `teacher` is called when the generate stage has something to do, and not otherwise, so that a finished build needs no
    key. Raises BuildError when another process works on the folder, or when `only` lacks its inputs.
    """
    recipe = loaded.recipe
    folder = build_folder(loaded, output)
    prompt_files = [loaded.relative(name) for name in recipe.generate.templates]
    templates = load_templates(prompt_files).only(task for task, share in recipe.generate.tasks.items() if share > 0)
    tokenizer = load_tokenizer(recipe.tokenizer).identity
    trainee = load_tokenizer(recipe.encode.tokenizer or recipe.tokenizer).identity
    with folder.lock():
        prints = fingerprints(
            recipe,
            inputs=snapshot(loaded, folder),
            prompts=templates.identity,
            tokenizer=tokenizer,
            encoder=make_encoder(recipe.encode, recipe.tokenizer).identity,
        )
        to_run = _stages_to_run(folder, prints, recipe.keep) if only is None else _single(folder, prints, only)
        outcomes: list[Outcome] = []
        for stage in STAGES:
            if stage in to_run:
                folder.manifest.unlink(missing_ok=True)
                report = _run_stage(stage, loaded, folder, prints[stage], run, progress, teacher, templates)
                outcomes.append(Outcome(report=report, ran=True))
            elif (report_ := read_report(folder, stage)) is not None and report_.fingerprint == prints[stage]:
                outcomes.append(Outcome(report=report_, ran=False))
        if len(outcomes) == len(STAGES):
            _drop_tables(folder, recipe.keep)
            reports = [outcome.report for outcome in outcomes]
            write_manifest(folder, loaded, reports, tokenizer=tokenizer, trainee_tokenizer=trainee)
            write_card(folder, loaded, reports)
        return Built(folder=folder, outcomes=outcomes)


def _run_stage(
    stage: str,
    loaded: LoadedRecipe,
    folder: BuildFolder,
    fingerprint: str,
    run: RunOptions,
    progress: Progress,
    teacher: Callable[[], Teacher],
    templates: Templates,
) -> StageReport:
    if stage == "generate":
        return generate(
            loaded,
            folder,
            fingerprint=fingerprint,
            run=run,
            progress=progress,
            teacher=teacher(),
            templates=templates,
        )
    function = {"ingest": ingest, "sample": sample, "encode": encode, "pack": pack}[stage]
    return function(loaded, folder, fingerprint=fingerprint, run=run, progress=progress)


def _stands(folder: BuildFolder, stage: str, fingerprint: str) -> bool:
    report = read_report(folder, stage)
    return report is not None and report.fingerprint == fingerprint


def _whole(folder: BuildFolder, table: str) -> bool:
    """Whether every shard that the table's stage reported is there, with its size."""
    stage = next(name for name, tables in STAGES.items() if table in tables)
    report = read_report(folder, stage)
    if report is None:
        return False
    places = [(folder.root / shard.path, shard.bytes) for shard in report.shards[table]]
    return all(path.is_file() and path.stat().st_size == size for path, size in places)


def _stages_to_run(folder: BuildFolder, prints: Mapping[str, str], keep: Sequence[str]) -> set[str]:
    """Every stage that is not complete, and every earlier one whose tables are wanted, by such a stage or by `keep`, and
    do not stand whole (they were not kept before, or are damaged)."""
    to_run: set[str] = set()
    for stage in reversed(STAGES):
        wanted = {table for later in to_run for table in INPUTS[later]} | set(keep)
        missing = any(table in wanted and not _whole(folder, table) for table in STAGES[stage])
        if missing or not _stands(folder, stage, prints[stage]):
            to_run.add(stage)
    return to_run


def _single(folder: BuildFolder, prints: Mapping[str, str], only: str) -> set[str]:
    order = list(STAGES)
    for table in INPUTS[only]:
        stage = next(name for name, tables in STAGES.items() if table in tables)
        report = require(folder, stage)
        if report.fingerprint != prints[stage]:
            raise BuildError(
                f"{folder.root}: the stage {stage!r} stands, but was made from another recipe, corpus or prompts; "
                f"run: longalign {stage} RECIPE (or longalign build RECIPE)"
            )
        if not _whole(folder, table):
            raise BuildError(f"{folder.root}: the table {table!r} is not there whole; run: longalign build RECIPE")
    for stage in order[: order.index(only)]:
        if not _stands(folder, stage, prints[stage]):
            raise BuildError(f"{folder.root}: the stage {stage!r} is out of date; run: longalign build RECIPE")
    return set() if _stands(folder, only, prints[only]) else {only}


def _drop_tables(folder: BuildFolder, keep: Sequence[str]) -> None:
    for tables in STAGES.values():
        for table in tables:
            if table not in keep:
                shutil.rmtree(folder.root / table, ignore_errors=True)

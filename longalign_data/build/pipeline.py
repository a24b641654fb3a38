"""Runs the stages of a recipe in one folder: skips what stands complete, goes on where it was cut, writes the manifest last.

recipe.yaml -> builds/<name>/<version>/ {documents, selection, samples, sequences, packs, plan, rejects, manifest.json, README.md}
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longalign_data.build.fingerprints import fingerprints, stages_of
from longalign_data.build.manifest import write_manifest
from longalign_data.build.removal import refuse_to_bring_back
from longalign_data.checks.judge import judge_identity
from longalign_data.curation.curate import curation_identity
from longalign_data.encoding.encode import encode, encoder_identity
from longalign_data.engine import Progress, RunOptions
from longalign_data.errors import BuildError
from longalign_data.generation.budget import Spending
from longalign_data.generation.generate import generate
from longalign_data.identity import digest
from longalign_data.mixing.mix import mix, mix_inputs
from longalign_data.packing.pack import pack
from longalign_data.publish.card import write_card
from longalign_data.recipe import LoadedRecipe, Recipe
from longalign_data.sampling.sample import sample
from longalign_data.shards.folder import STAGES, BuildFolder
from longalign_data.shards.stage import StageReport, read_report, require
from longalign_data.sources.ingest import decontamination_index, ingest, snapshot
from longalign_data.tasks.templates import Templates, load_templates
from longalign_data.teachers.base import Teacher
from longalign_data.tokenizers import load_tokenizer

INPUTS: dict[str, tuple[str, ...]] = {
    "ingest": (),
    "sample": ("documents",),
    "generate": ("documents", "selection"),
    "mix": (),
    "encode": ("samples", "chats"),
    "pack": ("sequences",),
}
"""The tables that each stage reads, those of them that the recipe has."""


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
    spending: Spending | None = None,
) -> Built:
    """Brings the build up to date with the recipe; with `only`, that one stage, on what stands before it.

    `teacher` is called first of all when the generate stage has something to do, and not otherwise, so that a finished
    build needs no key. `spending` are the prices and the limit of that stage (the package's prices and no limit when None). Raises
    BuildError when another process works on the folder, or when `only` lacks its inputs.
    """
    return _bring(loaded, output, run, progress, teacher, spending, only=only, until=None)


def prepare(loaded: LoadedRecipe, output: Path, *, run: RunOptions, progress: Progress) -> BuildFolder:
    """Brings what the generate stage reads up to date, and asks nobody. Raises BuildError like `build`."""

    def nobody() -> Teacher:
        raise AssertionError("the stages before generate have no teacher")

    return _bring(loaded, output, run, progress, nobody, None, only=None, until="sample").folder


def _bring(
    loaded: LoadedRecipe,
    output: Path,
    run: RunOptions,
    progress: Progress,
    teacher: Callable[[], Teacher],
    spending: Spending | None,
    *,
    only: str | None,
    until: str | None,
) -> Built:
    recipe = loaded.recipe
    folder = build_folder(loaded, output)
    templates = _templates(loaded)
    with loaded.blamed("tokenizer"):
        tokenizer = load_tokenizer(recipe.tokenizer).identity
    with loaded.blamed("encode", "tokenizer"):
        trainee = load_tokenizer(recipe.encode.tokenizer or recipe.tokenizer).identity
    with loaded.blamed("encode", "template"):
        encoder = encoder_identity(recipe.encode, recipe.tokenizer)
    with loaded.blamed("curate", "decontaminate", "index"):
        index = decontamination_index(loaded)
    stages = stages_of(recipe)
    with folder.lock():
        _clear_others(folder, stages)
        prints = fingerprints(
            recipe,
            inputs=snapshot(loaded, folder),
            mix_inputs=mix_inputs(loaded, folder),
            curation=curation_identity(recipe.curate, index),
            prompts=digest([templates.identity, judge_identity()])
            if recipe.generate.paid_checks.judge
            else templates.identity,
            tokenizer=tokenizer,
            encoder=encoder,
        )
        if only is not None:
            to_run = _single(folder, prints, recipe, only)
        elif until is not None:
            to_run = _stages_to_run(folder, prints, recipe, INPUTS["generate"], until=until)
        else:
            to_run = _stages_to_run(folder, prints, recipe, recipe.keep)
        if to_run:
            refuse_to_bring_back(folder, loaded)
        # Before any work: a missing key or an unknown model is better known now than after the corpus was read.
        asked = teacher() if "generate" in to_run else None
        outcomes: list[Outcome] = []
        for stage in stages:
            if stage in to_run:
                folder.manifest.unlink(missing_ok=True)
                report = _run_stage(stage, loaded, folder, prints[stage], run, progress, asked, templates, spending)
                shutil.rmtree(folder.work(stage), ignore_errors=True)
                outcomes.append(Outcome(report=report, ran=True))
            elif (report_ := read_report(folder, stage)) is not None and report_.fingerprint == prints[stage]:
                outcomes.append(Outcome(report=report_, ran=False))
            if until is None and stage == "encode" and outcomes and outcomes[-1].report.stage == stage:
                _refuse_empty(folder, outcomes)
        if len(outcomes) == len(stages) and until is None:
            _drop_tables(folder, recipe.keep)
            reports = [outcome.report for outcome in outcomes]
            manifest = write_manifest(folder, loaded, reports, tokenizer=tokenizer, trainee_tokenizer=trainee)
            write_card(folder, manifest)
        return Built(folder=folder, outcomes=outcomes)


def _templates(loaded: LoadedRecipe) -> Templates:
    """The prompts of the recipe's tasks. Raises RecipeError."""
    wish = loaded.recipe.generate
    with loaded.blamed("generate", "templates"):
        templates = load_templates([loaded.relative(name) for name in wish.templates])
    tasks = [task for task, share in wish.tasks.items() if share > 0]
    for task in tasks:
        with loaded.blamed("generate", "tasks", task):
            templates.only([task])
    return templates.only(tasks)


def _refuse_empty(folder: BuildFolder, outcomes: Sequence[Outcome]) -> None:
    """Raises BuildError when there is nothing to pack, with the reasons that were counted on the way."""
    if outcomes[-1].report.num_out:
        return
    reasons = [
        f"{outcome.report.stage} {reason} {count:,}"
        for outcome in outcomes
        for reason, count in outcome.report.rejected.items()
    ]
    raise BuildError(
        f"{folder.root}: not one sequence came out; rejected: {', '.join(reasons) or 'nothing'}. The table rejects says why, "
        f"one by one: longalign sql {folder.root}"
    )


def _run_stage(
    stage: str,
    loaded: LoadedRecipe,
    folder: BuildFolder,
    fingerprint: str,
    run: RunOptions,
    progress: Progress,
    teacher: Teacher | None,
    templates: Templates,
    spending: Spending | None,
) -> StageReport:
    if stage == "generate":
        assert teacher is not None
        return generate(
            loaded,
            folder,
            fingerprint=fingerprint,
            run=run,
            progress=progress,
            teacher=teacher,
            templates=templates,
            spending=spending,
        )
    function = {"ingest": ingest, "sample": sample, "mix": mix, "encode": encode, "pack": pack}[stage]
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


def _inputs(recipe: Recipe, stage: str) -> Sequence[str]:
    if stage == "encode" and recipe.encode.mode == "pretrain":
        return ("documents", "selection")
    there = {table for stage in stages_of(recipe) for table in STAGES[stage]}
    return [table for table in INPUTS[stage] if table in there]


def _clear_others(folder: BuildFolder, stages: Sequence[str]) -> None:
    """Removes what stages left that the recipe had once and has no more."""
    for stage in STAGES:
        if stage not in stages and (folder.report(stage).exists() or folder.progress(stage).exists()):
            folder.clear(stage)


def _stages_to_run(
    folder: BuildFolder, prints: Mapping[str, str], recipe: Recipe, keep: Sequence[str], *, until: str | None = None
) -> set[str]:
    """Every stage (up to `until`) that is not complete, and every earlier one whose tables are wanted, by such a stage or by
    `keep`, and do not stand whole (they were not kept before, or are damaged)."""
    to_run: set[str] = set()
    order = list(stages_of(recipe))
    for stage in reversed(order[: order.index(until) + 1] if until else order):
        wanted = {table for later in to_run for table in _inputs(recipe, later)} | set(keep)
        missing = any(table in wanted and not _whole(folder, table) for table in STAGES[stage])
        if missing or not _stands(folder, stage, prints[stage]):
            to_run.add(stage)
    return to_run


def _single(folder: BuildFolder, prints: Mapping[str, str], recipe: Recipe, only: str) -> set[str]:
    order = stages_of(recipe)
    if only not in order:
        raise BuildError(f"{folder.root}: this recipe has no stage {only!r}; it has: {', '.join(order)}")
    for table in _inputs(recipe, only):
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
    whole = all(_whole(folder, table) for table in STAGES[only] if table in recipe.keep)
    return set() if whole and _stands(folder, only, prints[only]) else {only}


def _drop_tables(folder: BuildFolder, keep: Sequence[str]) -> None:
    for tables in STAGES.values():
        for table in tables:
            if table not in keep:
                shutil.rmtree(folder.root / table, ignore_errors=True)

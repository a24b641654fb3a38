"""`longalign estimate`, `doctor` and `ledger`: what a build will cost, whether its teacher works, what it did cost."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longalign_data.cli.arguments import (
    ConcurrencyOption,
    LimitOption,
    OutputOption,
    PricesOption,
    RecipeArg,
    UrlOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

    from longalign_data.generation.account import Account, Line
    from longalign_data.generation.documents import SelectedDocuments
    from longalign_data.generation.estimate import Calibration, Estimate
    from longalign_data.generation.exchange import Plan
    from longalign_data.generation.ledger import Kind
    from longalign_data.recipe import LoadedRecipe
    from longalign_data.shards.folder import BuildFolder
    from longalign_data.tasks.templates import Templates
    from longalign_data.teachers.prices import Prices


def register(app: typer.Typer) -> None:
    """Adds the commands about teachers and money."""
    for command in (estimate, doctor, ledger):
        app.command()(command)


def estimate(
    recipe: RecipeArg,
    output: OutputOption = Path("builds"),
    workers: WorkersOption = 0,
    concurrency: ConcurrencyOption = 8,
    pilot: Annotated[
        int, typer.Option("--pilot", min=0, help="Documents to count with the provider's free counting endpoint.")
    ] = 0,
    teacher_url: UrlOption = None,
    prices: PricesOption = None,
) -> None:
    """What RECIPE will cost: tokens, dollars and days, for every way of asking.

    Reads and samples the documents if that is not done yet; asks the teacher nothing.
    """
    import os

    from rich.console import Console

    from longalign_data.build.pipeline import prepare
    from longalign_data.cli.prices import known_prices
    from longalign_data.cli.progress import TerminalProgress
    from longalign_data.engine import RunOptions
    from longalign_data.generation.budget import rate_of
    from longalign_data.generation.documents import SelectedDocuments
    from longalign_data.generation.estimate import estimate as make_estimate
    from longalign_data.generation.estimate import instructions_of, measure
    from longalign_data.generation.paid import kinds_of
    from longalign_data.recipe import load_recipe
    from longalign_data.teachers.table import PROVIDERS
    from longalign_data.tokenizers import load_tokenizer

    loaded = load_recipe(recipe)
    choice = loaded.recipe.generate.teacher
    known = known_prices(prices, choice)
    if not PROVIDERS[choice.provider].is_free:
        known.require(choice.provider, choice.model)
    run = RunOptions(workers=workers or os.cpu_count() or 1, concurrency=concurrency)
    with TerminalProgress(Console(stderr=True)) as progress:
        folder = prepare(loaded, output, run=run, progress=progress)
    console = _console()
    documents = SelectedDocuments(folder)
    measures = list(documents.measures.values())
    rate = rate_of(choice, known)
    assert rate is not None
    if PROVIDERS[choice.provider].is_free:
        _say(console, f"{len(measures):,} documents; the teacher {choice.provider!r} is free")
        return
    tokenizer = load_tokenizer(loaded.recipe.tokenizer)
    instructions = instructions_of(measures, loaded.recipe, _templates(loaded))
    paying = _paying(loaded, folder)
    result = make_estimate(
        measures,
        instruction_tokens=measure(instructions, tokenizer),
        rate=rate,
        calibration=_calibration(loaded, folder, paying, documents, instructions, pilot, teacher_url),
        concurrency=concurrency,
        checks=kinds_of(loaded.recipe.generate.paid_checks),
    )
    _print_estimate(console, result, loaded, f"prices of {known.dated}", concurrency)
    for line in _paid_before(folder, paying, documents, known):
        _say(console, line)


def doctor(recipe: RecipeArg, teacher_url: UrlOption = None, prices: PricesOption = None) -> None:
    """Ask RECIPE's teacher one tiny question and say in plain words what works."""
    import asyncio
    import dataclasses

    from rich.console import Console

    from longalign_data.cli.build import connection_of
    from longalign_data.cli.prices import known_prices
    from longalign_data.recipe import load_recipe
    from longalign_data.teachers.doctor import examine

    choice = load_recipe(recipe).recipe.generate.teacher
    connection = dataclasses.replace(connection_of(choice, teacher_url), timeout_s=120.0, retry_s=10.0)
    findings = asyncio.run(examine(choice, connection, known_prices(prices, choice)))
    console = Console()
    for finding in findings:
        sign = {"ok": "ok  ", "look": "!   ", "bad": "FAIL"}[finding.state]
        _say(console, f"{sign} {finding.words}")
    if any(finding.state == "bad" for finding in findings):
        raise SystemExit(1)


def ledger(
    target: Annotated[
        Path,
        typer.Argument(
            help="A build folder, or a recipe for its build below OUTPUT.", metavar="BUILD", show_default=False
        ),
    ],
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Write the requests that have no reply yet to this file.", show_default=False),
    ] = None,
    import_: Annotated[
        Path | None,
        typer.Option("--import", help="Take the replies in this file into the ledger.", show_default=False),
    ] = None,
    forget: Annotated[
        str | None,
        typer.Option(
            "--forget",
            metavar="REASON",
            help="Take back what failed with this reason (context-exceeded, bad-request, document-cut, teacher-error), what the "
            "fake provider answered (rehearsal), or give up the batch with this id: it is asked again.",
            show_default=False,
        ),
    ] = None,
    output: OutputOption = Path("builds"),
    limit: LimitOption = None,
    workers: WorkersOption = 0,
    prices: PricesOption = None,
) -> None:
    """Progress, cost and failures of a build's requests; or their way to a teacher elsewhere.

    --export and --import need the recipe instead of the build. The files are JSON lines in the format of OpenAI's Batch API
    (`vllm run-batch` reads it too), for provider anthropic in that of a Message Batch. Export, answer, import: once for the
    questions and once for the answers; then `longalign build` goes on and asks nobody.
    """
    from longalign_data.errors import UserError
    from longalign_data.recipe import builtin_recipes

    console = _console()
    is_recipe = target.suffix in (".yaml", ".yml") or (not target.exists() and str(target) in builtin_recipes())
    if export is None and import_ is None and forget is None:
        _print_account(console, target, is_recipe, output, limit, prices)
        return
    if not is_recipe:
        raise UserError(
            f"{target}: --export, --import and --forget need the recipe: longalign ledger RECIPE --output OUTPUT ..."
        )
    if sum(option is not None for option in (export, import_, forget)) > 1:
        raise UserError(
            "--export, --import and --forget are steps of their own: first import what was answered, then export what is left"
        )
    _exchange(console, target, export, import_, forget, output, limit, workers, prices)


def _exchange(
    console: "Console",
    recipe: Path,
    export: Path | None,
    import_: Path | None,
    reason: str | None,
    output: Path,
    limit: int | None,
    workers: int,
    prices: Path | None,
) -> None:
    import os

    from rich.console import Console

    from longalign_data.build.pipeline import prepare
    from longalign_data.cli.prices import known_prices
    from longalign_data.cli.progress import TerminalProgress
    from longalign_data.engine import RunOptions
    from longalign_data.generation.documents import SelectedDocuments
    from longalign_data.generation.forgetting import forget
    from longalign_data.generation.ledger import Ledger
    from longalign_data.generation.offline import export_requests, import_replies
    from longalign_data.generation.trials import take_over
    from longalign_data.recipe import limit_words, limited, load_recipe

    loaded = load_recipe(recipe)
    if limit is not None:
        loaded = limited(loaded, limit)
    again = str(recipe) if output == Path("builds") else f"{recipe} --output {shlex.quote(str(output))}"
    again += limit_words(loaded.recipe.name)
    run = RunOptions(workers=workers or os.cpu_count() or 1)
    with TerminalProgress(Console(stderr=True)) as progress:
        folder = prepare(loaded, output, run=run, progress=progress)
    plan = _plan(loaded)
    if reason is not None:
        _require_ledger(folder)
    with folder.lock(), Ledger(folder.ledger) as book:
        if reason is not None:
            num_forgotten = forget(folder, plan, book, reason)
            _say(console, f"{num_forgotten:,} requests are asked again: longalign build {again}")
            return
        documents = SelectedDocuments(folder)
        known = known_prices(prices, loaded.recipe.generate.teacher)
        take_over(folder, documents, plan, book, prices=known, progress=progress, rehearsed=False)
        if export is not None:
            done = export_requests(documents, plan, book, export)
            total = done.num_requests
            checks = f", {done.num_checks:,} for checks" if done.num_checks else ""
            _say(
                console,
                f"{export}: {total:,} requests ({done.num_questions:,} for questions, {done.num_answers:,} for answers"
                f"{checks}), {done.num_bytes:,} bytes",
            )
            _say(
                console,
                f"then    longalign ledger {again} --import REPLIES" if total else f"then    longalign build {again}",
            )
            return
        assert import_ is not None
        taken = import_replies(documents, plan, book, import_)
    _say(
        console,
        f"{import_}: {taken.num_lines:,} lines, {taken.num_stored:,} replies taken, {taken.num_known:,} known before",
    )
    for reason, count in sorted(taken.problems.items()):
        _say(console, f"not taken: {count:,} {reason}")
    for example in taken.examples:
        _say(console, f"  {example}")
    _say(
        console,
        f"{taken.num_waiting:,} requests wait for a reply: longalign ledger {again} --export FILE"
        if taken.num_waiting
        else f"nothing is left to ask: longalign build {again}",
    )


def _plan(loaded: "LoadedRecipe") -> "Plan":
    from longalign_data.generation.exchange import Plan
    from longalign_data.teachers.table import PROVIDERS

    recipe = loaded.recipe
    tasks = [task for task, share in recipe.generate.tasks.items() if share > 0]
    templates = _templates(loaded).only(tasks)
    return Plan(recipe=recipe, templates=templates, read=PROVIDERS[recipe.generate.teacher.provider].read)


def _templates(loaded: "LoadedRecipe") -> "Templates":
    from longalign_data.tasks.templates import load_templates

    return load_templates([loaded.relative(name) for name in loaded.recipe.generate.templates])


def _require_ledger(folder: "BuildFolder") -> None:
    from longalign_data.errors import BuildError

    if not folder.ledger.is_file():
        raise BuildError(f"{folder.root}: has no ledger: nothing was asked in this folder yet")


def _paying(loaded: "LoadedRecipe", folder: "BuildFolder") -> "Sequence[BuildFolder]":
    """The build alone where its ledger has replies, or cannot be read, which whoever reads it next will say; else its trials."""
    from longalign_data.errors import BuildError
    from longalign_data.generation.trials import copied_ledger, trial_builds

    if folder.ledger.is_file():
        try:
            with copied_ledger(folder.ledger, is_own=True) as book:
                if book.documents_of("answered"):
                    return [folder]
        except BuildError:
            return [folder]
    return trial_builds(loaded.recipe, folder)


def _calibration(
    loaded: "LoadedRecipe",
    folder: "BuildFolder",
    paying: "Sequence[BuildFolder]",
    documents: "SelectedDocuments",
    instructions: "Mapping[str, str]",
    pilot: int,
    teacher_url: str | None,
) -> "Calibration":
    """From a pilot, else from the replies that the build or a trial of it (`build --limit`) has, else rules of thumb; outputs
    from replies in any case."""
    import asyncio

    from longalign_data.cli.build import connection_of
    from longalign_data.errors import BuildError
    from longalign_data.generation.estimate import (
        Observation,
        calibrate,
        lengths_known,
        measure,
        observed,
        spread_over,
    )
    from longalign_data.generation.trials import copied_ledger
    from longalign_data.teachers.base import TeacherRequest
    from longalign_data.teachers.counting import count_prompts
    from longalign_data.tokenizers import load_tokenizer

    recipe = loaded.recipe
    choice = recipe.generate.teacher
    tokenizer = load_tokenizer(recipe.tokenizer)
    measures = list(documents.measures.values())
    seen: list[Observation] = []
    outputs: dict[Kind, list[int]] = {}
    names: list[str] = []
    counted: set[str] = set()
    origin = ""
    for place in paying:
        try:
            with copied_ledger(place.ledger, is_own=place == folder) as book:
                observations, found = observed(book, documents, recipe, tokenizer, counted)
        except BuildError as error:
            typer.echo(f"longalign: nothing is known from a ledger: {error}", err=True)
            continue
        seen += observations
        for kind, values in found.items():
            outputs.setdefault(kind, []).extend(values)
        names.append("this build's ledger" if place == folder else f"the ledger of {place.root.parent.name}")
        origin = f"the usage of {len(seen):,} replies in {', '.join(names)}"
    lengths_of = lengths_known(outputs, origin) if origin else ""
    if pilot:
        chosen = spread_over(measures, pilot)
        requests = [
            TeacherRequest(
                model=choice.model,
                document=documents.document(measured.doc_id).text,
                instruction=instructions[measured.doc_id],
                max_tokens=choice.max_question_tokens,
            )
            for measured in chosen
        ]
        counts = asyncio.run(count_prompts(choice, connection_of(choice, teacher_url), requests))
        lengths = measure({measured.doc_id: instructions[measured.doc_id] for measured in chosen}, tokenizer)
        seen = [
            Observation(
                lang=measured.lang,
                recipe_tokens=measured.num_tokens + lengths[measured.doc_id],
                teacher_tokens=count,
            )
            for measured, count in zip(chosen, counts, strict=True)
        ]
        origin = f"{len(seen):,} documents that {choice.provider} counted"
    return calibrate(
        recipe,
        (measured.lang for measured in measures),
        observations=seen,
        outputs=outputs,
        origin="; ".join(filter(None, [origin, lengths_of])),
    )


def _paid_before(
    folder: "BuildFolder", paying: "Sequence[BuildFolder]", documents: "SelectedDocuments", prices: "Prices"
) -> "Iterator[str]":
    """What this build and its trials have paid already for the documents that are estimated."""
    from longalign_data.errors import BuildError
    from longalign_data.generation.budget import entry_cost
    from longalign_data.generation.trials import copied_ledger

    # A trial has the replies that it took over from another one too; they were paid once.
    counted: set[str] = set()
    for place in paying:
        try:
            with copied_ledger(place.ledger, is_own=place == folder) as book:
                found = {
                    entry.request_id: entry_cost(entry, prices) or 0.0
                    for entry in book.entries()
                    if entry.raw is not None
                    and entry.document_id in documents.measures
                    and entry.request_id not in counted
                }
        except BuildError:
            continue  # was said when it was read for the lengths of replies
        if found:
            counted |= found.keys()
            # Of another model, limit or prompt they are of no use.
            of, what = ("this build", "keeps") if place == folder else (place.root.parent.name, "takes over")
            yield (
                f"paid already by {of} for these documents: {len(found):,} replies, {sum(found.values()):,.4f} USD; a build {what} "
                "what the recipe as it is can use of them, and asks for the rest again"
            )


def _print_estimate(
    console: "Console", result: "Estimate", loaded: "LoadedRecipe", dated: str, concurrency: int
) -> None:
    from rich.table import Table

    from longalign_data.generation.paid import kinds_of

    choice = loaded.recipe.generate.teacher
    known = result.calibration
    _say(console, f"{result.num_documents:,} documents, {choice.provider} {choice.model}, {dated}")
    for lang, tokens in result.tokens.items():
        _say(
            console,
            f"  {lang}: {tokens.likely:,.0f} tokens of the teacher (+-{tokens.off / max(1.0, tokens.likely):.0%}), "
            f"{result.chars_per_token[lang]:.2f} characters each",
        )
    _say(
        console,
        f"  a reply: {known.outputs['question'].likely:,.0f} tokens for questions, {known.outputs['answer'].likely:,.0f} for an "
        "answer, thinking not included unless replies showed it",
    )
    checks = kinds_of(loaded.recipe.generate.paid_checks)
    if checks:
        _say(console, f"  with the paid checks of every answer: {', '.join(checks)}")
    _say(console, f"  known from: {known.origin}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("way")
    for name in ("answers", "samples", "USD", "from", "to", "a sample", "ratio", "takes"):
        table.add_column(name, justify="right", no_wrap=True)
    first = result.offers[0].usd.likely or 1.0
    for offer in result.offers:
        chosen = " <" if offer.answers == loaded.recipe.generate.answers_per_document else ""
        table.add_row(
            offer.way,
            f"{offer.answers}{chosen}",
            f"{result.num_documents * offer.answers:,}",
            _dollars(offer.usd.likely),
            _dollars(offer.usd.low),
            _dollars(offer.usd.high),
            f"{offer.usd_per_sample:.4f}",
            f"{offer.usd.likely / first:.2f}",
            " to ".join(map(_duration, offer.days)),
        )
    console.print(table)
    _say(
        console,
        "< is what the recipe says; cache: every answer call finds its document in the provider's cache; takes: live with "
        f"{concurrency} documents at once (--concurrency)",
    )


def _dollars(usd: float) -> str:
    return f"{usd:,.2f}" if usd >= 10 else f"{usd:.4f}"


def _duration(days: float) -> str:
    hours = days * 24
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    return f"{hours:.0f} h" if hours < 24 else f"{days:.1f} d"


def _print_account(
    console: "Console", target: Path, is_recipe: bool, output: Path, limit: int | None, override: Path | None
) -> None:
    from longalign_data.build.pipeline import build_folder
    from longalign_data.cli.prices import known_prices
    from longalign_data.generation.account import account, sources_of, tasks_of
    from longalign_data.generation.trials import copied_ledger
    from longalign_data.recipe import limited, load_recipe
    from longalign_data.shards.folder import open_build
    from longalign_data.shards.stage import read_report
    from longalign_data.tasks.templates import load_templates

    loaded = load_recipe(target) if is_recipe else None
    if loaded is not None and limit is not None:
        loaded = limited(loaded, limit)
    folder = open_build(target if loaded is None else build_folder(loaded, output).root)
    _require_ledger(folder)
    prices = known_prices(override)
    sampled = read_report(folder, "sample")
    is_at_work = folder.is_at_work()
    # The copy is read: whoever looks need not be allowed to write here.
    with copied_ledger(folder.ledger, is_own=True) as book:
        result = account(
            book,
            prices,
            templates=load_templates() if loaded is None else _templates(loaded),
            sources=sources_of(folder),
            tasks=tasks_of(folder),
            num_selected=None if sampled is None else sampled.num_out,
            is_at_work=is_at_work,
        )
    _say(console, f"{folder.ledger} (prices of {prices.dated})")
    _print_progress(console, result)
    for title, lines in (("source", result.by_source), ("task", result.by_task), ("model", result.by_model)):
        _print_lines(console, title, lines)


def _print_progress(console: "Console", result: "Account") -> None:
    of = "" if result.num_selected is None else f" of {result.num_selected:,} selected documents"
    _say(
        console,
        f"questions for {len(result.questioned):,}{of}; {result.num_whole_answers:,} answers",
    )
    for (kind, state), count in sorted(result.states.items(), reverse=True):
        words = {"sent": "sent, no reply yet", "answered": "answered", "refused": "refused by the provider"}
        _say(console, f"  {kind} requests {words.get(state, state)}: {count:,}")
    for batch in result.batches_out:
        until = f", fetch them before {_day(batch.kept_until)}" if batch.kept_until is not None else ""
        where = f"{batch.known_as}{'' if batch.batch_id else ', perhaps not arrived'}, {batch.provider} {batch.model}"
        _say(console, f"  batch out: {batch.num_requests:,} requests ({where}) of {_day(batch.created)}{until}")
    for batch, usd in result.batches_gone:
        paid = "" if usd is None else f", about {usd:,.4f} USD"
        _say(
            console,
            f"  batch paid for and not fetched: {batch.num_requests:,} requests ({batch.known_as}) of "
            f"{_day(batch.created)}{paid}; they are asked again",
        )
    # Without a price there is no limit that could count them.
    if result.unheard.most_usd:
        unnamed = result.unheard.num_unnamed
        parts = ["no reply came"] if result.unheard.num_attempts > unnamed else []
        parts += [f"its usage is not known (replies that name none: {unnamed:,})"] if unnamed else []
        what = " or ".join(parts)
        _say(
            console,
            f"  perhaps billed, and {what}: {result.unheard.num_attempts:,} attempts, at most "
            f"{result.unheard.most_usd:,.4f} USD; --max-usd counts them",
        )
    for name, line in sorted(result.taken_over.items()):
        paid = "" if line.num_unpriced else f", {line.usd:,.4f} USD that it paid"
        _say(console, f"  taken over from {name}: {line.num_replies:,} replies{paid}")
    if result.num_asked_again:
        _say(console, f"  sent more than once: {result.num_asked_again:,}")
    if result.failures:
        _say(
            console, "failed: " + ", ".join(f"{reason} {count:,}" for reason, count in sorted(result.failures.items()))
        )
    if result.total.cache_read_tokens or result.total.cache_write_tokens:
        share = result.total.cache_read_tokens / max(1, result.total.prompt_tokens)
        hits = result.num_answer_hits / max(1, result.num_answers)
        _say(
            console, f"cache: {share:.1%} of the prompt tokens were read from it; {hits:.1%} of the answer calls hit it"
        )
    if result.total.num_unpriced:
        _say(console, f"{result.total.num_unpriced:,} replies are of models without a price; --prices FILE gives one")


def _day(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def _print_lines(console: "Console", title: str, lines: "Mapping[str, Line]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold")
    for name in ("requests", "replies", "input", "cache write", "cache read", "output", "USD"):
        table.add_column(name, justify="right", no_wrap=name == "USD")
    for name, line in sorted(lines.items()):
        usd = "no price" if line.num_unpriced else f"{line.usd:,.4f}"
        counts = (
            line.num_requests,
            line.num_replies,
            line.input_tokens,
            line.cache_write_tokens,
            line.cache_read_tokens,
            line.output_tokens,
        )
        table.add_row(name, *(f"{count:,}" for count in counts), usd)
    console.print()
    console.print(table)


def _console() -> "Console":
    """Standard output; where it is no terminal, lines are as long as what stands in them."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=1_000)


def _say(console: "Console", line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)

"""What a plan is worth before a GPU is paid, for the build's own plan or for another one that is made in memory.

In: a build with its table `sequences`, and what is to be different from its recipe. Out: `PlanReport`, plain numbers, and
the same printed for people, with one step drawn as bars. Nothing is written; to plan anew for good, edit the recipe's
`pack` and run `longalign build` again, which starts at that stage.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from longalign_data import yamlfile
from longalign_data.errors import BuildError, UserError
from longalign_data.explore.recorded import manifest_of
from longalign_data.packing.pack import Planned, Sequences, plan_sequences, read_sequences
from longalign_data.recipe import PackSequences, Recipe
from longalign_data.shards.folder import BuildFolder

if TYPE_CHECKING:
    from rich.console import Console

BARS = 64
"""Packs of a step that are drawn; of larger steps, only the first and the last of each micro-batch."""
WIDTH = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """A plan with what it was made from. `choice` is the recipe's `pack`, changed as asked; `as_built` says that nothing
    was. `answers_cut` counts shortened sequences that lost targets; there must be none."""

    recipe: Recipe
    choice: PackSequences
    as_built: bool
    sequences: Sequences
    planned: Planned
    tokens_cut: int
    answers_cut: int
    rejected: int

    def details(self) -> Mapping[str, Any]:
        """The figures of the plan as the manifest has them."""
        return self.planned.figures()


def recipe_of(build: BuildFolder) -> Recipe:
    """The recipe that a complete build was made from. Raises BuildError when it is not complete."""
    manifest = manifest_of(build)
    if not manifest:
        raise BuildError(f"{build.root}: the build is not complete (no manifest.json); run: longalign build RECIPE")
    return yamlfile.parse(manifest["recipe"], build.manifest, Recipe)


def plan_report(build: BuildFolder, changes: Mapping[str, Any]) -> PlanReport:
    """The plan of a build with some keys of the recipe's `pack` changed. Raises BuildError when the build is not complete
    or did not keep its sequences, UserError when the changes make no sense together."""
    recipe = recipe_of(build)
    choice = change(recipe.pack, changes)
    paths = build.shards("sequences")
    if not paths:
        raise BuildError(
            f"{build.root}: its sequences were not kept; add sequences to `keep` and run: longalign build RECIPE"
        )
    sequences = read_sequences(paths)
    count, k = len(sequences.num_tokens), choice.packs_per_step
    if k > max(count, recipe.pack.packs_per_step):
        raise UserError(
            f"{build.root}: a step of {k:,} packs is more than its {count:,} sequences can fill; ask for fewer ranks or a "
            "smaller accumulation"
        )
    planned = plan_sequences(sequences, choice, recipe.seed)
    return PlanReport(
        recipe=recipe,
        choice=choice,
        as_built=choice == recipe.pack,
        sequences=sequences,
        planned=planned,
        tokens_cut=int(sequences.truncated_tokens[planned.members].sum()),
        answers_cut=_answers_cut(build),
        rejected=len(sequences.num_tokens) - len(planned.members),
    )


def change(choice: PackSequences, changes: Mapping[str, Any]) -> PackSequences:
    """A recipe's `pack` with some keys changed, checked as a recipe is. Capacities that a new one makes too large go."""
    plain = choice.model_dump() | dict(changes)
    plain["smaller_capacities"] = [c for c in plain["smaller_capacities"] if c < plain["capacity"]]
    if plain["strategy"] in ("sorted", "naive"):
        plain["smaller_capacities"] = []
    try:
        return PackSequences.model_validate(plain)
    except ValueError as error:
        raise UserError(f"this plan cannot be made: {error}") from None


def _answers_cut(build: BuildFolder) -> int:
    try:
        details = next(stage["details"] for stage in manifest_of(build)["stages"] if stage["stage"] == "encode")
        return int(details["answers_cut"])
    except (KeyError, StopIteration):
        raise BuildError(
            f"{build.manifest}: does not say what encoding cut, so an earlier version wrote it; run `longalign build` again"
        ) from None


def print_plan(report: PlanReport, console: "Console", *, ranks: int, seconds: float | None, name: str) -> None:
    """The figures as a person reads them, for a split of K into `ranks` and the rest; `seconds` is what a unit of work
    takes, where it was measured."""

    def say(line: str = "") -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    numbers, choice, plan = report.details(), report.choice, report.planned.plan
    k = choice.packs_per_step
    say(
        f"{name}: {len(report.planned.members):,} sequences, {int(report.planned.lengths.sum()):,} tokens, "
        f"{int(report.planned.num_targets.sum()):,} of them targets"
    )
    say(
        f"{choice.strategy}, {ranks} ranks x {k // ranks} accumulation, alpha {choice.alpha:g}: "
        + ("the plan of the build" if report.as_built else "a plan made in memory; the build keeps its own")
    )
    rejected = f"rejected          {report.rejected:,} (longer than a pack, or without targets)"
    if not plan.num_packs:
        say(rejected)
        say("nothing to pack")
        return
    say()
    capacities = "/".join(f"{c:,}" for c in sorted({*choice.smaller_capacities, choice.capacity}))
    bound = numbers["lower_bound"]
    over = plan.num_packs / bound - 1
    say(f"packs             {plan.num_packs:,} of {capacities} tokens, {numbers['fill']:.2%} full")
    say(f"lower bound       {bound:,} packs ({over:+.2%}; whole steps of {k} included)")
    epochs = f" in {numbers['num_epochs']} epochs" if choice.epochs > 1 else ""
    by_capacity = numbers.get("steps_by_capacity")
    sizes = f" ({', '.join(f'{n:,} of {int(c):,}' for c, n in by_capacity.items())})" if by_capacity else ""
    say(f"steps             {plan.num_steps:,}{epochs}{sizes}")
    for title, key in (("sequences a step", "sequences_per_step"), ("normalizer Z", "normalizer_per_step")):
        s = numbers[key]
        say(f"{title:<18}{s['min']:,.6g} to {s['max']:,.6g}, mean {s['mean']:,.6g}, varies by {s['cv']:.2%}")
    weight = numbers["effective_weight"]
    say(
        f"effective weight  {weight['p1']:.3f} / {weight['p50']:.3f} / {weight['p99']:.3f} (1st / 50th / 99th percentile)"
    )
    say(f"tokens cut        {report.tokens_cut:,} out of documents")
    say(f"answers cut       {report.answers_cut:,}")
    say(rejected)
    say()
    for split in numbers["modelled_idle"]:
        mark = "->" if split["ranks"] == ranks else "  "
        if seconds:
            step_seconds = (
                split["step_time"] * float(report.planned.shape.work(np.array([choice.capacity]))[0]) * seconds
            )
            hours = plan.num_steps * step_seconds * split["ranks"] / 3600
            time = f"{step_seconds:,.3g} s a step, {hours:,.3g} GPU hours"
        else:
            time = f"a step takes {split['step_time']:.2f} times a full sequence of {choice.capacity:,} tokens"
        say(
            f"{mark} {split['ranks']:>4} ranks x {split['accumulation']:<4} modelled idle {split['idle']:>6.1%}   {time}"
        )
    say()
    _draw(report, ranks, say)


def _draw(report: PlanReport, ranks: int, say: Any) -> None:
    """The step of middling time, a bar for each pack: what it works, and how long its rank then waits."""
    plan, shape, lengths = report.planned.plan, report.planned.shape, report.planned.lengths
    work = plan.pack_sums(shape.work(lengths))
    tokens = plan.pack_sums(lengths)
    members = np.diff(plan.pack_starts)
    of_step = np.add.reduceat(work, plan.step_starts[:-1])
    step = int(np.argsort(of_step, kind="stable")[plan.num_steps // 2])
    first, end = int(plan.step_starts[step]), int(plan.step_starts[step + 1])
    say(f"step {step}, pack by pack (# works, . waits for the slowest of its micro-batch):")
    largest = float(work[first]) or 1.0
    for pack in range(first, end):
        position = pack - first
        micro, rank = divmod(position, ranks)
        if end - first > BARS and rank not in (0, ranks - 1):
            continue
        slowest = float(work[first + micro * ranks])
        filled = round(WIDTH * float(work[pack]) / largest)
        waits = round(WIDTH * slowest / largest) - filled
        bar = ("#" * filled + "." * waits).ljust(WIDTH)
        longest = int(lengths[plan.sequences[plan.pack_starts[pack]]])
        say(
            f"  {micro + 1:>3}.{rank:<3} {bar} {int(tokens[pack]):>7,} tokens in {int(members[pack]):>4} sequences, "
            f"the longest {longest:,}"
        )

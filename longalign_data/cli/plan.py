"""`longalign plan` and `longalign weights`: what training on a build will be like, before it begins."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longalign_data.cli.arguments import BuildArg

if TYPE_CHECKING:
    from longalign_data.explore.plan import PlanReport


def register(app: typer.Typer) -> None:
    """Adds the commands that look at a plan."""
    app.command()(plan)
    app.command()(weights)


class Strategy(enum.StrEnum):
    """The strategies of a recipe's `pack`."""

    balanced = "balanced"
    random = "random"
    sorted = "sorted"
    naive = "naive"


RanksOption = Annotated[int | None, typer.Option("--ranks", min=1, help="Ranks (GPUs) that train.", show_default=False)]
AccumulationOption = Annotated[
    int | None, typer.Option("--accumulation", min=1, help="Micro-batches of a step on each rank.", show_default=False)
]
CapacityOption = Annotated[int | None, typer.Option("--capacity", min=1, help="Tokens a pack.", show_default=False)]
AlphaOption = Annotated[
    float | None, typer.Option("--alpha", min=0, max=1, help="Exponent of the loss weights.", show_default=False)
]
StrategyOption = Annotated[Strategy | None, typer.Option("--strategy", help="How packs are made.", show_default=False)]


def plan(
    build_path: BuildArg,
    ranks: RanksOption = None,
    accumulation: AccumulationOption = None,
    capacity: CapacityOption = None,
    alpha: AlphaOption = None,
    strategy: StrategyOption = None,
    work_model: Annotated[
        Path | None,
        typer.Option(
            "--work-model", help="YAML file: model, or linear and quadratic, and seconds a unit.", show_default=False
        ),
    ] = None,
) -> None:
    """Fill, steps, weights and idle of a plan, with one step drawn as bars.

    With options that differ from the recipe the plan is made in memory and nothing is written. To keep it, change the
    recipe's `pack` and run `longalign build` again: it starts at packing.
    """
    from rich.console import Console

    from longalign_data import yamlfile
    from longalign_data.explore.plan import print_plan
    from longalign_data.recipe import MeasuredWork

    measured = yamlfile.load(work_model, MeasuredWork) if work_model is not None else None
    work = {"work": measured.model_dump(exclude={"seconds"})} if measured is not None else {}
    report, ranks = _report(build_path, ranks, accumulation, capacity, alpha, strategy, work)
    seconds = measured.seconds if measured is not None else None
    print_plan(report, Console(), ranks=ranks, seconds=seconds, name=str(build_path))


def weights(
    build_path: BuildArg,
    ranks: RanksOption = None,
    accumulation: AccumulationOption = None,
    capacity: CapacityOption = None,
    alpha: AlphaOption = None,
    strategy: StrategyOption = None,
) -> None:
    """How much sequences of each length, source and task count: in this plan, and without loss weights."""
    from rich.console import Console

    from longalign_data.explore.weights import print_weights, weight_rows
    from longalign_data.shards.folder import open_build

    report, _ = _report(build_path, ranks, accumulation, capacity, alpha, strategy, {})
    print_weights(weight_rows(open_build(build_path), report), Console())


def _report(
    build_path: Path,
    ranks: int | None,
    accumulation: int | None,
    capacity: int | None,
    alpha: float | None,
    strategy: Strategy | None,
    changes: dict[str, Any],
) -> "tuple[PlanReport, int]":
    """The report, and the number of ranks that it is to be shown for."""
    from longalign_data.errors import UserError
    from longalign_data.explore.plan import plan_report, recipe_of
    from longalign_data.shards.folder import open_build

    build = open_build(build_path)
    k = recipe_of(build).pack.packs_per_step
    if ranks is not None and accumulation is not None:
        k = ranks * accumulation
    elif (given := ranks or accumulation) is not None:
        if k % given:
            raise UserError(
                f"the build has {k} packs a step, which {given} does not divide; give both --ranks and --accumulation "
                "for a plan with another number"
            )
        ranks = ranks or k // given
    asked = {"capacity": capacity, "alpha": alpha, "strategy": strategy and strategy.value, "packs_per_step": k}
    changes = changes | {key: value for key, value in asked.items() if value is not None}
    return plan_report(build, changes), ranks or k

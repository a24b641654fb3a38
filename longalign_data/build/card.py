"""`README.md` of a build: the dataset card, so that `load_dataset(folder, "packs")` works here and on the Hub."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from longalign_data.catalog import Card
from longalign_data.recipe import LoadedRecipe, MixSet, Recipe
from longalign_data.records import TABLES
from longalign_data.shards.files import write_text
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageReport

_SIZES = [
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
]

TABLE_WORDS = {
    "documents": "the texts, with source, licence and length",
    "selection": "which documents the sampler took, and why",
    "samples": "conversations (`messages`), with the teacher, the usage and the evidence",
    "chats": "conversations that existed already, in the same form",
    "sequences": "token ids of each sample and where its targets are",
    "packs": "sequences end to end, with per-token loss weights and `cu_seqlens`",
    "plan": "which pack is trained in which step, with the exact number of sequences (M) and normalizer (Z)",
    "rejects": "what did not go on, at which stage and for what reason",
}


def write_card(folder: BuildFolder, loaded: LoadedRecipe, reports: Sequence[StageReport]) -> None:
    """Writes the card, unless the one that stands says the same."""
    text = render_card(loaded, reports)
    if not folder.card.is_file() or folder.card.read_text(encoding="utf-8") != text:
        write_text(folder.card, text)


def render_card(loaded: LoadedRecipe, reports: Sequence[StageReport]) -> str:
    """The card as Markdown with YAML front matter: one config a table, languages, licences, counts, teacher and terms."""
    recipe = loaded.recipe
    by_stage = {report.stage: report for report in reports}
    # A table without rows gets no config: `datasets` cannot load a split of no rows and would raise.
    filled = {table for report in reports for table, shards in report.shards.items() if any(s.rows for s in shards)}
    tables = [table for table in TABLES if table in filled and (table in recipe.keep or table == "rejects")]
    default = next((name for name in ("samples", "packs", *tables) if name in tables), None)
    made = [by_stage[stage] for stage in ("generate", "mix") if stage in by_stage] or [by_stage["encode"]]
    num_samples = sum(report.num_out for report in made)
    licences = [(source.card.id, source.card.license) for source in loaded.sources]
    licences += [(placed.set.id, placed.set.license) for placed in loaded.mix]
    front = {
        "pretty_name": recipe.name,
        "language": sorted({s.card.lang for s in loaded.sources} | {placed.set.lang for placed in loaded.mix}),
        "license": "other",
        "license_name": "per-source",
        "license_details": "; ".join(f"{name}: {licence}" for name, licence in licences),
        "size_categories": [next((name for limit, name in _SIZES if num_samples < limit), "10M<n<100M")],
        "task_categories": ["text-generation", "question-answering", "summarization"],
        "tags": ["long-context", "instruction-tuning", "longalign-data"],
        "configs": [
            {
                "config_name": table,
                "data_files": [{"split": "train", "path": f"{table}/*.parquet"}],
                **({"default": True} if table == default else {}),
            }
            for table in tables
        ],
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {recipe.name} {recipe.version}",
        "",
        *([recipe.description.strip(), ""] if recipe.description.strip() else []),
        f"{'Long-context training data' if recipe.encode.mode == 'pretrain' else 'Long-context instruction data'} made by "
        f"longalign-data: {num_samples:,} {'windows' if recipe.encode.mode == 'pretrain' else 'samples'}, "
        f"{sum(report.num_tokens for report in made):,} tokens, in {by_stage['pack'].details.get('num_packs', 0):,} packs.",
        "",
        "## Load",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'load_dataset("<this folder or its Hub id>", "{default}", split="train")',
        "```",
        "",
        "| table | holds | rows |",
        "|---|---|---:|",
        *(f"| `{table}` | {TABLE_WORDS[table]} | {_rows(reports, table):,} |" for table in tables),
        "",
        "## Sources",
        "",
        "| source | title | language | licence | may be redistributed |",
        "|---|---|---|---|---|",
        *(_source_line(source.card) for source in loaded.sources),
        *(_mix_line(placed.set) for placed in loaded.mix),
        "",
        *(_teacher(recipe, by_stage["generate"]) if "generate" in by_stage else ()),
        "## How it was made",
        "",
        "| stage | in | out | rejected | left out | tokens |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {r.stage} | {r.num_in:,} | {r.num_out:,} | {r.num_rejected:,} | {r.num_left_out:,} | {r.num_tokens:,} |"
            for r in reports
        ),
        "",
        *_reasons("Rejected", {r.stage: r.rejected for r in reports}),
        *_reasons("Left out", {r.stage: r.left_out for r in reports}),
        "The recipe:",
        "",
        "````yaml",
        loaded.text.rstrip(),
        "````",
        "",
        "## Train",
        "",
        "`packs` are in the order of `plan`. Sum weight x cross entropy over all packs of a step and divide the gradient by the",
        f"step's `normalizer`: {_counting(recipe.pack.alpha)}. `loss_weights[t]` belongs to the label at t.",
        "",
        "    python -m trainer --build <this folder> --model <model> --config <training configuration>",
        "",
    ]
    return "\n".join(lines)


def _counting(alpha: float) -> str:
    words = {1.0: "every sequence then counts the same", 0.0: "every target token then counts the same"}
    return f"{words.get(alpha, 'a sequence of N targets then counts as N^(1 - alpha)')} (alpha = {alpha:g})"


def _cell(text: str) -> str:
    """Text that stays inside one cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def _teacher(recipe: Recipe, report: StageReport) -> list[str]:
    teacher = recipe.generate.teacher
    terms = teacher.terms or report.details.get("terms") or "not stated in the recipe"
    words = f"Questions and answers are by `{teacher.model}` (provider `{teacher.provider}`). Terms: {terms}"
    return ["## Teacher", "", words + _cost(report.details.get("cost") or {}), ""]


def _mix_line(choice: MixSet) -> str:
    terms = f"; terms of the answers: {choice.terms}" if choice.terms else ""
    return f"| {choice.id} | conversations in `chats`{terms} | {choice.lang} | {choice.license} | see its licence |"


def _cost(cost: Mapping[str, Any]) -> str:
    if not cost.get("usd"):
        return ""
    return f" The samples cost {cost['usd']:,.2f} USD, {cost['usd_per_sample']:.4f} each (prices of {cost['prices']})."


def _source_line(card: Card) -> str:
    name = f"[{card.id}]({card.homepage})" if card.homepage else card.id
    return f"| {name} | {_cell(card.title)} | {card.lang} | {_cell(card.license)} | {'yes' if card.redistribute else 'no'} |"


def _rows(reports: Sequence[StageReport], table: str) -> int:
    return sum(shard.rows for report in reports for shard in report.shards.get(table, ()))


def _reasons(title: str, found: Mapping[str, Mapping[str, int]]) -> list[str]:
    words = [f"{stage}: {reason} {count:,}" for stage, reasons in found.items() for reason, count in reasons.items()]
    return [f"{title}: {'; '.join(words)}.", ""] if words else []

"""`README.md` of a build: the dataset card, rendered from the manifest alone, so that a published part of a build has a
card of its own. With it `load_dataset(folder, "packs")` works here and on the Hub."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from longalign_data.recipe import Recipe
from longalign_data.shards.files import write_text
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import Manifest, recipe_of, rows_of, shards_of, stage_of

_SIZES = [
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
]

_KNOWN_LICENCES = frozenset(
    [
        "Apache-2.0",
        "MIT",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0",
        "GPL-3.0",
        "ODC-By",
        "ODbL",
        "PDDL",
        "MPL-2.0",
    ]
)
"""SPDX ids for which the Hub has a name of its own: the same in lower case."""

TABLE_WORDS = {
    "documents": "the texts, with source, licence and length",
    "references": "the documents without their texts: where each stood in its corpus, its hashes and lengths",
    "selection": "which documents the sampler took, and why",
    "samples": "conversations (`messages`), with the teacher, the usage and the evidence",
    "chats": "conversations that existed already, in the same form",
    "sequences": "token ids of each sample and where its targets are",
    "packs": "sequences end to end, with per-token loss weights and `cu_seqlens`",
    "plan": "which pack is trained in which step, with the exact number of sequences (M) and normalizer (Z)",
    "rejects": "what did not go on, at which stage and for what reason",
}


def write_card(folder: BuildFolder, manifest: Manifest) -> None:
    """Writes the card, unless the one that stands says the same."""
    text = render_card(manifest)
    if not folder.card.is_file() or folder.card.read_text(encoding="utf-8") != text:
        write_text(folder.card, text)


def render_card(manifest: Mapping[str, Any], *, repo_id: str | None = None) -> str:
    """The card as Markdown with YAML front matter: one config a table, languages, licences, counts, teacher and terms.
    `repo_id` is what it is loaded by where it is published; without it the card speaks of the folder it stands in."""
    recipe = recipe_of(manifest)
    # A table without rows gets no config: `datasets` cannot load a split of no rows and would raise.
    tables = [table for table in TABLE_WORDS if rows_of(manifest, table)]
    default = next((name for name in ("samples", "packs", *tables) if name in tables), None)
    place = repo_id or "<this folder>"
    sections = [
        _front(manifest, tables, default),
        _about(manifest, recipe),
        _load(manifest, tables, default, place),
        _statistics(manifest),
        _sources(manifest),
        _teacher(manifest),
        _how(manifest),
        _train(manifest, tables, place),
        _limits(manifest, recipe),
    ]
    return "\n".join(line for section in sections for line in section)


def _front(manifest: Mapping[str, Any], tables: Sequence[str], default: str | None) -> list[str]:
    licences = _licences(manifest)
    several = {licence for _, licence in licences}
    one = next(iter(several)) if len(several) == 1 else ""
    front: dict[str, Any] = {
        "pretty_name": manifest["name"],
        "language": sorted({found["lang"] for found in (*manifest["cards"], *manifest["mix"])}),
        **(
            {"license": one.lower()}
            if one in _KNOWN_LICENCES
            else {
                "license": "other",
                "license_name": "per-source",
                "license_details": "; ".join(f"{name}: {licence}" for name, licence in licences),
            }
        ),
        "size_categories": [next((name for limit, name in _SIZES if _made(manifest)[0] < limit), "10M<n<100M")],
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
    return ["---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", ""]


def _licences(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(found["id"], found["license"]) for found in (*manifest["cards"], *manifest["mix"])]


def _made(manifest: Mapping[str, Any]) -> tuple[int, int]:
    """Samples and their tokens, chats included; windows where there are no conversations."""
    stages = [found for name in ("generate", "mix") if (found := stage_of(manifest, name))] or [
        found for found in [stage_of(manifest, "encode")] if found
    ]
    return sum(found["num_out"] for found in stages), sum(found["num_tokens"] for found in stages)


def _about(manifest: Mapping[str, Any], recipe: Recipe) -> list[str]:
    num_samples, num_tokens = _made(manifest)
    pretrain = recipe.encode.mode == "pretrain"
    packs = _details(manifest, "pack").get("num_packs", 0)
    description = recipe.description.strip()
    return [
        f"# {manifest['name']} {manifest['version']}",
        "",
        *([description, ""] if description else []),
        f"{'Long-context training data' if pretrain else 'Long-context instruction data'} made by longalign-data: "
        f"{num_samples:,} {'windows' if pretrain else 'samples'}, {num_tokens:,} tokens, in {packs:,} packs.",
        "",
    ]


def _load(manifest: Mapping[str, Any], tables: Sequence[str], default: str | None, place: str) -> list[str]:
    revision = f', revision="{manifest["version"]}"' if not place.startswith("<") else ""
    return [
        "## Load",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'load_dataset("{place}", "{default}", split="train"{revision})',
        "```",
        "",
        "Each table is a config; a version is a tag. `streaming=True` reads without downloading everything.",
        "",
        "| table | holds | rows | MB |",
        "|---|---|---:|---:|",
        *(
            f"| `{table}` | {TABLE_WORDS[table]} | {rows_of(manifest, table):,} | "
            f"{sum(shard.bytes for shard in shards_of(manifest, table)) / 1e6:,.1f} |"
            for table in tables
        ),
        "",
    ]


def _statistics(manifest: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    cells = [cell for cell in _details(manifest, "sample").get("cells", ()) if cell.get("target") is not None]
    if cells:
        lines += [
            "Lengths of the documents, in tokens, as they were asked for and as they came:",
            "",
            "| language | tokens | target | achieved | available |",
            "|---|---|---:|---:|---:|",
            *(
                f"| {cell['lang']} | {cell['bucket']} | {cell['target']:,} | {cell['achieved']:,} | {cell['available']:,} |"
                for cell in cells
            ),
            "",
        ]
    tasks = _details(manifest, "generate").get("tasks") or {}
    if tasks:
        lines += [f"Samples by task: {', '.join(f'{task} {count:,}' for task, count in tasks.items())}.", ""]
    packs = _details(manifest, "pack")
    if "fill" in packs:
        steps, weights = packs["sequences_per_step"], packs["effective_weight"]
        lines += [
            f"Packs of up to {packs['capacity']:,} tokens are {packs['fill']:.1%} full; {packs['num_steps']:,} steps hold "
            f"{steps['min']:,.0f} to {steps['max']:,.0f} sequences each. How much a sequence counts over the whole training, "
            f"against the mean (1st and 99th percentile): {weights['p1']:.2f} to {weights['p99']:.2f}.",
            "",
        ]
    return ["## Statistics", "", *lines] if lines else []


def _sources(manifest: Mapping[str, Any]) -> list[str]:
    found = _details(manifest, "ingest").get("sources") or {}
    return [
        "## Sources",
        "",
        "| source | title | language | licence | may be redistributed | documents |",
        "|---|---|---|---|---|---:|",
        *(_source_line(card, found.get(card["id"], {})) for card in manifest["cards"]),
        *(_mix_line(choice) for choice in manifest["mix"]),
        "",
        *(
            f"`{card['id']}` is gated; whoever built this acknowledged {card['license']}: {card['gated'].strip()}\n"
            for card in manifest["cards"]
            if card.get("gated") is not None
        ),
        *(
            ["The texts of the documents are not part of this repository; see the limits below.", ""]
            if _without_documents(manifest)
            else []
        ),
    ]


def _source_line(card: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    name = f"[{card['id']}]({card['homepage']})" if card.get("homepage") else card["id"]
    allowed = "yes" if card["redistribute"] else "no"
    count = f"{found['out']:,}" if "out" in found else ""
    return f"| {name} | {_cell(card['title'])} | {card['lang']} | {_cell(card['license'])} | {allowed} | {count} |"


def _mix_line(choice: Mapping[str, Any]) -> str:
    terms = f"; terms of the answers: {choice['terms']}" if choice.get("terms") else ""
    allowed = "yes" if choice["redistribute"] else "no"
    what = _cell(f"conversations in `chats`{terms}")
    return f"| {choice['id']} | {what} | {choice['lang']} | {_cell(choice['license'])} | {allowed} | |"


def _teacher(manifest: Mapping[str, Any]) -> list[str]:
    teacher = manifest["teacher"]
    if teacher is None:
        return []
    cost = manifest.get("cost") or {}
    spent = (
        f" The samples cost {cost['usd']:,.2f} USD, {cost['usd_per_sample']:.4f} each (prices of {cost['prices']})."
        if cost.get("usd")
        else ""
    )
    rehearsed = _details(manifest, "generate").get("rehearsed")
    return [
        "## Teacher",
        "",
        *(
            [
                f"**This is a rehearsal.** {rehearsed:,} replies came from `longalign fake-provider`, not from the model.",
                "",
            ]
            if rehearsed
            else []
        ),
        f"Questions and answers are by `{teacher['model']}` (provider `{teacher['provider']}`). "
        f"Terms: {teacher['terms'] or 'not stated in the recipe'}{spent}",
        "",
    ]


def _how(manifest: Mapping[str, Any]) -> list[str]:
    stages = manifest["stages"]
    removed = manifest.get("removed") or []
    return [
        "## How it was made",
        "",
        "| stage | in | out | rejected | left out | tokens |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {r['stage']} | {r['num_in']:,} | {r['num_out']:,} | {r['num_rejected']:,} | {r['num_left_out']:,} | "
            f"{r['num_tokens']:,} |"
            for r in stages
        ),
        "",
        *_reasons("Rejected", {r["stage"]: r["rejected"] for r in stages}),
        *_reasons("Left out", {r["stage"]: r["left_out"] for r in stages}),
        *(
            [f"Withdrawn after it was built: {', '.join(_withdrawn(entry) for entry in removed)}.", ""]
            if removed
            else []
        ),
        "The recipe:",
        "",
        "````yaml",
        manifest["recipe"].rstrip(),
        "````",
        "",
    ]


def _withdrawn(entry: Mapping[str, Any]) -> str:
    return f"{entry['kind']} `{entry['id']}` (version {entry['version']})"


def _train(manifest: Mapping[str, Any], tables: Sequence[str], place: str) -> list[str]:
    pack = manifest["pack"]
    if "packs" not in tables:
        return [
            "## Train",
            "",
            "`samples.messages` is what every trainer for instructions reads.",
            "",
        ]
    build = place if place.startswith("<") else f"hf://datasets/{place}@{manifest['version']}"
    return [
        "## Train",
        "",
        "`packs` are in the order of `plan`. Sum weight x cross entropy over all packs of a step and divide the gradient by the",
        f"step's `normalizer`: {_counting(pack['alpha'])}. `loss_weights[t]` belongs to the label at t.",
        "",
        f"    python -m trainer --build {build} --model <model> --config <training configuration>",
        "",
    ]


def _counting(alpha: float) -> str:
    words = {1.0: "every sequence then counts the same", 0.0: "every target token then counts the same"}
    return f"{words.get(alpha, 'a sequence of N targets then counts as N^(1 - alpha)')} (alpha = {alpha:g})"


def _limits(manifest: Mapping[str, Any], recipe: Recipe) -> list[str]:
    lines = []
    if manifest["teacher"] is not None:
        marked = _details(manifest, "generate").get("marked") or {}
        found = f" ({', '.join(f'{name} {count:,}' for name, count in marked.items())})" if marked else ""
        lines.append(
            "- The answers are a model's. Checks that need no second model marked what they found, in "
            f"`samples.checks`{found}; nobody read them all."
        )
    if manifest["cards"]:
        masked: dict[str, int] = {}
        for source in (_details(manifest, "ingest").get("sources") or {}).values():
            for name, count in source.get("masked", {}).items():
                masked[name] = masked.get(name, 0) + count
        secrets, personal = recipe.curate.secrets, recipe.curate.personal
        words = {"keep": "left as they were found", "mask": "masked", "reject": "rejected with their documents"}
        where = "in code" if secrets.where == "code" and secrets.action != "keep" else "everywhere"
        lines.append(
            f"- Keys and passwords that were recognised were {words[secrets.action]} ({where}); personal data "
            f"{'was masked where it was recognised' if personal.action == 'mask' else 'was not looked for'}"
            + (f": {', '.join(f'{name} {count:,}' for name, count in sorted(masked.items()))}." if masked else ".")
        )
        lines.append("- Each document keeps the licence of its source, in the column `license`.")
    if _without_documents(manifest):
        lines.append(
            "- The documents may not be redistributed, or were held back. `references` says where each stood. Whoever has the "
            "corpus puts them back in, checked by their hashes: `longalign rehydrate`. Questions, answers and titles may "
            "still quote them."
        )
    left_out = (manifest.get("published") or {}).get("left_out")
    if left_out:
        lines.append(f"- Tables of the build that are not published: {', '.join(f'`{name}`' for name in left_out)}.")
    return ["## Limits", "", *lines, ""] if lines else []


def _without_documents(manifest: Mapping[str, Any]) -> bool:
    return bool((manifest.get("published") or {}).get("without_documents"))


def _details(manifest: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    details: Mapping[str, Any] = (stage_of(manifest, stage) or {}).get("details") or {}
    return details


def _cell(text: str) -> str:
    """Text that stays inside one cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def _reasons(title: str, found: Mapping[str, Mapping[str, int]]) -> list[str]:
    words = [f"{stage}: {reason} {count:,}" for stage, reasons in found.items() for reason, count in reasons.items()]
    return [f"{title}: {'; '.join(words)}.", ""] if words else []

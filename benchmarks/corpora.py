"""Documents for the benchmarks of the teacher: made up, but with lengths as the recipe draws them, and two languages."""

import json
from pathlib import Path

RECIPE = """
name: benchmark
version: 1.0.0
seed: 3
sources:
  - {id: reports, title: Reports, lang: en, license: CC0-1.0, path: en.jsonl, reader: {kind: jsonl}}
  - {id: records, title: Records, lang: zh, license: CC0-1.0, path: zh.jsonl, reader: {kind: jsonl}}
ingest: {min_tokens: 1000, max_tokens: 80000}
sample: {count: COUNT, strategy: none, languages: {}}
generate: {answers_per_document: ANSWERS, teacher: {provider: PROVIDER, model: fake-1}}
"""

PRICES = """
dated: 2026-11-22
providers:
  anthropic: {cache_write: 1.25, cache_read: 0.1, batch: 0.5, models: {fake-1: {tiers: [{input: 2, output: 10}]}}}
  openai: {cache_read: 0.1, batch: 0.5, models: {fake-1: {tiers: [{input: 2, output: 10}]}}}
"""
"""What the fake provider's meter charges, so that both sides reckon with the same prices."""


def english(number: int, num_chars: int) -> str:
    parts = [f"Report {number}"]
    size = 0
    while size < num_chars:
        k = len(parts)
        parts.append(
            f"Section {k}\n\nOn day {k} the inspectors of site {number} found {(number * 31 + k * 17) % 997} units. "
            f"The foreman Adeline{number}x{k} signed the sheet. Nothing was said about the pumps, and the weather held until "
            "the evening, when the second crew came up from the harbour and took over the watch."
        )
        size += len(parts[-1]) + 2
    return "\n\n".join(parts)


def chinese(number: int, num_chars: int) -> str:
    parts: list[str] = []
    size = 0
    while size < num_chars:
        k = len(parts)
        parts.append(
            f"第{k}节 检查记录\n编号{number}的设备在第{k}天由第{k % 7}组检查，读数为{(number * 37 + k * 11) % 1000}。"
            "记录员确认无误，天气一直很好，傍晚时第二班从港口上来接替值守。"
        )
        size += len(parts[-1]) + 2
    return "\n\n".join(parts)


def write(folder: Path, tokens: list[int], *, answers: int = 1, provider: str = "anthropic") -> Path:
    """A corpus with documents of about so many tokens, every fifth of them Chinese, and its recipe."""
    with (
        (folder / "en.jsonl").open("w", encoding="utf-8") as en,
        (folder / "zh.jsonl").open("w", encoding="utf-8") as zh,
    ):
        for number, size in enumerate(tokens):
            if number % 5 == 4:
                zh.write(json.dumps({"text": chinese(number, int(1.28 * size))}, ensure_ascii=False) + "\n")
            else:
                en.write(json.dumps({"text": english(number, int(3.75 * size))}) + "\n")
    (folder / "prices.yaml").write_text(PRICES, encoding="utf-8")
    return recipe(folder, len(tokens), answers=answers, provider=provider)


def recipe(folder: Path, count: int, *, answers: int = 1, provider: str = "anthropic") -> Path:
    """The recipe alone, for the corpus that stands in `folder`."""
    path = folder / f"recipe-{provider}-{answers}.yaml"
    text = RECIPE.replace("COUNT", str(count)).replace("ANSWERS", str(answers)).replace("PROVIDER", provider)
    path.write_text(text, encoding="utf-8")
    return path

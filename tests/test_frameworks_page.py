"""The recipes of docs/frameworks.md for other frameworks, run as they stand where the framework installs beside us. (That of
the Hugging Face Trainer is run in tests/packing/test_collate.py.)"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from longalign_data.build.pipeline import build
from longalign_data.cli.main import main
from longalign_data.engine import RunOptions, Silent
from longalign_data.packing.reader import open_packs
from longalign_data.recipe import load_recipe
from longalign_data.teachers.base import Teacher

PAGE = (Path(__file__).parents[1] / "docs" / "frameworks.md").read_text(encoding="utf-8")
MARKED = (
    "{%- for m in messages %}<|im_start|>{{ m['role'] + '\n' }}"
    "{%- if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{%- else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)
RECIPE = """
name: small
version: 1.0.0
mix: [{id: chat, lang: en, license: CC0-1.0, path: chat.jsonl}]
encode: {template: tokenizer, tokenizer: "hf:MODEL", max_tokens: 512}
pack: {capacity: 512, packs_per_step: 2}
"""


def block(language: str, containing: str) -> str:
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) if containing in b]
    return found


def nobody() -> Teacher:
    raise AssertionError


def small_model(folder: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    specials = ["<s>", "<|im_start|>", "<|im_end|>"]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        ["user assistant number word"],
        tokenizers.trainers.BpeTrainer(special_tokens=specials, initial_alphabet=alphabet, show_progress=False),
    )
    hub = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<|im_end|>")
    hub.pad_token = "<s>"
    hub.chat_template = MARKED
    hub.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(hub), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_on_the_exported_conversations_and_on_the_answers_that_we_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trl: Any = pytest.importorskip("trl")
    small_model(tmp_path / "model")
    with (tmp_path / "chat.jsonl").open("w", encoding="utf-8") as file:
        for number in range(8):
            answer = {"role": "assistant", "content": "word " * (1 + 3 * number)}
            file.write(json.dumps({"messages": [{"role": "user", "content": f"Say {number}!"}, answer]}) + "\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("MODEL", str(tmp_path / "model")), encoding="utf-8")
    loaded = load_recipe(tmp_path / "recipe.yaml")
    built = build(loaded, tmp_path / "builds", run=RunOptions(), progress=Silent(), teacher=nobody).folder.root
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["longalign", "export", str(built), "--format", "messages", "--out", "sft"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code

    trainers: list[Any] = []

    class Recorded(trl.SFTTrainer):  # type: ignore[misc]  # the class has no types
        def train(self, *args: Any, **kwargs: Any) -> Any:
            trainers.append(self)
            return super().train(*args, **kwargs)

    short = {"max_steps": 1, "use_cpu": True, "report_to": [], "save_strategy": "no", "bf16": False}
    code = block("python", "SFTTrainer").replace("your-model", str(tmp_path / "model"))
    monkeypatch.setattr(trl, "SFTTrainer", Recorded)
    config = trl.SFTConfig
    monkeypatch.setattr(trl, "SFTConfig", lambda **given: config(**(given | short | {"output_dir": "out"})))
    exec(compile(code, "frameworks.md", "exec"), {})
    (trainer,) = trainers
    assert trainer.state.global_step == 1

    theirs = sum(label != -100 for row in trainer.train_dataset for label in row["labels"])
    reader = open_packs(built)
    ours = [batch for *_, batch in reader.stream(0, 1, 2) if batch is not None]
    assert theirs == sum(int((batch.loss_weights > 0).sum()) for batch in ours)


def test_the_other_pages_configure_the_columns_of_the_exported_file() -> None:
    axolotl = yaml.safe_load(block("yaml", "sample_packing"))
    (dataset,) = axolotl["datasets"]
    assert (dataset["path"], dataset["field_messages"]) == ("sft/train.jsonl", "messages")
    (factory,) = json.loads(block("json", "sharegpt")).values()
    assert factory["columns"] == {"messages": "messages"}
    assert factory["tags"]["role_tag"] == "role"

"""The recipes of docs/frameworks.md for other frameworks, run as they stand: TRL's here, those of axolotl and LLaMA-Factory by
`make frameworks`, in environments of their own. (That of the Hugging Face Trainer is run in tests/packing/test_collate.py.)"""

import json
import os
import re
import subprocess
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
ENVIRONMENTS = Path(__file__).parents[1] / ".venv-frameworks"
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


def answer(number: int) -> str:
    return "word " * (1 + 3 * number)


def exported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model, a build of eight chats with its tokenizer, and in `sft` their messages. Returns the build; `folder` is the
    working directory from here on."""
    small_model(folder / "model")
    with (folder / "chat.jsonl").open("w", encoding="utf-8") as file:
        for number in range(8):
            turns = [
                {"role": "user", "content": f"Say {number}!"}, {"role": "assistant", "content": answer(number)},
            ]  # fmt: skip
            file.write(json.dumps({"messages": turns}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.replace("MODEL", str(folder / "model")), encoding="utf-8")
    loaded = load_recipe(folder / "recipe.yaml")
    built = build(loaded, folder / "builds", run=RunOptions(), progress=Silent(), teacher=nobody).folder.root
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["longalign", "export", str(built), "--format", "messages", "--out", "sft"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return built


def run_in(environment: str, *words: str) -> None:
    """A command of another framework, on the CPU; the test is skipped where `make frameworks` has not installed it."""
    command = ENVIRONMENTS / environment / "bin" / words[0]
    if not command.exists():
        pytest.skip(f"{environment} is not installed in {command.parents[1]}; run: make frameworks")
    folder = command.parents[1]
    environment_of_it = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(folder), "HOME": str(Path.cwd()),
        "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    ran = subprocess.run([str(command), *words[1:]], capture_output=True, text=True, timeout=280, env=environment_of_it)
    assert ran.returncode == 0, ran.stderr[-4000:]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_on_the_exported_conversations_and_on_the_answers_that_we_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trl: Any = pytest.importorskip("trl")
    built = exported(tmp_path, monkeypatch)

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


def trained_on_by_llamafactory(cutoff: int) -> list[str]:
    """The texts under loss, one a pack, after one step with the page's configuration."""
    import datasets
    import transformers

    folder = Path("data")
    (folder / "sft").mkdir(parents=True, exist_ok=True)
    (folder / "sft/train.jsonl").write_bytes(Path("sft/train.jsonl").read_bytes())
    (folder / "dataset_info.json").write_text(block("json", "sharegpt"), encoding="utf-8")
    choices = yaml.safe_load(block("yaml", "neat_packing")) | {
        "model_name_or_path": "model",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "template": "chatml",
        "cutoff_len": cutoff,
        "dataset_dir": "data",
        "output_dir": f"out-{cutoff}",
        "tokenized_path": f"tokens-{cutoff}",
        "per_device_train_batch_size": 1,
        "max_steps": 1,
        "use_cpu": True,
        "report_to": "none",
    }
    Path("train.yaml").write_text(yaml.safe_dump(choices), encoding="utf-8")
    run_in("llamafactory", "llamafactory-cli", "train", "train.yaml")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained("model")
    packs = datasets.load_from_disk(f"tokens-{cutoff}")["train"]
    return [tokenizer.decode([label for label in row["labels"] if label != -100]) for row in packs]


@pytest.mark.frameworks
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_llamafactory_trains_on_every_answer_and_cuts_those_that_are_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(tmp_path, monkeypatch)
    whole = "".join(trained_on_by_llamafactory(64))
    assert sorted(whole.split("<|im_end|>\n")) == ["", *sorted(map(answer, range(8)))]
    # 40 holds all but the longest answer, which loses its end.
    short = trained_on_by_llamafactory(40)
    assert "".join(short).count("<|im_end|>") == 7
    assert max(short, key=len) == answer(7).strip()


def trained_on_by_axolotl(length: int) -> list[str]:
    """The texts under loss, one a conversation, after one step with the page's configuration."""
    import datasets
    import transformers

    choices = yaml.safe_load(block("yaml", "sample_packing")) | {
        "base_model": "model",
        "sequence_len": length,
        "dataset_prepared_path": f"prepared-{length}",
        "output_dir": f"out-{length}",
        "micro_batch_size": 1,
        "max_steps": 1,
        "learning_rate": 1e-4,
        "optimizer": "adamw_torch",
        "bf16": False,
        "fp16": False,
        "save_strategy": "no",
    }
    Path("axolotl.yaml").write_text(yaml.safe_dump(choices), encoding="utf-8")
    run_in("axolotl", "axolotl", "train", "axolotl.yaml")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained("model")
    (prepared,) = (path for path in Path(f"prepared-{length}").iterdir() if path.is_dir())
    rows = datasets.load_from_disk(str(prepared))
    return [tokenizer.decode([label for label in row["labels"] if label != -100]) for row in rows]


@pytest.mark.frameworks
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_axolotl_trains_on_every_answer_and_drops_samples_that_are_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(tmp_path, monkeypatch)
    assert sorted(trained_on_by_axolotl(512)) == sorted(f"{answer(number)}<|im_end|>" for number in range(8))
    assert sorted(trained_on_by_axolotl(40)) == sorted(f"{answer(number)}<|im_end|>" for number in range(7))

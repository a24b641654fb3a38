"""Models in and out: adapters, longer contexts, offloaded activations, exported folders."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MixtralConfig

from longalign_data.errors import UserError
from tests.trainer import runs
from tests.trainer.builds import VOCABULARY, tiny_llama, write_model_config
from tests.trainer.processes import finish, start_training, train
from tests.trainer.runs import losses
from trainer.__main__ import main
from trainer.batch import micro_batch
from trainer.config import Lora, TrainConfig
from trainer.model import add_lora, check_fits, export, load_config, tokenizer_files
from trainer.objective import load_objective, load_shape
from trainer.tools.fit_work_model import random_pack
from trainer.world import World

pytestmark = pytest.mark.torch

IDS = (torch.arange(40) * 7 % VOCABULARY)[None]


@pytest.fixture(scope="module")
def pretrained(place: Path) -> Path:
    """A model folder with weights, a tokenizer's files and a generation configuration of its own."""
    folder = place / "pretrained"
    model = tiny_llama("sdpa")
    model.generation_config.max_new_tokens = 77
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text('{"any": "tokenizer"}')
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("not of the tokenizer")
    (folder / "tokenizer").mkdir()
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def trained(place: Path, model: Path, name: str, *extra: str, **changes: Any) -> Path:
    output = place / name
    options = runs.options(place / "build", model, output, "--max-steps", "4", *extra, random_init=False, **changes)
    assert main(options, {}) == 0
    return output


def test_an_export_has_the_tokenizer_and_the_generation_configuration(place: Path, pretrained: Path) -> None:
    output = trained(place, pretrained, "exported")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (output / "model" / name).read_bytes() == (pretrained / name).read_bytes()
    assert not (output / "model" / "README.md").exists()
    assert AutoModelForCausalLM.from_pretrained(output / "model").generation_config.max_new_tokens == 77


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.bpe.model", "tekken.json", "qwen.tiktoken"])
def test_every_kind_of_tokenizer_file_is_exported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"any")
    assert tokenizer_files(str(tmp_path)) == [tmp_path / name]


def test_an_export_without_a_tokenizer_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare, output = place / "model", place / "bare"
    assert main(runs.options(place / "build", bare, output, "--max-steps", "1"), {}) == 0
    assert f"{output / 'model'}: without a tokenizer, as none stands beside {bare}\n" in capsys.readouterr().err


def test_a_tokenizer_that_cannot_be_fetched_is_said_before_the_first_step(
    place: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = load_config(str(pretrained), weights=True)
    # A hub that gave the configuration and then no more.
    monkeypatch.setattr("trainer.loop.load_shape", lambda *given, **options: shape)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    output = place / "unfetched"
    assert main(runs.options(place / "build", Path("nobody/nothing"), output, random_init=False), {}) == 2
    assert "error: --model nobody/nothing: cannot be loaded" in capsys.readouterr().err
    assert not output.exists()


def test_a_model_is_exported_when_asked_without_another_step(
    place: Path, pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = trained(place, pretrained, "asked")
    whole = (output / "model" / "model.safetensors").read_bytes()
    for file in (output / "model").iterdir():
        file.unlink()
    noted = {name: (output / name).read_bytes() for name in ("run.json", "metrics.jsonl")}
    # As after a crash, whose lines beyond the last checkpoint are all that is left of those steps.
    later = noted["metrics.jsonl"] + b'{"step": 4, "loss": 1.0}\n'
    (output / "metrics.jsonl").write_bytes(later)
    trained(place, pretrained, "asked", "--export")
    assert (output / "model" / "model.safetensors").read_bytes() == whole
    assert (output / "metrics.jsonl").read_bytes() == later
    assert (output / "run.json").read_bytes() == noted["run.json"]
    # Neither the packs nor the ranks that share them are needed.
    for file in (output / "model").iterdir():
        file.unlink()
    trained(place, pretrained, "asked", "--export", sequence_parallel=8)
    assert (output / "model" / "model.safetensors").read_bytes() == whole
    nothing = runs.options(place / "build", pretrained, place / "nothing", "--export", random_init=False)
    assert main(nothing, {}) == 2
    assert "no checkpoint to export" in capsys.readouterr().err


def test_adapters_are_trained_alone_and_merge_to_the_same_logits(place: Path, pretrained: Path) -> None:
    lora = {"rank": 4, "alpha": 8}
    adapter = trained(place, pretrained, "adapter", lora=lora | {"export": "adapter"})
    merged = trained(place, pretrained, "merged", lora=lora)
    assert losses(merged) == losses(adapter)
    assert not (adapter / "model" / "model.safetensors").exists()

    base = AutoModelForCausalLM.from_pretrained(pretrained)
    start = logits(base)
    base.load_adapter(str(adapter / "model"))
    whole = AutoModelForCausalLM.from_pretrained(merged / "model")
    torch.testing.assert_close(logits(whole), logits(base), rtol=1e-4, atol=1e-5)
    assert (logits(whole) - start).abs().max() > 1e-3
    before, after = tiny_llama("sdpa").state_dict(), whole.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("_proj" in name for name in moved)
    assert whole.generation_config.max_new_tokens == 77


def spoiled(source: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a model folder with another config.json."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def told(capsys: pytest.CaptureFixture[str], place: Path, model: Path) -> str:
    """The error of a command that is to train a model; the report that Transformers gives before is left out."""
    assert main(runs.options(place / "build", model, place / "refused", random_init=False), {}) == 2
    return capsys.readouterr().err.rpartition("error: ")[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_hidden_layers": 3},
            r"lack model\.layers\.2\.input_layernorm\.weight, .* and 1 more; Transformers would draw",
        ),
        ({"tie_word_embeddings": False}, r"lack lm_head\.weight; Transformers would draw"),
        ({"vocab_size": 99}, r"shape model\.embed_tokens\.weight \[97, 32\], expected \[99, 32\]; .* --random-init"),
        ({"hidden_size": "x"}, r"cannot be loaded: .*hidden_size"),
        ({"num_attention_heads": None}, r"cannot be loaded: .*num_attention_heads"),
    ],
    ids=["layer", "head", "shape", "type", "none"],
)
def test_weights_that_do_not_fill_the_model_are_refused_by_name(
    place: Path,
    pretrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    found = told(capsys, place, spoiled(pretrained, tmp_path / "spoiled", **changes))
    assert re.match(rf"--model {tmp_path}/spoiled: .*{message}", found), found
    assert not (place / "refused").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "chatglm", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}},
        {"model_type": "clip", "auto_map": {"AutoModelForCausalLM": "own.Own"}},
    ],
    ids=["configuration", "model"],
)
@pytest.mark.parametrize("random", [True, False], ids=["random", "loaded"])
def test_code_that_a_model_brings_is_refused_and_never_run(
    place: Path,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    random: bool,
) -> None:
    folder, ran = spoiled(pretrained, tmp_path / "own", **changes), tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nfrom transformers import CLIPConfig as Own\n")
    # Whom Transformers asks whether to run it.
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\n"))
    assert main(runs.options(place / "build", folder, place / "refused", random_init=random), {}) == 2
    found = capsys.readouterr()
    assert found.err.rpartition("error: ")[2].startswith(
        f"--model {folder}: cannot be loaded: it is code of its own (auto_map in its config.json), which the trainer does not run"
    )
    assert "[y/N]" not in found.out
    assert not ran.exists()


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 3}, {"vocab_size": 99}], ids=["layer", "shape"])
def test_sharded_ranks_refuse_weights_that_do_not_fill_the_model(
    place: Path, pretrained: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = spoiled(pretrained, tmp_path / "spoiled", **changes)
    output = tmp_path / "refused"
    options = runs.options(place / "build", model, output, engine="deepspeed", zero_stage=3, random_init=False)
    assert finish(start_training(1, options, output)) == [2]
    found = output.with_suffix(".0").read_text().rpartition("error: ")[2]
    assert re.search(r"lack model\.layers\.2\.|size mismatch for model\.embed_tokens\.weight", found), found


@pytest.mark.parametrize("kept", [0, 100, 5000], ids=["empty", "header", "data"])
def test_weights_whose_download_was_cut_off_are_named(
    place: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: int
) -> None:
    folder = spoiled(pretrained, tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    found = told(capsys, place, folder)
    assert found.startswith(f"--model {folder}: cannot be loaded: ")
    assert found.count("\n") == 1


def test_a_model_with_an_adapter_beside_its_weights_is_refused(
    place: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spoiled(pretrained, tmp_path / "both")
    adapted = trained(place, pretrained, "adapter-alone", lora={"rank": 2, "export": "adapter"})
    for file in (adapted / "model").glob("adapter*"):
        shutil.copy(file, folder)
    assert told(capsys, place, folder).startswith(f"--model {folder}: holds an adapter; merge it")


@pytest.mark.parametrize(("first", "then"), [("adapter", "merged"), ("merged", "adapter")])
def test_an_export_over_one_of_the_other_kind_leaves_nothing_of_it(
    place: Path, pretrained: Path, first: str, then: str
) -> None:
    name, lora = f"{first}-{then}", {"rank": 4, "alpha": 8}
    output = trained(place, pretrained, name, lora=lora | {"export": first})
    (output / "model" / "older.txt").write_text("of an older export")
    trained(place, pretrained, name, "--resume", lora=lora | {"export": then})
    alone = trained(place, pretrained, f"{name}-alone", lora=lora | {"export": then})
    found, wanted = ({file.name: file.read_bytes() for file in (of / "model").iterdir()} for of in (output, alone))
    assert found == wanted
    assert {path.name for path in output.iterdir()} == {"checkpoints", "metrics.jsonl", "model", "run.json"}


def test_an_export_that_fails_midway_leaves_the_older_one_whole(tmp_path: Path, pretrained: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(pretrained)
    folder, missing = tmp_path / "model", [tmp_path / "no-tokenizer.json"]
    for older in ({}, {"lm_head.weight": torch.ones(2)}):
        before = {file.name: file.read_bytes() for file in folder.iterdir()} if older else None
        # The weights are written before the tokenizer's files.
        with pytest.raises(UserError, match=r"model: the model cannot be written: .*No such file.*with --export"):
            export(missing, model, {"weight": torch.zeros(2)} | older, folder, None)
        assert ({file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else None) == before
        export([], model, model.state_dict(), folder, None)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # Killed between its two renamings, and then the disk is full.
    folder.rename(tmp_path / ".model.old")
    with pytest.raises(UserError, match="cannot be written"):
        export(missing, model, {"weight": torch.zeros(2)}, folder, None)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("targets", ["all-linear", ["attn.c_proj"]], ids=["all", "square"])
def test_adapters_merge_to_the_same_logits_where_weights_are_stored_transposed(
    tmp_path: Path, targets: list[str] | Literal["all-linear"]
) -> None:
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4)).save_pretrained(
        tmp_path / "base"
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    plain = logits(model)
    lora = Lora(rank=4, target_modules=targets)
    add_lora(model, lora, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wanted = logits(model)
    assert (wanted - plain).abs().max() > 1e-2
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    export([], model, weights, tmp_path / "merged", lora)
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_an_adapter_that_cannot_be_merged_is_refused_before_training_unless_it_is_exported_alone() -> None:
    targets = ["q_proj", "embed_tokens"]
    with pytest.raises(
        UserError, match=r"adapter of model\.embed_tokens \(Embedding\) cannot be merged.*export: adapter"
    ):
        add_lora(tiny_llama("sdpa", tie_word_embeddings=False), Lora(target_modules=targets), seed=0)
    add_lora(tiny_llama("sdpa", tie_word_embeddings=False), Lora(target_modules=targets, export="adapter"), seed=0)


def test_adapters_on_sharded_ranks_take_the_steps_of_one_process(place: Path, pretrained: Path) -> None:
    changes: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8}, "random_init": False}
    one = trained(place, pretrained, "one", lora=changes["lora"])
    two = place / "two"
    zero_3 = {"engine": "deepspeed", "zero_stage": 3}
    train(2, runs.options(place / "build", pretrained, two, "--max-steps", "4", **zero_3, **changes), two)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    found, wanted = (AutoModelForCausalLM.from_pretrained(folder / "model") for folder in (two, one))
    torch.testing.assert_close(logits(found), logits(wanted), rtol=1e-3, atol=1e-4)


def test_adapters_beside_no_layer_or_the_head_are_refused() -> None:
    with pytest.raises(UserError, match=r"lora\.target_modules: \['nothing'\]: .*nothing"):
        add_lora(tiny_llama("sdpa"), Lora(target_modules=["nothing"]), seed=0)
    with pytest.raises(UserError, match="leave lm_head out"):
        add_lora(tiny_llama("sdpa", tie_word_embeddings=False), Lora(target_modules=["lm_head"]), seed=0)


def test_activations_that_wait_on_the_cpu_change_nothing(place: Path, pretrained: Path) -> None:
    kept = trained(place, pretrained, "kept", activation_checkpointing=True)
    moved = trained(place, pretrained, "moved", activation_checkpointing=True, offload_activations=True)
    assert losses(moved) == losses(kept) == losses(trained(place, pretrained, "whole"))


class Counting(torch.autograd.graph.save_on_cpu):
    """Torch's own hooks, which note the shape of every tensor that they take to the CPU and of every one that comes back."""

    kept: ClassVar[list[torch.Size]] = []
    returned: ClassVar[list[torch.Size]] = []

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        pack, unpack = self.pack_hook, self.unpack_hook

        def keep(tensor: torch.Tensor) -> Any:
            self.kept.append(tensor.shape)
            return pack(tensor)

        def give_back(packed: Any) -> torch.Tensor:
            tensor: torch.Tensor = unpack(packed)
            self.returned.append(tensor.shape)
            return tensor

        self.pack_hook, self.unpack_hook = keep, give_back


@pytest.mark.parametrize("asked", [True, False])
def test_the_inputs_of_all_layers_wait_on_the_cpu_if_asked(
    pretrained: Path, monkeypatch: pytest.MonkeyPatch, *, asked: bool
) -> None:
    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", Counting)
    Counting.kept.clear()
    Counting.returned.clear()
    config = TrainConfig(engine="torch", dtype="fp32", activation_checkpointing=True, offload_activations=asked)
    world = World(rank=0, ranks=1, device=torch.device("cpu"))
    shape = load_shape(str(pretrained), config, weights=True)
    objective, _ = load_objective(str(pretrained), shape, config, world, dtype=torch.float32, random_init=False)
    pack = random_pack((30, 20), VOCABULARY, target_share=0.5)
    torch.autograd.backward(objective(micro_batch(pack, world.device, VOCABULARY)))
    inputs = (1, 50, shape.hidden_size)
    layers = shape.num_hidden_layers if asked else 0
    # With checkpointing nothing else of that size is kept but what the last norm needs.
    assert layers <= Counting.kept.count(inputs) <= layers + 3 * bool(layers)
    assert Counting.returned.count(inputs) >= layers
    assert bool(Counting.kept) == asked


def test_a_model_that_asks_for_the_balancing_loss_of_its_experts_is_refused(
    place: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asking = spoiled(pretrained, tmp_path / "experts", model_type="mixtral", output_router_logits=True)
    assert main(runs.options(place / "build", asking, place / "refused"), {}) == 2
    assert capsys.readouterr().err == (
        "error: output_router_logits: true in the model's config.json asks for a balancing loss of its experts "
        "(router_aux_loss_coef: 0.001), which the trainer does not compute; write false there to train without it\n"
    )
    check_fits(MixtralConfig(output_router_logits=True, router_aux_loss_coef=0.0), capacity=64, parts=1)
    check_fits(MixtralConfig(output_router_logits=False), capacity=64, parts=1)


def test_a_longer_context_multiplies_the_rotary_base_and_is_exported(place: Path, pretrained: Path) -> None:
    base = load_config(str(pretrained), weights=True).rope_parameters["rope_theta"]
    output = trained(place, pretrained, "longer", rope_base_factor=200, max_positions=512)
    stored = json.loads((output / "model" / "config.json").read_text())
    assert stored["max_position_embeddings"] == 512
    assert load_config(str(output / "model"), weights=True).rope_parameters["rope_theta"] == 200 * base
    plain, longer = (
        logits(
            AutoModelForCausalLM.from_pretrained(
                pretrained, config=load_config(str(pretrained), weights=True, rope_base_factor=f)
            )
        )
        for f in (1, 200)
    )
    assert (plain - longer).abs().max() > 1e-4


def test_a_model_without_one_rotary_base_is_not_extended(tmp_path: Path) -> None:
    folder = write_model_config(tmp_path / "gpt2")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(UserError, match=r"rope_base_factor: GPT2Config of .* has no single rope_theta"):
        load_config(str(folder), weights=False, rope_base_factor=200)

"""What a recipe names and is found out to be unknown only when it is used: the error still says where that stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from longalign_data.build.pipeline import prepare
from longalign_data.engine import RunOptions, Silent
from longalign_data.errors import RecipeError, SourceError, TokenizerError, UserError
from longalign_data.recipe import load_recipe

ROOT = Path(__file__).parent.parent.parent
HEAD = "name: t\nversion: 1.0.0\nsources:\n  - card: python-topics\nsample: {count: 1}\n"


@pytest.mark.parametrize(
    ("rest", "error", "words"),
    [
        ("tokenizer: quen\n", TokenizerError, "6: tokenizer: unknown tokenizer 'quen'; expected qwen,"),
        ("encode:\n  tokenizer: a:b\n", TokenizerError, "7: encode.tokenizer: unknown tokenizer 'a:b'"),
        (
            "encode:\n  template: chatmll\n",
            RecipeError,
            "7: encode.template: unknown template 'chatmll'; there are: chat",
        ),
        (
            "generate:\n  tasks:\n    general: 1\n    sumary: 1\n",
            RecipeError,
            "9: generate.tasks.sumary: no prompt file",
        ),
        ("generate: {templates: [x.yaml]}\n", RecipeError, "6: generate.templates: "),
        ("curate:\n  decontaminate:\n    index: x.index\n", SourceError, "8: curate.decontaminate.index: "),
    ],
)
def test_a_name_that_nothing_has_is_answered_with_file_line_and_key(
    tmp_path: Path, rest: str, error: type[UserError], words: str
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(HEAD + rest, encoding="utf-8")
    with pytest.raises(error) as caught:
        prepare(load_recipe(path), tmp_path / "builds", run=RunOptions(), progress=Silent())
    assert str(caught.value).startswith(f"{path}:{words}")


def test_an_unknown_source_is_answered_with_file_line_and_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(HEAD.replace("python-topics", "wikipedai"), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"r\.yaml:4: sources\[0\]\.card: unknown source 'wikipedai'.*wikipedia-en"):
        load_recipe(path)


def test_the_commit_of_a_tokenizer_of_the_hub_is_known_though_none_was_named(tmp_path: Path) -> None:
    """The library's cache holds one model as a download would leave it; the process cannot reach any hub."""
    pytest.importorskip("transformers")
    commit = "0123456789" * 4
    cache = tmp_path / "models--me--tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    program = (
        "import sys\nfrom pathlib import Path\nfrom tokenizers import Tokenizer, models\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "tokenizer = Tokenizer(models.WordLevel({'a': 0, '[UNK]': 1}, unk_token='[UNK]'))\n"
        "PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token='[UNK]').save_pretrained(sys.argv[1])\n"
        "Path(sys.argv[1], 'config.json').write_text('{\"model_type\": \"llama\"}')\n"
        "from longalign_data.tokenizers import load_tokenizer\n"
        "print(load_tokenizer('hf:me/tiny').revision, load_tokenizer('hf:' + sys.argv[1]).revision)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", program, str(cache / "snapshots" / commit)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == [commit, "None"], done.stderr

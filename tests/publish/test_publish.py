"""A build on the Hub: over real sockets, by the real command, whatever the Hub does on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from longalign_data.engine import Silent
from longalign_data.errors import BuildError, UserError
from longalign_data.publish.card import render_card
from longalign_data.publish.contents import Publication, prepare_publication
from longalign_data.publish.upload import HubError, Published, publish
from longalign_data.publish.verify import verify
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import require_manifest
from tests.hub.server import TOKEN, Hub
from tests.publish.builds import ROOT, hashes, hold, longalign, make, write_corpus

NAME = "org/towns"
# The Hub's own library warns itself when it sends a file over LFS.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(autouse=True)
def _loopback(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library has read its environment when it was imported; what it holds is put in its place here."""
    import huggingface_hub.constants as constants
    from huggingface_hub.utils import disable_progress_bars

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    disable_progress_bars()


def prepare(build: BuildFolder, staging: Path, **wish: Any) -> Publication:
    wish = {"tables": None, "without_documents": False} | wish
    return prepare_publication(build, NAME, staging=staging, **wish)


def upload(publication: Publication, hub: Hub, **options: Any) -> Published:
    said: list[str] = []
    return publish(publication, token=TOKEN, endpoint=hub.url, say=said.append, wait=lambda _: None, **options)


def test_what_stands_on_the_hub_is_the_build_under_its_version(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    done = upload(prepare(towns, tmp_path), hub)
    files = hub.files(NAME, "1.0.0")
    tables = {path for path in files if path.endswith(".parquet")}
    assert tables == set(hashes(towns))
    assert all(files[path] == (towns.root / path).read_bytes() for path in tables)
    assert set(files) - tables == {".gitattributes", "README.md", "manifest.json"}
    assert hub.repos[NAME].private
    assert done.commits == 1
    assert done.sent_files == len(tables) + 2
    card = files["README.md"].decode()
    assert f'load_dataset("{NAME}", "samples", split="train", revision="1.0.0")' in card
    assert "made by a program, free to use" in card


def test_again_sends_nothing_and_changes_nothing(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    upload(prepare(towns, tmp_path), hub)
    before = len(hub.requests)
    done = upload(prepare(towns, tmp_path), hub)
    assert (done.sent_files, done.commits) == (0, 0)
    assert [r.method for r in hub.requests[before:] if r.method != "GET"] == ["POST"]  # asks for the repository
    assert len(hub.repos[NAME].commits) == 2


def test_a_published_version_is_never_changed(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    upload(prepare(towns, tmp_path), hub)
    with pytest.raises(UserError, match=r"version 1\.0\.0 is published and differs.*raise the recipe's `version`"):
        upload(prepare(towns, tmp_path, tables=["samples"]), hub)


def test_the_next_version_sends_what_differs_and_takes_old_files_away(
    towns: BuildFolder, hub: Hub, tmp_path: Path
) -> None:
    upload(prepare(towns, tmp_path), hub)
    copy = BuildFolder(tmp_path / "1.1.0")
    shutil.copytree(towns.root, copy.root)
    manifest = require_manifest(towns)
    (copy.root / "manifest.json").write_text(json.dumps(manifest | {"version": "1.1.0"}))
    before = len(hub.requests)
    done = upload(prepare(copy, tmp_path, tables=["samples", "chats"]), hub)
    assert [r for r in hub.requests[before:] if r.method == "PUT"] == []
    assert done.sent_files == 2
    now = set(hub.files(NAME, "1.1.0"))
    assert {path.split("/")[0] for path in now} == {".gitattributes", "README.md", "manifest.json", "samples", "chats"}
    assert set(hub.files(NAME, "1.0.0")) >= set(hashes(towns))
    assert json.loads(hub.files(NAME, "1.1.0")["manifest.json"])["tables"].keys() == {"samples", "chats"}


def put(hub: Hub, content: dict[str, bytes]) -> None:
    """Files of somebody else, committed on top of what stands in the repository."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo(NAME, repo_type="dataset", private=True, exist_ok=True)
    files = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in content.items()]
    api.create_commit(NAME, files, repo_type="dataset", commit_message="by hand")


def test_a_repository_of_somebody_else_is_not_touched(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    put(hub, {"train.csv": b"a,b\n", "samples/00000.parquet": b"theirs", "README.md": b"---\nlicense: mit\n---\n"})
    commits = len(hub.repos[NAME].commits)
    with pytest.raises(
        UserError, match=r"no version of this build has published: samples/00000\.parquet, train\.csv; "
    ):
        upload(prepare(towns, tmp_path), hub)
    put(hub, {"manifest.json": b'{"format": "longalign-data build", "name": "other"}'})
    with pytest.raises(UserError, match=r"manifest\.json is not that of a build named 'towns'"):
        upload(prepare(towns, tmp_path), hub)
    assert hub.files(NAME, "main")["samples/00000.parquet"] == b"theirs"
    assert len(hub.repos[NAME].commits) == commits + 1


def test_files_that_a_person_put_beside_a_version_stay(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    upload(prepare(towns, tmp_path), hub)
    put(hub, {"figures/fill.png": b"drawn", "LICENSE": b"CC0"})
    copy = BuildFolder(tmp_path / "1.1.0")
    shutil.copytree(towns.root, copy.root)
    copy.manifest.write_text(json.dumps(require_manifest(towns) | {"version": "1.1.0"}))
    hub.fault("GET", "/resolve/", status=503)
    upload(prepare(copy, tmp_path, tables=["samples"]), hub)
    now = hub.files(NAME, "1.1.0")
    assert (now["figures/fill.png"], now["LICENSE"]) == (b"drawn", b"CC0")
    assert {path.split("/")[0] for path in now if path.endswith(".parquet")} == {"samples"}
    assert upload(prepare(copy, tmp_path, tables=["samples"]), hub).commits == 0
    put(hub, {"samples/mine.parquet": b"rows"})
    copy.manifest.write_text(json.dumps(require_manifest(towns) | {"version": "1.2.0"}))
    with pytest.raises(UserError, match=r"samples/mine\.parquet"):
        upload(prepare(copy, tmp_path, tables=["samples"]), hub)


FAULTS: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "connections dropped": [
        ("POST", "/preupload/", {}),
        ("PUT", "/lfs/", {"after_bytes": 100, "times": 2}),
        ("GET", "/refs", {}),
    ],
    "429 with a time to wait": [
        ("POST", "/preupload/", {"status": 429, "headers": {"Retry-After": "0"}}),
        ("POST", "/commit/", {"status": 429, "headers": {"Retry-After": "7"}}),
        ("POST", "/commit/", {"status": 429, "headers": {"RateLimit": '"api";r=0;t=55'}}),
        ("POST", "/tag/", {"status": 429}),
    ],
    "500 in the middle of an upload": [("PUT", "/lfs/", {"status": 500, "after_bytes": 200})],
    "503 at every turn": [
        ("POST", "/api/repos/create", {"status": 503}),
        ("GET", "/tree/", {"status": 503}),
        ("POST", "/commit/", {"status": 503}),
    ],
    "somebody else's commit between": [("POST", "/commit/", {"status": 412, "times": 2})],
    "the answer to the commit lost": [("POST", "/commit/", {"late": True})],
    "the answer to the tag lost": [("POST", "/tag/", {"late": True})],
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_the_hub_change_nothing(
    name: str, towns: BuildFolder, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.utils._http as http

    monkeypatch.setattr(http.time, "sleep", lambda _: None)
    laid = [hub.fault(method, path, **how) for method, path, how in FAULTS[name]]
    waits: list[float] = []
    publication = prepare(towns, tmp_path)
    publish(publication, token=TOKEN, endpoint=hub.url, say=lambda _: None, wait=waits.append)
    assert all(fault.met.is_set() for fault in laid)
    files = hub.files(NAME, "1.0.0")
    assert {path for path in files if path.endswith(".parquet")} == set(hashes(towns))
    assert len(hub.repos[NAME].commits) == 2  # the one that makes the repository, and ours
    if "time to wait" in name:
        assert {7.0, 55.0} <= set(waits)


def test_a_commit_of_somebody_else_stays(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    """The listing that the upload went by is old when it commits: the Hub answers 412, and it looks again."""
    publication = prepare(towns, tmp_path)

    def interfere(line: str) -> None:
        if line.startswith("sending") and len(hub.repos[NAME].commits) == 1:
            repo = hub.repos[NAME]
            head = repo.resolve("main")
            assert head is not None
            repo.commit("somebody else", dict(head.files))

    done = publish(publication, token=TOKEN, endpoint=hub.url, say=interfere, wait=lambda _: None)
    assert done.commits == 1
    assert [commit.message for commit in hub.repos[NAME].commits.values()][1] == "somebody else"
    assert [r.status for r in hub.sent("POST", "/commit/")] == [412, 200]


def test_a_hub_that_stays_away_is_named_and_the_command_goes_on_later(
    towns: BuildFolder, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import longalign_data.publish.upload as module

    monkeypatch.setattr(module, "ATTEMPTS", 3)
    hub.fault("POST", "/commit/", status=503, times=99)
    with pytest.raises(HubError, match=r"answers 503.*the same command goes on later"):
        upload(prepare(towns, tmp_path), hub)
    hub.faults.clear()
    before = len(hub.requests)
    upload(prepare(towns, tmp_path), hub)
    assert [r for r in hub.requests[before:] if r.method == "PUT"] == []


def test_many_files_go_in_few_commits_and_the_tag_comes_last(
    towns: BuildFolder, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import longalign_data.publish.upload as module

    monkeypatch.setattr(module, "COMMIT_FILES", 12)
    done = upload(prepare(towns, tmp_path), hub)
    assert done.commits == -(-(len(hashes(towns)) + 2) // 12)
    paths = [r.path for r in hub.requests]
    assert "/tag/" in paths[-1]
    messages = [commit.message for commit in hub.repos[NAME].commits.values()]
    assert "manifest.json" in messages[-1]


def test_a_file_that_is_not_what_the_manifest_says_is_not_published(towns: BuildFolder, tmp_path: Path) -> None:
    shutil.copytree(towns.root, tmp_path / "1.0.0")
    file = tmp_path / "1.0.0" / sorted(hashes(towns))[-1]
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(BuildError, match=rf"{file.name}: is not what the manifest says; see: longalign verify"):
        prepare(BuildFolder(tmp_path / "1.0.0"), tmp_path / "staging")


def test_what_was_downloaded_is_verified_and_not_published_again(towns: BuildFolder, tmp_path: Path) -> None:
    found = prepare(towns, tmp_path / "staging", tables=["samples", "packs", "plan"])
    for file in found.files:
        place = tmp_path / "copy" / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        content = file.content if file.source is None else file.source.read_bytes()
        assert content is not None
        place.write_bytes(content)
    copy = BuildFolder(tmp_path / "copy")
    assert verify(copy, Silent()).faults == []
    with pytest.raises(BuildError, match="publish the build that it was made of"):
        prepare(copy, tmp_path / "staging")


def test_visibility_is_what_was_asked_for_or_nothing_happens(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    publication = prepare(towns, tmp_path)
    upload(publication, hub, private=False)
    assert not hub.repos[NAME].private
    with pytest.raises(UserError, match="stands there already and is public"):
        upload(publication, hub)


def test_a_token_that_may_not_write_is_told_what_to_do(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"401.*HF_TOKEN") as raised:
        publish(prepare(towns, tmp_path), token="hf_wrong", endpoint=hub.url, say=lambda _: None)
    assert "hf_wrong" not in str(raised.value)


def test_a_name_that_the_hub_does_not_allow_is_an_error_in_words(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    publication = prepare_publication(towns, "org/a--b", tables=["samples"], without_documents=False, staging=tmp_path)
    with pytest.raises(HubError, match="org/a--b"):
        upload(publication, hub)


def test_a_hub_that_nobody_answers_for_is_given_up_in_words(
    towns: BuildFolder, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import longalign_data.publish.upload as module

    monkeypatch.setattr(module, "ATTEMPTS", 2)
    publication = prepare(towns, tmp_path, tables=["samples"])
    with pytest.raises(HubError, match=r"ConnectError: .* 2 times; the same command goes on later"):
        publish(publication, token=TOKEN, endpoint="http://127.0.0.1:9", say=lambda _: None, wait=lambda _: None)


def test_killed_in_the_middle_it_goes_on_with_what_is_missing(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    """kill -9 while a file is on its way; the second process sends that file and those behind it, and no other."""
    hang = hub.fault("PUT", "/lfs/", skip=6, after_bytes=100, hang=True, times=99)
    first = longalign(hub, "publish", str(towns.root), NAME, "--yes", home=tmp_path)
    assert hang.met.wait(300)
    os.killpg(first.pid, signal.SIGKILL)
    out, err = first.communicate(timeout=300)
    hub.wait_until_quiet()  # a file that had arrived may be stored behind the kill
    there = set(hub.large)
    assert 1 <= len(there) < len(set(hashes(towns).values()))
    assert "1.0.0" not in hub.repos[NAME].tags
    hub.faults.clear()
    before = len(hub.requests)
    second = longalign(hub, "publish", str(towns.root), NAME, "--yes", home=tmp_path)
    out2, err2 = second.communicate(timeout=300)
    assert second.returncode == 0, err2
    sent = {r.path.rsplit("/", 1)[-1] for r in hub.requests[before:] if r.method == "PUT"}
    assert not sent & there
    assert sent | there == set(hashes(towns).values())
    assert {path for path in hub.files(NAME, "1.0.0") if "/" in path} == set(hashes(towns))
    assert TOKEN not in out + err + out2 + err2
    assert hold(towns.root, TOKEN) == []
    assert hold(tmp_path, TOKEN) == []


LOAD = """
import json, sys
from datasets import load_dataset
from longalign_data.packing.reader import open_packs

name, root = sys.argv[1:]
found = {}
for table in ("documents", "samples", "sequences", "packs", "plan", "selection", "chats"):
    stream = load_dataset(name, table, revision="1.0.0", streaming=True, split="train")
    here = load_dataset("parquet", data_files=f"{root}/{table}/*.parquet", split="train")
    found[table] = [list(stream) == list(here), here.num_rows]
whole = load_dataset(name, "samples", revision="1.0.0", split="train")
found["whole"] = [whole.num_rows, whole.column_names]

there, here = open_packs(f"hf://datasets/{name}@1.0.0"), open_packs(root)
def served(reader):
    return [
        (step, micro, batch.pack_id, batch.input_ids.tolist(), batch.loss_weights.tolist(), batch.cu_seqlens.tolist())
        for step, micro, batch in reader.stream(0, 2, 1, first_step=1) if batch is not None
    ]
found["reader"] = [served(there) == served(here), there.num_steps, there.capacity, there.packs_per_step]
print(json.dumps(found))
"""


def test_datasets_and_the_pack_reader_read_from_the_hub_what_was_built(
    towns: BuildFolder, hub: Hub, tmp_path: Path
) -> None:
    upload(prepare(towns, tmp_path / "staging"), hub)
    environment = os.environ | hub.environment() | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD, NAME, str(towns.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    manifest = require_manifest(towns)
    for table in ("documents", "samples", "sequences", "packs", "plan", "selection", "chats"):
        assert found[table] == [True, sum(shard["rows"] for shard in manifest["tables"][table])], table
    assert found["whole"][0] == found["samples"][1]
    pack = next(stage for stage in manifest["stages"] if stage["stage"] == "pack")["details"]
    assert found["reader"] == [True, pack["num_steps"], pack["capacity"], pack["packs_per_step"]]
    for address in (f"/datasets/{NAME}/resolve/1.0.0/README.md", f"/api/datasets/{NAME}"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(hub.url + address, timeout=60)


def test_the_dry_run_says_everything_and_touches_nothing(towns: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    done = longalign(hub, "publish", str(towns.root), NAME, home=tmp_path)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert hub.requests == []
    for words in (
        "org/towns (private), version 1.0.0",
        "licence   closed: LicenseRef-house, may be redistributed",
        "terms: made by a program, free to use",
        "secrets   0 findings",
        "# towns 1.0.0",
        "Nothing was uploaded. The same command with --yes does.",
    ):
        assert words in out
    samples = sum((towns.root / path).stat().st_size for path in hashes(towns) if path.startswith("samples/"))
    line = next(line for line in out.splitlines() if line.strip().startswith("samples "))
    assert f"{samples / 1e6:,.1f} MB" in line


def test_a_rehearsal_says_so_on_its_card_and_is_not_published(tmp_path: Path) -> None:
    build = make(write_corpus(tmp_path / "corpus"), tmp_path / "builds")
    assert prepare(build, tmp_path / "staging").refusals == []
    manifest = json.loads(build.manifest.read_text(encoding="utf-8"))
    assert "rehearsal" not in render_card(manifest)
    next(stage for stage in manifest["stages"] if stage["stage"] == "generate")["details"]["rehearsed"] = 7
    build.manifest.write_text(json.dumps(manifest), encoding="utf-8")
    assert "**This is a rehearsal.** 7 replies came from `longalign fake-provider`" in render_card(manifest)
    (refusal,) = prepare(build, tmp_path / "staging").refusals
    assert "the build is a rehearsal" in refusal


def test_what_a_licence_forbids_is_refused_with_what_helps(hub: Hub, tmp_path: Path) -> None:
    build = make(write_corpus(tmp_path / "corpus", closed="false", mix="false"), tmp_path / "builds")
    found = prepare(build, tmp_path / "staging")
    assert len(found.refusals) == 2
    assert "'closed' (LicenseRef-house) may not be redistributed" in found.refusals[0]
    assert "--without-documents" in found.refusals[0]
    assert "'talk' (CC0-1.0) may not be redistributed" in found.refusals[1]
    assert prepare(build, tmp_path / "staging", tables=["selection", "plan"]).refusals == []
    # The details of rejects quote what was rejected.
    quoting = prepare(build, tmp_path / "staging", tables=["selection", "plan", "rejects"]).refusals
    assert ["stand in rejects;" in refusal for refusal in quoting] == [True, True]
    done = longalign(hub, "publish", str(build.root), NAME, "--yes", home=tmp_path / "home")
    _, err = done.communicate(timeout=300)
    assert done.returncode == 2
    assert "not to be published" in err
    assert "Traceback" not in err
    assert hub.requests == []


def test_secrets_stop_a_publication_until_a_person_looked(hub: Hub, tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path / "corpus")
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    with (recipe.parent / "talk.jsonl").open("a") as file:
        turns = [{"role": "user", "content": f"Is {secret} mine?"}, {"role": "assistant", "content": "Yes."}]
        file.write(json.dumps({"messages": turns}) + "\n")
    build = make(recipe, tmp_path / "builds")
    leaks = prepare(build, tmp_path / "staging").leaks
    assert [(leak.column, leak.rule, leak.beginning) for leak in leaks] == [("messages", "github-token", "ghp_")]
    # Token ids hold it as well, though nobody can read it there.
    assert len(prepare(build, tmp_path / "staging", tables=["packs", "plan"]).leaks) == 1
    assert prepare(build, tmp_path / "staging", tables=["samples"]).leaks == []
    refused = longalign(hub, "publish", str(build.root), NAME, "--yes", home=tmp_path / "home")
    out, err = refused.communicate(timeout=300)
    assert refused.returncode == 2
    assert leaks[0].row_id in err
    assert "github-token" in err
    assert secret not in out + err
    assert hub.requests == []
    reviewed = longalign(hub, "publish", str(build.root), NAME, "--secrets-reviewed", home=tmp_path / "home")
    out, err = reviewed.communicate(timeout=300)
    assert reviewed.returncode == 0, err
    assert "secrets   1 findings" in out


def test_secrets_of_the_recipe_are_findings_too(tmp_path: Path) -> None:
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    recipe = write_corpus(tmp_path / "corpus", extra=f"# fetched with {secret}\n")
    text = recipe.read_text().replace("Reports on towns.", f"Reports on towns, by {secret}.")
    recipe.write_text(text)
    leaks = prepare(make(recipe, tmp_path / "builds"), tmp_path / "staging").leaks
    assert [(leak.file, leak.rule, leak.beginning) for leak in leaks] == [
        ("README.md", "github-token", "ghp_"),
        ("manifest.json", "github-token", "ghp_"),
    ]


@pytest.mark.parametrize("name", ["org/a--b", "org/.a", "org/na me", "a/b/c", "alone", "org/"])
def test_a_name_that_the_hub_refuses_is_refused_before_anything_is_looked_at(name: str, hub: Hub) -> None:
    from longalign_data.cli.publish import publish as command

    with pytest.raises(UserError, match="is no repository of the Hub"):
        command(Path("no-such-build"), name)


def test_nothing_that_is_published_names_a_place_on_this_machine(tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path / "corpus")
    package = pytest.importorskip("mistral_common")
    model = Path(package.__file__).parent / "data" / "tokenizer.model.v1"
    shutil.copy(model, tmp_path / "corpus" / "words.model")
    text = recipe.read_text().replace("path: open.jsonl", f"path: {tmp_path}/corpus/open.jsonl")
    text = text.replace("path: talk.jsonl", f"path: '{tmp_path}/corpus/talk.jsonl'")
    text = text.replace("seed: 3", "seed: 3\ntokenizer: sentencepiece:words.model  # ours\n").replace(
        "encode: {", f"encode: {{template: llama-inst, tokenizer: 'sentencepiece:{tmp_path}/corpus/words.model', "
    )
    recipe.write_text(text)
    with (recipe.parent / "open.jsonl").open("a") as file:
        file.write("{broken\n")
    build = make(recipe, tmp_path / "builds")
    publication = prepare(build, tmp_path / "staging")
    for file in publication.files:
        content = file.content if file.source is None else file.source.read_bytes()
        assert content is not None
        assert str(tmp_path).encode() not in content, file.path
    folder = BuildFolder(build.root)
    for table in require_manifest(build)["tables"]:
        assert hold(folder.root / table, str(tmp_path)) == []
    assert 'path: "open.jsonl"' in publication.manifest["recipe"]
    assert "# ours" in publication.manifest["recipe"]
    assert publication.manifest["tokenizers"]["trainee"]["spec"] == "sentencepiece:words.model"

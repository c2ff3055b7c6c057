"""Bundles pushed to and pulled from a hub that stands in for Hugging Face's: whole, checked, and with their origin."""

import json
import shutil

import pytest
from hub_stand_in import serving

import sdtrt
from sdtrt import cli, engines
from sdtrt.bundle import hub, provenance
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import BundleError

REPO = "someone/tiny"
# Between the hub's client and its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as (found, address):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield found


@pytest.fixture
def bundle(bundles, models, tmp_path):
    """A bundle of this version, with records of all its files."""
    return sdtrt.build(models["sd2"], tmp_path / "made", backend="fake", profile_runs=1, profiles=["B=1,H=64,W=64"])


def refused(call):
    with pytest.raises(BundleError) as caught:
        call()
    return caught.value.slug


def test_a_bundle_comes_back_as_it_was_pushed(server, bundle, tmp_path):
    address = sdtrt.push(bundle, REPO, private=True)
    assert REPO in address
    assert REPO in server.private
    pulled = sdtrt.pull(REPO, tmp_path / "pulled")
    assert pulled.manifest == bundle.manifest
    pulled.check_everything()
    names = {str(p.relative_to(pulled.path)) for p in pulled.path.rglob("*") if p.is_file()}
    records = {str(p.relative_to(bundle.path)) for p in bundle.path.rglob("component.json")}
    assert names == {str(p.relative_to(bundle.path)) for p in bundle.path.rglob("*") if p.is_file()} - records | {
        provenance.FILE
    }
    assert provenance.read_origin(pulled).commit == server.repos[REPO]["main"]
    assert {p.name for p in tmp_path.iterdir()} == {"made", ".made.lock", "pulled", ".pulled.lock", "cache"}
    assert sdtrt.load(pulled, low_memory=True)("x", num_inference_steps=1, height=64, width=64).images


def test_a_push_replaces_what_the_earlier_bundle_had_and_leaves_the_rest(server, bundle):
    sdtrt.push(bundle, REPO)
    files = server.files(REPO)
    server.commit(REPO, "main", files | {"README.md": b"mine", "unet/old.plan": b"", "pipeline/old.json": b"{}"})
    sdtrt.push(bundle, REPO)
    assert server.files(REPO) == files | {"README.md": b"mine"}


def test_a_revision_is_a_branch_of_its_own(server, bundle, tmp_path):
    sdtrt.push(bundle, REPO, revision="h100")
    assert "manifest.json" not in server.files(REPO, "main")
    assert refused(lambda: sdtrt.pull(REPO, tmp_path / "b")) == "hub-foreign"
    assert sdtrt.pull(f"{REPO}@h100", tmp_path / "b").manifest == bundle.manifest


def test_only_what_the_manifest_names_is_downloaded(server, bundle, tmp_path):
    sdtrt.push(bundle, REPO)
    server.commit(REPO, "main", server.files(REPO) | {"unet/extra.py": b"", "huge.bin": b""})
    pulled = sdtrt.pull(REPO, tmp_path / "b")
    assert not (pulled.path / "unet" / "extra.py").exists()
    assert not {"unet/extra.py", "huge.bin", "README.md"} & set(server.served)


@pytest.mark.parametrize("name", ["unet/engine.json", "pipeline/unet/config.json"])
def test_a_damaged_file_keeps_the_bundle_out(server, bundle, tmp_path, name):
    sdtrt.push(bundle, REPO)
    files = server.files(REPO)
    server.commit(REPO, "main", files | {name: files[name][:-1] + b"?"})
    assert refused(lambda: sdtrt.pull(REPO, tmp_path / "b")) == "hub-damaged"
    assert not (tmp_path / "b").exists()
    server.commit(REPO, "main", {n: c for n, c in files.items() if n != name})
    assert refused(lambda: sdtrt.pull(REPO, tmp_path / "b")) == "hub-damaged"
    server.commit(REPO, "main", files)
    assert sdtrt.pull(REPO, tmp_path / "b").manifest == bundle.manifest


def test_a_damaged_bundle_is_not_pushed(server, bundle):
    (bundle.path / "pipeline" / "model_index.json").write_text("{}")
    assert refused(lambda: sdtrt.push(bundle, REPO)) == "file-damaged"
    assert REPO not in server.repos


@pytest.mark.parametrize(
    ("manifest", "slug"),
    [({"format": 99}, "bundle-format"), ({"name": "gpt"}, "bundle-format"), (None, "hub-foreign")],
)
def test_a_foreign_repository_is_refused(server, tmp_path, manifest, slug):
    files = {"config.json": b"{}"} | ({"manifest.json": json.dumps(manifest).encode()} if manifest else {})
    server.commit(REPO, "main", files)
    assert refused(lambda: sdtrt.pull(REPO, tmp_path / "b")) == slug
    assert not (tmp_path / "b").exists()


def test_a_manifest_names_no_file_outside_its_folders(server, bundle, tmp_path):
    sdtrt.push(bundle, REPO)
    text = server.files(REPO)["manifest.json"].replace(b'"pipeline/model_index.json"', b'"../../.ssh/id"')
    server.commit(REPO, "main", server.files(REPO) | {"manifest.json": text})
    assert refused(lambda: sdtrt.pull(REPO, tmp_path / "b")) == "bundle-field"


def test_what_cannot_be_had_says_why(server, bundle, tmp_path, monkeypatch):
    assert refused(lambda: sdtrt.pull("someone/nothing", tmp_path / "b")) == "hub-denied"
    assert refused(lambda: sdtrt.pull("no name at all", tmp_path / "b")) == "hub"
    sdtrt.push(bundle, REPO)
    assert refused(lambda: sdtrt.pull(f"{REPO}@nowhere", tmp_path / "b")) == "hub-denied"
    server.refuse = True
    assert refused(lambda: sdtrt.push(bundle, REPO)) == "hub-denied"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refused(lambda: sdtrt.pull(REPO, tmp_path / "b")) == "hub"


def test_an_upload_that_breaks_off_leaves_no_bundle_there(server, bundle):
    server.full = True
    assert refused(lambda: sdtrt.push(bundle, REPO)) == "hub"
    assert "manifest.json" not in server.files(REPO)


def test_a_pull_replaces_a_bundle_and_nothing_else(server, bundle, bundle_copy, tmp_path):
    sdtrt.push(bundle, REPO)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    assert refused(lambda: sdtrt.pull(REPO, tmp_path / "letters")) == "bundle-foreign"
    other = bundle_copy()
    assert sdtrt.pull(REPO, other).manifest == bundle.manifest
    assert Bundle.open(other).manifest == bundle.manifest


def test_load_takes_a_name_on_the_hub_and_remembers_it_offline(server, bundle, monkeypatch):
    sdtrt.push(bundle, REPO)
    first = hub.open_or_pull(REPO)
    assert first.manifest == bundle.manifest
    server.served.clear()
    assert hub.open_or_pull(REPO).path == first.path
    assert not server.served
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.open_or_pull(REPO).path == first.path
    assert refused(lambda: hub.open_or_pull("someone/else")) == "hub"


def test_a_folder_comes_before_the_hub(server, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(lambda: hub.open_or_pull("made/nothing")) == "bundle-missing"
    shutil.copytree(bundle.path, tmp_path / "someone" / "tiny")
    assert hub.open_or_pull(REPO).path.is_dir()


def test_native_code_from_elsewhere_needs_trust(server, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(engines.load("fake"), "native_code", True, raising=False)
    assert sdtrt.load(bundle), "it was built here"
    sdtrt.push(bundle, REPO)
    pulled = sdtrt.pull(REPO, tmp_path / "pulled")
    with pytest.raises(BundleError, match="--trust") as caught:
        sdtrt.load(pulled)
    assert caught.value.slug == "bundle-untrusted"
    assert REPO in caught.value.received
    assert sdtrt.load(pulled, trust=True)
    (pulled.path / provenance.FILE).write_text("{}")
    assert refused(lambda: sdtrt.load(pulled)) == "bundle-format"
    monkeypatch.undo()
    assert sdtrt.load(pulled), "no native code"


def test_the_commands_push_and_pull(server, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    for arguments in (["push", bundle.path, REPO], ["pull", REPO, "--out", tmp_path / "b"]):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in arguments])
        assert not caught.value.code
    text = capsys.readouterr().out
    assert "pushed: http" in text
    assert f"from {REPO} at {server.repos[REPO]['main'][:12]}" in text

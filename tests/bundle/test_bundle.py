"""Bundles on disk: damage is named, locks hold, a kill at any moment loses nothing that was finished."""

import json
import subprocess
import sys

import pytest

from sdtrt.bundle import staging
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import FORMAT_VERSION, MANIFEST, RECORD, Component, FileRecord, Manifest
from sdtrt.bundle.staging import Staging
from sdtrt.errors import BundleError
from sdtrt.system.files import write_text


def manifest(**changes):
    fields = {"family": "sd", "model": "m", "backend": "fake", "precision": "fp32", "profiles": ()}
    return Manifest(**fields | changes)


def component(name="unet", **key):
    return Component(name=name, key=key or {"weights": "1"}, files={})


def finish(stage, name="unet", text="engine"):
    with stage.component(name) as folder:
        (folder / "engine").write_text(text)
        files = staging.record_files(folder)
        made = Component(name=name, key={"weights": "1"}, files=files)
        write_text(folder / RECORD, made.model_dump_json())
    return made


def test_commit_puts_everything_in_place_and_leaves_nothing_beside(tmp_path):
    target = tmp_path / "bundle"
    for text in ("first", "second"):
        with staging.staging(target) as stage:
            made = finish(stage, text=text)
            stage.commit(manifest(components={"unet": made}))
        opened = Bundle.open(target)
        opened.check_files("unet")
        assert (opened.folder("unet") / "engine").read_text() == text
    assert {p.name for p in tmp_path.iterdir()} <= {"bundle", ".bundle.lock"}


def test_an_error_in_a_component_leaves_the_old_bundle_and_the_finished_parts(tmp_path):
    target = tmp_path / "bundle"
    with staging.staging(target) as stage:
        stage.commit(manifest(components={"unet": finish(stage, text="old")}))
    with staging.staging(target) as stage:
        finish(stage, "text_encoder")
        with pytest.raises(ZeroDivisionError), stage.component("unet") as folder:
            (folder / "engine").write_text(str(1 // 0))
    assert (target / "unet" / "engine").read_text() == "old"
    assert set(Staging(target).finished()) == {"text_encoder"}
    assert not list(Staging(target).path.glob(".*"))


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    target = tmp_path / "bundle"
    with staging.staging(target) as stage:
        stage.commit(manifest(components={"unet": finish(stage)}))
    target.rename(tmp_path / ".bundle.old")
    with staging.staging(target):
        assert Bundle.open(target).manifest.components


def test_a_torn_record_is_built_again(tmp_path):
    stage = Staging(tmp_path / "bundle")
    finish(stage)
    (stage.path / "unet" / RECORD).write_text('{"name": "unet"')
    assert stage.finished() == {}


def test_two_builds_of_one_bundle_do_not_meet(tmp_path):
    target = tmp_path / "bundle"
    script = f"""
from pathlib import Path
from sdtrt.bundle import staging
from sdtrt.errors import BundleError
try:
    with staging.staging(Path({str(target)!r})):
        pass
except BundleError as exc:
    print(exc.slug)
"""
    with staging.staging(target):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "bundle-locked"
    with staging.staging(target):
        pass


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("", "bundle-json"),
        ("{}", "bundle-format"),
        ("[]", "bundle-format"),
        (json.dumps({"format": FORMAT_VERSION + 1}), "bundle-format"),
        (json.dumps({"format": FORMAT_VERSION, "family": 3}), "bundle-field"),
    ],
)
def test_damaged_manifests(tmp_path, text, slug):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BundleError) as caught:
        Bundle.open(tmp_path)
    assert caught.value.slug == slug
    assert "sdtrt build" in caught.value.hint


def test_a_missing_bundle_says_how_to_build_one(tmp_path):
    with pytest.raises(BundleError, match="sdtrt build MODEL --out") as caught:
        Bundle.open(tmp_path / "nowhere")
    assert caught.value.slug == "bundle-missing"


def test_changed_files_are_named(tmp_path):
    target = tmp_path / "bundle"
    with staging.staging(target) as stage:
        bundle = stage.commit(manifest(components={"unet": finish(stage)}))
    engine = target / "unet" / "engine"
    engine.write_text("enginE")
    bundle.check_sizes("unet")
    with pytest.raises(BundleError, match="unet/engine is damaged"):
        bundle.check_files("unet")
    engine.write_text("eng")
    with pytest.raises(BundleError, match="3 bytes"):
        bundle.check_sizes("unet")
    engine.unlink()
    with pytest.raises(BundleError, match="no such file"):
        bundle.check_sizes("unet")
    with pytest.raises(BundleError, match="has no vae_decoder"):
        bundle.folder("vae_decoder")


def test_adopted_components_keep_their_files(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "engine").write_text("engine")
    made = component().model_copy(update={"files": {"engine": FileRecord(bytes=6, sha256="")}})
    stage = Staging(tmp_path / "bundle")
    stage.copy_component(made, old)
    assert (stage.path / "unet" / "engine").read_text() == "engine"
    assert stage.finished() == {"unet": made}


@pytest.mark.parametrize(("model", "word"), [("a/b c", "'a/b c'"), (3, "MODEL")])
def test_a_bundle_of_the_format_before_names_the_command_that_rebuilds_it(tmp_path, model, word):
    (tmp_path / MANIFEST).write_text(json.dumps({"format": FORMAT_VERSION - 1, "model": model}))
    with pytest.raises(BundleError) as caught:
        Bundle.open(tmp_path)
    assert caught.value.slug == "bundle-format"
    assert caught.value.hint == f"rebuild it: sdtrt build {word} --out {tmp_path}"

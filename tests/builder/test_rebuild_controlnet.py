"""sdtrt why on a bundle with a ControlNet: another one, none where it was, and none asked for."""

import shutil

import huggingface_hub
import pytest
import small_variants

import sdtrt
from sdtrt import cli
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import ModelError


@pytest.fixture(scope="module")
def built(cache, models):
    """The checkpoint, its ControlNet's folder, and a bundle of the U-Net and the ControlNet."""
    return small_variants.controlled(cache, models, "fake")


@pytest.fixture
def moved(built, tmp_path):
    """The same bundle, whose recipe names a ControlNet that is not here."""
    bundle = Bundle.open(shutil.copytree(built[2].path, tmp_path / "bundle"))
    config = bundle.manifest.config | {"controlnet": ["owner/gone"]}
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"config": config}))


def differing(found):
    return {r.component: [d.field for d in r.differs] for r in found if r.differs}


def test_nothing_differs_with_the_controlnet_that_is_built_in(built):
    found = sdtrt.why(built[2])
    assert {r.component: r.rebuild for r in found} == {"unet": False, "controlnet": False}


def test_the_command_names_another_controlnet(built, tmp_path, capsys):
    small_variants.controlnet(built[0], tmp_path / "other", seed=3)
    with pytest.raises(SystemExit) as caught:
        cli.main(["why", str(built[2].path), "--controlnet", str(tmp_path / "other")])
    text = capsys.readouterr().out
    assert not caught.value.code
    assert "to be built anew: controlnet\n" in text
    assert ["controlnet", "weights"] in [line.split()[:2] for line in text.splitlines()]


def test_a_bundle_without_one_needs_another_unet_too(built, bundles, models, tmp_path):
    small_variants.controlnet(models["sd1"], tmp_path / "net")
    found = sdtrt.why(bundles("sd1", "fake"), controlnet=[str(tmp_path / "net")])
    assert differing(found) == {"unet": ["variant"], "controlnet": ["component"]}


def test_without_the_controlnet_its_weights_alone_are_unknown(moved, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: asked.append(k) or "nowhere")
    found = {r.component: r for r in sdtrt.why(moved)}
    assert {r.component: r.rebuild for r in found.values()} == {"unet": False, "controlnet": None}
    assert found["controlnet"].unknown == {"weights": "the ControlNet is not here: owner/gone"}
    assert all(k["local_files_only"] for k in asked), "nothing is downloaded to look at it"


def test_both_causes_are_told_when_the_checkpoint_is_gone_too(moved, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    (moved.path / "manifest.json").write_text(moved.manifest.model_dump_json())
    with pytest.raises(SystemExit):
        cli.main(["why", str(moved.path), "--model", "owner/nowhere"])
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not compared weights")]
    assert [line.rpartition(" ")[2] for line in told] == ["owner/nowhere", "owner/gone"]


def test_without_the_checkpoint_the_controlnet_is_still_compared(built, tmp_path):
    small_variants.controlnet(built[0], tmp_path / "other", seed=3)
    found = {r.component: r for r in sdtrt.why(built[2], model="owner/gone", controlnet=[str(tmp_path / "other")])}
    assert found["controlnet"].differs[0].field == "weights"
    assert "weights" in found["unet"].unknown


def test_a_new_one_that_is_not_here_is_an_error(bundles):
    with pytest.raises(ModelError) as caught:
        sdtrt.why(bundles("sd1", "fake"), controlnet=["owner/new"])
    assert caught.value.slug == "controlnet-missing"

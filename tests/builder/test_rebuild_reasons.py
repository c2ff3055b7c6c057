"""sdtrt why: which fields make a rebuild necessary, and what cannot be known without the checkpoint or the backend."""

import json
import shutil

import pytest

import sdtrt
from sdtrt import cli, config, engines
from sdtrt.builder.key_comparison import Difference, differences
from sdtrt.builder.planning import plan_build
from sdtrt.bundle.bundle import Bundle
from sdtrt.config import LoraEntry
from sdtrt.system import env

COMPONENTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")


@pytest.fixture
def bundle(bundle_copy):
    return Bundle.open(bundle_copy("sd1", "fake"))


def changed(bundle, **fields):
    """The bundle with another manifest."""
    path = bundle.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return Bundle.open(bundle.path)


def test_nothing_makes_a_rebuild_necessary_where_it_was_built(bundle):
    found = sdtrt.why(bundle)
    assert tuple(r.component for r in found) == COMPONENTS
    assert {(r.differs, r.rebuild) for r in found} == {((), False)}


def test_another_version_and_another_option_are_named(bundle, monkeypatch):
    monkeypatch.setattr(type(engines.load("fake")), "version", lambda self: "2")
    for reasons in sdtrt.why(bundle, precision="fp16"):
        assert set(reasons.differs) == {
            Difference("backend", "fake 1", "fake 2"),
            Difference("precision", "fp32", "fp16"),
        }
        assert reasons.rebuild


def test_other_weights_concern_one_component(bundle, retrained):
    found = {r.component: r for r in sdtrt.why(bundle, model=str(retrained))}
    assert [r.component for r in found.values() if r.rebuild] == ["unet"]
    assert [d.field for d in found["unet"].differs] == ["weights"]


def test_without_the_checkpoint_the_rest_is_compared(bundle, monkeypatch):
    before = env.version
    monkeypatch.setattr(env, "version", lambda p: "0.0.1" if p == "torch" else before(p))
    for reasons in sdtrt.why(bundle, model="owner/nowhere"):
        assert [d.field for d in reasons.differs] == ["exporter"]
        assert "owner/nowhere" in reasons.unknown["weights"]
    monkeypatch.undo()
    assert {r.rebuild for r in sdtrt.why(bundle, model="owner/nowhere")} == {None}


def test_a_checkpoint_whose_weights_are_gone_is_not_at_hand(bundle, models, tmp_path):
    ignore = shutil.ignore_patterns("*.safetensors")
    bare = shutil.copytree(models["sd1"], tmp_path / "bare", ignore=ignore)
    assert {*sdtrt.why(bundle, model=str(bare))[0].unknown} == {"weights"}


def test_without_the_backend_its_version_and_device_are_unknown(bundle, monkeypatch):
    gone = engines.Unavailable("no library", "pip install it")
    monkeypatch.setattr(type(engines.load("fake")), "unavailable", lambda self: gone)
    for reasons in sdtrt.why(bundle, profiles=["B=1,H=64,W=64"]):
        assert [d.field for d in reasons.differs] == ["profiles"]
        assert reasons.unknown == dict.fromkeys(("backend", "device"), "fake cannot run here: no library")


def test_without_the_lora_files_it_is_unknown_where_one_is_built_in(bundle):
    parts = {n: c.model_dump(mode="json") for n, c in bundle.manifest.components.items()}
    parts["unet"]["key"]["lora"] = "style.safetensors 0123 x 1"
    config = bundle.manifest.config | {"lora": [LoraEntry(path="style.safetensors").model_dump()]}
    found = {r.component: r for r in sdtrt.why(changed(bundle, components=parts, config=config))}
    assert [r.component for r in found.values() if "lora" in r.unknown] == ["unet"]


def test_the_command_shows_both_sides_and_what_is_unknown(bundle, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        cli.main(["why", str(bundle.path), "--model", "owner/nowhere", "--precision", "fp16"])
    text = capsys.readouterr().out
    assert not caught.value.code
    assert ["unet", "precision", "fp32", "fp16"] in [line.split() for line in text.splitlines()]
    assert "not compared weights: the checkpoint is not here: owner/nowhere" in text
    assert "to be built anew: text_encoder, unet, vae_decoder, vae_encoder" in text


def test_new_and_superfluous_components_are_told(bundle):
    parts = {n: c.model_dump(mode="json") for n, c in bundle.manifest.components.items()}
    parts["other"] = parts.pop("unet") | {"name": "other"}
    shutil.move(bundle.path / "unet", bundle.path / "other")
    found = {r.component: r.differs for r in sdtrt.why(changed(bundle, components=parts))}
    assert found["unet"] == (Difference("component", "(none)", "new"),)
    assert found["other"] == (Difference("component", "built", "(none)"),)


def test_a_damaged_component_is_named_and_a_build_makes_it_anew(bundle, models):
    engine = bundle.path / "unet" / "engine.json"
    engine.write_text("")
    found = {r.component: r for r in sdtrt.why(bundle)}
    assert "unet/engine.json is damaged" in found["unet"].damage
    assert [r.component for r in found.values() if r.rebuild] == ["unet"]
    manifest = bundle.manifest
    settings = {"backend": "fake", "profiles": manifest.profiles, "profile_runs": 2}
    sdtrt.build(models["sd1"], bundle.path, **settings).check_files("unet")


def test_differences_name_the_fields():
    built, asked = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "x", "d": "4"}
    assert tuple(map(str, differences(built, asked))) == ("b: 2 -> x", "c: 3 -> (none)", "d: (none) -> 4")


def test_a_dry_run_gives_the_reasons_of_why(bundle, models):
    (bundle.path / "unet" / "engine.json").write_text("")
    settings = {"backend": "fake", "profiles": bundle.manifest.profiles, "profile_runs": 2, "opset": 21}
    planned = plan_build(config.load(model=str(models["sd1"]), **settings), bundle.path).steps
    reasons = {r.component: r.texts() for r in sdtrt.why(bundle, **settings)}
    assert {step.spec.name: step.reasons for step in planned} == reasons
    assert reasons["vae_decoder"] == ("opset: 20 -> 21",)
    assert [text.partition(":")[0] for text in reasons["unet"]] == ["unet/engine.json is damaged", "opset"]

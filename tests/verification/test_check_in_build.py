"""Builds whose half precision engine overflows: mended by FP32 islands, or refused with what was found."""

import math
from pathlib import Path

import numpy as np
import onnx
import overflowing
import pytest
import shared_exports

from sdtrt import models as families
from sdtrt.builder import build as builder
from sdtrt.cli.commands import verify
from sdtrt.errors import NonFiniteError, VerifyError
from sdtrt.verification import fp32_search, reference_images
from sdtrt.verification import verify as parity
from sdtrt.verification.fp32_search import Fp32Region
from sdtrt.verification.verify import Row

SETTINGS = {"precision": "fp16", "components": ["vae_decoder"], "profiles": ["B=1,H=16,W=16"], "profile_runs": 1}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(models, tmp_path_factory):
    return overflowing.make(models["sd2"], tmp_path_factory.mktemp("overflowing") / "model")


@pytest.fixture(scope="module")
def build(checkpoint, cache):
    """build(name, **settings) of the decoder; all builds share one trace."""

    def make(name, **settings):
        with shared_exports.shared(cache / "exports"):
            return builder.build(checkpoint, checkpoint.with_name(name), **SETTINGS | settings)

    return make


@pytest.fixture(scope="module")
def mended(build):
    return build("mended")


def test_an_engine_that_overflows_is_mended_and_the_finding_recorded(mended):
    component = mended.manifest.components["vae_decoder"]
    assert component.parity.keys() == {"B=1,H=16,W=16", *(f"an image, seed {seed}, call 1" for seed in (0, 1))}
    assert max(component.parity.values()) < 5e-2
    change = component.passes[-1]
    assert change.name == "widen_fp32"
    assert 0 < change.changed < change.nodes_before < change.nodes_after
    told = "\n".join(change.notes)
    assert "decoder.mid_block.resnets.0" in told
    assert "NaN or Inf before" in told
    assert "first: /decoder/conv_in/Conv" in told


def test_nothing_of_the_search_is_left_in_the_bundle(mended):
    names = {p.name for p in (mended.path / "vae_decoder").rglob("*")}
    assert names == {"engine.onnx", "model.onnx.data", "plan.json", "component.json"}
    types = {t.type.tensor_type.elem_type for t in onnx.load(mended.path / "vae_decoder/engine.onnx").graph.output}
    assert types == {onnx.TensorProto.FLOAT16}
    mended.check_files("vae_decoder")


def test_the_plan_prices_the_graph_with_its_islands(mended):
    nodes = {n.name for n in onnx.load(mended.path / "vae_decoder/engine.onnx", load_external_data=False).graph.node}
    assert {n.name for n in mended.plan("vae_decoder").nodes} <= nodes
    assert any("Cast_widen" in n for n in nodes)


def test_the_terminal_tells_the_finding(mended, capsys):
    from sdtrt.cli.commands.build import show_bundle

    show_bundle(mended)
    told = " ".join(capsys.readouterr().out.split())
    assert "vae_decoder: in float32: decoder.conv_in" in told
    assert "error NaN or Inf before" in told


def test_modules_that_the_recipe_names_need_no_search(build, monkeypatch):
    monkeypatch.setattr(fp32_search, "search", None)
    bundle = build("asked", float32=["decoder"])
    component = bundle.manifest.components["vae_decoder"]
    assert component.key["float32"] == "decoder"
    assert component.passes[-1].notes == ("asked for: decoder",)
    assert max(component.parity.values()) < 5e-2


def test_an_engine_that_nothing_helps_is_refused_with_what_was_tried(build, checkpoint, monkeypatch):
    nothing = Fp32Region(frozenset(), float("inf"), float("inf"), ("no part in float32 helped", "4 engines tried"))
    monkeypatch.setattr(fp32_search, "search", lambda *args: nothing)
    with pytest.raises(VerifyError) as caught:
        build("refused")
    assert caught.value.slug == "verify-component"
    assert "; no part in float32 helped; 4 engines tried" in str(caught.value)
    assert not checkpoint.with_name("refused").exists()


# ------------------------------------------------------------------------------------------- images


def test_each_image_is_judged_by_itself(bundles, models, monkeypatch):
    bundle, made = bundles("sd1", "onnxruntime"), parity.make_image

    def spoil(pipe, sizes, steps, seed):
        image = made(pipe, sizes, steps, seed)
        if seed == 0:
            return image
        if seed == 2:
            raise NonFiniteError("unet gave NaN or Inf at step 1")
        return np.zeros_like(image)

    monkeypatch.setattr(parity, "make_image", spoil)
    monkeypatch.setattr(reference_images, "SEEDS", 3)
    eager = reference_images.compute(models["sd1"], bundle.manifest.shape_profiles[0].sizes("opt"), 3)
    specs = families.load("sd").components(models["sd1"], "fp16")
    for name in ("text_encoder", "unet", "vae_decoder"):  # what engines of these are compared at
        calls = ("call 1", "call 3") if name == "unet" else ("call 1",)
        assert {f"seed 1, {call}" for call in calls} <= eager.inputs[name].keys()
        for inputs in eager.inputs[name].values():
            assert {t.name for t in specs[name].inputs} <= inputs.keys()
    check = parity.check_images(bundle, eager)
    assert [(r.what, r.metric, r.passed, r.note) for r in check.rows()] == [
        (f"image, 3 steps, seed {seed}", metric, passed, note)
        for seed, passed, note in (
            (0, True, ""),
            (1, False, "the whole image is one color, 0.00 of white"),
            (2, False, "unet gave NaN or Inf at step 1"),
        )
        for metric in ("PSNR (dB)", "SSIM")
    ]
    assert check.images[0].ssim > 0.99
    assert (check.figures()["images"], check.figures()["steps"]) == (3, 3)


def test_verify_shows_what_it_left_out(monkeypatch, capsys):
    rows = [
        Row("unet at B=1", "relative error", 1e-4, 1e-3, True),
        Row("unet", "relative error", math.nan, 1e-3, True, "not compared at B=4: it would take about 9 s"),
    ]
    monkeypatch.setattr(parity, "verify", lambda *args, **named: rows)
    verify.run(Path("bundle"))
    told = capsys.readouterr().out
    assert "unet: not compared at B=4: it would take about 9 s" in told
    assert "nan" not in told

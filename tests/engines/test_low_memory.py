"""low_memory: one engine in memory at a time, and the same pictures."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import sdtrt
from sdtrt import cli, engines
from sdtrt.errors import BundleError, Unsupported
from sdtrt.pipelines.engine_loading import LoadOptions, load_engines
from sdtrt.shapes.sample_inputs import sample_inputs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def alive(monkeypatch):
    """How many engines were alive after each load, by backend."""
    counts, seen = [], weakref.WeakSet()

    def watch(name):
        backend = engines.load(name)
        load = type(backend).load

        def counted(self, folder, context):
            made = load(self, folder, context)
            seen.add(made)
            counts.append(len(seen))
            return made

        monkeypatch.setattr(type(backend), "load", counted)
        return counts

    return watch


def image(bundle, **given):
    pipe = sdtrt.load(bundle, **given)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(0)
    return pipe("a red circle", num_inference_steps=2, generator=noise, output_type="pt").images


def test_no_two_engines_are_ever_loaded_and_the_picture_is_the_same(bundles, alive):
    bundle = bundles("sd1", "onnxruntime")
    want = image(bundle, options={"threads": 1})
    gc.collect()
    counts = alive("onnxruntime")
    got = image(bundle, options={"threads": 1}, low_memory=True)
    assert torch.equal(got, want)
    assert set(counts) == {1}
    assert len(counts) == 3, "text encoder, U-Net and decoder: each once, and no encoder of images"


def test_without_it_all_engines_are_loaded(bundles, alive):
    counts = alive("fake")
    load_engines(bundles("sd1", "fake"))
    assert max(counts) == 4


def test_the_largest_is_loaded_first_and_the_order_stays_that_of_the_bundle(bundles, monkeypatch):
    bundle, backend, order = bundles("sd1", "fake"), engines.load("fake"), []
    load = type(backend).load

    def noted(self, folder, context):
        order.append(folder.name)
        return load(self, folder, context)

    monkeypatch.setattr(type(backend), "load", noted)
    assert list(load_engines(bundle)) == list(bundle.manifest.components)
    weights = [bundle.manifest.components[name].weight_bytes for name in order]
    assert order[0] == "unet"
    assert weights == sorted(weights, reverse=True)


def test_threads_take_turns(bundles, alive):
    counts = alive("fake")
    made = load_engines(bundles("sd1", "fake"), LoadOptions(low_memory=True))
    inputs = {n: sample_inputs(e.spec, {"B": 1, "H": 64, "W": 64, "T": 77}) for n, e in made.items()}
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(made[name], **inputs[name]) for name in [*made] * 8]
        assert all(call.result() for call in calls)
    assert max(counts) == 1
    assert {engine.calls for engine in made.values()} == {8}
    assert all("loaded" in engine.notes()[0] for engine in made.values())


def test_a_damaged_engine_is_named_at_once(bundle_copy):
    path = bundle_copy()
    (path / "vae_decoder" / "engine.json").unlink()
    with pytest.raises(BundleError, match="vae_decoder"):
        load_engines(sdtrt.Bundle.open(path), LoadOptions(low_memory=True))


def test_other_weights_would_be_forgotten_and_are_refused(bundles):
    made = load_engines(bundles("sd1", "fake"), LoadOptions(low_memory=True))
    with pytest.raises(Unsupported) as caught:
        made["unet"].weights()
    assert caught.value.slug == "refit-low-memory"


def test_the_command_has_it_and_says_how_often_engines_were_loaded(bundles, alive, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    counts = alive("fake")
    call = ["--prompt", "x", "--steps", "2", "--out", str(tmp_path / "x.png"), "--low-memory"]
    with pytest.raises(SystemExit) as caught:
        cli.main(["generate", str(bundles("sd1", "fake").path), *call])
    assert not caught.value.code
    assert max(counts) == 1
    assert "unet: loaded 1 times" in capsys.readouterr().out

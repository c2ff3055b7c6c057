"""The scripts in examples/ run as they are, on tiny engines."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from urllib.request import urlopen

import pytest
import small_variants
import tiny_loras
from PIL import Image

from sdtrt.analysis import findings, rules
from sdtrt.plan.layers import Layer, Plan

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.usefixtures("one_thread")


def example(name):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pixels(path):
    return Image.open(path).tobytes()


def test_the_service_answers_two_callers_at_once_as_it_answers_one(bundles):
    server = example("service").server(str(bundles("sd1", "eager").path), port=0, steps=1)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://localhost:{server.server_address[1]}/?prompt=a+red+circle&seed="
    images = {}

    def call(caller, seed):
        with urlopen(address + str(seed), timeout=120) as answer:  # noqa: S310 (its own server)
            images[caller] = answer.read()

    callers = [threading.Thread(target=call, args=(caller, seed)) for caller, seed in enumerate((0, 1))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    call("alone", 1)
    server.shutdown()
    server.server_close()
    assert images[0].startswith(b"\x89PNG")
    assert images[0] != images[1] == images["alone"]


def test_loras_change_the_picture_and_leave_nothing_of_it(bundles, models, tmp_path, monkeypatch, capsys):
    files = [str(tiny_loras.make(tmp_path / f"{seed}.safetensors", models["sd1"], seed)) for seed in (1, 2)]
    monkeypatch.chdir(tmp_path)
    script, bundle = example("lora"), str(bundles("sd1", "eager").path)
    script.main(bundle, *files, steps=1)
    pictures = {name: pixels(f"{name}.png") for name in ("first", "second", "both", "none")}
    assert len(set(pictures.values())) == 4
    assert "set_adapters" in capsys.readouterr().out


def test_a_controlnet_draws_at_two_strengths(cache, models, tmp_path, monkeypatch):
    model, net, _ = small_variants.controlled(cache, models, "eager")
    bundle = small_variants.build(cache / "whole", model, "eager", None, controlnet=[str(net)])
    monkeypatch.chdir(tmp_path)
    picture = Image.new("RGB", (small_variants.SIZE,) * 2, "white")
    picture.paste("black", (16, 16, 48, 48))
    picture.save("picture.png")
    example("controlnet").main(str(bundle.path), "picture.png", steps=1)
    assert pixels("control-0.5.png") != pixels("control-1.0.png")


@pytest.fixture
def registry_of_rules(monkeypatch):
    """The list of folders and the rules in them, as they are before and after."""
    monkeypatch.setattr(rules, "__path__", list(rules.__path__))
    findings.rules.cache_clear()
    yield
    findings.rules.cache_clear()


@pytest.mark.usefixtures("registry_of_rules")
def test_an_own_rule_finds_what_it_looks_for(tmp_path, capsys):
    layers = [
        Layer(name="scores", kind="gemm", op="MatMul", precision="float16", times_ms=(2.0,)),
        Layer(name="softmax", kind="norm", op="Softmax", precision="float16", times_ms=(1.0,)),
    ]
    plan = Plan(
        component="unet", backend="tensorrt", backend_version="10.16", device=None, precision="fp16", layers=layers
    )
    plan.save(tmp_path / "plan.json")
    example("own_rule").main(str(tmp_path / "plan.json"))
    assert "1 softmax layer outside a fused attention (1.000 ms in one run)" in capsys.readouterr().out


def test_the_rule_is_that_of_the_documentation():
    page = (EXAMPLES.parent / "docs" / "extending.md").read_text(encoding="utf-8")
    assert (EXAMPLES / "rules" / "lone_softmax.py").read_text(encoding="utf-8") in page

"""Plans with every case that the analysis must survive: many kinds, no times, no module, no kernel, hostile names."""

from __future__ import annotations

import shutil

import pytest

from sdtrt.analysis.session import Analysis
from sdtrt.bundle.manifest import Component, Manifest, Memory, ProfileMemory
from sdtrt.plan.image_timing import EngineCalls, ImageRun
from sdtrt.plan.layers import Layer, Plan, TensorInfo

HOSTILE = "</script><img src=x onerror=alert(1)>"
CHROMIUM = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run --window-size=1280,900 --force-prefers-reduced-motion"
)
HOSTILE_LABEL = '<b>bold</b> <a href="javascript:alert(2)">link</a> &lt;i&gt;'


def layer(name, kind, op, module, times_ms, flops=None, bytes_moved=None, **more):
    return Layer(
        name=name, kind=kind, op=op, module=module, times_ms=times_ms, flops=flops, bytes_moved=bytes_moved, **more
    )


@pytest.fixture
def unet() -> Plan:
    block = "down_blocks.0.attentions.1.transformer_blocks.0"
    return Plan(
        component="unet",
        backend="fake",
        backend_version="1.0",
        device="NVIDIA H200",
        precision="fp16",
        sizes={"B": 1, "H": 512, "W": 512, "T": 77},
        layers=(
            layer("/conv_in/Conv", "conv", "Conv", "conv_in", (2.0, 1.0, 3.0), 4_000_000_000, 8_000_000, kernel="xmma"),
            layer("to_q", "gemm", "MatMul", f"{block}.attn1.to_q", (1.0,), 1_000_000_000, 2_000_000, weight_bytes=640),
            layer("attn", "attention", "Attention", f"{block}.attn1", (0.5,), 250_000_000, 0),
            layer("norm|1", "norm", "LayerNorm", f"{block}.norm1", (0.25,), 0, 4_000_000, nodes=("a", "b")),
            layer(HOSTILE, "pointwise", "Add", f"mid_block.{HOSTILE}", (0.125,), kernel=HOSTILE_LABEL),
            layer(HOSTILE_LABEL, "other", "Foreign", None, (0.125,)),
            layer("Reformat 1", "reformat", "Reformat", None, None),
        ),
        wall_times_ms=(3.5, 4.0, 5.0),
        total_flops=5_250_000_000,
        total_weight_bytes=1_720_000_000,
    )


@pytest.fixture
def untimed(unet) -> Plan:
    layers = tuple(part.model_copy(update={"times_ms": None, "module": "encoder.layers.0"}) for part in unet.layers)
    unknown = {"wall_times_ms": None, "total_flops": None, "total_weight_bytes": None}
    return unet.model_copy(update={"component": "text_encoder", "layers": layers, **unknown})


@pytest.fixture
def plans(unet, untimed) -> list[Plan]:
    return [untimed, unet]


@pytest.fixture
def manifest() -> Manifest:
    profile = ProfileMemory(profile="B=1,H=512,W=512", activation_opt_bytes=69_000_000)
    memory = Memory(profiles=(profile,), build_peak_bytes=840_000_000)
    return Manifest(
        family="sd",
        model=f"models/{HOSTILE}",
        backend="fake",
        precision="fp16",
        profiles=("B=1,H=512,W=512",),
        environment={"cpu": HOSTILE, "memory_bytes": 8_000_000_000, "gpus": [{"name": "NVIDIA H200", "sm": "9.0"}]},
        created="2026-01-02T03:04:05+00:00",
        components={"unet": Component(name="unet", key={}, files={}, parity={"max_abs_error": 0.00125}, memory=memory)},
        image={"psnr_db": 41.5},
    )


@pytest.fixture
def hostile() -> str:
    return HOSTILE


@pytest.fixture
def detailed(unet) -> Plan:
    """The U-Net with types and tensors, so that every layer but the last two has a limit."""
    x = TensorInfo(name="x", shape=(2, 320, 64, 64), dtype="float16", format="channels last, 8 wide")
    y = TensorInfo(name="y", shape=(2, None, 64, 64), dtype="float16")
    known = {"precision": "float16", "inputs": (x,), "outputs": (x.model_copy(update={"name": "z"}),)}
    layers = [part.model_copy(update=known) for part in unet.layers[:5]]
    layers[3] = layers[3].model_copy(update={"precision": "float32", "attributes": {"StreamId": 0, "Note": HOSTILE}})
    lost = unet.layers[5].model_copy(update={"outputs": (y,)})
    facts = {"device": {"Compute Clock Rate (GHz)": 1.98, "Note": HOSTILE}, "build": {"Precision": "FP16"}}
    notes = (f"1 layer was left out: {HOSTILE}",)
    return unet.model_copy(update={"layers": (*layers, lost, unet.layers[6]), "metadata": facts, "notes": notes})


@pytest.fixture
def image_run() -> ImageRun:
    engines = {"unet": EngineCalls(count=20, total_ms=90), "text_encoder": EngineCalls(count=2, total_ms=4)}
    return ImageRun(steps=20, images=1, height=512, width=512, wall_ms=100, engines=engines, guidance_scale=7.5)


@pytest.fixture
def analysis(plans, manifest) -> Analysis:
    return Analysis(tuple(plans), manifest)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Chromium without a window; skips where it, its driver or selenium is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, service = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not service:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*CHROMIUM.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    try:
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()

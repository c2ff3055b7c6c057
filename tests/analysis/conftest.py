"""Plans with every case that the analysis must survive: many kinds, no times, no module, no kernel, hostile names."""

from __future__ import annotations

import pytest

from sdtrt.plan import Layer, Plan
from sdtrt.store import Component, Manifest

HOSTILE = "</script><img src=x onerror=alert(1)>"
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
    return Manifest(
        family="sd",
        model=f"models/{HOSTILE}",
        backend="fake",
        precision="fp16",
        profiles=("B=1,H=512,W=512",),
        environment={"cpu": HOSTILE, "memory_bytes": 8_000_000_000, "gpus": [{"name": "NVIDIA H200", "sm": "9.0"}]},
        created="2026-01-02T03:04:05+00:00",
        components={"unet": Component(name="unet", key={}, files={}, parity={"max_abs_error": 0.00125})},
        image={"psnr_db": 41.5},
    )


@pytest.fixture
def hostile() -> str:
    return HOSTILE

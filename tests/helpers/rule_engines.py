"""Small engines for the rules' cases, on a device with round figures: 1 GFLOP on tensor cores or 10 MB take 10 us."""

from __future__ import annotations

from dataclasses import dataclass

from sdtrt import registry
from sdtrt.analysis.device_peaks import DevicePeaks
from sdtrt.plan.layers import Layer, NodeCost, Plan, TensorInfo

CASES = "analysis.rules.cases"
DEVICE = DevicePeaks(
    device="round",
    source="test",
    matrix_tflops={"float32": 50, "float16": 100, "int8": 200, "float8": 200},
    vector_tflops=10,
    gb_per_s=1000,
    launch_us=2,
)
TENSOR = "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x128x32_g1_tensor16x8x16_t1r3s3"
PLAIN = "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw_tilesize32x32x8_g1_ffma_t1r5s5"
MB, GFLOP = 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class Case:
    """An engine and what a rule must find in it: a message with these words at this cost, or nothing."""

    plan: Plan
    cost_ms: float | None = None
    layers: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


def cases_by_rule(kind):
    """The FIRES or QUIET cases of every rule; a file of several rules has them in a dict."""
    files = {name: getattr(registry.load(CASES, name), kind) for name in registry.names(CASES)}
    rules = (listed if isinstance(listed, dict) else {name: listed} for name, listed in files.items())
    return {name: cases for listed in rules for name, cases in listed.items()}


def tensor(name, *shape, dtype="float16", layout=None):
    return TensorInfo(name=name, shape=shape, dtype=dtype, format=layout)


def layer(name, kind, time_ms=None, op=None, reads=(), writes=(), precision="float16", **more):
    return Layer(
        name=name,
        kind=kind,
        op=op or {"conv": "CaskConvolution", "reformat": "Reformat"}.get(kind, kind),
        times_ms=None if time_ms is None else (time_ms,),
        inputs=tuple(reads),
        outputs=tuple(writes),
        precision=precision,
        **more,
    )


def node(name, op, kind, module="", flops=0, bytes_moved=0):
    return NodeCost(name=name, op=op, kind=kind, module=module, flops=flops, bytes_moved=bytes_moved, weight_bytes=0)


def engine(*layers, nodes=(), component="unet", precision="fp16", **more):
    return Plan(
        component=component,
        backend="tensorrt",
        backend_version="10.16",
        device="round",
        precision=precision,
        layers=layers,
        nodes=nodes,
        **more,
    )

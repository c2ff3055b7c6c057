"""FP8 attention on trained weights, those of the embedded model: it adds little to what rounding the layers does."""

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import plain_kernels
import pytest
import torch
import traced_graphs
from diffusers import UNet2DConditionModel
from traced_graphs import Flat, copied, error, run

import sdtrt
from sdtrt.engines.backends.inductor.trace import capture
from sdtrt.quantization import activation_ranges

SIDE = 16


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    plain_kernels.install_as_on_hopper(monkeypatch)
    # Its heads are smaller than those that the kernel takes.
    kernel = sys.modules["sdtrt.engines.backends.inductor.kernels.self_attention"]
    monkeypatch.setattr(kernel, "SIZES", (16, 32))


def test_attention_in_fp8_is_less_off_than_layers_are():
    torch.manual_seed(0)
    folder = Path(sdtrt.__file__).parent / "data" / "tiny-sd" / "unet"
    unet = UNet2DConditionModel.from_pretrained(folder).float().eval()
    inputs = {
        "sample": torch.randn(2, 4, SIDE, SIDE),
        "timestep": torch.tensor([500.0, 500.0]),
        "encoder_hidden_states": torch.randn(2, 77, unet.config.cross_attention_dim),
    }
    with torch.no_grad(), activation_ranges.record_input_ranges(unet) as ranges:
        truth = unet(**inputs, return_dict=False)[0]
    half = {n: t.half() if t.dim() > 1 else t for n, t in inputs.items()}
    module = Flat(copy.deepcopy(unet)).half().to(memory_format=torch.channels_last)
    traced = capture(SimpleNamespace(name="unet"), module, half)
    projections = {n: r for n, r in ranges.items() if n.endswith(("attn1.to_q", "attn1.to_k", "attn1.to_v"))}
    errors = []
    for given, on in ((projections, True), (ranges, False)):
        graph = copied(traced)
        without = ("split_prompt",) if on else ("split_prompt", "self_attention")
        _, graph, changes = traced_graphs.rewritten(graph, given, without)
        assert changes.get("self_attention", 0) == (6 if on else 0)
        errors.append(error(run(graph, half)[0], truth))
    alone, without = errors
    assert alone < 0.7 * without

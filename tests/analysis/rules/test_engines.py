"""All rules on whole engines: a U-Net whose faults are known, and real dumps where they are at hand."""

from __future__ import annotations

import pytest
import trt_dump
from locations import DUMPS
from work import calls

from sdtrt.analysis.load import load

RESNETS = DUMPS / "trt8-resnet18-a100"
ATTN2 = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"


def by_rule(analysis):
    found = {finding.rule: finding for finding in analysis.findings}
    assert len(found) == len(analysis.findings), "one finding for each rule and engine"
    return found


@pytest.fixture(scope="module", params=["10", "11"])
def unet(request, tmp_path_factory):
    dump = trt_dump.write(tmp_path_factory.mktemp("unet"), request.param)
    return load(dump.graph, onnx=dump.onnx)


def test_the_cross_attention_of_the_u_net_is_not_fused_and_the_self_attention_is(unet):
    found = by_rule(unet)["unfused_attention"]
    assert "1 attention in separate kernels" in found.message
    assert ATTN2 in found.message
    assert all(layer.module == ATTN2 for layer in unet.plans[0].layers if layer.name in found.layers)
    assert not [name for name in found.layers if "mha" in name]


def test_keys_and_values_of_the_cross_attention_are_found_once_each(unet):
    found = by_rule(unet)["constant_cross_attention"]
    modules = [layer.module for layer in unet.plans[0].layers if layer.name in found.layers]
    assert modules == [f"{ATTN2}.to_k", f"{ATTN2}.to_v"]
    assert "49 of 50 runs" in found.message


def test_the_time_embedding_is_found_with_its_projections(unet):
    found = by_rule(unet)["time_embedding"]
    modules = {layer.module for layer in unet.plans[0].layers if layer.name in found.layers}
    assert {"time_proj", "time_embedding.linear_1", "down_blocks.0.resnets.0.time_emb_proj"} <= modules


def test_the_skip_connection_is_a_finding_of_its_own(unet):
    (name,) = by_rule(unet)["skip_concats"].layers
    assert next(x for x in unet.plans[0].layers if x.name == name).module == "up_blocks.0"


def test_latents_are_padded_and_nothing_else(unet):
    found = by_rule(unet)["misaligned_channels"]
    modules = {layer.module for layer in unet.plans[0].layers if layer.name in found.layers}
    assert modules == {"conv_in", "conv_out"}


def test_what_the_u_net_does_well_is_not_found(unet):
    quiet = {"conv_without_tensor_cores", "gemm_without_tensor_cores", "norm_casts", "fp32_islands", "unfused_qdq"}
    assert not quiet & by_rule(unet).keys()


def test_ten_times_the_layers_are_ten_times_the_work(tmp_path):
    def work(count):
        analysis = load(trt_dump.synthetic(tmp_path / str(count), count).graph)
        assert len(analysis.frame) == count
        return calls(lambda: analysis.findings)

    assert work(3000) < 12 * work(300)


def resnet(precision):
    if not RESNETS.is_dir():
        pytest.skip("the dumps are not here")
    return by_rule(load(RESNETS / precision))


def test_float32_products_run_on_tensor_cores_but_for_the_first():
    found = resnet("fp32")
    assert found["conv_without_tensor_cores"].layers == ("Conv_0 + Relu_1",)
    assert found["layout_reformats"].layers == ("Reformatting CopyNode for Output Tensor 0 to MaxPool_2",)
    assert not {"fp32_islands", "type_conversions", "unfused_qdq", "requantized_outputs"} & found.keys()


def test_float16_pays_for_casts_at_its_borders_and_for_three_channels():
    found = resnet("fp16")
    assert len(found["type_conversions"].layers) == 2
    assert "2 at the engine's inputs and outputs" in found["type_conversions"].message
    assert found["misaligned_channels"].layers == ("Conv_0 + Relu_1",)
    assert not {"conv_without_tensor_cores", "layout_reformats", "fp32_islands"} & found.keys()


def test_int8_quantizes_again_after_each_residual_and_at_the_start_and_end():
    found = resnet("qat")
    numbers = [name.removeprefix("QuantizeLinear_") for name in found["requantized_outputs"].layers]
    assert sorted(map(int, numbers)) == [40, 65, 101, 126, 162, 187, 223]
    assert set(found["unfused_qdq"].layers) == {f"QuantizeLinear_{i}" for i in (2, 15, 250)}
    assert found["fp32_islands"].layers == ("MaxPool_12",)
    (first,) = found["conv_without_tensor_cores"].layers
    assert first.endswith("+ Conv_9"), "an int8x4 kernel: four products in an instruction of plain arithmetic"


def test_an_engine_that_was_not_timed_has_no_costs():
    if not DUMPS.is_dir():
        pytest.skip("the dumps are not here")
    analysis = load(DUMPS / "trt10.16-mnist" / "mnist.onnx.engine.graph.json")
    assert all(finding.cost_ms is None and finding.severity == "low" for finding in analysis.findings)

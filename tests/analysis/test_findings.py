"""Findings: cost per image, severity and order, and that no plan, however odd, makes a rule fail."""

from __future__ import annotations

import pytest
from rule_engines import DEVICE, MB, cases_by_rule, engine, layer, tensor

from sdtrt.analysis.findings import SEVERITIES, rules
from sdtrt.analysis.rule_support.kernels import uses_tensor_cores
from sdtrt.analysis.session import Analysis
from sdtrt.plan.image_timing import EngineCalls, ImageRun
from sdtrt.plan.layers import KINDS, Layer, NodeCost, Plan, TensorInfo, Timing

BARE = DEVICE.model_copy(update={"gb_per_s": None, "vector_tflops": None, "launch_us": None})


def transpose(time_ms):
    return layer("t", "reformat", time_ms, op="Transpose")


def conv(time_ms):
    return layer("c", "conv", time_ms)


def run(**calls):
    """An image with these numbers of calls, each of so many milliseconds."""
    engines = {name: EngineCalls(count=count, total_ms=count * ms) for name, (count, ms) in calls.items()}
    return ImageRun(steps=10, images=2, height=512, width=512, wall_ms=100, engines=engines)


def test_cost_per_image_is_the_cost_of_all_calls_divided_by_the_images():
    plans = (engine(transpose(1), conv(9)), engine(transpose(3), conv(7), component="vae_decoder"))
    found = Analysis(plans, run=run(unet=(10, 10), vae_decoder=(1, 10))).findings
    assert [(f.component, f.cost_ms, f.cost_per_image_ms) for f in found] == [("unet", 1, 5), ("vae_decoder", 3, 1.5)]


def test_cost_per_image_grows_with_calls_that_are_slower_than_the_profiled_run():
    (found,) = Analysis((engine(transpose(1), conv(9)),), run=run(unet=(10, 30))).findings
    assert (found.cost_ms, found.cost_per_image_ms) == (1, 15), "as when the image is larger than the profile's"


def test_calls_are_those_of_a_text_to_image_call_when_none_was_recorded():
    assert [f.cost_per_image_ms for f in Analysis((engine(transpose(1)),)).findings] == [50]
    assert [f.cost_per_image_ms for f in Analysis((engine(transpose(1), component="resnet"),)).findings] == [1]


def test_what_repeats_in_one_engine_of_no_known_calls_is_counted_for_every_run():
    plan = engine(layer("k", "gemm", 1, module="down_blocks.0.attn2.to_k"), component="model")
    assert [(f.cost_ms, f.message) for f in Analysis((plan,)).findings] == [
        (1, "1 layer for the same prompt, repeated in every run (100 % of the layers' time)")
    ]


@pytest.mark.parametrize(("time_ms", "severity"), [(5, "high"), (4.9, "medium"), (1, "medium"), (0.9, "low")])
def test_severity_follows_the_share_of_the_time_of_all_engines(time_ms, severity):
    plans = (engine(transpose(time_ms), conv(50 - time_ms)), engine(conv(500), component="vae_decoder"))
    (found,) = Analysis(plans, run=run(unet=(10, 50), vae_decoder=(1, 500))).findings
    assert found.severity == severity


def test_what_no_image_runs_and_what_has_no_cost_is_low_and_last():
    plans = (engine(transpose(None)), engine(transpose(5), component="vae_encoder"), engine(transpose(0.1), conv(9)))
    found = Analysis(plans, run=run(unet=(10, 9.1))).findings
    assert [(f.cost_per_image_ms, f.severity) for f in found] == [(1 / 2, "medium"), (0, "low"), (None, "low")]


def test_what_is_known_to_be_necessary_is_low():
    plan = engine(layer("c", "conv", 1, precision="float32"), component="vae_decoder")
    (found,) = Analysis((plan,)).findings
    assert (found.severity, found.cost_ms) == ("low", 0.5)


def test_plans_with_the_same_names_do_not_mix():
    slow = engine(layer("same", "conv", 2, flops=MB, bytes_moved=MB))
    quick = engine(layer("same", "conv", 0.001, flops=MB, bytes_moved=MB), component="vae_decoder")
    assert [f.component for f in Analysis((quick, slow), peaks=DEVICE).findings] == ["unet"]


def test_advice_is_the_rule_s_own():
    (found,) = Analysis((engine(transpose(1)),)).findings
    (rule,) = (rule for rule in rules() if rule.name == found.rule)
    assert (found.title, found.advice) == (rule.title, rule.advice)


def test_no_plans_no_findings():
    assert Analysis(()).findings == ()


KERNELS = {
    True: """
        trt_turing_cutlass_image_network_first_layer_hmma_fprop_f16f16f32_nhwc_nhwc_k64r7s7c4_stride2x2
        sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize256x64x32_g1_tensor16x8x16_t1r3s3_aACCESS
        sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x128x16_g1_tensor16x8x8_t1r1s1
        sm80_xmma_fprop_implicit_gemm_interleaved_i8f16_i8i32_f32_nchw_vect_c_32kcrs_g1_tensor16x8x32_t1r1s1
        sm90_xmma_gemm_f16f16_f16f32_f32_nt_n_tilesize256x128x64_cgasize1x2x1_stage4_gmmastage2_hgmma64x128x16
        sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel
        ampere_h16816cudnn_128x128_ldg8_relu_exp_stages_64x3_large_nhwc_tn_v1
        volta_fp16_s884gemm_fp16_256x64_ldg8_nn ampere_s1688gemm_128x128_ldg4_tn turing_i8816cudnn_int8_128x128
        cutlass_80_tensorop_s16816gemm_bf16_64x64_64x6_tn_align8 cutlass_80_wmma_tensorop_f16_s161616gemm_f16
        cutlass3x_sm90_tensorop_s64x128x32gemm_e4m3_e4m3_f32_bf16_bf16_128x128x128 nvjet_hsh_256x128_64x4_2x1_v_bz_TNN
        _gemm_mha_v2_0x5f3759df fmha_v2_flash_attention_fp16_64_32_S_qkv_128_sm86_kernel_nl
    """,
    False: """
        sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw_tilesize32x32x8_g1_ffma_t1r5s5_aligna4_alignc4
        ampere_scudnn_128x64_relu_xregs_large_nn_v1 ampere_fp32_icudnn_int8x4_128x64_relu_medium_nn_v1
        sm50_xmma_conv_fprop_fused_conv_act_fp32_NCHW_fp32_NCHW_KCRS_fp32_fp32_fp32_Accfloat_1_1_cC1_dC1
        sm50_xmma_cublas_gemvx_f32f32_f32_f32_tn_n_int32_unit_n_launch_param8x32x32 _gemv_mha_v1_0x12
        cutlass_80_simt_sgemm_128x32_8x5_nt_align1 volta_hgemm_128x64_nn ampere_sgemm_32x128_tn maxwell_fp16_sgemm
    """,
    None: """
        __myl_CastMeanSubMulMeanAddSqrtDivMul_0x12 sm80_xmma_gemm_f16f16_f16f16_f16_tn_n gamma_kernel
        CPUExecutionProvider
    """,
}


@pytest.mark.parametrize(("kernel", "uses"), [(k, uses) for uses, text in KERNELS.items() for k in text.split()])
def test_a_kernel_s_name_tells_its_units(kernel, uses):
    assert uses_tensor_cores(kernel) is uses


def odd_layers():
    """Every kind with every way of not being known."""
    tensors = (
        TensorInfo(name="t"),
        TensorInfo(name="t", shape=(None, 4, 0), dtype="nonsense", format="?"),
        TensorInfo(name="u", shape=(), dtype="int64"),
        tensor("t", 1, 3, 5, dtype="float32"),
    )
    measured = (None, (), (0.0,), None, (1e-9,), (1e9,))
    for kind in KINDS:
        for index, times in enumerate(measured):
            yield Layer(
                name="same",
                kind=kind,
                op=("", "Cast", "NoOp", "Scale", "QuantizeLinear", "Concat")[index],
                inputs=tensors[: index % 5],
                outputs=tensors[index % 3 :],
                nodes=("n", "n", "not there", "zero")[: index % 5],
                precision=(None, "float16", "float32", "nonsense", "int8", "")[index],
                kernel=(None, "", "ffma", "x_ffma_tensor16x8x16", "mha", "\ud7ff")[index],
                module=(None, "", "up_blocks.0", "attn2.to_k", "time_proj", "(top)")[index],
                flops=(None, 0, 1)[index % 3],
                bytes_moved=(0, None, 10**18)[index % 3],
                attributes={"Groups": (None, "x", 0, 1.5, [1], {})[index], "Origin": None},
                times_ms=times,
                timing=Timing() if index == 3 else None,
            )


def odd_plan(layers, **more):
    nodes = (
        NodeCost(name="n", op="Softmax", kind="attention", module="", flops=None, bytes_moved=None, weight_bytes=0),
        NodeCost(name="zero", op="Attention", kind="attention", module="x", flops=0, bytes_moved=0, weight_bytes=0),
    )
    blank = dict.fromkeys(("backend_version", "device", "precision"))
    return Plan(**{"component": "", "backend": "", **blank, "layers": layers, "nodes": nodes, **more})


def check(plans, peaks=None):
    for found in Analysis(tuple(plans), peaks=peaks).findings:
        assert found.severity in SEVERITIES
        assert found.message
        assert found.layers
        assert found.cost_ms is None or 0 <= found.cost_ms < float("inf")


@pytest.mark.parametrize("peaks", [None, DEVICE, BARE])
def test_no_odd_plan_makes_a_rule_fail(plans, unet, peaks):
    odd = list(odd_layers())
    check(plans, peaks)
    check([unet.model_copy(update={"layers": ()})], peaks)
    for precision in (None, "fp16", "?"):
        check([odd_plan(odd, precision=precision), odd_plan(odd[::-1], device="NVIDIA H100")], peaks)
        for one in odd:
            check([odd_plan((one,), precision=precision, nodes=())], peaks)
    everything = [case.plan for kind in ("FIRES", "QUIET") for of in cases_by_rule(kind).values() for case in of]
    check(everything, peaks)

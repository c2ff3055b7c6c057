"""A layer's kind and precision follow from what TensorRT says about it, old names and new."""

from __future__ import annotations

import pytest

from sdtrt.plan.layers import TensorInfo
from sdtrt.readers.formats.tensorrt.kinds import kind_of, precision_of, tokens

CONV = "sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x64x32_stage4_g1_tensor16x8x16"
GEMM = "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_stage4"


@pytest.mark.parametrize(
    ("layer_type", "parameter", "tactic", "kind"),
    [
        ("CaskConvolution", "Convolution", CONV, "conv"),
        ("CudaDepthwiseConvolution", "Convolution", "", "conv"),
        ("CaskDeconvolutionV2", "Convolution", "", "conv"),
        ("ConvActPool", "ConvActPool", "", "conv"),
        ("correlation", "", CONV, "conv"),
        ("gemm", "", GEMM, "gemm"),
        ("MatrixMultiply", "MatrixMultiply", "", "gemm"),
        ("kgen", "", "_gemm_mha_v2_0x8f3a", "attention"),
        ("kgen", "", "__myl_kgen_mha_0x1", "attention"),
        ("PluginV2DynamicExt", "PluginV2", "fMHA_V2", "attention"),
        ("fusion", "", "sm80_xmma_gemm_i8f32_i8i32_f32", "gemm"),
        ("fusion", "", CONV, "conv"),
        ("kgen", "", "__myl_MaxrSubExpSum_0xa612", "norm"),
        ("kgen", "", "__myl_CastMeanSubMulMeanAddSqrtDivMul_0x1", "norm"),
        ("kgen", "", "__myl_CastReshCast_0x1", "reformat"),
        ("kgen", "", "__myl_TranResh_0x1", "reformat"),
        ("kgen", "", "__myl_SlicConc_0x1", "copy"),
        ("kgen", "", "__myl_NegExpAddDivMul_0x1", "pointwise"),
        ("kgen", "", "__myl_FcAdd_0x1", "gemm"),
        ("kgen", "", "", "other"),
        ("Myelin", "Myelin", "", "other"),
        ("Reformat", "Reformat", "", "reformat"),
        ("Shuffle", "Shuffle", "", "reformat"),
        ("NoOp", "", "", "shape"),
        ("shape_call", "", "", "shape"),
        ("Constant", "Constant", "", "shape"),
        ("signal", "", "", "other"),
        ("wait", "", "", "other"),
        ("TrainStation", "TrainStation", "", "other"),
        ("PointWiseV2", "PointWise", "", "pointwise"),
        ("add", "", "", "pointwise"),
        ("maxpool", "", "", "pointwise"),
        ("TiledPooling", "Pooling", "", "pointwise"),
        ("CudaSoftMax", "SoftMax", "", "norm"),
        ("Padding", "Slice", "", "copy"),
        ("Resize", "Resize", "", "copy"),
        ("memset", "", "", "copy"),
        ("somethingNew", "", "", "other"),
    ],
)
def test_types_and_tactics_tell_the_kind(layer_type, parameter, tactic, kind):
    assert kind_of(layer_type, parameter, tactic, "name") == kind


def test_a_generated_kernel_is_known_by_its_name_where_it_has_no_tactic():
    assert kind_of("kgen", "", "", "__myl_MaxrSubExpSum_myl5_4") == "norm"
    assert tokens("__myl_bb0_3_CastMul_myl2_1") == ("cast", "mul")


def test_an_attention_in_the_path_does_not_make_a_kernel_one():
    assert kind_of("kgen", "", "__myl_Add_0x1", "/down_blocks.0/attentions.0/Add_myl3_2") == "pointwise"


def tensors(*dtypes):
    return tuple(TensorInfo(name=f"t{i}", dtype=d) for i, d in enumerate(dtypes))


def test_a_native_layer_computes_in_the_type_of_its_first_input():
    assert (
        precision_of("conv", True, "sm80_xmma_fprop_f16f16", tensors("int8", "float16"), tensors("float32")) == "int8"
    )
    assert precision_of("other", True, "", (), tensors("float32")) is None


@pytest.mark.parametrize(
    ("tactic", "precision"),
    [
        (GEMM, "float16"),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "bfloat16"),
        ("sm89_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n", "float8"),
        ("sm80_xmma_gemm_i8f32_i8i32_f32_tn_n", "int8"),
        ("sm50_xmma_cublas_gemvx_f32f32_f32_f32_tn_n", "float32"),
        ("ampere_fp16_s16816gemm_fp16_128x128_ldg8_f2f_stages_64x3_tn", "float16"),
        ("ampere_bf16_s16816gemm_bf16_128x64", "bfloat16"),
    ],
)
def test_a_product_of_myelins_computes_in_the_type_that_its_kernel_names(tactic, precision):
    assert precision_of("gemm", False, tactic, tensors("float64"), ()) == precision


def test_a_generated_kernel_computes_in_its_first_real_type():
    assert precision_of("pointwise", False, "__myl_AddSele_0xf16f16", tensors("bool", "float16"), ()) == "float16"
    assert precision_of("reformat", False, "", tensors("int64"), tensors("int64")) == "int64"
    assert precision_of("other", False, "", tensors(None), ()) is None

"""Types and layouts are told by dozens of strings; an unknown one tells nothing, and never nought."""

from __future__ import annotations

import pytest

from sdtrt.readers.documents import Omissions
from sdtrt.readers.formats.tensorrt.tensors import dtype_of, tensor_of

# What TensorRT 8 to 11 write, by the type that each string tells.
STRINGS = {
    "int8": [
        "Four wide channel vectorized row major Int8 format",
        "Thirty-two wide channel vectorized row major Int8 format",
        "Thirty-two wide channel vectorized row major Int8 format with 3 spatial dimensions",
        "Channel major Int8 format where channel % 4 == 0",
        "Channel major INT8 format where channel == 4 and column stride % 32 == 0",
        "Channel major INT8 format where column stride % 32 == 0",
        "Row major INT8 format where column stride % 64 == 0",
        "Row major Int8 format",
        "Channel major Int8 format",
        "Int8",
    ],
    "float16": [
        "Thirty-two wide channel vectorized row major FP16 format",
        "Sixteen wide channel vectorized row major FP16 format",
        "Channel major FP16 format where channel % 8 == 0",
        "Channel major FP16 format where channel % 8 == 0 with 3 spatial dimensions",
        "Channel major FP16 format where channel == 1 and column stride % 32 == 0",
        "Row major FP16 format where column stride % 64 == 0",
        "Two wide channel vectorized row major FP16 format",
        "Row major linear FP16 format",
        "Channel major FP16 format.",
        "Half",
        "FP16",
    ],
    "float32": [
        "Four wide channel vectorized row major FP32 format",
        "Channel major FP32 format with 3 spatial dimensions where channel % 4 == 0",
        "Row major linear FP32",
        "Float",
        "FP32",
    ],
    "bfloat16": [
        "Row major linear BFloat16 format",
        "Channel major BFloat16 format where channel % 8 == 0",
        "Two wide channel vectorized row major BFloat16 format",
        "BFloat16",
        "BF16",
    ],
    "float8": ["Row major linear FP8 format", "FP8", "E4M3"],
    "float4": ["Row major linear FP4 format (kLINEAR)", "FP4", "E2M1"],
    "int4": ["Row major linear INT4 format", "Int4"],
    "int32": ["Row major linear Int32", "Int32"],
    "int64": ["Row major linear Int64 format", "Int64"],
    "uint8": ["Row major linear UInt8 format", "Channel major UInt8 format", "UInt8"],
    "uint16": ["UInt16"],
    "int16": ["Int16"],
    "bool": ["Row major linear BOOL", "Bool"],
    "float64": ["Double"],
    "complex64": ["FloatComplex"],
    "complex128": ["DoubleComplex"],
    None: ["Unknown format", "None", "N/A due to dynamic shapes", "", "Quux"],
}


@pytest.mark.parametrize(("dtype", "text"), [(d, t) for d, texts in STRINGS.items() for t in texts])
def test_a_string_tells_its_type(dtype, text):
    assert dtype_of(text) == dtype


def read(**raw):
    left = Omissions()
    return tensor_of(raw, left, "layer"), left.notes()


def test_a_layout_is_kept_in_its_own_words_and_a_bare_type_is_none():
    tensor, _ = read(Name="x", Dimensions=[2, 8], **{"Format/Datatype": "Channel major FP16 format."})
    assert (tensor.dtype, tensor.format, tensor.nbytes) == ("float16", "Channel major FP16 format", 32)
    tensor, _ = read(Name="x", Dimensions=[2, 8], **{"Format/Datatype": "Half"})
    assert (tensor.dtype, tensor.format, tensor.nbytes) == ("float16", None, 32)


def test_type_and_layout_may_have_keys_of_their_own():
    tensor, _ = read(Name="x", Dimensions=[4], Datatype="BFloat16", Format="Linear", StrideOrder=[0])
    assert (tensor.dtype, tensor.format, tensor.nbytes) == ("bfloat16", "Linear", 8)
    tensor, _ = read(Name="x", Dimensions=[2, 4], DataType="FP8", StrideOrder=[1, 0])
    assert (tensor.dtype, tensor.format) == ("float8", "strides [1, 0]")


def test_a_dynamic_size_is_unknown_and_so_are_the_bytes():
    tensor, notes = read(Name="x", Dimensions=[-1, 320, -1, 64], **{"Format/Datatype": "Half"})
    assert (tensor.shape, tensor.nbytes, notes) == ((None, 320, None, 64), None, ())


def test_an_unknown_type_has_no_bytes():
    assert read(Name="x", Dimensions=[4], **{"Format/Datatype": "N/A due to dynamic shapes"})[0].nbytes is None


def test_half_a_byte_is_a_size():
    assert read(Name="x", Dimensions=[3], **{"Format/Datatype": "Int4"})[0].nbytes == 2


@pytest.mark.parametrize("dims", ["2x3", [2, "3"], [2.5], [True, 1], [[2]], {"a": 1}, [1 << 60], [2] * 40])
def test_dimensions_of_a_wrong_type_are_left_out_and_noted(dims):
    tensor, notes = read(Name="x", Dimensions=dims, **{"Format/Datatype": "Half"})
    assert tensor.shape is None
    assert notes == ("left out: Dimensions that are no sizes (1 times, first in layer)",)


def test_the_tag_of_a_profile_is_no_part_of_a_tensors_name():
    assert read(Name="relu_2 [profile 12].1_4_myl11")[0].name == "relu_2.1_4_myl11"


def test_a_tensor_without_a_name_is_noted():
    assert read(Dimensions=[1]) == (None, ("left out: a tensor without a Name (1 times, first in layer)",))

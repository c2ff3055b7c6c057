"""ONNX nodes are named in a layer's metadata, in several forms."""

from __future__ import annotations

import pytest

from sdtrt.readers.documents import Omissions
from sdtrt.readers.formats.tensorrt.nodes import nodes_of, usual_module


@pytest.mark.parametrize("separator", ["\x1e", "\x1f", "", " "])
def test_every_separator_is_understood(separator):
    metadata = separator.join(f"[ONNX Layer: {n}]" for n in ("/a/Conv", "/b/Relu", "/a/Conv"))
    assert nodes_of(metadata, Omissions(), "x") == ("/a/Conv", "/b/Relu")


def test_a_name_may_have_brackets_and_plus_signs():
    metadata = "[ONNX Layer: /blocks[0]/a + b]\x1e[ONNX Layer: c]]"
    assert nodes_of(metadata, Omissions(), "x") == ("/blocks[0]/a + b", "c]")


def test_half_a_name_is_noted_and_is_no_name():
    left = Omissions()
    assert nodes_of("[ONNX Layer: a]\x1f[ONNX Layer: /very/lo", left, "fused") == ("a",)
    assert "cut off" in left.notes()[0]


@pytest.mark.parametrize("metadata", [None, "", 3, [], "[PyTorch: x]"])
def test_no_metadata_names_no_nodes(metadata):
    assert nodes_of(metadata, Omissions(), "x") == ()


def test_the_usual_module_is_that_of_most_nodes():
    assert usual_module(("/a/b/Mul", "/a/c/Mul", "/a/c/Add")) == "a.c"
    assert usual_module(("node_linear", "node_relu")) is None

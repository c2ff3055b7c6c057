"""A small network with a convolution, an attention, a norm and a product, for the double's own tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(folder: Path, opset: int = 20, operator: str | None = None, channels: int = 8) -> Path:
    """Write it; `operator` adds one node of that type to the end. Inputs: image [b, 4, h, h], scale [1]."""
    random = np.random.default_rng(0)
    weights = {
        "conv.weight": random.standard_normal((channels, 4, 3, 3)).astype(np.float32) / 6,
        "conv.bias": np.zeros(channels, np.float32),
        "norm.weight": np.ones(channels, np.float32),
        "norm.bias": np.zeros(channels, np.float32),
        "out.weight": random.standard_normal((channels, channels)).astype(np.float32) / 3,
        "out.bias": np.zeros(channels, np.float32),
        "half": np.array(0.5, np.float32),
        "rows": np.array([0, channels, -1], np.int64),
    }
    nodes = [
        node("Conv", ["image", "conv.weight", "conv.bias"], "mapped", "/conv/Conv", pads=[1] * 4),
        node("Mul", ["mapped", "scale"], "scaled", "/scale/Mul"),
        node("Reshape", ["scaled", "rows"], "tokens", "/tokens/Reshape"),
        node("Transpose", ["tokens"], "rows_", "/tokens/Transpose", perm=[0, 2, 1]),
        node("LayerNormalization", ["rows_", "norm.weight", "norm.bias"], "normed", "/norm/LayerNormalization"),
        node("Mul", ["normed", "half"], "query", "/attn/Mul"),
        node("Transpose", ["normed"], "key", "/attn/Transpose", perm=[0, 2, 1]),
        node("MatMul", ["query", "key"], "scores", "/attn/MatMul"),
        node("Softmax", ["scores"], "weights", "/attn/Softmax", axis=-1),
        node("MatMul", ["weights", "normed"], "mixed", "/attn/MatMul_1"),
        node("MatMul", ["mixed", "out.weight"], "product", "/out/MatMul"),
        node("Add", ["product", "out.bias"], "result", "/out/Add"),
    ]
    if operator is not None:
        nodes.append(node(operator, ["result"], "extra", f"/extra/{operator}"))
    graph = helper.make_graph(
        nodes,
        "small",
        [value("image", ["b", 4, "h", "h"]), value("scale", [1])],
        [value("result", ["b", "n", channels])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path = folder / "small.onnx"
    if operator is None:
        made = onnx.shape_inference.infer_shapes(made)
    onnx.save(made, path)
    return path


def node(kind: str, inputs: list[str], output: str, name: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=name, **attributes)


def value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


RANGES = {"image": ((1, 4, 4, 4), (2, 4, 8, 8), (4, 4, 16, 16))}


class Session:
    """The small network on the double: builds, loads, runs, and keeps what TensorRT logged."""

    def __init__(self, trt: Any, folder: Path) -> None:
        self.trt, self.folder = trt, folder
        self.errors: list[str] = []
        self.warnings: list[str] = []

        class Log(trt.ILogger):
            def __init__(log) -> None:
                trt.ILogger.__init__(log)

            def log(log, severity: Any, msg: str) -> None:
                if severity <= trt.ILogger.Severity.ERROR:
                    self.errors.append(msg)
                elif severity == trt.ILogger.Severity.WARNING:
                    self.warnings.append(msg)

        self.log = Log()
        self.builder = trt.Builder(self.log)
        self.config = self.builder.create_builder_config()
        self.config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        typed = 0 if trt.__version__.startswith("11") else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network = self.builder.create_network(typed)
        self.parser = trt.OnnxParser(self.network, self.log)

    def plan(self, profiles: Any = (RANGES,), **settings: Any) -> Any:
        """IHostMemory, or None."""
        assert self.parser.parse_from_file(str(model(self.folder)))
        for ranges in profiles:
            profile = self.builder.create_optimization_profile()
            for name, shapes in ranges.items():
                profile.set_shape(name, *shapes)
            self.config.add_optimization_profile(profile)
        for name, setting in settings.items():
            setattr(self.config, name, setting)
        return self.builder.build_serialized_network(self.network, self.config)

    def engine(self, data: Any = None, **settings: Any) -> Any:
        """An engine of the plan, or of `data`."""
        self.runtime = self.trt.Runtime(self.log)
        return self.runtime.deserialize_cuda_engine(self.plan(**settings) if data is None else data)

    def context(self, engine: Any, shape: tuple[int, ...] = (2, 4, 8, 8)) -> Any:
        """A context that is ready to run; its tensors are `image`, `scale` and `result`."""
        context = engine.create_execution_context(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        assert context.set_input_shape("image", shape)
        self.image = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        self.scale = np.ones(1, np.float32)
        self.result = np.full(tuple(context.get_tensor_shape("result")), np.nan, np.float32)
        for name in ("image", "scale", "result"):
            assert context.set_tensor_address(name, getattr(self, name).ctypes.data)
        self.block = np.zeros(engine.device_memory_size_v2 + 256, np.uint8)
        context.set_device_memory(self.aligned, engine.device_memory_size_v2)
        return context

    @property
    def aligned(self) -> int:
        """The first address in the block that suits TensorRT."""
        return -(-self.block.ctypes.data // 256) * 256

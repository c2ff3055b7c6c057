"""Runs graph passes over an ONNX file, whose weights stay on disk.

A pass module has `VERSION`, part of the engine's key, and `apply(model) -> Result`. Graph inputs replace the weights:
no pass folds or renames one, so that a LoRA finds its layer, and a model of many gigabytes takes no memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from sdtrt import registry
from sdtrt.bundle.manifest import Change
from sdtrt.errors import GraphError
from sdtrt.graph import widen_fp32
from sdtrt.graph.run_passes import run_passes

PASSES = "sdtrt.graph.passes"


def versions(passes: Sequence[str], folder: str = PASSES, renamed: Mapping[str, str] | None = None) -> str:
    """The pass list with versions, as it stands in an engine's key.

    Raises:
        GraphError: a pass is not in the registry `folder`; the hint has the new name of one in `renamed`.
    """
    for name in passes:
        if (new := (renamed or {}).get(name, name)) != name:
            raise GraphError(
                f"{name!r} is none of the passes",
                slug="unknown-name",
                received=name,
                expected=", ".join(registry.names(folder)),
                hint=f"it is the pass {new} now",
            )
    return " ".join(f"{name}@{registry.load(folder, name, GraphError).VERSION}" for name in passes)


def optimize(path: Path, passes: Sequence[str], float32: Sequence[str] = ()) -> tuple[Change, ...]:
    """Run `passes` in order on the ONNX file at `path`, in place; GraphError names the pass that failed.

    The modules of a half precision graph that `float32` names compute in float32 after that.
    """
    model = onnx.load(path, load_external_data=False)
    weights = _detach_weights(model)
    model, changes = run_passes(
        model,
        PASSES,
        passes,
        lambda module, graph, _: module.apply(graph),
        lambda m: len(m.graph.node),
        path.parent.name,
    )
    _attach_weights(model, weights)
    onnx.save(model, path)
    if float32:
        widened = widen_fp32.widen_file(path, lambda graph: widen_fp32.nodes_in(graph, float32))
        changes += (widened.model_copy(update={"notes": (f"asked for: {', '.join(float32)}",)}),)
    return changes


def _detach_weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Replace weights by inputs of the same name, type and shape, and return the weights.

    A parameter of any size has a dotted name ("conv_in.bias"); the exporter's own constants have none.
    """
    weights: list[onnx.TensorProto] = []
    constants: list[onnx.TensorProto] = []
    for t in model.graph.initializer:
        external = t.data_location == onnx.TensorProto.EXTERNAL
        (weights if external or "." in t.name else constants).append(t)
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    model.graph.input.extend(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights)
    return weights


def _attach_weights(model: onnx.ModelProto, weights: Sequence[onnx.TensorProto]) -> None:
    known = {t.name for t in weights}
    inputs = [i for i in model.graph.input if i.name not in known]
    used = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(t for t in weights if t.name in used)

"""Compute ArgMax of booleans cast to integers in float32: CUDA has no other ArgMax kernel.

A text encoder finds its end token as `ArgMax(Cast(ids == eos, int32))`. ONNX Runtime's CUDA provider has ArgMax for
floats only, so this one node would go back to the host, stall the device and forbid CUDA graphs. Zero and one are exact
in both types.
"""

import onnx

from sdtrt.graph.run_passes import Result

VERSION = 1
_WHOLE = {onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
_TRUTH = {"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Not"}


def apply(model: onnx.ModelProto) -> Result[onnx.ModelProto]:
    """Change the target type of every cast from a truth value that feeds only ArgMax."""
    producers = {name: node for node in model.graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    changed: set[str] = set()
    for cast in (n for n in model.graph.node if n.op_type == "Cast"):
        target = next(a for a in cast.attribute if a.name == "to")
        truth = producers.get(cast.input[0])
        fed = users.get(cast.output[0], [])
        searched = fed and all(n.op_type == "ArgMax" for n in fed)
        if searched and target.i in _WHOLE and truth is not None and truth.op_type in _TRUTH:
            target.i = onnx.TensorProto.FLOAT
            changed.add(cast.output[0])
    # What the exporter noted about the type of these tensors no longer holds.
    kept = [info for info in model.graph.value_info if info.name not in changed]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    return Result(model, len(changed))

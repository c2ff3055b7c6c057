"""Remove `Where(IsNaN(p), 0, p)` after a softmax: it hides overflow and keeps engines from fusing the attention.

torch writes it for a masked attention, for rows in which every token is masked. A text encoder's causal mask leaves
every token at least itself, so the guard never acts, except on a NaN that should be seen and not become a black image.
"""

import onnx
import onnx_graphsurgeon as gs

from sdtrt.graph.run_passes import Result

VERSION = 1


def apply(model: onnx.ModelProto) -> Result[onnx.ModelProto]:
    """Drop every guard whose guarded tensor comes straight from a Softmax."""
    graph = gs.import_onnx(model)
    dropped, notes = 0, []
    for where in [n for n in graph.nodes if n.op == "Where"]:
        condition, _, guarded = where.inputs
        if not (condition.inputs and condition.inputs[0].op == "IsNaN" and condition.inputs[0].inputs[0] is guarded):
            continue
        if not (guarded.inputs and guarded.inputs[0].op == "Softmax"):
            notes.append(f"{where.name}: guards something else than a softmax")
            continue
        for user in list(where.outputs[0].outputs):
            user.inputs = [guarded if t is where.outputs[0] else t for t in user.inputs]
        dropped += 1
    if not dropped:
        return Result(model, 0, tuple(notes))
    return Result(gs.export_onnx(graph.cleanup().toposort(), do_type_check=False), dropped, tuple(notes))

"""Shape operations on the path.

What it finds: layers with a measured time that only compute sizes (Shape, Gather and Concat of a few integers,
TensorRT's shape_call) or only rename (Reshape, Squeeze).

Why it costs: sizes are computed by the host or by one thread, while the layers behind wait; a reshape that takes time
is a copy. Cost: the measured time, less what the profiler itself takes: 5 microseconds a node with ONNX Runtime, where
a reshape without a profiler takes a third of one.

What to do: build for fixed sizes where they are known: then all of it is folded away at build time. Otherwise fold
constants in the export, and write reshapes with 0 and -1 instead of sizes that are computed.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moves import is_shape_arithmetic, moves
from sdtrt.analysis.rule_support.view import Found, View, counted, names, total

TITLE = "Shape operations on the path"
PROFILER_MS = {"onnxruntime": 0.005}


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    profiler_ms = PROFILER_MS.get(view.plan.backend, 0)
    found = [part for part in moves(view, "shape") if (part.time_ms or 0) > profiler_ms]
    if found:
        cost = total((part.time_ms or 0) - profiler_ms for part in found)
        sizes = sum(is_shape_arithmetic(part.layer) for part in found)
        number = counted(len(found), "shape operation")
        text = f"{number} with a time, {sizes} for sizes and {len(found) - sizes} to rename{view.pct(cost)}"
        yield Found(text, names(found), cost)

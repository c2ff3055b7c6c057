"""Shape operations on the path.

What it finds: layers with a measured time that only compute sizes (Shape, Gather and Concat of a few integers,
TensorRT's shape_call) or only rename (Reshape, Squeeze).

Why it costs: sizes are computed by the host or by one thread, while the layers after it wait; a reshape that takes time
is a copy. Cost: the measured time, less what the profiler itself takes: 5 microseconds a node with ONNX Runtime, where
a reshape without a profiler takes a third of one.

What to do: build for fixed sizes where they are known: then all of it is folded away at build time. Otherwise fold
constants in the export, and write reshapes with 0 and -1 instead of sizes that are computed.
"""

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moving_layers import is_shape_arithmetic, moving_layers
from sdtrt.analysis.rule_support.view import Diagnostic, View, names_by_time, pluralize
from sdtrt.plan.sums import sum_known

TITLE = "Shape operations on the path"
PROFILER_MS = {"onnxruntime": 0.005}


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    profiler_ms = PROFILER_MS.get(view.plan.backend, 0)
    found = [entry for entry in moving_layers(view, "shape") if (entry.time_ms or 0) > profiler_ms]
    if found:
        cost = sum_known((entry.time_ms or 0) - profiler_ms for entry in found)
        sizes = sum(is_shape_arithmetic(entry.layer) for entry in found)
        number = pluralize(found, "shape operation")
        text = f"{number} with a time, {sizes} for sizes and {len(found) - sizes} to rename{view.percent(cost)}"
        yield Diagnostic(text, names_by_time(found), cost)

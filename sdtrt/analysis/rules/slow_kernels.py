"""Expensive layers far from what the device can do.

What it finds: computing layers that take more than twice the time of a perfect kernel, where that wastes 1 % of the
engine's time or more; the ten that waste most. Layers that another rule explains are left out.

Why it costs: the roofline says that neither compute nor memory needs this time. Cost: the measured time less the ideal.
No kernel reaches it: half of the figure is a good result.

What to do: with TensorRT, rebuild with a higher optimization level, more workspace or more timing iterations, so that
a better tactic is found, and compare tactics with another version. With ONNX Runtime, look at the number of threads and
at what else ran. Fuse a long pointwise or norm layer with its neighbors.
"""

from collections.abc import Iterator

from sdtrt.analysis.device_peaks import COMPUTE_KINDS
from sdtrt.analysis.rule_support.view import Diagnostic, View, pluralize, shorten
from sdtrt.plan.sums import sum_known

TITLE = "Slow kernels"
ORDER = 2
LEAST_SHARE = 0.01
MOST_EFFICIENCY = 0.5
SHOWN = 10


def find(view: View) -> Iterator[Diagnostic]:
    """The most expensive layers as one finding."""
    least = LEAST_SHARE * (view.layers_ms or 0)
    wasteful = [
        entry
        for entry in view.layers
        if entry.layer.kind in COMPUTE_KINDS and entry.layer.name not in view.reported
        if (entry.headroom_ms or 0) > max(least, MOST_EFFICIENCY * (entry.time_ms or 0))
    ]
    worst = sorted(wasteful, key=lambda entry: -(entry.headroom_ms or 0))[:SHOWN]
    if worst:
        cost, first = sum_known(entry.headroom_ms for entry in worst), worst[0]
        times = f"{shorten(first.layer.name)} takes {first.time_ms:.4g} ms, ideal is {first.ideal_ms:.4g} ms"
        text = f"{pluralize(worst, 'layer')} at more than twice the ideal time{view.percent(cost)}: {times}"
        yield Diagnostic(text, tuple(entry.layer.name for entry in worst), cost)

"""Many kernels that are too short to be worth their launch.

What it finds: on a GPU, at least 20 computing layers of less than 5 microseconds that together take 5 % of the time or
more. Reformats, copies and shape operations, and what another rule explains, are left out.

Why it costs: a launch takes a few microseconds whatever it does, and small kernels leave most of the GPU idle. Cost:
the measured time less that of the work alone, which a neighbor would take over; a launch each where the work is not
known.

What to do: fuse them. See what keeps the compiler from it: casts between them, a plugin, an output that is used
elsewhere. Batch what has the same shape (time embedding projections, q, k and v). CUDA graphs hide the launches on the
host's side only.
"""

from collections.abc import Iterator

from sdtrt.analysis.device_peaks import GPU_LAUNCH_US
from sdtrt.analysis.rule_support.moving_layers import move_kind
from sdtrt.analysis.rule_support.view import Diagnostic, LayerView, View, names_by_time, pluralize, time_of
from sdtrt.plan.sums import sum_known

TITLE = "Tiny kernels"
ORDER = 1
TINY_MS = 0.005
LEAST = 20
LEAST_SHARE = 0.05


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    computing = (p for p in view.layers if p.layer.name not in view.reported and move_kind(view, p) is None)
    tiny = [entry for entry in computing if 0 < (entry.time_ms or 0) < TINY_MS]
    taken = time_of(tiny) or 0
    if view.on_gpu and len(tiny) >= LEAST and taken >= LEAST_SHARE * (view.layers_ms or 0):
        cost = sum_known(_cost(view, entry) for entry in tiny)
        text = f"{pluralize(tiny, 'layer')} of less than {TINY_MS * 1e3:g} microseconds{view.percent(taken)}"
        yield Diagnostic(text, names_by_time(tiny), cost)


def _cost(view: View, entry: LayerView) -> float:
    """Time over that of the work: the larger of compute and memory."""
    limits, layer, time_ms = view.peaks, entry.layer, entry.time_ms or 0
    peak = limits and limits.tflops(layer.kind, layer.precision)
    if limits is None or not peak or not limits.gb_per_s or layer.flops is None or layer.bytes_moved is None:
        return min(time_ms, GPU_LAUNCH_US / 1e3)
    return max(time_ms - max(layer.flops / peak / 1e9, layer.bytes_moved / limits.gb_per_s / 1e6), 0)

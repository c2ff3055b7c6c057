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

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.device_peaks import GPU_LAUNCH_US
from sdtrt.analysis.rule_support.moves import sort_of
from sdtrt.analysis.rule_support.view import Found, Part, View, counted, names, total

TITLE = "Tiny kernels"
ORDER = 1
TINY_MS = 0.005
LEAST = 20
LEAST_SHARE = 0.05


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    computing = (p for p in view.parts if p.layer.name not in view.named and sort_of(view, p) is None)
    tiny = [part for part in computing if 0 < (part.time_ms or 0) < TINY_MS]
    taken = total(part.time_ms for part in tiny) or 0
    if view.on_gpu and len(tiny) >= LEAST and taken >= LEAST_SHARE * (view.layers_ms or 0):
        cost = total(_cost(view, part) for part in tiny)
        text = f"{counted(len(tiny), 'layer')} of less than {TINY_MS * 1e3:g} microseconds{view.pct(taken)}"
        yield Found(text, names(tiny), cost)


def _cost(view: View, part: Part) -> float:
    """Time over that of the work: the larger of compute and memory."""
    limits, layer, time_ms = view.peaks, part.layer, part.time_ms or 0
    peak = limits and limits.tflops(layer.kind, layer.precision)
    if limits is None or not peak or not limits.gb_per_s or layer.flops is None or layer.bytes_moved is None:
        return min(time_ms, GPU_LAUNCH_US / 1e3)
    return max(time_ms - max(layer.flops / peak / 1e9, layer.bytes_moved / limits.gb_per_s / 1e6), 0)

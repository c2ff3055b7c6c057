"""Matrix products and attention on plain arithmetic.

What it finds: matrix products and attention whose kernel name says that it multiplies without tensor cores (ffma, simt,
sgemm, gemv), where the device has such units for the layer's type. Products that wait for memory anyway, as those with
one row do, are left out.

Why it costs: tensor cores multiply 8 to 16 times as fast. Cost: the measured time less that of a perfect kernel on
them; unknown without FLOPs or the device's peak rates.

What to do: make the sizes multiples of 16 bytes, build in float16 or allow TF32, and raise the builder's optimization
level so that it tries more kernels.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.kernels import without_tensor_cores
from sdtrt.analysis.rule_support.view import Found, View, counted, names, short, total

TITLE = "Matrix products without tensor cores"


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    found = list(without_tensor_cores(view, lambda part: part.layer.kind in {"gemm", "attention"}))
    if found:
        cost, number = total(part.headroom_ms for part in found), counted(len(found), "product")
        text = f"{number} on plain arithmetic{view.pct(cost)}, {short(names(found)[0])} the longest"
        yield Found(text, names(found), cost)

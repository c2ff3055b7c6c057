"""float32 islands in a half-precision engine.

What it finds: convolutions, matmuls, attention, norms and pointwise layers that compute in float32 although the
engine was built for 16 bits or fewer. Layers that do so inside only, with half-precision tensors around them, are left
out.

Why it costs: twice the bytes and at most half the rate. Cost: half the time of a convolution or matmul, and all that
plain arithmetic adds to it; of other layers the time of the bytes that would not be moved.

What to do: find what pins them: a Cast in the export, a layer-precision setting, a float32 weight. Then lift it,
one island at a time, and check the image. In a VAE some of it is known to be necessary: SDXL's decoder overflows
in float16. There bfloat16, or a VAE that was trained not to overflow, is the way.
"""

from collections import Counter
from collections.abc import Iterator

from sdtrt.analysis.device_peaks import COMPUTE_KINDS, MATRIX_KINDS
from sdtrt.analysis.rule_support.kernels import uses_tensor_cores
from sdtrt.analysis.rule_support.view import Diagnostic, LayerView, View, names_by_time, pluralize, time_of
from sdtrt.plan.sums import sum_known

TITLE = "float32 islands"


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding; low where float32 is known to be necessary."""
    found = [p for p in view.layers if p.layer.precision == "float32" and p.layer.kind in COMPUTE_KINDS and p.runs]
    found = [entry for entry in found if _wide_share(entry) > 0] if view.is_half else []
    if not found:
        return
    cost, taken = sum_known(map(_cost, found)), time_of(found)
    kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(p.layer.kind for p in found).most_common())
    necessary = view.plan.component.startswith("vae")
    why = "; in a VAE that is known to be necessary for some checkpoints" if necessary else ""
    text = f"{pluralize(found, 'layer')} in float32{view.percent(taken)}: {kinds}{why}"
    yield Diagnostic(text, names_by_time(found), cost, "low" if necessary else None)


def _wide_share(entry: LayerView) -> float:
    """Share of the bytes that are in float32 tensors; all where tensors are not known."""
    tensors = {t.name: t for t in (*entry.layer.inputs, *entry.layer.outputs)}.values()
    sizes = [(t.nbytes, t.dtype == "float32") for t in tensors if t.dtype is not None]
    if not sizes:
        return 1
    if any(size is None for size, _ in sizes) or not (whole := sum(size or 0 for size, _ in sizes)):
        return sum(wide for _, wide in sizes) / len(sizes)
    return sum(size or 0 for size, wide in sizes if wide) / whole


def _cost(entry: LayerView) -> float | None:
    if entry.time_ms is None:
        return None
    if entry.layer.kind not in MATRIX_KINDS:
        return entry.time_ms * _wide_share(entry) / 2
    plain = uses_tensor_cores(entry.layer.kernel) is False
    return max(entry.time_ms / 2, (entry.headroom_ms or 0) if plain else 0)

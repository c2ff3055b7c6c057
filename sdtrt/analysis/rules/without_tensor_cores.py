"""Layers that multiply on plain arithmetic although the device has tensor cores for their type."""

from collections.abc import Iterator

from sdtrt.analysis.rule_support.kernels import uses_tensor_cores
from sdtrt.analysis.rule_support.view import Diagnostic, LayerView, View, names_by_time, pluralize, shorten
from sdtrt.plan.layers import base_type
from sdtrt.plan.sums import sum_known

TITLES = {
    "conv_without_tensor_cores": "Convolutions without tensor cores",
    "gemm_without_tensor_cores": "Matrix products without tensor cores",
}


def conv_without_tensor_cores(view: View) -> Iterator[Diagnostic]:
    """Convolutions on plain arithmetic.

    What it finds: convolutions whose kernel name says that it multiplies without tensor cores (ffma, scudnn, sgemm,
    kernels for GPUs older than Volta), where the device has tensor cores for the layer's type. Depthwise convolutions,
    and those that memory bandwidth limits anyway, are left out.

    Why it costs: tensor cores multiply 8 to 16 times as fast. Cost: the measured time less that of a perfect kernel on
    them; unknown without FLOPs or the device's peak rates.

    What to do: check why TensorRT chose it. Few input channels: pad them to a multiple of 8. An odd layout at the
    engine's inputs: give channels last. Otherwise raise the builder's optimization level and workspace, and build in
    float16.
    """
    yield from _report(view, {"conv"}, "convolution")


def gemm_without_tensor_cores(view: View) -> Iterator[Diagnostic]:
    """Matrix products and attention on plain arithmetic.

    What it finds: matrix products and attention whose kernel name says that it multiplies without tensor cores (ffma,
    simt, sgemm, gemv), where the device has tensor cores for the layer's type. Products that memory bandwidth limits
    anyway, as those with one row, are left out.

    Why it costs: tensor cores multiply 8 to 16 times as fast. Cost: the measured time less that of a perfect kernel on
    them; unknown without FLOPs or the device's peak rates.

    What to do: make the sizes multiples of 16 bytes, build in float16 or allow TF32, and raise the builder's
    optimization level so that it tries more kernels.
    """
    yield from _report(view, {"gemm", "attention"}, "product")


def _report(view: View, kinds: set[str], noun: str) -> Iterator[Diagnostic]:
    found = [entry for entry in view.layers if entry.layer.kind in kinds and _could_use_tensor_cores(view, entry)]
    if found:
        cost = sum_known(entry.headroom_ms for entry in found)
        names = names_by_time(found)
        text = f"{pluralize(found, noun)} on plain arithmetic{view.percent(cost)}, {shorten(names[0])} the longest"
        yield Diagnostic(text, names, cost)


def _could_use_tensor_cores(view: View, entry: LayerView) -> bool:
    """Whether the layer is on plain arithmetic and the device's tensor cores would be faster.

    Left out: types that the device has no such units for, depthwise convolutions, what memory limits even on plain
    arithmetic, and float32 in a half-precision engine, which `fp32_islands` reports.
    """
    if not entry.runs or uses_tensor_cores(entry.layer.kernel) is not False:
        return False
    return _has_units(view, entry.layer.precision) and not _is_depthwise(entry) and not _is_memory_bound(view, entry)


def _has_units(view: View, precision: str | None) -> bool:
    if precision in (None, "float32"):
        return bool(view.peaks and view.peaks.matrix_tflops.get("float32")) and not view.is_half
    return view.peaks is None or base_type(precision) in view.peaks.matrix_tflops


def _is_depthwise(entry: LayerView) -> bool:
    groups = entry.layer.attributes.get("Groups", 1)
    return "depthwise" in entry.layer.op.lower() or (isinstance(groups, int) and groups > 1)


def _is_memory_bound(view: View, entry: LayerView) -> bool:
    peaks, layer = view.peaks, entry.layer
    if peaks is None or not peaks.vector_tflops or not peaks.gb_per_s:
        return False
    if layer.flops is None or layer.bytes_moved is None:
        return False
    return layer.flops / peaks.vector_tflops / 1e9 <= layer.bytes_moved / peaks.gb_per_s / 1e6

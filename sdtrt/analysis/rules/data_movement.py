"""Layers that only move or convert data, by the kinds of `moving_layers`; each costs the time that it takes."""

from collections import Counter
from collections.abc import Iterator

from sdtrt.analysis.rule_support.moving_layers import is_requantize, moving_layers, report_time
from sdtrt.analysis.rule_support.view import Diagnostic, LayerView, View, pluralize
from sdtrt.plan.sums import sum_known

TITLES = {
    "type_conversions": "Type conversions",
    "norm_casts": "Casts around normalizations",
    "layout_reformats": "Layout changes",
    "slice_concat_copies": "Slice and concat copies",
    "skip_concats": "Copies of skip connections",
    "unfused_qdq": "Q/DQ layers that were not fused",
    "requantized_outputs": "Quantized layers with floating-point outputs that are quantized again",
}


def type_conversions(view: View) -> Iterator[Diagnostic]:
    """Casts between layers and at the engine's borders.

    What it finds: layers that only change the type of a tensor. Casts around normalizations, and quantizing, are other
    findings.

    Why it costs: a cast reads and writes the whole tensor and computes nothing. Cost: the measured time.

    What to do: at the borders, give and take tensors of the engine's own type. Inside, find the layer that runs in
    another precision than its neighbors and bring it in line, or cast where the tensor is smallest.
    """
    found = moving_layers(view, "cast")
    border = [entry for entry in found if not any(view.writers_of(entry)) or not any(view.readers_of(entry))]
    where = f", {len(border)} at the engine's inputs and outputs" if border else ""
    yield from report_time(view, found, f"{pluralize(found, 'cast')}{where}")


def norm_casts(view: View) -> Iterator[Diagnostic]:
    """Casts around normalizations.

    What it finds: layers that only change the type of a tensor and stand next to a group or layer norm.

    Why it costs: exports of half-precision models compute norms in float32 between two casts. Where the engine does not
    fuse them, the tensor is read and written whole twice more. Cost: the measured time of the casts.

    What to do: export the norm as one operator (GroupNormalization, LayerNormalization) on half-precision tensors: its
    kernels sum in float32 inside. A norm that must stay in float32 should at least be one fused region with its casts.
    """
    found = moving_layers(view, "norm_cast")
    yield from report_time(view, found, f"{pluralize(found, 'cast')} next to a normalization")


def layout_reformats(view: View) -> Iterator[Diagnostic]:
    """Layers that only change the layout.

    What it finds: Reformat layers, transposes and reorders that keep the type: channels first to channels last and
    back, channel blocks of another width.

    Why it costs: the tensor is read and written whole, and nothing is computed. Cost: the measured time.

    What to do: they stand where neighbors have different layouts. Use channels last at the engine's borders, and look
    at the layer on each side: often one operator without a channels-last kernel (a plugin, an odd resize) pays twice.
    Write attention so that heads are split without a transpose in memory.
    """
    found = moving_layers(view, "layout")
    most_common = Counter(filter(None, map(_change, found))).most_common(1)
    what = f", mostly {most_common[0][0]}" if most_common else ""
    yield from report_time(view, found, f"{pluralize(found, 'layout change')}{what}")


def slice_concat_copies(view: View) -> Iterator[Diagnostic]:
    """Tensors that are cut or joined by copying.

    What it finds: layers that only slice, split, pad or concatenate, and the copies that TensorRT makes for a
    concatenation. Skip connections of a U-Net are another finding.

    Why it costs: the bytes are read and written once more, although a kernel could read a part of a tensor, or write
    into one, in place. Cost: the measured time.

    What to do: split the weights of a projection in the export instead of its output, and pad in the convolution
    itself. Inputs of a concatenation should have one type and layout and one user each; then it needs no copy.
    """
    found = moving_layers(view, "copy")
    yield from report_time(view, found, f"{pluralize(found, 'layer')} to cut or join tensors")


def skip_concats(view: View) -> Iterator[Diagnostic]:
    """Skip connections of a U-Net that are copied together.

    What it finds: concatenations in the up blocks that run as layers of their own.

    Why it costs: at each step both halves, some of the largest tensors of the model, are read and written only to lie
    side by side. Cost: the measured time.

    What to do: the norm and the convolution that follow can read two tensors: fuse the concatenation into them with a
    plugin, or split the convolution's weights by input channels and add the two results. In TensorRT, first see that
    both inputs have the same type and layout: then it is often written in place.
    """
    found = moving_layers(view, "skip")
    moved = sum_known(entry.layer.bytes_moved or entry.layer.io_bytes for entry in found)
    size = f", {moved / 1e6:,.4g} MB each run" if moved else ""
    number = "1 copy" if len(found) == 1 else f"{len(found):,} copies"
    yield from report_time(view, found, f"{number} to join skip connections{size}")


def unfused_qdq(view: View) -> Iterator[Diagnostic]:
    """Quantizing and dequantizing as layers of their own.

    What it finds: layers that only quantize or dequantize int8, float8 or int4, in both forms that TensorRT gives them,
    Scale and Reformat. Those after a quantized layer are another finding.

    Why it costs: the layer reads and writes a whole tensor to round it. Fused into its neighbor that is free. Cost: the
    measured time.

    What to do: move Q and DQ nodes next to convolutions and matrix products, do not quantize what is alone between
    floating-point layers, and keep one scale along a chain of layers that only move data.
    """
    found = [entry for entry in moving_layers(view, "quantize") if not is_requantize(view, entry)]
    yield from report_time(view, found, f"{pluralize(found, 'Q/DQ layer')} on their own")


def requantized_outputs(view: View) -> Iterator[Diagnostic]:
    """Quantized layers that write floating point, only for it to be quantized again.

    What it finds: layers that do nothing but quantize what a convolution or matrix product in int8, float8 or int4 has
    written as floating point.

    Why it costs: the product could have rounded its own output and moved a half to an eighth of the bytes. Cost: the
    measured time of the layers that quantize.

    What to do: place the Q/DQ pair so that it follows the product, its activation and its residual sum directly, and
    quantize both branches of a residual with one scale: then the rounding is fused into the kernel.
    """
    found = [entry for entry in moving_layers(view, "quantize") if is_requantize(view, entry)]
    text = f"{pluralize(found, 'layer')} to quantize again what a quantized layer wrote as floating point"
    yield from report_time(view, found, text)


def _change(entry: LayerView) -> str | None:
    before, after = (side[0].format if side else None for side in (entry.layer.inputs, entry.layer.outputs))
    return f'from "{before}" to "{after}"' if before and after and before != after else None

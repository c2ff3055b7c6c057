"""FLOPs and bytes of a TensorRT layer by its own record, for dumps without an ONNX file.

- FLOPs of a convolution: 2 x multiply-adds, N x K x output area x (C / groups) x kernel area with N, C of the input and
  K of the output; a deconvolution does as much for each input element. Biases and activations are not counted.
- Weights: `Weights` and `Bias` (a fused pooling's `ConvWeights`, `ConvBias`), `Constants` where TensorRT 11 lists them;
  0 for layers that have none by their nature. A generated kernel or a matmul that lists none: unknown.
- Bytes moved: inputs and outputs, each tensor once, and weights.
"""

from collections.abc import Iterable
from math import prod
from typing import Any

from sdtrt.plan.layers import DTYPE_BITS, Kind, TensorInfo
from sdtrt.plan.sums import sum_complete
from sdtrt.readers.documents import Omissions
from sdtrt.readers.formats.tensorrt.tensors import dtype_of, tensor_of

_WEIGHTS = ("Weights", "Bias", "ConvWeights", "ConvBias")
_WITHOUT = ("pool", "softmax", "signal", "wait", "memset")
_LIMIT = 1 << 60


def weight_bytes(raw: dict[str, Any], kind: Kind, omitted: Omissions) -> int | None:
    """Bytes of a layer's weights, or None when unknown."""
    named = [raw[key] for key in _WEIGHTS if key in raw]
    if named:
        size = sum_complete(map(_bytes, named))
        if size is None:
            omitted.add("Weights without a known Type and Count", raw.get("Name"))
        return size
    if isinstance(raw.get("Constants"), list) and raw["Constants"]:
        constants = [tensor_of(entry, omitted, raw.get("Name")) for entry in raw["Constants"]]
        return sum_complete(None if t is None else t.nbytes for t in constants)
    layer_type = str(raw.get("ParameterType", raw.get("LayerType"))).lower()
    moves_only = kind in ("reformat", "copy", "shape", "attention")
    return 0 if moves_only or any(part in layer_type for part in _WITHOUT) else None


def _bytes(entry: Any) -> int | None:
    if not isinstance(entry, dict):
        return None
    count, text = entry.get("Count"), entry.get("Type")
    bits = DTYPE_BITS.get(dtype_of(text) or "") if isinstance(text, str) else None
    if count == 0:
        return 0
    if bits is None or type(count) is not int or not 0 < count < _LIMIT:
        return None
    return -(-count * bits // 8)


def flops(raw: dict[str, Any], inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> int | None:
    """FLOPs of a convolution whose sizes are all known; None for everything else."""
    kernel, groups = raw.get("Kernel"), raw.get("Groups", 1)
    if not inputs or not outputs or not isinstance(kernel, list) or type(groups) is not int or groups < 1:
        return None
    data, out = inputs[0].shape, outputs[0].shape
    if data is None or out is None or None in data or None in out or len(data) != len(out):
        return None
    if len(data) != len(kernel) + 2 or not all(type(k) is int and k > 0 for k in kernel):
        return None
    deconvolution = "deconv" in f"{raw.get('ParameterType')}{raw.get('LayerType')}".lower()
    elements, reached = (data, out[1]) if deconvolution else (out, data[1])
    work = 2 * prod(d or 0 for d in elements) * (reached or 0) * prod(kernel) // groups
    return work if work < _LIMIT else None


def bytes_moved(weights: int | None, tensors: Iterable[TensorInfo]) -> int | None:
    """Bytes of a layer's weights and of the tensors that it reads and writes; None when one is unknown."""
    sizes = {t.name: t.nbytes for t in tensors}
    return sum_complete((weights, *sizes.values())) if sizes else None

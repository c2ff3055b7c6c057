"""Quantized linear layers and convolutions: rounded values in PyTorch, Q and DQ nodes in the ONNX graph.

Both operands of a layer pass through a quantizer: its input by one scale, its weight by one per output channel (int8)
or one (fp8), all symmetric. A layer keeps its name and its weight, so that the names of nodes and initializers stay;
its output and all other tensors keep the graph's own type.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (as everybody calls it)

# The largest magnitude of each scheme: int8 from -127, and float8 with 4 exponent and 3 mantissa bits.
BOUNDS = {"int8": 127.0, "fp8": 448.0}
# The least scale: a smaller half-precision number loses bits. Its error is below that of half precision itself.
LEAST_SCALE = 2.0**-14


@dataclass(frozen=True)
class Scales:
    """The calibration of one layer: the largest magnitude of its input, and SmoothQuant's factors.

    The input is multiplied by `smooth` and the weight divided by it, channel by channel, before both are quantized.
    """

    input_amax: float
    smooth: tuple[float, ...] | None = None


@torch.library.custom_op("sdtrt::quantize_input", mutates_args=())
def quantize_input(values: Tensor, scale: float, scheme: str) -> Tensor:
    """Round to the steps of a scheme; the scale is a constant of the graph."""
    return _rounded(values, torch.tensor(scale), scheme)


@torch.library.custom_op("sdtrt::quantize_weight", mutates_args=())
def quantize_weight(values: Tensor, scale: Tensor, scheme: str) -> Tensor:
    """The same with one scale for each index of axis 0, or a single one."""
    return _rounded(values, scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.ndim else scale, scheme)


for _operator in (quantize_input, quantize_weight):
    _operator.register_fake(lambda values, scale, scheme: torch.empty_like(values))


def _rounded(values: Tensor, scale: Tensor, scheme: str) -> Tensor:
    scale = scale.float()
    steps = (values.float() / scale).clamp(-BOUNDS[scheme], BOUNDS[scheme])
    steps = steps.to(torch.float8_e4m3fn).float() if scheme == "fp8" else steps.round()
    return (steps * scale).to(values.dtype)


class _Quantized(nn.Module):
    """What both kinds of layers share."""

    weight: Any  # nn.Linear and nn.Conv2d declare it
    weight_scale: Tensor
    smooth: Tensor | None
    scheme: str
    input_scale: float

    def _operands(self, values: Tensor, channel_axis: int) -> tuple[Tensor, Tensor]:
        weight: Tensor = self.weight
        if self.smooth is not None:
            values = values * self.smooth.reshape(-1, *[1] * (-1 - channel_axis))
            weight = weight / self.smooth.reshape(1, -1, *[1] * (weight.ndim - 2))
        return (
            quantize_input(values, self.input_scale, self.scheme),
            quantize_weight(weight, self.weight_scale, self.scheme),
        )


class QuantLinear(_Quantized, nn.Linear):
    """A linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        """As nn.Linear."""
        values, weight = self._operands(input, -1)
        return F.linear(values, weight, self.bias)


class QuantConv2d(_Quantized, nn.Conv2d):
    """A convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """As nn.Conv2d."""
        values, weight = self._operands(input, -3)
        out: Tensor = self._conv_forward(values, weight, self.bias)
        return out


LAYERS: Mapping[type[nn.Module], type[_Quantized]] = {nn.Linear: QuantLinear, nn.Conv2d: QuantConv2d}


def insert(root: nn.Module, scales: Mapping[str, Scales], scheme: str) -> None:
    """Quantize the layers of `root` that `scales` names, in place; KeyError for another kind of layer."""
    for name, scale in scales.items():
        layer: Any = root.get_submodule(name)
        layer.__class__ = LAYERS[type(layer)]
        smooth = None if scale.smooth is None else torch.tensor(scale.smooth, dtype=layer.weight.dtype)
        layer.scheme = scheme
        layer.input_scale = _scale(torch.tensor(scale.input_amax), scheme, layer.weight.dtype).item()
        weight = (
            layer.weight if smooth is None else layer.weight / smooth.reshape(1, -1, *[1] * (layer.weight.ndim - 2))
        )
        per_channel = weight.flatten(1).abs().amax(dim=1)
        amax = per_channel if scheme == "int8" else per_channel.amax()
        layer.register_buffer("smooth", smooth)
        layer.register_buffer("weight_scale", _scale(amax, scheme, layer.weight.dtype))


def _scale(amax: Tensor, scheme: str, dtype: torch.dtype) -> Tensor:
    """The scale in the graph's type, as Q and DQ need it, so that PyTorch rounds by the same number."""
    return (amax.float() / BOUNDS[scheme]).clamp(min=LEAST_SCALE).to(dtype)


def layers(root: nn.Module) -> dict[str, _Quantized]:
    """The quantized layers by name."""
    return {name: m for name, m in root.named_modules() if isinstance(m, _Quantized)}


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ONNX form of the two operators, for torch's exporter."""
    import onnx
    from onnxscript import opset20

    op: Any = opset20
    types = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}

    def pair(values: Any, scale: Any, scheme: str, shape: list[int], axis: int) -> Any:
        size = shape[0] if shape else 1
        zero = op.Constant(value=onnx.helper.make_tensor("", types[scheme], shape, bytes(size), raw=True))
        return op.DequantizeLinear(op.QuantizeLinear(values, scale, zero, axis=axis), scale, zero, axis=axis)

    def quantize_input(values: Any, scale: float, scheme: str) -> Any:
        constant = op.Constant(value=onnx.helper.make_tensor("", int(values.dtype), [], [scale]))
        return pair(values, constant, scheme, [], 1)

    def quantize_weight(values: Any, scale: Any, scheme: str) -> Any:
        return pair(values, scale, scheme, [int(d) for d in scale.shape], 0)

    return {
        torch.ops.sdtrt.quantize_input.default: quantize_input,
        torch.ops.sdtrt.quantize_weight.default: quantize_weight,
    }

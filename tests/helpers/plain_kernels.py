"""What the Triton kernels of the Inductor engine compute, in plain PyTorch: the passes run without a GPU on these."""

import sys
from types import ModuleType

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn import functional

FP8 = torch.float8_e4m3fn


def rounded(values: Tensor, quant_scale: Tensor | None, kind: torch.dtype) -> Tensor:
    """In half precision, or the bits of FP8."""
    if quant_scale is None:
        return values.to(kind)
    return (values.float() * quant_scale).clamp(-448, 448).to(FP8).view(torch.uint8)


def group_norm(
    x: Tensor,
    add: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    quant_scale: Tensor | None = None,
    border: bool = False,
) -> Tensor:
    wide = x.float() if add is None else x.float() + add.float()[:, :, None, None]
    output = functional.group_norm(wide, groups, weight.float(), bias.float(), eps)
    output = functional.silu(output) if silu else output
    output = functional.pad(output, (0, 1, 0, 1)) if border else output
    return rounded(output, quant_scale, x.dtype).contiguous(memory_format=torch.channels_last)


def layer_norm(
    x: Tensor,
    shift: Tensor | None,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    quant_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    total = x.float()
    total = total if shift is None else total + shift.float()
    total = total if residual is None else total + residual.float()
    output = functional.layer_norm(total, total.shape[-1:], weight.float(), bias.float(), eps)
    changed = any(t is not None for t in (shift, residual))
    return total.to(x.dtype) if changed else x.new_empty(0), rounded(output, quant_scale, x.dtype)


def short_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, quant_scale: Tensor | None = None) -> Tensor:
    output = functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=scale)
    return rounded(output.transpose(1, 2).contiguous(), quant_scale, q.dtype)


def self_attention(
    qk: Tensor,
    vt: Tensor,
    codes: Tensor,
    unit: Tensor,
    images: int,
    heads: int,
    dtype: torch.dtype,
    quant_scale: Tensor | None = None,
) -> Tensor:
    """With weights whose bits are on a straight line between powers of two, as the kernel has them."""
    q, k = (t.reshape(images, -1, heads, t.shape[1] // heads).transpose(1, 2) for t in qk.float().chunk(2, 1))
    v = vt.float().reshape(heads, -1, images, qk.shape[0] // images).permute(2, 0, 3, 1)
    scores = (q @ k.transpose(2, 3)).half()
    top = scores.float().amax(-1, keepdim=True)
    by = codes.half()
    to = 1143.7 - top * by.float()
    bits = scores.double() * by.double() + (to - to.abs() / 2048).half().double() - 1024
    weights = bits.round().clamp(min=0).to(torch.uint8).view(FP8).float()
    output = weights @ v / weights.sum(-1, keepdim=True) * unit
    return rounded(output.transpose(1, 2).contiguous(), quant_scale, dtype)


def upsample(x: Tensor, quant_scale: Tensor | None = None, border: bool = False) -> Tensor:
    output = functional.interpolate(x.float(), scale_factor=2.0, mode="nearest")
    output = functional.pad(output, (0, 1, 0, 1)) if border else output
    return rounded(output, quant_scale, x.dtype).contiguous(memory_format=torch.channels_last)


def conv3x3(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    residual: Tensor | None = None,
) -> Tensor:
    if type(x) is Tensor:  # not when only shapes are asked for
        assert not x[:, :, -1].any()
        assert not x[:, :, :, -1].any()
    image = x.contiguous().view(FP8).float()[:, :, :-1, :-1]
    taps = weight.float().reshape(len(weight), 3, 3, -1).permute(0, 3, 1, 2)
    output = functional.conv2d(image, taps, padding=1) * (scales * scale)[None, :, None, None]
    output = output if bias is None else output + bias.float()[None, :, None, None]
    output = output if residual is None else output + residual.float()
    return output.to(dtype).contiguous(memory_format=torch.channels_last)


def gated(x: Tensor, weight: Tensor, scale: Tensor, scales: Tensor, bias: Tensor | None, quant_scale: Tensor) -> Tensor:
    product = x.view(FP8).float() @ weight.float().T * (scales * scale)
    product = product if bias is None else product + bias.float()
    value, gate = product.reshape(len(x), -1, 2, 64).transpose(1, 2).reshape(len(x), 2, -1).unbind(1)
    return rounded(value * functional.gelu(gate, approximate="tanh"), quant_scale, torch.float16)


def install_as_on_hopper(patch) -> None:
    """The same, with all that the passes do on such a GPU, on images of few pixels, too."""
    from sdtrt.engines.backends.inductor import pass_context
    from sdtrt.engines.backends.inductor.passes import self_attention

    install(patch)
    patch.setattr(pass_context, "is_hopper", lambda device: True)
    patch.setattr(self_attention, "LEAST_PIXELS", 64)


def install(patch) -> None:
    """Register the operations, and put modules in the place of those that import Triton."""
    modules = {
        "group_norm": ({"group_norm": group_norm}, {}),
        "layer_norm": ({"layer_norm": layer_norm}, {"LONGEST_ROW": 2048}),
        "cross_attention": ({"short_attention": short_attention}, {"MOST_KEYS": 80, "SIZES": (64, 128)}),
        "self_attention": ({"self_attention": self_attention}, {"SIZES": (64, 128), "PER_OCTAVE": 8}),
        "upsample": ({"upsample": upsample}, {}),
        "conv": ({"conv3x3": conv3x3}, {}),
        "geglu": ({"gated": gated}, {"TILE": 64}),
    }
    for name, (operations, constants) in modules.items():
        module = ModuleType(name)
        for operation, function in operations.items():
            if not hasattr(torch.ops.sdtrt, operation):
                output = custom_op(f"sdtrt::{operation}", function, mutates_args=())
                output.register_fake(function)
            setattr(module, operation, function)
        module.__dict__.update(constants)
        patch.setitem(sys.modules, f"sdtrt.engines.backends.inductor.kernels.{name}", module)

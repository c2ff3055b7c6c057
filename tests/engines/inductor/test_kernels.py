"""The Triton kernels on a real GPU, each against what it computes in plain PyTorch."""

from math import log

import plain_kernels
import pytest
import torch
from torch.nn import functional

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
FP8 = torch.float8_e4m3fn
HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 9
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")


@pytest.fixture(autouse=True)
def scratch():
    """Inductor gives kernels memory for their descriptors; here no one else does."""
    import triton

    triton.set_allocator(lambda size, align, stream: torch.empty(size, dtype=torch.int8, device="cuda"))


def half(*shape):
    return torch.randn(*shape, device="cuda").half()


def narrow(*shape):
    return torch.randn(*shape, device="cuda").to(FP8)


def one(value):
    return torch.tensor(value, device="cuda")


def check(made, expected, most=0.002):
    """FP8 may round to the neighbor: what was summed in another order lies on the other side of the middle."""
    if made.dtype is torch.uint8:
        made, expected, most = made.contiguous().view(FP8), expected.contiguous().view(FP8), max(most, 0.02)
    assert made.shape == expected.shape
    assert (made.float() - expected.float()).norm() / expected.float().norm() < most


# (images, channels, height, width): few pixels and many, groups that are no power of two, sides that are odd.
IMAGES = [(2, 64, 5, 6), (1, 320, 8, 8), (2, 2560, 16, 16), (2, 640, 32, 32), (2, 320, 64, 64), (16, 960, 40, 33)]
IMAGES += [(1, 128, 96, 64), (2, 1280, 32, 32)]


@pytest.mark.parametrize("shape", IMAGES, ids=str)
@pytest.mark.parametrize(
    ("silu", "add", "round_by", "border"), [(1, 1, 1, 1), (0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0)]
)
def test_group_norm(shape, silu, add, round_by, border):
    from sdtrt.engines.backends.inductor.kernels.group_norm import group_norm

    x = half(*shape).contiguous(memory_format=torch.channels_last) + 1
    vector = half(*shape[:2]) if add else None
    rest = (half(shape[1]), half(shape[1]), 32, 1e-5, bool(silu), one(8.0) if round_by else None, bool(border))
    made = group_norm(x, vector, *rest)
    check(made, plain_kernels.group_norm(x, vector, *rest))
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", IMAGES, ids=str)
@pytest.mark.parametrize(("factor", "border"), [(None, False), (8.0, True), (8.0, False)])
def test_upsample(shape, factor, border):
    from sdtrt.engines.backends.inductor.kernels.upsample import upsample

    x = half(*shape).contiguous(memory_format=torch.channels_last)
    rest = (None if factor is None else one(factor), border)
    made = upsample(x, *rest)
    check(made, plain_kernels.upsample(x, *rest))
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(2, 77, 768), (1, 33, 320), (2, 1024, 1280), (3, 5, 2048)], ids=str)
@pytest.mark.parametrize(("shift", "residual", "factor"), [(0, 0, 0), (1, 1, 1), (0, 1, 1), (1, 0, 0)])
def test_layer_norm(shape, shift, residual, factor):
    from sdtrt.engines.backends.inductor.kernels.layer_norm import layer_norm

    size = shape[-1]
    given = (half(size) if shift else None, half(*shape) if residual else None)
    rest = (half(size), half(size), 1e-5, one(8.0) if factor else None)
    x = half(*shape)
    (total, made), expected = layer_norm(x, *given, *rest), plain_kernels.layer_norm(x, *given, *rest)
    check(made, expected[1])
    assert total.shape == expected[0].shape
    assert torch.allclose(total, expected[0], atol=0.01, rtol=0.002)


@pytest.mark.parametrize("shape", [(2, 20, 1024, 77), (1, 5, 100, 80), (2, 3, 64, 64), (16, 10, 4096, 77)], ids=str)
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("factor", [None, 30.0])
def test_short_attention(shape, size, factor):
    from sdtrt.engines.backends.inductor.kernels.cross_attention import short_attention

    batch, heads, queries, keys = shape
    both = half(batch, keys, 2 * heads * size)  # as two matmuls of one layer
    q = half(batch, queries, heads, size).transpose(1, 2)
    k, v = (t.unflatten(-1, (heads, size)).transpose(1, 2) for t in both.split(heads * size, -1))
    rest = (size**-0.5, None if factor is None else one(factor))
    check(short_attention(q, k, v, *rest), plain_kernels.short_attention(q, k, v, *rest))


# (images, heads, pixels, size of a head): a last tile of keys and queries that is full and one that is not.
SELF = [(2, 20, 1024, 64), (1, 5, 1040, 64), (2, 5, 1096, 64), (2, 10, 2304, 64), (16, 10, 1200, 64), (1, 3, 1024, 128)]


@needs_hopper
@pytest.mark.parametrize("shape", SELF, ids=str)
@pytest.mark.parametrize(("factor", "tilt"), [(None, 0), (30.0, 0), (None, 4)])
def test_self_attention(shape, factor, tilt):
    from sdtrt.engines.backends.inductor.kernels.self_attention import PER_OCTAVE, self_attention

    images, heads, pixels, size = shape
    qk = (torch.randn(images * pixels, 2 * heads * size, device="cuda") * 2).to(FP8)
    # Values that depend on where a pixel lies show whether all tiles of keys have the same weight.
    side = torch.linspace(-1, 1, pixels, device="cuda").sign().repeat(images)
    vt = (torch.randn(heads * size, images * pixels, device="cuda") * 2 + side * tilt + tilt / 2).to(FP8)
    q, k = (t.reshape(images, -1, heads, size).transpose(1, 2) for t in qk.float().chunk(2, 1))
    v = vt.float().reshape(heads, -1, images, pixels).permute(2, 0, 3, 1) * 0.1
    exact = functional.scaled_dot_product_attention(q, k, v, scale=0.4 / PER_OCTAVE * log(2)).transpose(1, 2)
    round_by = None if factor is None else one(factor)
    made = self_attention(qk, vt, one(0.4), one(0.1), images, heads, torch.float16, round_by)
    # Weights are rounded to FP8, which is 2.6 % of each, and taken from straight lines, 2 %; a result may be, too.
    check(made, plain_kernels.rounded(exact, round_by, torch.float16), most=0.04 if factor is None else 0.07)


# Sizes for whole sums and for parts of them, channels that fill no tile, and tiles that reach over images.
SIZES = [(2, 1280, 1280, 8, 8), (2, 2560, 1280, 16, 16), (2, 640, 640, 32, 32), (1, 320, 320, 64, 48)]
SIZES += [(16, 320, 640, 32, 32), (3, 64, 80, 9, 7), (2, 960, 320, 128, 128), (2, 1280, 1280, 12, 16)]


@needs_hopper
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("biased", "added"), [(True, False), (False, True), (True, True)])
def test_conv3x3(size, biased, added):
    from sdtrt.engines.backends.inductor.kernels.conv import conv3x3

    images, channels, columns, height, width = size
    x = functional.pad(narrow(images, channels, height, width).view(torch.uint8), (0, 1, 0, 1))
    x = x.contiguous(memory_format=torch.channels_last)
    scales = torch.rand(columns, device="cuda") * 0.1
    rest = (narrow(columns, 9 * channels), one(0.5), scales, half(columns) if biased else None, torch.float16)
    residual = half(images, columns, height, width).contiguous(memory_format=torch.channels_last)
    rest = (*rest, residual if added else None)
    made = conv3x3(x, *rest)
    # The tensor cores accumulate FP8 with fewer bits than float32 has.
    check(made, plain_kernels.conv3x3(x, *rest), most=0.005)
    assert made.is_contiguous(memory_format=torch.channels_last)


# Few rows, which threads copy, and many; the last two sizes are no whole tiles.
GATES = [(2048, 1280, 5120), (16384, 640, 2560), (8192, 320, 1280), (100, 320, 1280), (64, 96, 192)]


@needs_hopper
@pytest.mark.parametrize("size", GATES, ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_gated(size, biased):
    from sdtrt.engines.backends.inductor.kernels.geglu import gated

    rows, inner, columns = size
    x, scales = narrow(rows, inner).view(torch.uint8), torch.rand(2 * columns, device="cuda") * 0.1
    rest = (narrow(2 * columns, inner), one(0.5), scales, half(2 * columns) if biased else None, one(4.0))
    check(gated(x, *rest), plain_kernels.gated(x, *rest))

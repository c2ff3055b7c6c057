"""Kernels that are launched before the one in front has ended: they wait by themselves, and compute the same."""

import ast
from pathlib import Path

import pytest
import torch

from sdtrt.engines import _cuda_graph

KERNELS = Path(_cuda_graph.__file__).parent / "_inductor"


def functions():
    """(name, source) of all functions of Triton."""
    for path in sorted(KERNELS.glob("*_kernel.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any("jit" in ast.unparse(d) for d in node.decorator_list):
                yield node.name, ast.unparse(node)


def waiting():
    return {name for name, source in functions() if "ready(EARLY)" in source and name != "ready"}


def test_the_kernels_that_are_named_are_those_that_wait():
    tree = ast.parse((KERNELS / "early_kernel.py").read_text(encoding="utf-8"))
    (named,) = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "KERNELS"]
    assert waiting() == set(ast.literal_eval(named.args[0]))


def test_every_kernel_that_is_launched_waits():
    launched = {
        ast.unparse(node.args[0])
        for path in KERNELS.glob("*_kernel.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "wrap_triton"
    }
    assert launched == waiting()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("side", [16, 64], ids=["sums in parts", "whole sums"])
def test_the_results_are_the_same_to_the_bit(side, monkeypatch):
    if torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("needs Hopper")
    import triton

    from sdtrt.engines._cuda_early import soften
    from sdtrt.engines._inductor.conv_kernel import conv3x3
    from sdtrt.engines._inductor.early_kernel import KERNELS as NAMES
    from sdtrt.engines._inductor.gated_kernel import gated
    from sdtrt.engines._inductor.group_norm_kernel import group_norm
    from sdtrt.engines._inductor.layer_norm_kernel import layer_norm

    triton.set_allocator(lambda size, align, stream: torch.empty(size, dtype=torch.int8, device="cuda"))
    fp8, one, size = torch.float8_e4m3fn, torch.tensor(0.02, device="cuda"), (2, 640, side, side)
    weight, bias, wide = (torch.randn(n, device="cuda").half() for n in (640, 640, 1280))
    taps, gates, matrix = (torch.randn(640, n, device="cuda").to(fp8) for n in (9 * 640, 640, 640))
    scales, gates = torch.rand(1280, device="cuda") * 0.1, gates.repeat(2, 1)
    x = torch.randn(size, device="cuda").half().contiguous(memory_format=torch.channels_last)
    made = torch.empty_like(x)

    def enqueue():
        image = x
        for _ in range(10):  # kernels of a library, and ours behind them and behind each other
            bits = group_norm(image, None, weight, bias, 32, 1e-5, True, one * 1000, True)
            image = conv3x3(bits, taps, one, scales[:640], bias, torch.float16)
            rows = image.permute(0, 2, 3, 1).reshape(-1, 640)
            bits = layer_norm(rows, None, rows, weight, bias, 1e-5, one * 400)[1]
            bits = gated(bits, gates, one, scales, wide, one * 100)
            rows = torch._scaled_mm(bits.view(fp8), matrix.t(), one, one, out_dtype=torch.float16)
            rows = layer_norm(rows, None, rows, weight, bias, 1e-5)[1]
            image = rows.reshape(2, side, side, 640).permute(0, 3, 1, 2)
        made.copy_(image)

    enqueue()
    expected = made.clone()
    device, changed, owner = torch.device("cuda", 0), [], torch.nn.Module()
    monkeypatch.setattr("sdtrt.engines._cuda_early.soften", lambda *args: changed.append(soften(*args)))
    pool = torch.cuda.MemPool()
    graph, _ = _cuda_graph.capture(_cuda_graph.own_stream(device, owner), enqueue, pool, NAMES)
    assert changed[0] >= 10 * 4
    assert expected.isfinite().all()
    for _ in range(20):
        made.zero_()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(made, expected)

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


def test_the_kernels_that_are_named_are_those_that_wait():
    waiting = {name for name, source in functions() if "ready(EARLY)" in source and name != "ready"}
    tree = ast.parse((KERNELS / "early_kernel.py").read_text(encoding="utf-8"))
    (named,) = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "KERNELS"]
    assert waiting == set(ast.literal_eval(named.args[0]))


def test_every_kernel_that_is_launched_waits():
    launched = {
        ast.unparse(node.args[0])
        for path in KERNELS.glob("*_kernel.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "wrap_triton"
    }
    assert launched == {name for name, source in functions() if "ready(EARLY)" in source and name != "ready"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_results_are_the_same_to_the_bit():
    if torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("needs Hopper")
    from sdtrt.engines._cuda_early import soften
    from sdtrt.engines._inductor.early_kernel import KERNELS as NAMES
    from sdtrt.engines._inductor.group_norm_kernel import group_norm
    from sdtrt.engines._inductor.layer_norm_kernel import layer_norm

    weight, bias, matrix = (torch.randn(s, device="cuda").half() for s in (640, 640, (640, 640)))
    x = torch.randn(2, 640, 64, 64, device="cuda").half().contiguous(memory_format=torch.channels_last)
    made = torch.empty_like(x)

    def enqueue():
        image = x
        for _ in range(20):  # long kernels of a library, and short ones of ours behind them
            image = group_norm(image, None, weight, bias, 32, 1e-5, True)
            rows = image.permute(0, 2, 3, 1).reshape(-1, 640) @ matrix
            rows = layer_norm(rows, None, rows, weight, bias, 1e-5)[1]
            image = rows.reshape(2, 64, 64, 640).permute(0, 3, 1, 2)
        made.copy_(image)

    enqueue()
    expected = made.clone()
    device, changed, owner = torch.device("cuda", 0), [], torch.nn.Module()
    patch = pytest.MonkeyPatch()
    patch.setattr("sdtrt.engines._cuda_early.soften", lambda *args: changed.append(soften(*args)))
    pool = torch.cuda.MemPool()
    graph, _ = _cuda_graph.capture(_cuda_graph.own_stream(device, owner), enqueue, pool, NAMES)
    patch.undo()
    assert changed[0] >= 20 * 3
    for _ in range(20):
        made.zero_()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(made, expected)

"""GELU in its tanh form, for tensors that are quantized to FP8 next: the error function dominates that kernel's time.

With 16 rows of SDXL at 1024 pixels the exact form took 1.6 times as long as its memory traffic. The two forms differ by
less than 0.0005, FP8 rounds at 3 % and more. x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3)) is the tanh form of
Hendrycks and Gimpel, "Gaussian Error Linear Units", with tanh(y) = 2 * sigmoid(2y) - 1.
"""

from functools import partial

from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

VERSION = 1
REQUIRES = ("fp8",)


_FACTOR, _CUBE = 1.5957691216057308, 0.044715


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Rewrite every exact GELU."""
    import torch

    return Result(graph, graph.replace_calls(torch.ops.aten.gelu.default, partial(_tanh_form, graph)))


def _tanh_form(graph: Graph, node: Node) -> Node | None:
    import torch

    if node.kwargs.get("approximate", "none") != "none":
        return None
    aten, step = torch.ops.aten, partial(graph.call, node)
    wide = step(aten._to_copy.default, node.args[0], dtype=torch.float32)
    cube = step(aten.mul.Tensor, step(aten.mul.Tensor, step(aten.mul.Tensor, wide, wide), wide), _CUBE)
    gate = step(aten.sigmoid.default, step(aten.mul.Tensor, step(aten.add.Tensor, wide, cube), _FACTOR))
    return step(aten._to_copy.default, step(aten.mul.Tensor, wide, gate), dtype=node.meta["val"].dtype)

"""Attention that runs as separate kernels.

What it finds: attentions of the ONNX graph (matmul, softmax, matmul) that no single layer implements and whose
kernels are not fused attention. Counted by module.

Why it costs: the matrix of scores, heads x queries x keys, is written and read twice; for large pictures it is the
largest tensor of the model. Cost: the measured time of these nodes less that of a perfect fused kernel, which moves
only queries, keys, values and the result; without the device's peak rates, the time of all but the two matmuls.

What to do: write the attention as one operator in the export, or as the bare matmul, scale, softmax, matmul that
TensorRT recognizes: no casts or masks of another type between, float16 or bfloat16, head size of at most 256. A newer
TensorRT fuses more.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdtrt.analysis.rule_support.kernels import is_fused_attention
from sdtrt.analysis.rule_support.view import Diagnostic, LayerView, View, names_by_time, shorten
from sdtrt.plan.layers import NodeCost
from sdtrt.plan.sums import sum_known

TITLE = "Attention that was not fused"
MATMULS = frozenset({"MatMul", "FusedMatMul", "Gemm"})
WHOLE = frozenset({"Attention", "MultiHeadAttention"})
# A whole Attention node in fewer layers is one kernel with casts or copies beside it.
LEAST_LAYERS = 3


@dataclass(frozen=True)
class Unfused:
    """The attentions of one module that were not fused: their number, nodes and layers."""

    module: str
    number: int
    nodes: tuple[NodeCost, ...]
    layers: tuple[LayerView, ...]

    def work_ms(self, without: frozenset[str] = frozenset()) -> float | None:
        """Measured time of the nodes, but for those of some operators."""
        wanted = {node.name for node in self.nodes if node.op not in without}
        return sum_known(entry.work_ms(lambda node: node.name in wanted) for entry in self.layers)

    def scores_bytes(self) -> int | None:
        """Bytes of the scores, which the softmax reads and writes once."""
        moved = [node.bytes_moved for node in self.nodes if node.op == "Softmax"]
        return sum(b // 2 for b in moved if b is not None) if moved and None not in moved else None


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding that names the slowest module."""
    found = sorted(_unfused(view), key=lambda one: -(one.work_ms() or 0))
    if not found:
        return
    cost, first = sum_known(_cost(view, one) for one in found), found[0]
    scores = sum_known(one.scores_bytes() for one in found)
    size = f", {scores / 1e6:,.4g} MB of scores written and read twice" if scores else ""
    number = sum(one.number for one in found)
    attentions = f"{number:,} attention{'s' if number != 1 else ''}"
    text = f"{attentions} in separate kernels{size}{view.percent(cost)}"
    layers = [entry for one in found for entry in one.layers]
    yield Diagnostic(f"{text}, {shorten(first.module)} the longest", names_by_time(layers), cost)


def _unfused(view: View) -> Iterator[Unfused]:
    modules: dict[str, list[NodeCost]] = defaultdict(list)
    for node in view.plan.nodes:
        if node.kind == "attention":
            modules[node.module].append(node)
    naming: dict[str, list[LayerView]] = defaultdict(list)
    for entry in view.layers:
        for name in entry.layer.nodes:
            naming[name].append(entry)
    for module, nodes in modules.items():
        layers = list({id(entry): entry for node in nodes for entry in naming[node.name] if entry.runs}.values())
        fused = [_is_fused(entry, nodes) for entry in layers]
        number = _attentions(nodes, naming) - sum(fused)
        done = {name for entry, whole in zip(layers, fused, strict=True) if whole for name in entry.layer.nodes}
        apart = tuple(entry for entry, whole in zip(layers, fused, strict=True) if not whole)
        if number > 0 and apart:
            yield Unfused(module, number, tuple(node for node in nodes if node.name not in done), apart)


def _is_fused(entry: LayerView, nodes: Sequence[NodeCost]) -> bool:
    """Whether the layer is a whole attention, by its kernel's name or its nodes."""
    ops = [node.op for node in nodes if node.name in entry.layer.nodes]
    return is_fused_attention(entry.layer.kernel) or (sum(op in MATMULS for op in ops) >= 2 and "Softmax" in ops)


def _attentions(nodes: Sequence[NodeCost], naming: dict[str, list[LayerView]]) -> int:
    """Attentions that could be unfused: those written out, and those of one node that many layers implement."""
    whole = sum(node.op in WHOLE and len(naming[node.name]) >= LEAST_LAYERS for node in nodes)
    return whole + sum(node.op == "Softmax" and bool(naming[node.name]) for node in nodes)


def _cost(view: View, one: Unfused) -> float | None:
    measured, ideal = one.work_ms(), _ideal_ms(view, one)
    if measured is None or ideal is not None:
        return None if measured is None or ideal is None else max(measured - ideal, 0)
    return one.work_ms(without=MATMULS | WHOLE)


def _ideal_ms(view: View, one: Unfused) -> float | None:
    """Time of a perfect fused kernel: the matmuls' FLOPs, and their bytes without the scores."""
    matmuls, scores = [node for node in one.nodes if node.op in MATMULS], one.scores_bytes()
    flops, moved = sum_known(n.flops for n in matmuls), sum_known(n.bytes_moved for n in matmuls)
    limits, precision = view.peaks, one.layers[0].layer.precision
    peak = limits and limits.tflops("attention", precision)
    if limits is None or not peak or not limits.gb_per_s or flops is None or moved is None or scores is None:
        return None
    return max(flops / peak / 1e9, max(moved - 2 * scores, 0) / limits.gb_per_s / 1e6)

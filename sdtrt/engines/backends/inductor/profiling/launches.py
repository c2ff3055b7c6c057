"""The plan of a package: its launches as layers that name the traced graph's nodes, with costs but not yet with times.

The build writes it beside the package, because only then are graph, weights and code available.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt import costs
from sdtrt.engines.backends.inductor.profiling import wrapper
from sdtrt.engines.backends.inductor.profiling.wrapper import Launch
from sdtrt.engines.backends.inductor.trace import Graph
from sdtrt.plan.layers import Kind, Layer, NodeCost, Plan, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

    from sdtrt.costs import GraphCosts

# The attribute of a layer that is "triton", "cpp" or "extern" (a library call), by which `timing` finds its events.
NATIVE = "native"
_LIBRARY: tuple[tuple[str, Kind], ...] = (("attention", "attention"), ("conv", "conv"), ("mm", "gemm"))
_MATRIX = frozenset({"conv", "gemm", "attention"})


def path_of(package: Path) -> Path:
    """The plan's file beside a package."""
    return package.with_suffix(".plan.json")


def priced(graph: Graph, given: Mapping[str, Tensor]) -> GraphCosts:
    """Costs of the graph's nodes with these inputs, by placeholder."""
    return costs.fx_costs(graph.module, {**graph.weights, **given}, frozenset(graph.weights))


def plan_of(
    text: str, graph: Graph, priced: GraphCosts, arguments: Sequence[str], given: Mapping[str, Tensor], component: str
) -> Plan:
    """The launches in generated code, with their costs.

    Args:
        text: the Python that Inductor wrote.
        graph: the graph that was compiled.
        priced: its costs, computed before the compilation, which changes the graph.
        arguments: names of its placeholders, in the order of the code's arguments.
        given: inputs by placeholder; with the graph's weights, all that the code is called with.
        component: name of the component.

    Returns:
        A plan whose layers have no times.
    """
    every = {**graph.weights, **given}
    described = _Described(graph, arguments, every, priced)
    plan = Plan(
        component=component,
        backend="inductor",
        backend_version=None,
        device=None,
        precision=None,
        shapes={n: tuple(given[p].shape) for n, p in graph.inputs.items()},
        layers=tuple(map(described.layer, wrapper.read(text))),
    )
    joined = costs.join(plan, priced)
    return joined.model_copy(update={"layers": tuple(map(_moving, joined.layers))})


class _Described:
    """Makes layers of launches, in order: what a library call wrote has a type that only the graph knows."""

    def __init__(self, graph: Graph, arguments: Sequence[str], every: Mapping[str, Tensor], priced: GraphCosts) -> None:
        self._weights, self._arguments, self._every, self._priced = graph.weights, arguments, every, priced
        self._given = {placeholder: name for name, placeholder in graph.inputs.items()}
        self._types: dict[str, str | None] = {}
        self._computed: set[str] = set()
        self._names = Counter[str]()

    def layer(self, launch: Launch) -> Layer:
        named = [self._priced.nodes[n] for n in launch.nodes if n in self._priced.nodes]
        by_hand = launch.native == "triton" and not launch.kernel.startswith("triton_") and bool(named)
        kind = self._kind_by_hand(named) if by_hand else _kind(launch, named)
        nodes = named if by_hand else _own(launch, named, kind)
        main = _main(nodes, kind)
        inputs = tuple(found for t in launch.reads if (found := self._read(t, launch)) is not None)
        made = self._priced.tensors.get(main.name) if main else None
        outputs = tuple(t.model_copy(update={"dtype": t.dtype or (made and made.dtype)}) for t in launch.writes)
        if by_hand:
            inputs, outputs = tuple(map(_as_fp8, inputs)), tuple(map(_as_fp8, outputs))
        self._types |= {t.name: t.dtype for t in outputs}
        # Beside its result a kernel may write a few sums.
        deciding = inputs if kind in _MATRIX else sorted(outputs, key=lambda t: -(t.nbytes or 0))
        return Layer(
            name=self._unique(f"{main.name} {_short(launch)}" if main else _short(launch)),
            kind=kind,
            op=_op(launch, main, kind),
            kernel=launch.kernel,
            precision=next((t.dtype for t in deciding if t.dtype), None),
            inputs=inputs,
            outputs=outputs,
            nodes=tuple(n.name for n in nodes),
            module=main.module if main else None,
            attributes={NATIVE: launch.native},
        )

    def _kind_by_hand(self, named: Sequence[NodeCost]) -> Kind:
        """A hand-written kernel computes the nodes that it names; of several for one matmul the first computes it."""
        heaviest = max(named, key=lambda n: n.flops or 0)
        again = heaviest.kind in _MATRIX and heaviest.name in self._computed
        self._computed.add(heaviest.name)
        return "pointwise" if again else heaviest.kind

    def _read(self, tensor: TensorInfo, launch: Launch) -> TensorInfo | None:
        """An activation with its type, under the name of the graph's input where it is one; None for a weight."""
        if tensor.name not in launch.arguments:
            return tensor.model_copy(update={"dtype": tensor.dtype or self._types.get(tensor.name)})
        placeholder = self._arguments[launch.arguments[tensor.name]]
        if placeholder in self._weights:
            return None
        value = self._every[placeholder]
        return TensorInfo(
            name=self._given[placeholder],
            shape=tensor.shape if tensor.shape is not None else tuple(value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
        )

    def _unique(self, name: str) -> str:
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name} #{self._names[name]}"


def _as_fp8(tensor: TensorInfo) -> TensorInfo:
    """Hand-written kernels pass FP8 on as uint8."""
    return tensor.model_copy(update={"dtype": "float8_e4m3fn"}) if tensor.dtype == "uint8" else tensor


def _moving(layer: Layer) -> Layer:
    """A launch reads and writes its tensors whatever its nodes are: a view that became a copy moves bytes."""
    if layer.bytes_moved or layer.io_bytes is None:
        return layer
    return layer.model_copy(update={"bytes_moved": layer.io_bytes + (layer.weight_bytes or 0)})


def _kind(launch: Launch, nodes: Sequence[NodeCost]) -> Kind:
    """A library call is what it is called; a generated kernel has the kind of its heaviest node that is no matmul."""
    if launch.native == "extern":
        return next((kind for word, kind in _LIBRARY if word in launch.call), "other")
    if not launch.reads:
        return "copy"  # it fills a tensor
    own = {n.kind for n in nodes if n.flops or n.bytes_moved} - _MATRIX
    first: tuple[Kind, ...] = ("norm", "pointwise", "copy", "reformat")
    found = next((kind for kind in first if kind in own), None)
    if found is None:
        # The comment names a matmul only: its operands get another layout here, or its bias is added.
        found = "reformat" if len(launch.reads) == len(launch.writes) else "pointwise"
    return found


def _own(launch: Launch, named: Sequence[NodeCost], kind: Kind) -> Sequence[NodeCost]:
    """What a launch computes of the nodes that its comment names, in the graph's order.

    A library call computes the last node of its kind: the others only led to its operands. A generated kernel computes
    no matmul.
    """
    if launch.native == "extern":
        return [n for n in named if n.kind == kind][-1:] or named[-1:]
    return [n for n in named if n.kind not in _MATRIX] or named


def _main(nodes: Sequence[NodeCost], kind: Kind) -> NodeCost | None:
    """The node that a launch is named after: the heaviest of its own kind, the last of equals."""
    own = [n for n in nodes if n.kind == kind] or list(nodes)
    return max(enumerate(own), key=lambda found: (found[1].flops or 0, found[0]))[1] if own else None


def _op(launch: Launch, main: NodeCost | None, kind: Kind) -> str:
    if main is not None and main.kind == kind:
        return main.op
    return "Transpose" if kind == "reformat" else _short(launch)


def _short(launch: Launch) -> str:
    """`torch.ops.aten.convolution.default` and `extern_kernels.convolution` are "convolution"."""
    if launch.native != "extern":
        return launch.kernel
    return launch.call.removesuffix(".default").rpartition(".")[2]

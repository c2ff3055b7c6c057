"""Rows in equal shares that are computed side by side, each on a stream of its own: for batches that leave a GPU idle.

With the two rows of one guided image most kernels take some microseconds, of which starting and ending is a good part,
and fill a part of the multiprocessors. What one share leaves idle the other can use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sdtrt.plan import Layer, NodeCost, Plan

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Shares:
    """How many, and the axes of the rows: of inputs by name, of outputs in their order."""

    count: int = 1
    inputs: Mapping[str, int] = field(default_factory=dict)
    outputs: Sequence[int] = ()

    def cut(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Each share of the inputs, as views; what has no rows is in all of them."""
        if self.count == 1:
            return [dict(tensors)]
        return [
            {n: t.chunk(self.count, self.inputs[n])[i] if n in self.inputs else t for n, t in tensors.items()}
            for i in range(self.count)
        ]

    def join(self, parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The outputs of all shares as those of the whole; of a single share they are the same tensors."""
        import torch

        if self.count == 1:
            return list(parts[0])
        return [torch.cat(pieces, axis) for pieces, axis in zip(zip(*parts, strict=True), self.outputs, strict=True)]

    def whole(self, plan: Plan) -> Plan:
        """The plan of all shares from that of one: every launch once per stream."""
        if self.count == 1:
            return plan

        def times(node: NodeCost) -> NodeCost:
            known = {n: v for n in ("flops", "bytes_moved") if (v := getattr(node, n)) is not None}
            return node.model_copy(update={n: v * self.count for n, v in known.items()})

        note = f"the rows are computed in {self.count} shares at the same time: layers overlap, their sum says too much"
        return plan.model_copy(
            update={
                "shapes": {name: self._whole_shape(name, shape) for name, shape in plan.shapes.items()},
                "layers": tuple(_on(layer, stream) for stream in range(self.count) for layer in plan.layers),
                "nodes": tuple(map(times, plan.nodes)),
                "total_flops": plan.total_flops and plan.total_flops * self.count,
                "notes": (*plan.notes, note),
            }
        )

    def _whole_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = self.inputs.get(name)
        return tuple(size * self.count if i == axis else size for i, size in enumerate(shape))


def _on(layer: Layer, stream: int) -> Layer:
    """A layer on a stream; weights count where they are read first."""
    if not stream:
        return layer.model_copy(update={"stream": 0})
    more = {"name": f"{layer.name} (stream {stream})", "weight_bytes": layer.weight_bytes and 0}
    return layer.model_copy(update={"stream": stream, **more})

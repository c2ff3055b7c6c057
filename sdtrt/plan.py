"""The plan: what an engine consists of and what each layer costs, as a versioned JSON file.

Engines write it, analysis reads it, and neither knows the other. A figure that is not known is None, never 0; layers
are joined to ONNX nodes by name, and time that could not be joined is listed, not dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, get_args

from pydantic import Field, NonNegativeInt

from sdtrt.errors import PlanError
from sdtrt.records import Record, read

# 1: first version.
FORMAT_VERSION = 1

Kind = Literal["conv", "gemm", "attention", "norm", "pointwise", "reformat", "copy", "shape", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class NodeCost(Record):
    """What one ONNX node does at one shape; FLOPs count a multiply-add as two."""

    name: str
    op: str
    kind: Kind
    module: str
    flops: NonNegativeInt
    bytes_moved: NonNegativeInt
    weight_bytes: NonNegativeInt


class Layer(Record):
    """One thing that the engine runs: a kernel, or several that it does not tell apart.

    `nodes` are the ONNX nodes it implements and `module` the diffusers module they come from; costs are None when no
    node could be named. `times_ms` has one entry per measured run.
    """

    name: str
    kind: Kind
    op: str
    kernel: str | None = None
    precision: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    module: str | None = None
    weight_bytes: NonNegativeInt | None = None
    bytes_moved: NonNegativeInt | None = None
    flops: NonNegativeInt | None = None
    times_ms: tuple[Milliseconds, ...] | None = None

    @property
    def time_ms(self) -> float | None:
        """Median time of one run, or None when it was not measured."""
        return median(self.times_ms) if self.times_ms else None


class Plan(Record):
    """All layers of one engine at one shape, with the device and versions they were read from."""

    format: int = FORMAT_VERSION
    component: str
    backend: str
    backend_version: str
    device: str
    precision: str
    sizes: dict[str, int]
    layers: tuple[Layer, ...]
    wall_times_ms: tuple[Milliseconds, ...] | None = None
    total_flops: NonNegativeInt | None = None
    total_weight_bytes: NonNegativeInt | None = None

    def with_costs(self, costs: Mapping[str, NodeCost]) -> Plan:
        """Attach FLOPs, bytes and modules by the names in `Layer.nodes`.

        A node that several layers implement is shared out evenly, so that sums over layers equal sums over nodes.
        """
        shares: dict[str, int] = {}
        for layer in self.layers:
            for node in layer.nodes:
                shares[node] = shares.get(node, 0) + 1
        layers = tuple(_priced(layer, costs, shares) for layer in self.layers)
        return self.model_copy(
            update={
                "layers": layers,
                "total_flops": sum(c.flops for c in costs.values()),
                "total_weight_bytes": sum(c.weight_bytes for c in costs.values()),
            }
        )

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan.json; PlanError names the file and the field that is wrong."""
        return read(path, cls, FORMAT_VERSION, PlanError, "rebuild the bundle")


def _priced(layer: Layer, costs: Mapping[str, NodeCost], shares: Mapping[str, int]) -> Layer:
    known = [(costs[n], shares[n]) for n in layer.nodes if n in costs]
    if not known:
        return layer
    heaviest = max((c for c, _ in known), key=lambda c: (c.flops, c.bytes_moved))
    return layer.model_copy(
        update={
            "flops": round(sum(c.flops / n for c, n in known)),
            "weight_bytes": round(sum(c.weight_bytes / n for c, n in known)),
            "bytes_moved": round(sum(c.bytes_moved / n for c, n in known)),
            "module": heaviest.module,
        }
    )

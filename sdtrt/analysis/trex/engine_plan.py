"""EnginePlan: one engine as TREx presents it, over a plan that any of sdtrt's readers made."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import count
from math import nan, prod
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from sdtrt.analysis.graph.edges import bindings
from sdtrt.analysis.trex import _source
from sdtrt.analysis.trex.activations import Activation, raw_tensor
from sdtrt.analysis.trex.df_preprocessing import filter_by_layer, latency_columns, layer_table
from sdtrt.analysis.trex.layer import Layer, fold_no_ops, folded_layer
from sdtrt.analysis.trex.notebook import write
from sdtrt.plan.layers import Plan
from sdtrt.readers.formats.tensorrt.timings import UNMATCHED

__all__ = ["EnginePlan", "print_summary", "summary_dict"]

# What synchronizes or computes shapes, and what the profiler names but the graph file does not: none is in the table,
# as in TREx, and the summary says how much time it has.
DROPPED = frozenset({"signal", "wait", "shape_call", UNMATCHED})
_MIB = 1024 * 1024


class EnginePlan:
    """The layers of one engine, its times and what its files say of device and build.

    Args:
        graph_file: the graph JSON of trtexec, a bundle, one component's folder, a `plan.json`, an ONNX Runtime profile,
            or a list of raw layers.
        profiling_file: the profile JSON; without it times are NaN.
        profiling_metadata_file: device, performance summary, inference options.
        build_metadata_file: the builder's options.
        name: what to call it; the file's name by default.
        profile_id: which optimization profile of the engine; the first by default.
        onnx: the ONNX file that the engine was built from: adds modules, and sizes that the graph file leaves open.
        shapes: the shapes of the inputs at which it ran, where the files do not say.
        component: which engine of a bundle; the U-Net by default.
    """

    def __init__(
        self,
        graph_file: _source.Source,
        profiling_file: str | Path | None = None,
        profiling_metadata_file: str | Path | None = None,
        build_metadata_file: str | Path | None = None,
        name: str | None = None,
        profile_id: int | None = None,
        *,
        onnx: str | Path | None = None,
        shapes: dict[str, tuple[int, ...]] | None = None,
        component: str | None = None,
    ) -> None:
        metadata = (profiling_metadata_file, build_metadata_file)
        self.plan = _source.read_plan(graph_file, profiling_file, metadata, profile_id or 0, onnx, shapes, component)
        self.name = name or _source.name_of(graph_file)
        self.bindings = [tensor.name for side in bindings(self.plan) for tensor in side]
        layers = _layers(self.plan)
        self.dropped_layers = [layer for layer in layers if layer.subtype in DROPPED]
        self.all_layers = fold_no_ops([x for x in layers if x.subtype not in DROPPED], frozenset(self.bindings))
        self.constants = [layer for layer in self.all_layers if layer.type == "Constant"]
        self.layers = [layer for layer in self.all_layers if layer.type != "Constant"]
        backend = "TensorRT" if self.plan.backend == "tensorrt" else self.plan.backend
        total_ms = sum(layer.timing.mean_ms or 0 for layer in layers)
        more = {**_macs(self.layers, self.plan), **latency_columns(self.layers, total_ms)}
        # One row per layer; the columns are the raw keys and those that the module `df_preprocessing` documents.
        self.df = layer_table(self.layers, backend, more)
        self.total_act_size = _total([layer.total_io_size_bytes for layer in self.layers])
        self.total_weights_size = _total([layer.weights_size for layer in self.layers])
        self.total_runtime = _total(self.df["latency.avg_time"].tolist())
        self.device_properties, self.performance_summary, self.builder_cfg = _metadata(self.plan)

    def get_layers_by_type(self, layer_type: str) -> pd.DataFrame:
        """The layers of one type with the columns that matter for it, as `attr.*`."""
        return filter_by_layer(self.df, layer_type)

    def find(self, layer_name: str) -> Layer | None:
        """The layer of this name, or None."""
        return next((layer for layer in self.layers if layer.name == layer_name), None)

    def get_bindings(self) -> tuple[list[Activation], list[Activation]]:
        """The engine's inputs and outputs, each once and in the file's order."""
        inputs, outputs = bindings(self.plan)
        return [Activation(raw_tensor(x)) for x in inputs], [Activation(raw_tensor(x)) for x in outputs]

    @cached_property
    def folded(self) -> Plan:
        """The plan without NoOps and under distinct names: what is drawn and compared."""
        return self.plan.model_copy(update={"layers": tuple(map(folded_layer, self.all_layers))})

    def summary(self) -> None:
        """Write the summary to the standard output."""
        print_summary(self)

    def __repr__(self) -> str:
        return f"EnginePlan({self.name}, {len(self.layers)} layers)"


def summary_dict(plan: EnginePlan) -> dict[str, str]:
    """The most important figures of the plan as text. What a sum does not cover stands beside it."""
    inputs, outputs = plan.get_bindings()
    summary = {
        "Inputs": "\n\t\t".join(map(str, inputs)),
        "Outputs": "\n\t\t".join(map(str, outputs)),
        "Average time": _figure(plan.total_runtime, ".3f", "ms") + _missing(plan.df["latency.avg_time"]),
        "Layers": str(len(plan.df)),
        "Weights": _figure(plan.total_weights_size / _MIB, ".1f", "MB") + _missing(plan.df["weights_size"]),
        "Activations": _figure(plan.total_act_size / _MIB, ".1f", "MB") + _missing(plan.df["total_io_size_bytes"]),
    }
    if plan.dropped_layers:
        kinds = Counter(layer.subtype for layer in plan.dropped_layers)
        times = _total([layer.timing.mean_ms or nan for layer in plan.dropped_layers])
        names = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        summary["Not in the table"] = f"{names}: {_figure(times, '.3f', 'ms')}"
    return summary


def print_summary(plan: EnginePlan) -> None:
    """Write the summary, the device, the builder's options and the performance summary to the standard output."""
    parts = {
        "Model": summary_dict(plan),
        "Device Properties": plan.device_properties,
        "Builder Configuration": plan.builder_cfg,
        "Performance Summary": plan.performance_summary,
    }
    for title, part in parts.items():
        write("\n".join([f"{title}:", *(f"\t{key}: {value}" for key, value in part.items())]))


def _total(values: Sequence[float]) -> float:
    """Sum of what is known; NaN when nothing is."""
    known = [value for value in values if value == value]
    return sum(known) if known else nan


def _figure(value: float, form: str, unit: str) -> str:
    return "not known" if value != value else f"{value:{form}} {unit}"


def _missing(column: pd.Series) -> str:
    missing = int(column.isna().sum())
    return f" (not known for {missing} of {len(column)} layers)" if 0 < missing < len(column) else ""


def _layers(plan: Plan) -> list[Layer]:
    """Views of all layers under distinct names: the second "a" is "a_2", unless a layer has that name."""
    names = {layer.name for layer in plan.layers}
    numbers: dict[str, Iterator[int]] = {}
    layers = []
    for layer in plan.layers:
        name = layer.name
        if name in numbers:
            name = next(new for n in numbers[name] if (new := f"{layer.name}_{n}") not in names)
        numbers.setdefault(layer.name, count(2))
        layers.append(Layer(layer, name))
    return layers


def _macs(layers: list[Layer], plan: Plan) -> dict[str, list[float]]:
    """Multiply-adds of convolutions whose record has no kernel size, from the ONNX node that they implement."""
    if all("Kernel" in layer.raw_dict for layer in layers if layer.type == "Convolution"):
        return {}
    costs = {cost.name: cost for cost in plan.nodes if cost.kind == "conv"}
    macs: list[float] = []
    for layer in layers:
        convs = [costs[name] for name in layer.source.nodes if name in costs]
        shape = layer.outputs[0].shape if layer.outputs else [-1]
        # A bias adds one operation to each output, which the whole division takes off where the outputs are known.
        size = prod(shape) if min(shape, default=-1) > 0 else 1
        flops = convs[0].flops if len(convs) == 1 else None
        macs.append(nan if flops is None else size * (flops // (2 * size)))
    return {"macs": macs}


def _metadata(plan: Plan) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Device, performance summary and builder's options.

    The latency is trtexec's list: minimum, maximum, mean, median, and percentiles 90, 95 and 99.
    """
    device, performance, *builder = (plan.metadata.get(key, {}) for key in ("device", "performance", "model", "build"))
    named = {"Selected Device": plan.device} if plan.device and not device else device
    if plan.wall_times_ms and not performance:
        runs = sorted(plan.wall_times_ms)
        middle = [fmean(runs), *(float(np.percentile(runs, q)) for q in (50, 90, 95, 99))]
        performance = {"Latency": [round(ms, 6) for ms in (runs[0], runs[-1], *middle)]}
    return dict(named), dict(performance), {key: value for part in builder for key, value in part.items()}

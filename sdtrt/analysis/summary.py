"""The totals of one engine, and their form as text."""

from dataclasses import dataclass
from math import isfinite

from sdtrt.plan.layers import Plan
from sdtrt.plan.sums import sum_known


@dataclass(frozen=True)
class Summary:
    """One engine's totals; None is unknown. Times are medians of one run, `gflop_per_s` is work over wall time."""

    component: str
    backend: str
    device: str
    precision: str
    sizes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    layers: int
    untimed_layers: int
    unattributed_layers: int
    wall_ms: float | None
    layers_ms: float | None
    unattributed_ms: float | None
    attributed_pct: float | None
    weight_mb: float | None
    activation_mb: float | None
    gflop: float | None
    gflop_per_s: float | None

    def facts(self) -> dict[str, str]:
        """Label to text, as the report and the Markdown show them."""
        shapes = {name: "x".join(map(str, shape)) or "scalar" for name, shape in self.shapes.items()}
        untimed = f", {self.untimed_layers:,} not timed" if self.untimed_layers else ""
        return {
            "Wall time, median": number(self.wall_ms, "ms"),
            "Sum of layers": number(self.layers_ms, "ms"),
            "Layers": f"{self.layers:,}{untimed}",
            "Weights": number(self.weight_mb, "MB"),
            "Activation traffic": number(self.activation_mb, "MB"),
            "Work": number(self.gflop, "GFLOP"),
            "Achieved": number(self.gflop_per_s, "GFLOP/s"),
            "Attributed": number(self.attributed_pct, "% of time"),
            "Unattributed": f"{number(self.unattributed_ms, 'ms')}, {self.unattributed_layers:,} layers",
            "Backend": self.backend,
            "Device": self.device,
            "Precision": self.precision,
            "Sizes": " ".join(f"{name}={size}" for name, size in (self.sizes or shapes).items()) or "unknown",
        }


def summarize(plan: Plan) -> Summary:
    """Totals of one plan. Activation traffic is the sum of the known inputs and outputs of all layers."""
    timed = [(ms, layer.module) for layer in plan.layers if (ms := layer.time_ms) is not None]
    layers_ms = sum_known(ms for ms, _ in timed)
    lost_ms = sum(ms for ms, module in timed if not module) if timed else None
    activations = sum_known(layer.io_bytes for layer in plan.layers)
    gflop = None if plan.total_flops is None else plan.total_flops / 1e9
    return Summary(
        component=plan.component,
        backend=f"{plan.backend} {plan.backend_version or '(version unknown)'}",
        device=plan.device or "unknown",
        precision=plan.precision or "unknown",
        sizes=plan.sizes,
        shapes=plan.shapes,
        layers=len(plan.layers),
        untimed_layers=len(plan.layers) - len(timed),
        unattributed_layers=sum(not layer.module for layer in plan.layers),
        wall_ms=plan.wall_ms,
        layers_ms=layers_ms,
        unattributed_ms=lost_ms,
        attributed_pct=100 - 100 * lost_ms / layers_ms if lost_ms is not None and layers_ms else None,
        weight_mb=None if plan.total_weight_bytes is None else plan.total_weight_bytes / 1e6,
        activation_mb=None if activations is None else activations / 1e6,
        gflop=gflop,
        gflop_per_s=gflop / plan.wall_ms * 1e3 if gflop is not None and plan.wall_ms else None,
    )


def number(value: float | None, unit: str = "") -> str:
    """Four significant digits with thousands separators; "unknown" for None and NaN."""
    if value is None or not isfinite(value):
        return "unknown"
    return f"{value:,.0f} {unit}".strip() if abs(value) >= 1000 else f"{value:.4g} {unit}".strip()


def megabytes(count: int | None) -> str:
    """Bytes as MB, to the kilobyte where they are few."""
    return number(None if count is None else round(count / 1e6, 3), "MB")

"""TREx's linters as tables: what sdtrt's rules of the same purpose find in the plan, a row per layer."""

import pandas as pd

from sdtrt.analysis.session import Analysis
from sdtrt.analysis.trex.engine_plan import EnginePlan

__all__ = ["ConvLinter", "QDQLinter", "ReformatLinter", "SliceLinter"]


class _Linter:
    """Rows of the findings of some rules, for the layers of some types."""

    rules: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    def __init__(self, plan: EnginePlan) -> None:
        self.plan = plan

    def lint(self) -> pd.DataFrame:
        """One row per layer and finding; no rows when there is nothing to say."""
        layers = {layer.name: layer for layer in self.plan.layers if layer.type in self.types}
        rows = [
            (layer.name, layer.source.kernel, layer.subtype, found.severity, found.title, found.advice, found.message)
            for found in Analysis((self.plan.folded,)).findings
            if found.rule in self.rules
            for layer in (layers[name] for name in found.layers if name in layers)
        ]
        return pd.DataFrame(rows, columns=["name", "tactic", "subtype", "severity", "hazard", "mitigation", "help"])


class ConvLinter(_Linter):
    """Convolutions without tensor cores, with badly aligned channels, or quantized with float outputs."""

    rules = frozenset({"conv_without_tensor_cores", "misaligned_channels", "requantized_outputs"})
    types = frozenset({"Convolution"})


class ReformatLinter(_Linter):
    """Reformat layers that convert the type of the data or its layout."""

    rules = frozenset({"type_conversions", "layout_reformats"})
    types = frozenset({"Reformat"})


class SliceLinter(_Linter):
    """Slices that convert the type of the data, or copy it."""

    rules = frozenset({"type_conversions", "slice_concat_copies"})
    types = frozenset({"Slice"})


class QDQLinter(_Linter):
    """Quantize and dequantize steps that were not fused into another layer."""

    rules = frozenset({"unfused_qdq"})
    types = frozenset({"Scale", "Reformat", "Quantize", "Dequantize", "kgen"})

"""Other weights in a compiled engine: they are arguments of its code, and new values are written over the old ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.build import WEIGHTS, missing
from sdtrt.engines.weights import EngineWeights, check_replacement

if TYPE_CHECKING:
    from torch import Tensor


class InductorWeights(EngineWeights):
    """Parameters by name, each some rows of a tensor of the engine; the values of the build stay in its file."""

    checked = False

    def __init__(self, engine: Any, folder: Path) -> None:
        self._engine, self._file = engine, folder / WEIGHTS
        self._changed: frozenset[str] = frozenset()
        self._where = {p: (weight, start) for weight, parts in engine.record.sources.items() for p, start in parts}
        self._next = {
            (weight, start): end
            for weight, parts in engine.record.sources.items()
            for (_, start), end in zip(parts, [*(s for _, s in parts[1:]), None], strict=True)
        }

    @property
    def changed(self) -> frozenset[str]:
        """Parameters that differ from those of the build."""
        return self._changed

    def read(self, parameters: Iterable[str]) -> dict[str, Tensor]:
        """Weights of the build, on the CPU, whatever is in the engine now."""
        from safetensors import safe_open

        with safe_open(self._file, "pt") as file:
            return {p: file.get_slice(self._find(p)[0])[self._find(p)[1]] for p in parameters}

    def shared(self, parameters: Iterable[str]) -> frozenset[str]:
        """None: every parameter has rows of its own."""
        return frozenset()

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give these parameters new values and all others those of the build; EngineError changes nothing."""
        for name, base in self.read(weights).items():
            check_replacement(self._engine.spec.name, name, weights[name], base)
        wanted = {**self.read(self._changed - weights.keys()), **weights}
        for parameter, tensor in wanted.items():
            weight, rows = self._find(parameter)
            self._engine.tensors[weight][rows].copy_(tensor)
        self._changed = frozenset(weights)
        self._engine.weights_changed()

    def _find(self, parameter: str) -> tuple[str, slice]:
        if parameter not in self._where:
            raise missing(self._engine.spec.name, parameter, self._engine.context.rebuild)
        weight, start = self._where[parameter]
        return weight, slice(start, self._next[weight, start])

"""Engines without computation: deterministic tensors of the right shape, for tests and for trying a setup."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.engines.base import Backend, Engine, EngineContext, Options, Source, damaged
from sdtrt.plan.layers import Layer
from sdtrt.shapes.spec import shapes_of

if TYPE_CHECKING:
    from torch import Tensor

FILE = "engine.json"


class FakeEngine(Engine):
    """Every output is a slow wave, whose phase depends on its name alone."""

    def __init__(self, context: EngineContext) -> None:
        import torch

        super().__init__(context, torch.device("cpu"))

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        import torch

        shapes = self.spec.output_shapes(shapes_of(tensors))
        waves = {}
        for t in self.spec.outputs:
            phase = zlib.crc32(t.name.encode()) % 100
            index = torch.arange(torch.Size(shapes[t.name]).numel(), dtype=torch.float32)
            waves[t.name] = torch.sin(index / 50 + phase).reshape(shapes[t.name]).to(getattr(torch, t.dtype))
        return waves

    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        """One layer, without times: no kernel ran."""
        return (Layer(name="wave", kind="other", op="Sin", precision=self.spec.dtype),)


class Fake(Backend):
    """An engine is a file with the name of its component."""

    name = "fake"
    input_format = "nothing"
    is_numeric = False

    def version(self) -> str:
        """Version of the waves."""
        return "1"

    def build(self, source: Source, options: Options, folder: Path) -> None:
        """Write the component's name, so that there is a file to damage."""
        (folder / FILE).write_text(json.dumps({"component": source.spec.name}), encoding="utf-8")

    def load(self, folder: Path, context: EngineContext) -> FakeEngine:
        """Read it back."""
        try:
            component = json.loads((folder / FILE).read_text(encoding="utf-8"))["component"]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise damaged(context, exc) from exc
        if component != context.spec.name:
            raise damaged(context, f"the engine of {component}")
        return FakeEngine(context)


BACKEND = FakeEngine.backend = Fake()

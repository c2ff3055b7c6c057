"""The checkpoint's own module, uncompiled: the reference that every other backend is compared with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines.base import Backend, Engine, EngineContext, Options, Source, damaged
from sdtrt.engines.eager_fallback import run_module
from sdtrt.engines.weights import TensorWeights
from sdtrt.errors import ModelError
from sdtrt.plan.layers import Kind, Layer
from sdtrt.shapes import profile_selection
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile
from sdtrt.system import env

if TYPE_CHECKING:
    from torch import Tensor, nn

_KINDS: dict[str, Kind] = {"Conv2d": "conv", "Linear": "gemm", "Embedding": "copy", "SiLU": "pointwise"}
_KINDS |= {"GroupNorm": "norm", "LayerNorm": "norm"}


class EagerEngine(Engine):
    """Runs the module; its layers are the modules that have no children."""

    def __init__(self, context: EngineContext, module: nn.Module) -> None:
        import torch

        super().__init__(context, torch.device("cpu"))
        self.module = module
        inner: Any = module.inner
        self._weights = TensorWeights(inner.state_dict(keep_vars=True), context.spec.name)

    def weights(self) -> TensorWeights:
        """Access to the module's parameters."""
        return self._weights

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return run_module(self.spec, self.module, tensors)

    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        """Time the leaves with hooks; the wall time also has what runs between them."""
        leaves = {n.removeprefix("inner."): m for n, m in self.module.named_modules() if not list(m.children())}
        times: dict[str, list[float]] = {name: [] for name in leaves}
        started: list[float] = []
        hooks = []
        for name, leaf in leaves.items():

            def stop(*_: object, times_ms: list[float] = times[name]) -> None:
                times_ms.append((time.perf_counter() - started.pop()) * 1e3)

            hooks += [leaf.register_forward_pre_hook(lambda *_: started.append(time.perf_counter()))]
            hooks += [leaf.register_forward_hook(stop)]
        for _ in range(runs):
            self(**tensors)
        for hook in hooks:
            hook.remove()
        return tuple(_layer(n, leaves[n], t, runs, self.spec.dtype) for n, t in times.items() if t)


def _layer(name: str, module: nn.Module, times: list[float], runs: int, dtype: str) -> Layer:
    op, calls = type(module).__name__, len(times) // runs  # a module may be called several times in one run
    return Layer(
        name=name,
        kind=_KINDS.get(op, "other"),
        op=op,
        precision=dtype,
        module=name,
        weight_bytes=sum(p.nbytes for p in module.parameters(recurse=False)),
        times_ms=tuple(sum(times[i * calls : (i + 1) * calls]) for i in range(runs)),
    )


class Eager(Backend):
    """An engine is a copy of the checkpoint's weights in diffusers' layout."""

    name = "eager"
    input_format = "module"

    def sizes_key(self, spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> str:
        """A module takes any size; it is compared and timed at one."""
        return profile_selection.graph_sizes_key(spec, profiles)

    def version(self) -> str:
        """Version of torch."""
        return env.version("torch") or "unknown"

    def build(self, source: Source, options: Options, folder: Path) -> None:
        """Save the module."""
        inner: Any = source.module.inner
        inner.save_pretrained(folder / source.spec.attribute, safe_serialization=True)

    def load(self, folder: Path, context: EngineContext) -> EagerEngine:
        """Load the module through the component's own loader."""
        try:
            return EagerEngine(context, context.spec.load(folder))
        except ModelError as exc:
            raise damaged(context, exc.hint) from exc


BACKEND = EagerEngine.backend = Eager()

"""The checkpoint's own module, uncompiled: the oracle that every other backend is compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import env
from sdtrt.engines._contract import Backend, Engine, EngineContext, Source, damaged
from sdtrt.errors import ModelError
from sdtrt.plan import Kind, Layer, Plan

if TYPE_CHECKING:
    from torch import Tensor, nn

_KINDS: dict[str, Kind] = {
    "Conv2d": "conv",
    "Linear": "gemm",
    "LoRACompatibleLinear": "gemm",
    "GroupNorm": "norm",
    "LayerNorm": "norm",
    "Embedding": "copy",
    "SiLU": "pointwise",
    "Dropout": "other",
}


class EagerEngine(Engine):
    """Runs the module; its layers are the modules that have no children."""

    def __init__(self, context: EngineContext, module: nn.Module) -> None:
        import torch

        super().__init__(context, torch.device("cpu"))
        self.module = module

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        import torch

        with torch.no_grad():  # not inference_mode: callers may change what they get in place
            outputs = self.module(**tensors)
        return {t.name: o for t, o in zip(self.spec.outputs, outputs, strict=True)}

    def profile(self, tensors: Mapping[str, Tensor], sizes: Mapping[str, int], runs: int) -> Plan:
        """Time every leaf module with hooks; what runs between them is in the wall time only."""
        times: dict[str, list[float]] = {}
        leaves = {n.removeprefix("inner."): m for n, m in self.module.named_modules() if not list(m.children())}
        hooks = [h for name, leaf in leaves.items() for h in _time_calls(leaf, times.setdefault(name, []))]
        self(**tensors)
        for spent in times.values():
            spent.clear()
        walls = []
        for _ in range(runs):
            started = time.perf_counter()
            self(**tensors)
            walls.append((time.perf_counter() - started) * 1e3)
        for hook in hooks:
            hook.remove()
        layers = tuple(_layer(n, leaves[n], spent, runs, self.spec.dtype) for n, spent in times.items() if spent)
        return Plan(
            component=self.spec.name,
            backend="eager",
            backend_version=BACKEND.version(),
            device=env.cpu_name(),
            precision=self.spec.dtype,
            sizes=dict(sizes),
            layers=layers,
            wall_times_ms=tuple(walls),
        )


def _time_calls(module: nn.Module, times: list[float]) -> list[Any]:
    started: list[float] = []

    def before(*_: object) -> None:
        started.append(time.perf_counter())

    def after(*_: object) -> None:
        times.append((time.perf_counter() - started.pop()) * 1e3)

    register: list[Callable[..., Any]] = [module.register_forward_pre_hook, module.register_forward_hook]
    return [register[0](before), register[1](after)]


def _layer(name: str, module: nn.Module, times: list[float], runs: int, dtype: str) -> Layer:
    kind = type(module).__name__
    calls = len(times) // runs  # a module may be called several times in one run
    weights = sum(p.nbytes for p in module.parameters(recurse=False))
    return Layer(
        name=name,
        kind=_KINDS.get(kind, "other"),
        op=kind,
        precision=dtype,
        module=name,
        weight_bytes=weights,
        times_ms=tuple(sum(times[i * calls : (i + 1) * calls]) for i in range(runs)),
    )


class Eager(Backend):
    """The backend; an engine is a copy of the checkpoint's weights in their own layout."""

    name = "eager"
    consumes = "module"

    def version(self) -> str:
        """Version of torch."""
        return env.version("torch") or "unknown"

    def build(self, source: Source, options: Mapping[str, Any], folder: Path) -> None:
        """Save the module."""
        inner: Any = source.module.inner
        inner.save_pretrained(folder / source.spec.attribute, safe_serialization=True)

    def load(self, folder: Path, context: EngineContext) -> EagerEngine:
        """Load the module through the component's own loader."""
        from safetensors import SafetensorError

        try:
            return EagerEngine(context, context.spec.load(folder))
        except (ModelError, SafetensorError) as exc:
            raise damaged(context, getattr(exc, "hint", exc)) from exc


BACKEND = Eager()

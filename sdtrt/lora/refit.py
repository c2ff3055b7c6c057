"""One component whose engine takes other weights: its structure for adapters, and the comparison after a change."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import models
from sdtrt.engines import Engine, accuracy
from sdtrt.errors import ModelError, VerifyError
from sdtrt.lora.adapters import acting, activate, active, fuse
from sdtrt.lora.timing import PartTime
from sdtrt.shapes.sample_inputs import sample_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

_PRECISIONS = {"float32": "fp32", "float16": "fp16"}


class Part:
    """An engine, the module that it was built from, and what it gave before any weight was changed.

    `inside` are the adapters that `fuse_lora` made part of the base of what comes later.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.weights = engine, engine.weights()
        self.inside: set[str] = set()
        self._fused: dict[str, Tensor] = {}
        self._in_engine: frozenset[object] | None = frozenset()  # None: unknown
        self._folder = folder
        self._before: tuple[Tensor, ...] | None = None

    @cached_property
    def module(self) -> nn.Module:
        """The module, with its weights mapped from the kept ONNX file; adapters go onto this one."""
        inner: Any = models.skeleton(self.engine.spec, self._folder).inner
        inner.load_state_dict(self.weights.read(inner.state_dict()), assign=True)
        made: nn.Module = inner.requires_grad_(False)
        return made

    def refuse_shared(self, modules: set[str]) -> None:
        """ModelError when one of these has a weight that the exporter merged with an equal one of another module."""
        names = [n.replace(".base_layer", "") for n, _ in self.module.named_parameters() if ".lora" not in n]
        shared = self.weights.shared(names)
        if found := sorted(f"{m}.weight" for m in modules if f"{m}.weight" in shared):
            raise ModelError(
                "the adapter changes a weight that is one with another in the engine",
                slug="lora-shared",
                received=", ".join(found),
                expected="weights that differ: the exporter keeps one of several that are equal",
                hint="build with the adapter instead: sdtrt build MODEL --lora FILE",
            )

    def fuse(self, names: set[str], scale: float) -> None:
        """Make adapters part of the base, until `unfuse`; the engine is changed by `apply`."""
        wanted = names - self.inside
        self._fused |= fuse(self.module, wanted, scale, self._fused)
        self.inside |= wanted
        self._in_engine = None

    def unfuse(self) -> None:
        """Make the weights of the build the base again."""
        if self._fused:
            self._fused, self.inside, self._in_engine = {}, set(), None

    def apply(self) -> PartTime | None:
        """Put the base and all that acts on it into the engine, unless it is there; VerifyError if it then errs."""
        wanted = acting(self.module, self.inside)
        if wanted == self._in_engine:
            return None
        self._in_engine = None
        started = time.perf_counter()
        weights = {**self._fused, **fuse(self.module, active(self.module) - self.inside, over=self._fused)}
        fused = time.perf_counter()
        if self._before is None:
            self._before = self._outputs()
        ready = time.perf_counter()
        self.weights.put(weights)
        there = time.perf_counter()
        self._check(weights)
        checked = time.perf_counter()
        self._in_engine = wanted
        return PartTime(
            part=self.engine.spec.name,
            weights=len(weights),
            fuse_ms=(fused - started) * 1e3,
            put_ms=(there - ready) * 1e3,
            check_ms=(ready - fused + checked - there) * 1e3,
        )

    def reset(self) -> None:
        """Put the weights of the build back, and let no adapter act."""
        self.unfuse()
        activate(self.module, ())
        self._in_engine = None
        self.weights.put({})
        self._in_engine = frozenset()

    def _check(self, weights: Mapping[str, Tensor]) -> None:
        """Compare the engine with what it should compute now; without `checked`, ask for finite numbers only."""
        if self._before is not None and not weights:
            self._judge(accuracy.worst_error(self._outputs(), self._before))
        elif self.weights.checked:
            self._judge(accuracy.component_error(self.engine, self._oracle(weights), self._sizes))
        else:
            self._judge(accuracy.worst_error(outputs := self._outputs(), outputs))

    @cached_property
    def _bare(self) -> nn.Module:
        return models.skeleton(self.engine.spec, self._folder)

    @property
    def _sizes(self) -> dict[str, int]:
        return self.engine.context.profiles[0].sizes("min")

    def _outputs(self) -> tuple[Tensor, ...]:
        inputs = sample_inputs(self.engine.spec, self._sizes)
        return tuple(self.engine(**{n: t.to(self.engine.device) for n, t in inputs.items()}).values())

    def _oracle(self, weights: Mapping[str, Tensor]) -> Any:
        """The eager module with these weights, in float32."""
        import torch

        inner: Any = self._bare.inner
        names = list(inner.state_dict())
        ours = {**self.weights.read(n for n in names if n not in weights), **weights}
        state = {f"inner.{name}": ours[name].float() for name in names}
        return lambda **inputs: torch.func.functional_call(self._bare, state, (), inputs)

    def _judge(self, error: float) -> None:
        limit = accuracy.LIMITS[_PRECISIONS[self.engine.spec.dtype]][0]
        if not error <= limit:
            raise VerifyError(
                f"with other weights, the engine of {self.engine.spec.name} differs from eager PyTorch",
                slug="verify-refit",
                received=f"relative error {error:.3g} at the least size",
                expected=f"at most {limit:g}",
                hint="use smaller adapter weights, or build with the adapter: sdtrt build MODEL --lora FILE",
            )

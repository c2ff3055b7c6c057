"""One component whose engine takes other weights: its adapters, its weights, and the comparison after a change."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import models
from sdtrt.engines import Engine, accuracy
from sdtrt.errors import ModelError, VerifyError
from sdtrt.lora.adapters import activate, active, active_scales, fuse
from sdtrt.lora.timing import PartTime
from sdtrt.shapes.sample_inputs import sample_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

_PRECISIONS = {"float32": "fp32", "float16": "fp16"}


class RefitComponent:
    """An engine, the module that it was built from, and its outputs before any weight was changed.

    `fused_adapters` are those that `fuse` added to the base weights.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.weights = engine, engine.weights()
        self.fused_adapters: set[str] = set()
        self._base: dict[str, Tensor] = {}  # base weights that differ from those of the build
        self._applied: frozenset[object] | None = frozenset()  # scales of the adapters in the engine; None is unknown
        self._folder = folder
        self._built_outputs: tuple[Tensor, ...] | None = None

    @cached_property
    def module(self) -> nn.Module:
        """The module that adapters are put onto, with its weights mapped from the bundle's ONNX file."""
        inner: Any = models.skeleton(self.engine.spec, self._folder).inner
        inner.load_state_dict(self.weights.read(inner.state_dict()), assign=True)
        module: nn.Module = inner.requires_grad_(False)
        return module

    def refuse_shared(self, modules: set[str]) -> None:
        """ModelError when the exporter merged the weight of one of these modules with an equal weight of another."""
        names = [n.replace(".base_layer", "") for n, _ in self.module.named_parameters() if ".lora" not in n]
        shared = self.weights.shared(names)
        if changed := sorted(f"{m}.weight" for m in modules if f"{m}.weight" in shared):
            raise ModelError(
                "the adapter changes a weight that is one with another in the engine",
                slug="lora-shared",
                received=", ".join(changed),
                expected="weights that differ: the exporter keeps one of several that are equal",
                hint="build with the adapter instead: sdtrt build MODEL --lora FILE",
            )

    def fuse(self, names: set[str], scale: float) -> None:
        """Add adapters to the base weights, until `unfuse`; `apply` then changes the engine."""
        added = names - self.fused_adapters
        self._base |= fuse(self.module, added, scale, self._base)
        self.fused_adapters |= added
        self._applied = None

    def unfuse(self) -> None:
        """Make the weights of the build the base again."""
        if self._base:
            self._base, self.fused_adapters, self._applied = {}, set(), None

    def apply(self) -> PartTime | None:
        """Put the base weights and the active adapters into the engine; None when they are in it already.

        Raises VerifyError when the engine then differs from eager PyTorch.
        """
        scales = active_scales(self.module, self.fused_adapters)
        if scales == self._applied:
            return None
        self._applied = None
        started = time.perf_counter()
        weights = {**self._base, **fuse(self.module, active(self.module) - self.fused_adapters, 1.0, self._base)}
        fused = time.perf_counter()
        if self._built_outputs is None:
            self._built_outputs = self._outputs()
        ready = time.perf_counter()
        self.weights.put(weights)
        put = time.perf_counter()
        self._check(weights)
        checked = time.perf_counter()
        self._applied = scales
        return PartTime(
            part=self.engine.spec.name,
            weights=len(weights),
            fuse_ms=(fused - started) * 1e3,
            put_ms=(put - ready) * 1e3,
            check_ms=(ready - fused + checked - put) * 1e3,
        )

    def reset(self) -> None:
        """Put the weights of the build back, and make all adapters inactive."""
        self.unfuse()
        activate(self.module, ())
        self._applied = None
        self.weights.put({})
        self._applied = frozenset()

    def _check(self, weights: Mapping[str, Tensor]) -> None:
        """VerifyError unless the engine computes what it should with these weights.

        The weights of the build must give the outputs of the build. Others are compared with eager PyTorch where the
        user wants that (`checked`), else their outputs must be finite.
        """
        if self._built_outputs is not None and not weights:
            error = accuracy.worst_error(self._outputs(), self._built_outputs)
        elif self.weights.checked:
            error = accuracy.component_error(self.engine, self._reference(weights), self._sizes)
        else:
            error = accuracy.worst_error(outputs := self._outputs(), outputs)
        limit = accuracy.LIMITS[_PRECISIONS[self.engine.spec.dtype]][0]
        if not error <= limit:
            raise VerifyError(
                f"with other weights, the engine of {self.engine.spec.name} differs from eager PyTorch",
                slug="verify-refit",
                received=f"relative error {error:.3g} at the least size",
                expected=f"at most {limit:g}",
                hint="use smaller adapter weights, or build with the adapter: sdtrt build MODEL --lora FILE",
            )

    @cached_property
    def _skeleton(self) -> nn.Module:
        return models.skeleton(self.engine.spec, self._folder)

    @property
    def _sizes(self) -> dict[str, int]:
        return self.engine.context.profiles[0].sizes("min")

    def _outputs(self) -> tuple[Tensor, ...]:
        inputs = sample_inputs(self.engine.spec, self._sizes)
        return tuple(self.engine(**{n: t.to(self.engine.device) for n, t in inputs.items()}).values())

    def _reference(self, weights: Mapping[str, Tensor]) -> Any:
        """The eager module with these weights, in float32."""
        import torch

        inner: Any = self._skeleton.inner
        names = list(inner.state_dict())
        tensors = {**self.weights.read(n for n in names if n not in weights), **weights}
        state = {f"inner.{name}": tensors[name].float() for name in names}
        return lambda **inputs: torch.func.functional_call(self._skeleton, state, (), inputs)

"""The checkpoint's own module in place of an engine, for sizes that were not built, where the user allows it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sdtrt.errors import FallbackWarning
from sdtrt.shapes.spec import ComponentSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class EagerFallback:
    """A module that is loaded at the first call, onto the engine's device."""

    def __init__(self, spec: ComponentSpec, load: Callable[[], nn.Module], device: torch.device) -> None:
        self.spec, self._load, self.device = spec, load, device
        self._module: nn.Module | None = None
        self._lock = threading.Lock()

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run it on the engine's inputs. The first call warns; several threads load one module."""
        with self._lock:
            if self._module is None:
                warnings.warn(
                    f"{self.spec.name} runs the checkpoint's own module for a size that was not built",
                    FallbackWarning,
                    stacklevel=4,
                )
                self._module = self._load().to(self.device)
        return run_module(self.spec, self._module, tensors)


def run_module(
    spec: ComponentSpec, module: Callable[..., Sequence[Tensor]], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Run a component's module on the inputs of its engine; returns its outputs by name."""
    import torch

    with torch.no_grad():  # not inference_mode: callers may change the outputs in place
        outputs = module(**tensors)
    return {t.name: o for t, o in zip(spec.outputs, outputs, strict=True)}

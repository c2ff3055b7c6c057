"""The checkpoint's own module in the place of an engine, for sizes that were not built, if the user wants that."""

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


class Fallback:
    """A module that `load` gives when it is first needed, on the engine's device."""

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
        return run(self.spec, self._module, tensors)

    def close(self) -> None:
        """Drop the module."""
        self._module = None


def run(
    spec: ComponentSpec, module: Callable[..., Sequence[Tensor]], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A component's module on the inputs of its engine."""
    import torch

    with torch.no_grad():  # not inference_mode: callers may change what they get in place
        outputs = module(**tensors)
    return {t.name: o for t, o in zip(spec.outputs, outputs, strict=True)}

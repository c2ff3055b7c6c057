"""The quantization method of a build: NVIDIA ModelOpt, or activation ranges for a backend that quantizes itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from sdtrt.bundle.manifest import Quantization
from sdtrt.config import BuildConfig
from sdtrt.engines import Backend
from sdtrt.lora import BakedLora
from sdtrt.quantization import activation_ranges, modelopt
from sdtrt.quantization.calibration_images import CalibrationImages

if TYPE_CHECKING:
    from torch import nn

# The other components of a quantized build are fp16.
COMPONENTS = ("unet",)


class QuantizationMethod(Protocol):
    """What a module of this package has that quantizes a component."""

    def check(self, config: BuildConfig, backend: Backend, gpu: tuple[str, str] | None = None) -> None:
        """Raise BackendUnavailable or ConfigError when such a build cannot run.

        `gpu` is the name and the compute capability of the GPU, such as ("NVIDIA L4", "8.9"), where it is known.
        """

    def key(self, config: BuildConfig, loras: Sequence[BakedLora] = ()) -> str:
        """What a quantized engine depends on: the field "quantization" of its key."""

    def quantize(self, module: nn.Module, config: BuildConfig, images: CalibrationImages) -> Quantization:
        """Calibrate the component in `module.inner`; BuildError when the range of a layer is not a positive number."""


def method_of(config: BuildConfig, backend: Backend) -> QuantizationMethod | None:
    """The method that quantizes the `COMPONENTS` of a build; None when its precision needs none."""
    if not config.quantized:
        return None
    return activation_ranges if config.precision in backend.native_precisions else modelopt

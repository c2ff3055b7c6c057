"""Post-training quantization of the U-Net: NVIDIA ModelOpt calibrates, `quantized_layers` inserts the ranges.

The checkpoint's own pipeline makes a few images while ModelOpt records the inputs of all layers that will be
quantized. It works on a copy: the module that is exported only gets the ranges, so that its parameters keep their names
and no code of ModelOpt is traced. Linear layers are quantized, for int8 convolutions too; attention itself (two
matmuls and a softmax) stays in half precision with nothing in between, which is the form that TensorRT fuses.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from sdtrt import lora
from sdtrt.bundle.manifest import Quantization
from sdtrt.config import BuildConfig, Calibration
from sdtrt.engines import Backend
from sdtrt.errors import BackendUnavailable, ConfigError
from sdtrt.quantization import calibration_images
from sdtrt.quantization.calibration_images import CalibrationImages
from sdtrt.system import env

if TYPE_CHECKING:
    from torch import nn

    from sdtrt.export.quantized_layers import Scales

PACKAGE = "nvidia-modelopt"
# ONNX has had float8 since opset 19.
LEAST_OPSET = {"int8": 18, "fp8": 19}
# How much of an outlier moves from a layer's input into its weight: NVIDIA's figure for U-Nets.
_ALPHA = 0.8
_BITS = {"int8": 8, "fp8": (4, 3)}
_KINDS = {"int8": ("nn.Linear", "nn.Conv2d"), "fp8": ("nn.Linear",)}


def check(config: BuildConfig, backend: Backend, gpu: tuple[str, str] | None = None) -> None:
    """Raise BackendUnavailable without ModelOpt or on a GPU without the type, ConfigError for an unsuitable recipe."""
    opset = config.opset or backend.opset
    if backend.input_format != "onnx":
        raise ConfigError(
            f"the backend {backend.name} cannot run quantized layers",
            slug="config-precision",
            received=f"precision: {config.precision}",
            expected="fp32 or fp16, or a backend that is built from ONNX",
        )
    if config.options.get("refit", "none") == "all":
        raise ConfigError(
            "the weights of quantized layers cannot be replaced in an engine: their ranges are those of the build",
            slug="config-precision",
            received=f"precision: {config.precision}, options: {{refit: all}}",
            expected="one of the two",
            hint="build LoRAs in with `lora:`, or leave refit out",
        )
    if not env.importable("modelopt"):
        raise BackendUnavailable(
            f"precision {config.precision} needs NVIDIA's ModelOpt, which is not installed",
            slug="modelopt-missing",
            received=f"precision: {config.precision}",
            expected=PACKAGE,
            hint="pip install 'sdtrt[quantize]'",
        )
    if opset < LEAST_OPSET[config.precision]:
        raise ConfigError(
            f"ONNX has no {config.precision} in this opset",
            slug="config-opset",
            received=opset,
            expected=f"{LEAST_OPSET[config.precision]} or higher",
        )
    if config.precision == "fp8":
        calibration_images.check_fp8(gpu)  # the builder would say so too, but only after calibration and export


def key(config: BuildConfig, loras: Sequence[lora.BakedLora] = ()) -> str:
    """What a quantized engine depends on: the field "quantization" of its key."""
    return f"{PACKAGE} {env.version(PACKAGE)}, {calibration_images.key(config, loras)}"


def quantize(module: nn.Module, config: BuildConfig, images: CalibrationImages) -> Quantization:
    """Calibrate the U-Net in `module.inner` and replace its layers by quantized ones.

    Raises BuildError when a range is not a positive number.
    """
    from sdtrt.export import quantized_layers

    unet: Any = module.inner
    scales = calibrate(unet, config.precision, images)
    quantized_layers.insert(unet, scales, config.precision)
    return Quantization(
        scheme=config.precision,
        by=f"{PACKAGE} {env.version(PACKAGE)}",
        calibration=images.settings.model_dump(mode="json"),
        layers={name: layer.input_amax for name, layer in scales.items()},
        digest=digest(scales),
    )


def digest(scales: Mapping[str, Scales]) -> str:
    """sha256 of all ranges and smoothing factors."""
    return calibration_images.json_digest({n: [s.input_amax, s.smooth] for n, s in scales.items()})


def recipe(scheme: str, calibration: Calibration) -> dict[str, Any]:
    """ModelOpt's configuration: all quantizers off, then on by kind of layer, then off for excluded layers."""
    bits, rows = _BITS[scheme], 0 if scheme == "int8" else None
    enabled = [
        {"quantizer_name": f"*{operand}_quantizer", "parent_class": kind, "cfg": {"num_bits": bits, "axis": axis}}
        for kind in _KINDS[scheme]
        for operand, axis in (("weight", rows), ("input", None))
    ]
    excluded = [{"quantizer_name": f"*{name}*", "enable": False} for name in calibration.exclude]
    method = {"method": "smoothquant", "alpha": _ALPHA} if calibration.algorithm == "smoothquant" else "max"
    return {"quant_cfg": [{"quantizer_name": "*", "enable": False}, *enabled, *excluded], "algorithm": method}


def calibrate(unet: nn.Module, scheme: str, images: CalibrationImages) -> dict[str, Scales]:
    """Measure the ranges of layers for `scheme`, "int8" or "fp8", while images are made with a copy of the U-Net."""
    with _quiet():
        import modelopt.torch.quantization as mtq

        pipe = images.pipeline(unet)
        mtq.quantize(pipe.unet, recipe(scheme, images.settings), lambda _: images.make(pipe))
    return read(pipe.unet)


def read(unet: nn.Module) -> dict[str, Scales]:
    """The ranges of ModelOpt's input quantizers, by layer."""
    from sdtrt.export.quantized_layers import Scales

    scales = {}
    for name, layer in unet.named_modules():
        quantizer: Any = getattr(layer, "input_quantizer", None)
        if quantizer is None or not quantizer.is_enabled or quantizer.amax is None:
            continue  # a layer that no image reaches has no range and is not quantized
        amax, smooth = float(quantizer.amax), quantizer.pre_quant_scale
        calibration_images.check_range(name, amax)
        scales[name] = Scales(amax, None if smooth is None else tuple(smooth.flatten().tolist()))
    return scales


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence ModelOpt: it warns of versions that it was not tested with and prints what it inserts."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield

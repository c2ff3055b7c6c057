"""Quantizing the U-Net after training: NVIDIA ModelOpt measures, `quantized_layers` writes the ranges into the layers.

The checkpoint's own pipeline makes a few images while ModelOpt watches the inputs of all layers that will be
quantized. It works on a copy: the module that is exported only gets the ranges, so that its parameters keep their names
and no code of ModelOpt is traced. Linear layers are quantized, for int8 convolutions too; attention itself (two
products and a softmax) stays in half precision with nothing in between, which is the form that TensorRT fuses.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import lora
from sdtrt.bundle.manifest import Quantization
from sdtrt.config import BuildConfig, Calibration
from sdtrt.errors import BackendUnavailable, ConfigError
from sdtrt.quantization import calibration_images
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


def check(config: BuildConfig, input_format: str, opset: int, gpu: tuple[str, str] | None = None) -> None:
    """Whether a quantized build can begin; `gpu` is the name and compute capability of what it will run on, if known.

    Raises BackendUnavailable without ModelOpt or on a GPU that lacks the type, ConfigError for a backend, an option or
    an opset that does not suit it.
    """
    if input_format != "onnx":
        raise ConfigError(
            f"the backend {config.backend} cannot run quantized layers",
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
    """What a quantized engine depends on, for its key."""
    return f"{PACKAGE} {env.version(PACKAGE)}, {calibration_images.key(config, loras)}"


def quantize(
    module: nn.Module,
    config: BuildConfig,
    folder: Path,
    sizes: Mapping[str, int],
    loras: Sequence[lora.BakedLora] = (),
    report: Callable[[str, float], None] = lambda label, share: None,
) -> Quantization:
    """Calibrate the U-Net in `module.inner` with the checkpoint in `folder` and make its layers quantized ones.

    `sizes` are those of the images that are made for it; `loras` are in the U-Net already, and are put into the text
    encoders. Raises BuildError when a range is not a number.
    """
    from sdtrt.export import quantized_layers

    unet: Any = module.inner
    scales = calibrate(unet, config.precision, config.calibration, folder, sizes, loras, report)
    quantized_layers.insert(unet, scales, config.precision)
    return Quantization(
        scheme=config.precision,
        by=f"{PACKAGE} {env.version(PACKAGE)}",
        calibration=config.calibration.model_dump(mode="json"),
        layers={name: found.input_amax for name, found in scales.items()},
        digest=digest(scales),
    )


def digest(scales: Mapping[str, Scales]) -> str:
    """sha256 of all that calibration found."""
    text = json.dumps({n: [s.input_amax, s.smooth] for n, s in scales.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe(scheme: str, calibration: Calibration) -> dict[str, Any]:
    """ModelOpt's configuration: nothing, then weights and inputs by kind of layer, then without what is kept."""
    bits, rows = _BITS[scheme], 0 if scheme == "int8" else None
    wanted = [
        {"quantizer_name": f"*{operand}_quantizer", "parent_class": kind, "cfg": {"num_bits": bits, "axis": axis}}
        for kind in _KINDS[scheme]
        for operand, axis in (("weight", rows), ("input", None))
    ]
    kept = [{"quantizer_name": f"*{name}*", "enable": False} for name in calibration.exclude]
    method = {"method": "smoothquant", "alpha": _ALPHA} if calibration.algorithm == "smoothquant" else "max"
    return {"quant_cfg": [{"quantizer_name": "*", "enable": False}, *wanted, *kept], "algorithm": method}


def calibrate(
    unet: nn.Module,
    scheme: str,
    calibration: Calibration,
    folder: Path,
    sizes: Mapping[str, int],
    loras: Sequence[lora.BakedLora] = (),
    report: Callable[[str, float], None] = lambda label, share: None,
) -> dict[str, Scales]:
    """Ranges by layer name, measured while the pipeline in `folder` makes images with a copy of `unet`.

    Text encoders that one of `loras` changes have it in them, as they will when the engines run.
    """
    with _quiet():
        import modelopt.torch.quantization as mtq

        pipe = calibration_images.pipeline(copy.deepcopy(unet).float(), folder, loras)

        def make_images(_: nn.Module) -> None:
            calibration_images.make_images(pipe, calibration, sizes, report)

        mtq.quantize(pipe.unet, recipe(scheme, calibration), make_images)
    return read(pipe.unet)


def read(unet: nn.Module) -> dict[str, Scales]:
    """What ModelOpt's quantizers of inputs have found, by the name of their layer."""
    from sdtrt.export.quantized_layers import Scales

    found = {}
    for name, layer in unet.named_modules():
        quantizer: Any = getattr(layer, "input_quantizer", None)
        if quantizer is None or not quantizer.is_enabled or quantizer.amax is None:
            continue  # one that no image has reached has no range, and stays as it is
        amax, smooth = float(quantizer.amax), quantizer.pre_quant_scale
        calibration_images.check_range(name, amax)
        found[name] = Scales(amax, None if smooth is None else tuple(smooth.flatten().tolist()))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """ModelOpt warns of versions that it was not tested with and prints what it inserts."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield

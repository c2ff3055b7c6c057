"""The facts around an engine: what TREx keeps of trtexec's log as `*.metadata.json`, and older lists of pycuda's.

Sections become `Plan.metadata` under short names: device, performance, inference, build and model.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sdtrt.plan.layers import LONGEST_MS
from sdtrt.readers.documents import Omissions

_SECTIONS = {
    "device_information": "device",
    "performance_summary": "performance",
    "inference_options": "inference",
    "build_options": "build",
    "model_options": "model",
}
_SIZES = re.compile(r"\d{1,9}(?:x\d{1,9}){0,15}")
Metadata = dict[str, dict[str, Any]]


def is_metadata(data: Any) -> bool:
    """Whether a parsed file has one of the sections."""
    return isinstance(data, dict) and any(key in data for key in _SECTIONS)


def is_devices(data: Any) -> bool:
    """Whether a parsed file is pycuda's list of devices."""
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and "Name" in first and len(first) > 2 and "LayerType" not in first


def sections(data: Any, omitted: Omissions) -> Metadata:
    """The sections of one file; later files may add to them."""
    if is_devices(data):
        return {"device": _pycuda(data[0])}
    found: Metadata = {}
    for key, value in data.items() if isinstance(data, dict) else ():
        if key in _SECTIONS and isinstance(value, dict):
            found[_SECTIONS[key]] = value
        else:
            omitted.add("a section of the metadata that is not known", key)
    return found


def _pycuda(device: dict[str, Any]) -> dict[str, Any]:
    """Attributes as pycuda names them, and what peaks need as trtexec names it; pycuda's memory clock is in kHz."""
    facts = {key: value for key, value in device.items() if isinstance(value, str | int | float)}
    by_key = {re.sub(r"[^a-z]", "", key.lower()): value for key, value in facts.items()}
    width, clock = by_key.get("globalmemorybuswidth"), by_key.get("memoryclockrate")
    more: dict[str, Any] = {"Selected Device": device.get("Name")}
    if type(width) is int and type(clock) is int:
        more |= {"Memory Bus Width": float(width), "Memory Clock Rate": clock / 1e6}
    return {**facts, **more}


def device_name(metadata: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Name of the device that was timed."""
    name = metadata.get("device", {}).get("Selected Device")
    return name if isinstance(name, str) and name else None


def precision(metadata: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Precisions that the build allowed, such as "fp32+fp16"."""
    text = metadata.get("build", {}).get("Precision")
    return text.lower() if isinstance(text, str) and text else None


def gpu_ms(metadata: Mapping[str, Mapping[str, Any]]) -> tuple[float] | None:
    """Median GPU time of a run, from the summary's list: minimum, maximum, mean, median, then percentiles."""
    figures = metadata.get("performance", {}).get("GPU Compute Time")
    middle = figures[3] if isinstance(figures, list) and len(figures) > 3 else None
    if not isinstance(middle, int | float) or isinstance(middle, bool) or not 0 < middle <= LONGEST_MS:
        return None
    return (float(middle),)


def run_shapes(metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs of the timed runs, from "Input inference shape(s)"."""
    found: dict[str, tuple[int, ...]] = {}
    for key, value in metadata.get("inference", {}).items():
        if key.lower().startswith("input inference shape"):
            texts = value if isinstance(value, list) else [value]
            if isinstance(value, dict):
                texts = [f"{name}={size}" for name, size in value.items()]
            found |= {n: s for t in texts if isinstance(t, str) for n, s in _shapes(t)}
    return found


def _shapes(text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and sizes in "sample=2x4x64x64,timestep=1"; trtexec's own arguments have a colon for the equals sign."""
    for part in re.split(r"[,;\s]+", text.replace(" =", "=").replace("= ", "=")):
        name, _, size = part.rpartition("=" if "=" in part else ":")
        if name and _SIZES.fullmatch(size):
            yield name, tuple(map(int, size.split("x")))

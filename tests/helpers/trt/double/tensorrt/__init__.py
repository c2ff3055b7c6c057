"""A stand-in for TensorRT: NVIDIA's names of one release, over ONNX Runtime on the CPU. For tests alone.

Every class, member, argument and enumeration that is shown here exists in NVIDIA's bindings of the release that
TENSORRT_DOUBLE_API describes (`_strict`); what they declare and the double does not act raises NotImplementedError. An
engine computes what the ONNX file says, on CPU memory at the addresses that it is given, and refuses what the real one
refuses: with None or False and a line in the log. `_machine` lists the GPUs and faults that a test can ask for.
"""

from __future__ import annotations

from typing import Any

from tensorrt import (  # noqa: F401 (importing registers the classes)
    _builder,
    _cache,
    _config,
    _context,
    _engine,
    _inspector,
    _logger,
    _network,
    _parser,
    _refit,
    _runtime,
    _streams,
    _values,
)
from tensorrt._api import ALIASES, CLASSES, FUNCTIONS, VERSION
from tensorrt._strict import REGISTRY, Bound, bound
from tensorrt._values import volume  # noqa: F401

__version__ = VERSION

for _name in CLASSES:
    if "." not in _name and _name not in REGISTRY:
        bound(type(_name, (Bound,), {}))  # declared and not acted: it is there, and cannot be made
globals().update({_name: _cls for _name, _cls in REGISTRY.items() if "." not in _name})
globals().update(
    {
        _name: getattr(REGISTRY["DataType"], _text.partition(".")[2])
        for _name, _text in ALIASES.items()
        if _text.startswith("DataType.")
    }
)


def get_nv_onnx_parser_version() -> int:
    """Number of the parser's release."""
    major, minor, patch = (int(part) for part in VERSION.split(".")[:3])
    return (major * 100 + minor) * 100 + patch


def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
    """There are none."""
    return True


assert all(_name in FUNCTIONS for _name in ("get_nv_onnx_parser_version", "init_libnvinfer_plugins", "volume"))

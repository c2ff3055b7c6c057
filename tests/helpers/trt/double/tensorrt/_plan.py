"""Plan files of the double: NVIDIA's first 32 bytes, a JSON header, then the ONNX model with its weights.

As in real plans, "ftrt" stands at 0, a serialization version at 4, the size at 8 and the library's version at 24.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx

from tensorrt import _logger as log
from tensorrt._api import BUILD, MAJOR, MINOR, PATCH, VERSION
from tensorrt._machine import compute_capability, gpu_name

MAGIC, HEAD = b"ftrt", 32
_WHO = "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion "


@dataclass
class Plan:
    """What an engine is made of."""

    model: onnx.ModelProto
    profiles: list[dict[str, Any]]
    name: str = ""
    verbosity: str = "LAYER_NAMES_ONLY"
    flags: list[str] = field(default_factory=list)
    refittable: list[str] = field(default_factory=list)
    stripped: bool = False
    hardware: str = "NONE"
    aux_streams: int = 0
    strongly_typed: bool = True
    version: str = VERSION
    gpu: str = field(default_factory=gpu_name)
    capability: str = field(default_factory=compute_capability)

    def save(self) -> bytes:
        """As a plan file."""
        header = {k: v for k, v in asdict(self).items() if k != "model"}
        model = self.model.SerializeToString(deterministic=True)
        text = json.dumps(header | {"sha256": hashlib.sha256(model).hexdigest()}).encode()
        size = HEAD + 8 + len(text) + len(model)
        start = MAGIC + struct.pack("<IQQ", MAJOR * 1000 + MINOR, size, 0) + bytes((MAJOR, MINOR, PATCH, BUILD))
        return start.ljust(HEAD, b"\0") + struct.pack("<Q", len(text)) + text + model


def size_of(start: bytes) -> int | None:
    """The size that a plan's first bytes state; None, and a message, when they are not those of a plan of ours."""
    if len(start) < HEAD or start[:4] != MAGIC:
        log.error(
            f"{_WHO}header.magicTag == kEXPECTED_MAGIC_TAG failed.Trying to load an engine created with incompatible "
            f"serialization version ({int.from_bytes(start[:4].ljust(4), 'little')} != 1953657958). Check that the "
            "engine was not created using safety runtime, same OS was used and version compatibility parameters were "
            "set accordingly.)"
        )
        return None
    return int(struct.unpack("<Q", start[8:16])[0])


def read(data: bytes, host_code_allowed: bool) -> Plan | None:
    """A plan file's content, or None with the reason in the log."""
    if (size := size_of(data)) is None:
        return None
    if len(data) != size:
        log.error(
            f"{_WHO}planSize == header.planSize failed.The engine plan file is truncated: {len(data)} of {size}.)"
        )
        return None
    (length,) = struct.unpack("<Q", data[HEAD : HEAD + 8])
    header = json.loads(data[HEAD + 8 : HEAD + 8 + length])
    body = data[HEAD + 8 + length :]
    if hashlib.sha256(body).hexdigest() != header.pop("sha256"):
        log.error(f"{_WHO}checksum failed.The engine plan file is damaged.)")
        return None
    plan = Plan(model=onnx.load_from_string(body), **header)
    return plan if _suits(plan, host_code_allowed) else None


def _suits(plan: Plan, host_code_allowed: bool) -> bool:
    portable = "VERSION_COMPATIBLE" in plan.flags
    if portable and not host_code_allowed:
        log.error(
            "IRuntime::deserializeCudaEngine: Error Code 3: API Usage Error (Cannot deserialize engine with lean "
            "runtime: engineHostCodeAllowed is false.)"
        )
        return False
    if plan.version != VERSION and not portable:
        log.error(
            f"{_WHO}stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: "
            f"{MAJOR * 1000 + MINOR}, Serialized Engine Version: {_serial(plan.version)})"
        )
        return False
    if plan.capability != compute_capability() and plan.hardware != "AMPERE_PLUS":
        log.error(
            "The engine plan file is generated on an incompatible device, expecting compute "
            f"{compute_capability()} got compute {plan.capability}, please rebuild."
        )
        return False
    if plan.gpu != gpu_name() and plan.hardware == "NONE":
        log.warning(
            "Using an engine plan file across different models of devices is not recommended and is likely to affect "
            "performance or even cause errors."
        )
    return True


def _serial(version: str) -> int:
    major, minor = version.split(".")[:2]
    return int(major) * 1000 + int(minor)

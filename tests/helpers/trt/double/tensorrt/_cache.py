"""The timing cache: bytes that only the same TensorRT on the same GPU takes back."""

from __future__ import annotations

import json

from tensorrt import _logger as log
from tensorrt._api import VERSION
from tensorrt._machine import compute_capability, gpu_name
from tensorrt._strict import Bound, bound
from tensorrt._values import IHostMemory

_MAGIC = b"TDTC"


def _here() -> list[str]:
    return [VERSION, gpu_name(), compute_capability()]


@bound
class ITimingCache(Bound):
    """Measured tactics: {key of a layer: milliseconds}."""

    def _setup(self, origin, entries):
        self._origin, self._entries = origin, entries

    @classmethod
    def _read(cls, data: bytes):
        if not data:
            return cls._make(_here(), {})
        if data[:4] != _MAGIC:
            log.error(
                "ITimingCache::deserialize: Error Code 1: Serialization (Serialization assertion magicTagRead == "
                "kMAGIC_TAG failed.Magic tag does not match)"
            )
            return None
        try:
            found = json.loads(data[4:])
        except ValueError:
            log.error("ITimingCache::deserialize: Error Code 1: Serialization (Serialization assertion failed.)")
            return None
        return cls._make(found["origin"], found["entries"])

    def _from_here(self) -> bool:
        return self._origin == _here()

    def serialize(self):
        text = json.dumps({"origin": self._origin, "entries": self._entries}, sort_keys=True)
        log.info(f"Serialized {len(self._entries)} timing cache entries")
        return IHostMemory._make(_MAGIC + text.encode())

    def combine(self, input_cache, ignore_mismatch):
        if not ignore_mismatch and input_cache._origin != self._origin:
            return False
        self._entries |= {k: v for k, v in input_cache._entries.items() if k not in self._entries}
        return True

    def reset(self):
        self._entries = {}
        return True

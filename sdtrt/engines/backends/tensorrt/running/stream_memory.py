"""A lane: the stream and the block of activation memory that all engines share while one thread calls them.

The parts of a pipeline run one after another, so one block, as large as the largest of them needs, serves all. That
holds only for work that is ordered, which one stream per thread gives; two threads have two lanes. A CUDA graph has the
block's address inside: what depends on it asks `StreamContext.block` each time and compares.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from sdtrt.engines.backends.tensorrt import cuda

if TYPE_CHECKING:
    import torch

_ALIGNMENT = 256


class NeedsMemory(Protocol):
    """A loaded engine."""

    device: torch.device
    activation_bytes: int


class HoldsBlock(Protocol):
    """What one thread keeps for an engine: contexts and graphs that have the block's address."""

    def forget_block(self) -> None:
        """Drop every reference to it."""


class Block:
    """Activation memory at an aligned address; it lives as long as someone holds it."""

    def __init__(self, size: int, device: torch.device) -> None:
        import torch

        self.size = size
        self._tensor = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=device)
        self.address = -(-self._tensor.data_ptr() // _ALIGNMENT) * _ALIGNMENT


class StreamContext:
    """The stream and the block of one thread on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: Any = cuda.cuda.new_stream(device, self)
        self.holders: weakref.WeakSet[HoldsBlock] = weakref.WeakSet()
        self._block: Block | None = None

    def block(self) -> Block:
        """Memory that suffices for every engine that is loaded now; a larger one when one of them needs more."""
        needed = _needed(self.device)
        if self._block is None or self._block.size < needed:
            self.release()  # before the larger one is made
            self._block = Block(needed, self.device)
        return self._block

    def renew(self) -> None:
        """A new stream: a capture that failed may leave the old one unusable."""
        self.stream = cuda.cuda.new_stream(self.device, self)

    def release(self) -> None:
        """Free the block, and the graphs that cannot be replayed without it."""
        self.stream.synchronize()
        for holder in tuple(self.holders):
            holder.forget_block()
        self._block = None


class _Lanes(threading.local):
    def __init__(self) -> None:
        self.by_device: dict[torch.device, StreamContext] = {}


_lanes = _Lanes()
_engines: weakref.WeakSet[NeedsMemory] = weakref.WeakSet()
_lock = threading.Lock()


def register(engine: NeedsMemory) -> None:
    """Count an engine in for the size of the block."""
    with _lock:
        _engines.add(engine)


def unregister(engine: NeedsMemory) -> None:
    """Count it out; this thread's block is freed with the last engine of its device."""
    with _lock:
        _engines.discard(engine)
        last = all(e.device != engine.device for e in _engines)
    found = _lanes.by_device.get(engine.device)
    if last and found is not None:
        found.release()


def lane(device: torch.device) -> StreamContext:
    """The calling thread's lane on a device."""
    if device not in _lanes.by_device:
        _lanes.by_device[device] = StreamContext(device)
    return _lanes.by_device[device]


def _needed(device: torch.device) -> int:
    with _lock:
        return max((e.activation_bytes for e in _engines if e.device == device), default=0) or _ALIGNMENT

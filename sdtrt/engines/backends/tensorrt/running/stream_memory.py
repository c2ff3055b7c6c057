"""The stream and the block of activation memory that all engines share within one thread.

The components of a pipeline run one after another, so one block of the size of the largest need serves all. That
requires ordered work, which one stream per thread gives; each thread has its own stream context. A CUDA graph holds
the block's address, so its owner compares `StreamContext.block` with its own block before each replay.
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
    """A loaded engine, which counts for the size of the block."""

    device: torch.device
    activation_bytes: int


class HoldsBlock(Protocol):
    """The state of one thread for an engine: execution contexts and graphs with the block's address."""

    def forget_block(self) -> None:
        """Drop every reference to the block."""


class Block:
    """Activation memory at an aligned address; freed with its last reference."""

    def __init__(self, size: int, device: torch.device) -> None:
        import torch

        self.size = size
        self._tensor = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=device)
        self.address = -(-self._tensor.data_ptr() // _ALIGNMENT) * _ALIGNMENT


class StreamContext:
    """The stream and the block of one thread on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: Any = cuda.runtime.new_stream(device, self)
        self.holders: weakref.WeakSet[HoldsBlock] = weakref.WeakSet()
        self._block: Block | None = None

    def block(self) -> Block:
        """Memory for every engine that is loaded now; a larger block replaces one that is too small."""
        with _lock:
            needed = max((e.activation_bytes for e in _engines if e.device == self.device), default=0) or _ALIGNMENT
        if self._block is None or self._block.size < needed:
            self.release()  # before the larger one is allocated
            self._block = Block(needed, self.device)
        return self._block

    def renew_stream(self) -> None:
        """Replace the stream: a failed capture may leave the old one unusable."""
        self.stream = cuda.runtime.new_stream(self.device, self)

    def release(self) -> None:
        """Free the block, and the graphs that cannot be replayed without it."""
        self.stream.synchronize()
        for holder in tuple(self.holders):
            holder.forget_block()
        self._block = None


class _StreamContexts(threading.local):
    def __init__(self) -> None:
        self.by_device: dict[torch.device, StreamContext] = {}


_stream_contexts = _StreamContexts()
_engines: weakref.WeakSet[NeedsMemory] = weakref.WeakSet()
_lock = threading.Lock()


def register(engine: NeedsMemory) -> None:
    """Include an engine in the size of the block."""
    with _lock:
        _engines.add(engine)


def unregister(engine: NeedsMemory) -> None:
    """Exclude an engine; this thread's block is freed with the last engine of its device."""
    with _lock:
        _engines.discard(engine)
        last = all(e.device != engine.device for e in _engines)
    context = _stream_contexts.by_device.get(engine.device)
    if last and context is not None:
        context.release()


def stream_context(device: torch.device) -> StreamContext:
    """The calling thread's stream context on a device."""
    if device not in _stream_contexts.by_device:
        _stream_contexts.by_device[device] = StreamContext(device)
    return _stream_contexts.by_device[device]

"""CUDA graphs and the streams that they are captured from, through the CUDA runtime that torch loads.

`torch.cuda.graph` registers the device's random generator with every capture. While one thread captures, a random
number on the GPU in another thread raises RuntimeError, and after a refused capture it does so in every thread (torch
2.11). Engines need no random numbers, and their pipelines have many threads, so captures here leave the generator out.

torch reuses a pool of 32 streams. Work of another thread on a stream that is being captured becomes part of the graph
or ends the capture, so these streams come from CUDA and are not shared.

`cuda.bindings` has the same functions, but torch's CPU builds do not install it, and it links its own copy of the CUDA
runtime, whose `cudaGetLastError` cannot clear the error of torch's: ctypes calls torch's library instead.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

# cudaStreamCaptureModeThreadLocal: CUDA calls of other threads do not end the capture.
_THREAD_LOCAL = 1
# cudaStreamNonBlocking: the default stream and this one do not wait for each other.
_NON_BLOCKING = 1
_free: dict[int, list[int]] = {}
T = TypeVar("T")


class Graph:
    """A captured graph, with the memory it works in."""

    def __init__(self, handle: ctypes.c_void_p, memory: torch.cuda.MemPool | None) -> None:
        """`handle` is a cudaGraphExec_t, which is destroyed with this object."""
        self._handle, self._memory = handle, memory
        weakref.finalize(self, _runtime().cudaGraphExecDestroy, handle).atexit = False  # CUDA may be gone by then

    def replay(self) -> None:
        """Launch it on the current stream; raises RuntimeError when CUDA refuses."""
        import torch

        _call("cudaGraphLaunch", self._handle, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))


def own_stream(device: torch.device, owner: object) -> torch.cuda.ExternalStream:
    """A stream that belongs to one caller while `owner` lives.

    Afterwards it is kept for the next caller: memory that was used on it may still wait for it. The weak reference is
    to the owner, not to the stream: torch 2.11 frees a stream object without clearing its weak references, and Python
    ends in a segmentation fault.
    """
    import torch

    index = torch.cuda.current_device() if device.index is None else device.index
    try:
        handle = _free.setdefault(index, []).pop()
    except IndexError:
        stream = ctypes.c_void_p()
        with torch.cuda.device(index):
            _call("cudaStreamCreateWithFlags", ctypes.byref(stream), _NON_BLOCKING)
        handle = int(stream.value or 0)
    weakref.finalize(owner, _free[index].append, handle).atexit = False
    return torch.cuda.ExternalStream(handle, device=torch.device("cuda", index))


def capture(
    stream: torch.cuda.Stream, enqueue: Callable[[], T], memory: torch.cuda.MemPool | None = None
) -> tuple[Graph, T]:
    """Capture the work that `enqueue` puts on `stream`, without running it.

    Args:
        stream: the stream to capture from.
        enqueue: puts the work on the current stream.
        memory: the pool of its allocations; graphs that never run at the same time may share one.

    Returns:
        The graph, and the result of `enqueue`.

    Raises:
        RuntimeError: when CUDA refuses. This and any error of `enqueue` leave the stream usable.
    """
    import torch

    handle, graph, executable = ctypes.c_void_p(stream.cuda_stream), ctypes.c_void_p(), ctypes.c_void_p()
    with torch.cuda.stream(stream), torch.cuda.use_mem_pool(memory) if memory is not None else nullcontext():
        _call("cudaStreamBeginCapture", handle, _THREAD_LOCAL)
        try:
            result = enqueue()
        except BaseException:
            # The capture is void: the error of ending it means nothing.
            _runtime().cudaStreamEndCapture(handle, ctypes.byref(graph))
            _runtime().cudaGetLastError()
            if graph:
                _runtime().cudaGraphDestroy(graph)
            raise
        _call("cudaStreamEndCapture", handle, ctypes.byref(graph))
    try:
        _call("cudaGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    finally:
        _runtime().cudaGraphDestroy(graph)
    return Graph(executable, memory), result


def _call(function: str, *arguments: Any) -> None:
    runtime = _runtime()
    if code := getattr(runtime, function)(*arguments):
        runtime.cudaGetLastError()
        raise RuntimeError(f"{function}: {runtime.cudaGetErrorString(code).decode()}")


@cache
def _runtime() -> Any:
    """The CUDA runtime that torch has loaded."""
    import sys

    import torch

    major = str(torch.version.cuda).partition(".")[0]
    library = ctypes.CDLL(f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}")
    library.cudaGetErrorString.restype = ctypes.c_char_p
    return library

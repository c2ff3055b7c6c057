"""The CUDA calls of the TensorRT engine: the only one of its files that uses `torch.cuda`.

`runtime` is the object in use. A test without a GPU replaces it, `monkeypatch.setattr(cuda, "runtime", double)`, by one
with the methods below on CPU tensors; all callers write `cuda.runtime.x()`, so nothing else must be replaced. Streams
are used through `cuda_stream`, `wait_stream(other)` and `synchronize()`; events through `record(stream)`,
`synchronize()`, `query()` and `elapsed_time(later)` in milliseconds; what `capture` returns through `replay()`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdtrt.engines import cuda_graph
from sdtrt.system import nvml

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Device:
    """One GPU as CUDA numbers and describes it; `sm` is the compute capability, such as "9.0"."""

    name: str
    sm: str
    sms: int
    memory_bytes: int
    uuid: str | None = None

    def __str__(self) -> str:
        """As in an engine's key."""
        return f"{self.name}, sm {self.sm}"


class CudaRuntime:
    """CUDA through torch."""

    def available(self) -> bool:
        """Whether a GPU can be used."""
        import torch

        return torch.cuda.is_available()

    def device(self, index: int) -> torch.device:
        """The device of tensors of engines on GPU `index`."""
        import torch

        return torch.device("cuda", index)

    def describe(self, index: int) -> Device | None:
        """The GPU of this number; None when there is none."""
        import torch

        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            return None
        properties = torch.cuda.get_device_properties(index)
        return Device(
            name=properties.name,
            sm=f"{properties.major}.{properties.minor}",
            sms=properties.multi_processor_count,
            memory_bytes=properties.total_memory,
            uuid=nvml.gpu_uuid(f"cuda:{index}"),
        )

    def new_stream(self, device: torch.device, owner: object) -> Any:
        """A stream other than the default one, which nothing else gets while `owner` lives."""
        return cuda_graph.own_stream(device, owner)

    def current_stream(self, device: torch.device) -> Any:
        """The caller's stream."""
        import torch

        return torch.cuda.current_stream(device)

    def use(self, stream: Any) -> AbstractContextManager[None]:
        """Make `stream` and its device current, for this thread."""
        import torch

        return torch.cuda.stream(stream)

    def synchronize(self, device: torch.device) -> None:
        """Wait for all work on the device."""
        import torch

        torch.cuda.synchronize(device)

    def new_event(self) -> Any:
        """An event that records a time."""
        import torch

        return torch.cuda.Event(enable_timing=True)

    def capture(self, stream: Any, enqueue: Callable[[], bool]) -> Any | None:
        """A CUDA graph of what `enqueue` puts on `stream`; None when it returns False, RuntimeError when CUDA refuses.

        Nothing runs during a capture. Its mode is thread-local: other threads may use CUDA at the same time.
        """
        graph, accepted = cuda_graph.capture(stream, enqueue)
        return graph if accepted else None

    def release_cached_memory(self) -> None:
        """Return the free memory of torch's allocator to the GPU, if torch has used the GPU."""
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


runtime = CudaRuntime()

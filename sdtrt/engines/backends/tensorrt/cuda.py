"""What the TensorRT engine asks of CUDA: the only place in its files that touches `torch.cuda`.

`cuda` is the object in use. A test without a GPU sets another one, `monkeypatch.setattr(module, "cuda", Mine())`, with
the methods below on CPU tensors; all callers say `cuda.cuda.x()`, so nothing else must be replaced. Streams
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
        """As it stands in an engine's key."""
        return f"{self.name}, sm {self.sm}"


class Cuda:
    """CUDA through torch."""

    def available(self) -> bool:
        """Whether a GPU can be used."""
        import torch

        return torch.cuda.is_available()

    def device(self, index: int) -> torch.device:
        """Where tensors of engines on GPU `index` lie."""
        import torch

        return torch.device("cuda", index)

    def describe(self, index: int) -> Device | None:
        """The GPU, or None when there is none of this number."""
        import torch

        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            return None
        facts = torch.cuda.get_device_properties(index)
        return Device(
            name=facts.name,
            sm=f"{facts.major}.{facts.minor}",
            sms=facts.multi_processor_count,
            memory_bytes=facts.total_memory,
            uuid=nvml.gpu_uuid(f"cuda:{index}"),
        )

    def new_stream(self, device: torch.device, owner: object) -> Any:
        """A stream that is not the default one, nor anyone else's while `owner` lives."""
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
        """Wait for everything that was put on the device."""
        import torch

        torch.cuda.synchronize(device)

    def new_event(self) -> Any:
        """An event that takes the time."""
        import torch

        return torch.cuda.Event(enable_timing=True)

    def capture(self, stream: Any, enqueue: Callable[[], bool]) -> Any | None:
        """A CUDA graph of what `enqueue` puts on `stream`; None when it said no, RuntimeError when CUDA did.

        Nothing runs during a capture. The mode is that of one thread: others may use CUDA meanwhile.
        """
        graph, accepted = cuda_graph.capture(stream, enqueue)
        return graph if accepted else None

    def release_cached_memory(self) -> None:
        """Give memory that torch keeps for later back to the GPU, if torch has used it at all."""
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


cuda = Cuda()

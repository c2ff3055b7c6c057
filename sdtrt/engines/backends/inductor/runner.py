"""One package at work: what the prompt alone decides is kept between calls, and on a GPU the rest is one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sdtrt.engines import cuda_graph

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Compiled code and the names of its arguments: weights, inputs, or what the prompt's part hands over."""

    call: Callable[..., Sequence[Tensor]]
    arguments: tuple[str, ...]

    def run(self, *tensors: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Call with what the arguments are called in one of `tensors`."""
        return self.call(*[next(group[name] for group in tensors if name in group) for name in self.arguments])


class Runner:
    """Runs one bucket. The caller sees to it that one thread is inside at a time."""

    def __init__(
        self,
        step: Part,
        prompt: tuple[Part, tuple[str, ...], tuple[str, ...]] | None,
        weights: Mapping[str, Tensor],
        device: torch.device,
        pool: Any,
    ) -> None:
        """`prompt` is the part that runs once per prompt, its inputs' names, and those of what it hands over.

        `pool` is a MemPool for CUDA graphs, or None to run without them.
        """
        self._step, self._prompt, self._weights, self._device = step, prompt, weights, device
        self._pool = pool
        self._seen: list[tuple[Tensor, int | None]] | None = None
        self._handed: dict[str, Tensor] = {}
        self._inputs: dict[str, Tensor] = {}
        self._outputs: Sequence[Tensor] = ()
        self._graph: Any = None

    def __call__(self, tensors: Mapping[str, Tensor], unpadded: Mapping[str, Tensor]) -> list[Tensor]:
        """Outputs for inputs of exactly the bucket's shapes; they belong to the caller.

        `unpadded` are the inputs before padding to that shape: a prompt is recognized by the tensors of the caller.
        """
        import torch

        with torch.no_grad():
            self._encode(tensors, unpadded)
            if self._pool is None:
                return list(self._run(tensors))
            if self._graph is None:
                self._capture(tensors)
            for name, buffer in self._inputs.items():
                buffer.copy_(tensors[name])
            self._graph.replay()
            return [t.clone() for t in self._outputs]

    def plain(self, tensors: Mapping[str, Tensor]) -> Callable[[], None]:
        """A function that runs the step without a CUDA graph, as a profiler wants it."""
        import torch

        with torch.no_grad():
            self._encode(tensors, tensors)

        def run() -> None:
            with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
                self._run(tensors)

        return run

    def _run(self, tensors: Mapping[str, Tensor]) -> Sequence[Tensor]:
        return self._step.run(tensors, self._handed, self._weights)

    def forget(self) -> None:
        """The weights have changed: what was computed from them is void, but a CUDA graph reads them where they are."""
        self._seen = None

    def _encode(self, tensors: Mapping[str, Tensor], unpadded: Mapping[str, Tensor]) -> None:
        """Run the prompt's part, unless the very tensors of the last call come again, unchanged."""
        if self._prompt is None:
            return
        part, inputs, outputs = self._prompt
        now = [(unpadded[name], _version(unpadded[name])) for name in inputs]
        if self._seen is not None and all(
            a is b and v is not None and v == w for (a, v), (b, w) in zip(now, self._seen, strict=True)
        ):
            return
        for name, tensor in zip(outputs, part.run(tensors, self._weights), strict=True):
            if name in self._handed:  # where it is, since a CUDA graph reads it there
                self._handed[name].copy_(tensor)
            else:
                self._handed[name] = tensor.clone()
        self._seen = now  # holding them keeps their identity theirs

    def _capture(self, tensors: Mapping[str, Tensor]) -> None:
        import torch

        self._inputs = {n: tensors[n].clone() for n in self._step.arguments if n in tensors}
        torch.cuda.synchronize(self._device)
        side, enqueue = cuda_graph.own_stream(self._device, self), partial(self._run, self._inputs)
        with torch.cuda.stream(side), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
            for _ in range(2):  # libraries choose their algorithms and take their workspaces
                enqueue()
            side.synchronize()
            self._graph, self._outputs = cuda_graph.capture(side, enqueue, self._pool)


def _version(tensor: Tensor) -> int | None:
    """Counts changes in place; None for a tensor of inference mode, which has no such count."""
    return None if tensor.is_inference() else tensor._version

"""One package at work: what the prompt alone decides is kept between calls, and on a GPU the rest is one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sdtrt.engines import _cuda_graph
from sdtrt.engines._inductor.shares import Shares

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Compiled code and the names of its arguments: weights, inputs, or what the prompt's part hands over."""

    call: Callable[..., Sequence[Tensor]]
    arguments: tuple[str, ...]

    def run(self, *given: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Call with what the arguments are called in one of `given`."""
        return self.call(*[next(g[name] for g in given if name in g) for name in self.arguments])


class Runner:
    """Runs one bucket. The caller sees to it that one thread is inside at a time."""

    def __init__(
        self,
        step: Part,
        prompt: tuple[Part, tuple[str, ...], tuple[str, ...]] | None,
        weights: Mapping[str, Tensor],
        device: torch.device,
        pool: Any,
        early: Collection[str] = (),
        shares: Shares | None = None,
    ) -> None:
        """`prompt` is the part that runs once per prompt, its inputs' names, and those of what it hands over.

        `pool` is a MemPool for CUDA graphs, or None to run without them; `early` names kernels that wait by themselves.
        The packages compute one of `shares`.
        """
        self._step, self._prompt, self._weights, self._device = step, prompt, weights, device
        self._pool, self._early, self._shares = pool, early, shares or Shares()
        self._seen: list[tuple[Tensor, int | None]] | None = None
        # By share.
        self._handed: list[dict[str, Tensor]] = [{} for _ in range(self._shares.count)]
        self._inputs: list[dict[str, Tensor]] = []
        self._outputs: list[Sequence[Tensor]] = []
        self._graph: Any = None

    def __call__(self, tensors: Mapping[str, Tensor], asked: Mapping[str, Tensor]) -> list[Tensor]:
        """Outputs for inputs of exactly the bucket's shapes; they belong to the caller.

        `asked` are the inputs before they were filled up to that shape: the caller's own, by which a prompt is known.
        """
        import torch

        with torch.no_grad():
            self._encode(tensors, asked)
            if self._pool is None:
                return self._shares.join([call() for call in self._calls(self._apart(tensors))])
            if self._graph is None:
                self._capture(tensors)
            for given, own in zip(self._shares.cut(tensors), self._inputs, strict=True):
                for name, buffer in own.items():
                    buffer.copy_(given[name])
            self._graph.replay()
            made = self._shares.join(self._outputs)
            return made if self._shares.count > 1 else [t.clone() for t in made]

    def plain(self, tensors: Mapping[str, Tensor]) -> Callable[[], None]:
        """A function that runs the step without a CUDA graph, one share after the other, as a profiler wants it."""
        import torch

        with torch.no_grad():
            self._encode(tensors, tensors)
        calls = self._calls(self._apart(tensors))

        def run() -> None:
            with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
                for call in calls:
                    call()

        return run

    def _calls(self, shares: Sequence[Mapping[str, Tensor]]) -> list[Callable[[], Sequence[Tensor]]]:
        pairs = zip(shares, self._handed, strict=True)
        return [partial(self._step.run, given, handed, self._weights) for given, handed in pairs]

    def _apart(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Each share in memory of its own: compiled code counts on where a tensor begins."""
        cut = self._shares.cut(tensors)
        return cut if self._shares.count == 1 else [{n: t.clone() for n, t in given.items()} for given in cut]

    def forget(self) -> None:
        """The weights have changed: what was computed from them is void, but a CUDA graph reads them where they are."""
        self._seen = None

    def _encode(self, tensors: Mapping[str, Tensor], asked: Mapping[str, Tensor]) -> None:
        """Run the prompt's part, unless the very tensors of the last call come again, unchanged."""
        if self._prompt is None:
            return
        part, inputs, outputs = self._prompt
        now = [(asked[name], _version(asked[name])) for name in inputs]
        if self._seen is not None and all(
            a is b and v is not None and v == w for (a, v), (b, w) in zip(now, self._seen, strict=True)
        ):
            return
        for given, handed in zip(self._apart({n: tensors[n] for n in inputs}), self._handed, strict=True):
            for name, tensor in zip(outputs, part.run(given, self._weights), strict=True):
                if name in handed:  # where it is, since a CUDA graph reads it there
                    handed[name].copy_(tensor)
                else:
                    handed[name] = tensor.clone()
        self._seen = now  # holding them keeps their identity theirs

    def _capture(self, tensors: Mapping[str, Tensor]) -> None:
        import torch

        own = [n for n in self._step.arguments if n in tensors]
        self._inputs = [{n: given[n].clone() for n in own} for given in self._shares.cut(tensors)]
        calls = self._calls(self._inputs)
        torch.cuda.synchronize(self._device)
        side, *others = (_cuda_graph.own_stream(self._device, self) for _ in calls)
        enqueue = partial(_cuda_graph.side_by_side, others, calls)
        with torch.cuda.stream(side), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
            for _ in range(2):  # libraries choose their algorithms and take their workspaces
                enqueue()
            side.synchronize()
            self._graph, self._outputs = _cuda_graph.capture(side, enqueue, self._pool, self._early)


def _version(tensor: Tensor) -> int | None:
    """Counts changes in place; None for a tensor of inference mode, which has no such count."""
    return None if tensor.is_inference() else tensor._version

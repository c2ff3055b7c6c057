"""Time and memory of one run of an eager module, and an estimate of both for a larger size."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from sdtrt.system import env

if TYPE_CHECKING:
    from torch import nn


class EagerCost:
    """Seconds and bytes of the latest run.

    The bytes are those of the outputs of all layers and of all attention scores, which an engine may write to memory:
    more than are alive at once.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.seconds = 0.0
        self.output_bytes = 0

    @contextmanager
    def measuring(self, module: nn.Module, sizes: Mapping[str, int]) -> Iterator[None]:
        """Time the body of the `with` statement, and add up the outputs of the layers of `module` in it."""
        output_bytes = 0

        def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal output_bytes
            if heads := getattr(layer, "heads", 0):
                batch, *shape = output.shape  # (B, T, C), or (B, C, H, W) in a VAE
                tokens = shape[0] if len(shape) == 2 else math.prod(shape[1:])
                output_bytes += batch * int(heads) * tokens**2 * 4
            elif hasattr(output, "nbytes"):
                output_bytes += output.nbytes

        layers = [m for m in module.modules() if hasattr(m, "heads") or not list(m.children())]
        with ExitStack() as hooks:
            for layer in layers:
                hooks.enter_context(layer.register_forward_hook(count))
            started = time.perf_counter()
            yield
            seconds = time.perf_counter() - started
        # The first run of a size also warms up what the next ones use.
        self.seconds = min(self.seconds, seconds) if self.sizes == sizes else seconds
        self.sizes, self.output_bytes = dict(sizes), output_bytes

    def too_large(self, sizes: Mapping[str, int], limit_s: float) -> str | None:
        """Why a run at `sizes`, of the symbols measured, would take too long or too much memory, or None.

        Time and memory are taken to grow with the batch and with the square of the area, as attention does.
        """
        area = math.prod(sizes[s] / self.sizes[s] for s in sizes.keys() & {"H", "W"})
        growth = sizes["B"] / self.sizes["B"] * area**2
        if (seconds := self.seconds * growth) > limit_s:
            return f"it would take about {seconds:.2g} s"
        needed, free = self.output_bytes * growth, env.free_memory_bytes()
        if free is not None and needed > free:
            return f"it would take up to {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free"
        return None

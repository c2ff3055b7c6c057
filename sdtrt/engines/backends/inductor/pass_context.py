"""What a pass over a traced graph takes besides the graph, and what it returns besides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sdtrt.engines.backends.inductor.trace import Graph


@dataclass
class Context:
    """The build of one graph.

    Attributes:
        device: where the graph runs.
        ranges: the largest input magnitude by calibrated layer; empty unless the build is in fp8.
        component: name of the component, for errors.
        following: the passes that run after the present one.
        prompt: the graph that `split_prompt` split off.
    """

    device: torch.device
    ranges: Mapping[str, float] = field(default_factory=dict)
    component: str = "the graph"
    following: Sequence[str] = ()
    prompt: Graph | None = None

    def unmet(self, requires: tuple[str, ...]) -> tuple[str, ...]:
        """The first reason why a pass with these requirements does not run; empty when it runs."""
        if "fp8" in requires and not self.ranges:
            return ("only in fp8",)
        if "gpu" in requires and self.device.type != "cuda":
            return ("needs a GPU",)
        if "hopper" in requires and not is_hopper(self.device):
            return ("needs Hopper or later",)
        return ()


def is_hopper(device: torch.device) -> bool:
    """Whether the device is a Hopper or later GPU, whose TMA unit copies the tiles of several kernels."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9

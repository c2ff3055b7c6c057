"""Hopper and later GPUs: a memory engine of theirs copies tiles, which some kernels of ours are written for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def is_hopper(device: torch.device) -> bool:
    """Whether the device is such a GPU."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9

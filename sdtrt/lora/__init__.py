"""LoRA: fused into a checkpoint before it is exported, or switched in engines that take other weights.

Files are parsed, scaled and fused by diffusers' and peft's own code, on the modules' structure with the weights mapped
from the bundle; parameters are found in the engine by name.
"""

from __future__ import annotations

from sdtrt.lora.bake import BakedLora, bake, baked
from sdtrt.lora.files import LoraFile, quiet, read, resolve
from sdtrt.lora.switch import METHODS, LoraSwitch
from sdtrt.lora.timing import PartTime, SwitchTime

__all__ = [
    "METHODS",
    "BakedLora",
    "LoraFile",
    "LoraSwitch",
    "PartTime",
    "SwitchTime",
    "bake",
    "baked",
    "quiet",
    "read",
    "resolve",
]

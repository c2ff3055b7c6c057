"""LoRA: fused into a checkpoint before it is exported, or switched in engines that take other weights.

Diffusers' and peft's own code parses, scales and fuses the files, on modules whose weights are mapped from the bundle.
The engine's parameters are found by name.
"""

from sdtrt.lora.bake import BakedLora, bake, baked
from sdtrt.lora.files import quiet, resolve
from sdtrt.lora.switch import METHODS, LoraSwitch

__all__ = ["METHODS", "BakedLora", "LoraSwitch", "bake", "baked", "quiet", "resolve"]

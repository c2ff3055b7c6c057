"""Layers of one optimization profile, out of an inspector file that lists those of all profiles one after another.

TensorRT's own layers of profile 1 and up end in "[profile 1]", matmuls of Myelin have it inside their names
("node_linear [profile 1]_myl11_2"), other Myelin layers only in the names of tensors that enter or leave their region.
So a tag on a layer or its tensors counts for its whole region (`_myl11_`), and what is still open belongs to the block
it stands in.
"""

import re
from typing import Any

from sdtrt.readers.formats.tensorrt.tensors import PROFILE

_REGION = re.compile(r"_myl(\d+)(?:_|$)")
_MAX_PROFILES = 1024


def blocks(layers: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Layers by profile; one block when no layer names a profile."""
    tags = [_tag(layer) for layer in layers]
    if not any(tags):
        return [layers]
    regions = [_REGION.findall(layer["Name"])[-1:] for layer in layers]
    of_region = {r[0]: tag for r, tag in zip(regions, tags, strict=True) if r and tag is not None}
    tags = [of_region.get(r[0]) if r and tag is None else tag for r, tag in zip(regions, tags, strict=True)]
    profiles = max(tag for tag in tags if tag is not None) + 1
    size, remainder = divmod(len(layers), profiles)
    by_size = [i // size if size else 0 for i in range(len(layers))]
    if not remainder and all(tag in (None, block) for tag, block in zip(tags, by_size, strict=True)):
        chosen = by_size
    else:
        # Each open layer takes the profile of the one before it; blocks may differ in size.
        chosen, current = [], 0
        for tag in tags:
            current = current if tag is None else tag
            chosen.append(current)
    by_profile: list[list[dict[str, Any]]] = [[] for _ in range(profiles)]
    for layer, block in zip(layers, chosen, strict=True):
        by_profile[block].append(layer)
    return by_profile


def _tag(layer: dict[str, Any]) -> int | None:
    names = [layer["Name"]]
    for key in ("Inputs", "Outputs"):
        tensors = layer.get(key)
        names += [t.get("Name") for t in tensors if isinstance(t, dict)] if isinstance(tensors, list) else []
    for name in names:
        found = PROFILE.search(name) if isinstance(name, str) and "[profile " in name else None
        if found and len(found.group(1)) < 5 and int(found.group(1)) < _MAX_PROFILES:
            return int(found.group(1))
    return None

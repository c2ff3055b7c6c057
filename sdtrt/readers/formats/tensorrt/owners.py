"""Whom a copy works for: "Reformatting CopyNode for Input Tensor 0 to <layer>" belongs to the layer's module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sdtrt.plan.layers import Layer
from sdtrt.readers.formats.tensorrt.tensors import PROFILE

_COPY = re.compile(r"Reformatting CopyNode for (?:Input|Output) Tensor \d+ (?:to|of|from) (.+)", re.S)
_PREFIX = ("copied_squeeze_after_", "squeeze_after_", "unsqueeze_node_after_", "reshape_after_", "reshape_before_")


def owner_of(name: str) -> str | None:
    """Name of the layer that a copy works for, or None when it is no such copy."""
    found = _COPY.match(name)
    if found:
        return found.group(1)
    return next((name.removeprefix(p) for p in _PREFIX if name.startswith(p)), None)


def owned(layers: Sequence[Layer]) -> list[Layer]:
    """Copies take the module of the layer that they work for, else of the layer that reads what they write."""
    modules = {PROFILE.sub("", x.name): x.module for x in layers if x.module}
    readers = {t.name: x.module for x in reversed(layers) if x.module for t in x.inputs}
    return [_with_module(x, modules, readers) if not x.nodes else x for x in layers]


def _with_module(layer: Layer, modules: Mapping[str, str], readers: Mapping[str, str]) -> Layer:
    owner = owner_of(PROFILE.sub("", layer.name))
    module = modules.get(owner) if owner else None
    if module is None and layer.kind in ("reformat", "copy", "shape"):
        module = next((readers[t.name] for t in layer.outputs if t.name in readers), None)
    return layer.model_copy(update={"module": module}) if module else layer
